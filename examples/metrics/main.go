// Command metrics counts the flows of the connection tracking table by protocol
// and state, in the text format of Prometheus. Its memory use does not depend
// on the size of the table.
//
//	metrics >conntrack.prom
//
// It is a module of its own, so that the library does not depend on the client
// library of Prometheus.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/ti-mo/conntrack"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("metrics: ")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), "usage: metrics\n\n"+
			"Counts the flows of the connection tracking table by protocol and state, in the\n"+
			"text format of Prometheus. It needs CAP_NET_ADMIN.\n")
	}
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	conn, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	registry := prometheus.NewRegistry()
	err = collect(ctx, conn, registry, os.Stderr)
	if err == nil {
		err = write(os.Stdout, registry)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// collect iterates over the table without keeping flows. It writes its progress
// to progress.
func collect(ctx context.Context, conn *conntrack.Conn, registry *prometheus.Registry, progress io.Writer) error {
	flows := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "conntrack_flows",
		Help: "Flows in the connection tracking table.",
	}, []string{"protocol", "state"})
	limit := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "conntrack_flows_limit",
		Help: "How many flows the table may hold.",
	})
	registry.MustRegister(flows, limit)

	size, err := conn.StatsGlobal()
	if err != nil {
		return err
	}
	limit.Set(float64(size.MaxEntries))

	seen := 0
	for f, err := range conn.Flows(ctx, conntrack.Filter{}, nil) {
		if err != nil {
			return err
		}
		flows.WithLabelValues(f.Protocol().String(), state(&f)).Inc()
		if seen++; seen%10_000 == 0 {
			fmt.Fprintf(progress, "\r%d of about %d flows", seen, size.Entries)
		}
	}
	if seen >= 10_000 {
		fmt.Fprintln(progress)
	}
	return nil
}

// state returns the state that the kernel has for the protocol. If it has none, as
// for UDP, state says whether the flow was answered.
func state(f *conntrack.Flow) string {
	if s := f.State(); s != "" {
		return s
	}
	if f.Status.SeenReply() {
		return "REPLIED"
	}
	return "UNREPLIED"
}

func write(w io.Writer, registry *prometheus.Registry) error {
	families, err := registry.Gather()
	for _, family := range families {
		_, writeErr := expfmt.MetricFamilyToText(w, family)
		err = errors.Join(err, writeErr)
	}
	return err
}
