// Command metrics counts the flows of the connection tracking table by protocol
// and state, in the text format of Prometheus. It takes the same memory for ten
// flows as for millions.
//
//	metrics >conntrack.prom
//
// It is a module of its own, so that the library does not need the client library
// of Prometheus.
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
	registry := prometheus.NewRegistry()
	err := collect(ctx, registry, os.Stderr)
	if err == nil {
		err = write(os.Stdout, registry)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// collect walks over the table, and keeps no flow of it. It writes to progress how
// far it is.
func collect(ctx context.Context, registry *prometheus.Registry, progress io.Writer) error {
	flows := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "conntrack_flows",
		Help: "Flows in the connection tracking table.",
	}, []string{"protocol", "state"})
	limit := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "conntrack_flows_limit",
		Help: "How many flows the table may hold.",
	})
	registry.MustRegister(flows, limit)

	conn, err := conntrack.Dial(nil)
	if err != nil {
		return err
	}
	defer conn.Close()
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
		protocol := conntrack.Protocol(f.TupleOrig.Proto.Protocol)
		flows.WithLabelValues(protocol.String(), state(&f)).Inc()
		if seen++; seen%10_000 == 0 {
			fmt.Fprintf(progress, "\r%d of about %d flows", seen, size.Entries)
		}
	}
	if seen >= 10_000 {
		fmt.Fprintln(progress)
	}
	return nil
}

// state returns the state of a TCP connection. It says of other flows whether they
// were answered.
func state(f *conntrack.Flow) string {
	switch tcp := f.ProtoInfo.TCP; {
	case tcp != nil:
		return conntrack.TCPState(tcp.State).String()
	case f.Status.SeenReply():
		return "REPLIED"
	default:
		return "UNREPLIED"
	}
}

func write(w io.Writer, registry *prometheus.Registry) error {
	families, err := registry.Gather()
	for _, family := range families {
		_, writeErr := expfmt.MetricFamilyToText(w, family)
		err = errors.Join(err, writeErr)
	}
	return err
}
