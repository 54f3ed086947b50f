// Command watch writes what happens in the connection tracking table as JSON,
// one event a line, until it is interrupted.
//
//	watch | jq -c 'select(.type == "destroy") | .flow'
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/netfilter"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("watch: ")
	expect := flag.Bool("expect", false, "also write the events of expectations")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), "usage: watch [-expect]\n\n"+
			"Writes what happens in the connection tracking table as JSON, one event a\n"+
			"line, until it is interrupted. It needs CAP_NET_ADMIN.\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	groups := netfilter.GroupsCT
	if *expect {
		groups = slices.Concat(groups, netfilter.GroupsCTExp)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := watch(ctx, os.Stdout, groups)
	if err != nil {
		log.Fatal(err)
	}
}

// watch writes events to w until ctx ends. It survives lost events and messages
// that cannot be decoded, and tells of them.
func watch(ctx context.Context, w io.Writer, groups []netfilter.NetlinkGroup) error {
	conn, err := conntrack.Dial(nil)
	if err != nil {
		return err
	}
	defer conn.Close()

	opts := &conntrack.EventOptions{Joined: func() { log.Print("watching") }}
	lines := json.NewEncoder(w)
	var last error
	for ev, err := range conn.Events(ctx, groups, opts) {
		if last != nil {
			log.Print(last) // and the loop went on
		}
		last = err
		if errors.Is(err, conntrack.ErrOverrun) {
			last = errors.New("events were lost here: the kernel's buffer was full")
		}
		if err != nil {
			continue
		}
		if err := lines.Encode(ev); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil // as the user wished
	}
	return last // the one that ended the loop
}
