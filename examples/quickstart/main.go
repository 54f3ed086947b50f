//go:build linux

// Command quickstart shows what the conntrack package does: events, dumps,
// changes and statistics of the kernel's connection tracking table.
//
//	go run ./examples/quickstart
//
// It runs in its own network namespace, with packets that it sends itself. It
// checks its results and fails if a step gives a wrong one. It needs no
// privileges if the system allows user namespaces.
//
//	go run ./examples/quickstart -host
//
// shows the machine's own table instead and changes nothing. This needs
// CAP_NET_ADMIN.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack/internal/netns"
)

func main() {
	host := flag.Bool("host", false, "show the machine's own table, without changing it")
	watch := flag.Duration("for", 5*time.Second, "with -host: how long to show events")
	flows := flag.Int("flows", 20, "with -host: how many flows to show")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "quickstart: unknown argument %q\n", flag.Arg(0))
		flag.Usage()
		os.Exit(2)
	}

	var err error
	if *host {
		err = showHost(*watch, *flows)
	} else {
		err = showOwn()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// showOwn runs the demonstration in a new namespace.
func showOwn() error {
	if err := netns.Isolate(); err != nil {
		return fmt.Errorf("no network namespace to work in (-host shows the machine's own table): %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return demonstrate(ctx, os.Stdout)
}

// showHost shows the machine's own table until the time is up or the user
// interrupts it.
func showHost(watch time.Duration, flows int) error {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer cancel()
	return inspect(ctx, os.Stdout, watch, flows)
}
