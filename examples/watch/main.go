// Command watch writes the events of the connection tracking table as JSON, one
// per line, until it is interrupted.
//
//	watch | jq -c 'select(.type == "destroy") | .flow'
package main

import (
	"bufio"
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
	var groups []netfilter.NetlinkGroup // none stand for those of flows
	if *expect {
		groups = slices.Concat(netfilter.GroupsCT, netfilter.GroupsCTExp)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	conn, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	if err := watch(ctx, conn, os.Stdout, groups); err != nil {
		log.Fatal(err)
	}
}

// watch writes events to w until ctx is done. It reports lost events and
// malformed messages, and continues after them.
func watch(ctx context.Context, conn *conntrack.Conn, w io.Writer, groups []netfilter.NetlinkGroup) error {
	out := bufio.NewWriter(w)
	opts := &conntrack.EventOptions{
		Joined:  func() { log.Print("watching") },
		Drained: func() { out.Flush() }, // if it fails, so does what is written next
	}
	lines := json.NewEncoder(out)
	for ev, err := range conn.Events(ctx, groups, opts) {
		switch {
		case ctx.Err() != nil: // as the user wished
		case errors.Is(err, conntrack.ErrOverrun):
			log.Print("events were lost here: the kernel's buffer was full")
		case err != nil:
			log.Print(err)
		default:
			if err := lines.Encode(ev); err != nil {
				return err
			}
		}
	}
	if ctx.Err() == nil {
		return errors.New("there will be no more events")
	}
	return out.Flush()
}
