//go:build linux

package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/netfilter"
)

// inspect shows the table of the network namespace of the calling thread: the
// first flows, the statistics, and events for the time watch. It changes
// nothing.
func inspect(ctx context.Context, w io.Writer, watch time.Duration, flows int) error {
	conn, err := conntrack.Dial(nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	global, err := conn.StatsGlobal()
	if err != nil {
		return err
	}
	o := &output{w: w, width: len("255.255.255.255:65535")}
	o.printf("conntrack, the machine's own table: nothing is changed.\n")

	o.heading("The table")
	o.printf("   %d flows, of %d at most\n", global.Entries, global.MaxEntries)
	if global.Entries == 0 {
		o.printf("   (Linux tracks connections once a firewall rule looks at them.)\n")
	} else if err := inspectFlows(ctx, o, conn, flows, int(global.Entries)); err != nil {
		return err
	}
	if err := inspectStats(o, conn); err != nil {
		return err
	}
	if err := inspectEvents(ctx, o, conn, watch); err != nil {
		return err
	}
	return o.err
}

// inspectFlows shows the first flows, at most limit, of a table with total
// flows.
func inspectFlows(ctx context.Context, o *output, conn *conntrack.Conn, limit, total int) error {
	var first []conntrack.Flow
	for flow, err := range conn.Flows(ctx, conntrack.Filter{}, nil) {
		if err != nil {
			return err
		}
		if len(first) >= limit {
			break
		}
		first = append(first, flow)
	}
	o.printf("\n")
	o.flows(first)
	if more := total - len(first); more > 0 {
		o.printf("   and %d more\n", more)
	}
	return nil
}

func inspectStats(o *output, conn *conntrack.Conn) error {
	stats, err := conn.Stats()
	if err != nil {
		return err
	}
	o.heading("Statistics of each CPU")
	o.stats(stats)
	return nil
}

func inspectEvents(ctx context.Context, o *output, conn *conntrack.Conn, watch time.Duration) error {
	events := make(chan conntrack.Event, 1024)
	errs, err := conn.Listen(events, 1, netfilter.GroupsCT)
	if err != nil {
		return err
	}
	o.heading("Events for " + watch.String())
	o.events()
	ctx, cancel := context.WithTimeout(ctx, watch)
	defer cancel()
	for o.err == nil {
		select {
		case ev := <-events:
			o.event(ev)
		case err := <-errs:
			if !errors.Is(err, conntrack.ErrOverrun) {
				return err
			}
			o.printf("   (more events than could be shown: the kernel dropped some)\n")
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}
