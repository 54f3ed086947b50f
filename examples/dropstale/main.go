// Command dropstale removes the UDP flows of an endpoint that is gone, so that
// clients reach another one.
//
// A service proxy translates the address of a service into the address of an
// endpoint. The kernel keeps using that endpoint as long as packets arrive.
// Clients that do not stop sending never reach another endpoint until the flows
// are removed.
//
//	dropstale 10.0.0.7:53
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"github.com/ti-mo/conntrack"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("dropstale: ")
	dry := flag.Bool("n", false, "remove nothing, but list the flows")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), "usage: dropstale [-n] address:port\n\n"+
			"Removes the UDP flows of an endpoint that is gone: those that it would\n"+
			"answer, whatever address the clients sent to. It needs CAP_NET_ADMIN.\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	endpoint, err := netip.ParseAddrPort(flag.Arg(0))
	if flag.NArg() != 1 || err != nil || endpoint.Port() == 0 {
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
	removed, err := drop(ctx, conn, endpoint, *dry)
	fmt.Printf("removed %d flows of %s\n", removed, endpoint)
	if err != nil {
		log.Fatal(err)
	}
}

// drop removes the flows that endpoint answers and returns their number. If dry
// is set, it only lists them.
func drop(ctx context.Context, conn *conntrack.Conn, endpoint netip.AddrPort, dry bool) (removed int, err error) {
	// Replies come from the endpoint, whether or not the destination was
	// translated.
	var stale conntrack.Filter
	stale.Reply.IP.SourceAddress = endpoint.Addr().Unmap()
	stale.Reply.Proto.Protocol = conntrack.ProtocolUDP
	stale.Reply.Proto.SourcePort = endpoint.Port()
	return conn.DeleteFunc(ctx, stale, func(f *conntrack.Flow) bool {
		if dry {
			fmt.Println(f.TupleOrig.FiveTuple())
		}
		return !dry
	})
}
