// Command natlookup accepts TCP connections and prints the address that each
// client dialed before a rule redirected it here. Transparent proxies need this
// address to connect to the real server.
//
//	natlookup -listen :8080
//	nft add rule ip nat prerouting tcp dport 80 redirect to :8080
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"github.com/ti-mo/conntrack"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("natlookup: ")
	listen := flag.String("listen", ":8080", "the `address` to accept connections at")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), "usage: natlookup [-listen address]\n\n"+
			"Accepts TCP connections, and tells them, and prints, what address was dialed\n"+
			"before it was translated. It needs CAP_NET_ADMIN.\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := serve(ctx, *listen)
	if err != nil {
		log.Fatal(err)
	}
}

// serve accepts connections until ctx is done.
func serve(ctx context.Context, address string) error {
	conn, err := conntrack.Dial(nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.StatsGlobal(); err != nil {
		return err // fail now rather than at the first connection
	}

	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	log.Printf("listening at %s", listener.Addr())
	for {
		client, err := listener.Accept()
		if ctx.Err() != nil {
			return nil // stopped by the user
		}
		if err != nil {
			return err
		}
		go answer(conn, client)
	}
}

// answer prints the address that the client dialed and sends it to the client.
func answer(conn *conntrack.Conn, client net.Conn) {
	defer client.Close()
	dialed, err := originalDestination(conn, client)
	if err != nil {
		log.Printf("%s: %v", client.RemoteAddr(), err)
		return
	}
	fmt.Printf("%s dialed %s\n", client.RemoteAddr(), dialed)
	fmt.Fprintf(client, "you dialed %s\n", dialed)
}

// originalDestination returns the address that the client of an accepted
// connection dialed.
func originalDestination(conn *conntrack.Conn, accepted net.Conn) (netip.AddrPort, error) {
	// Packets sent from this end are the replies of the flow.
	replies, err := conntrack.TupleOf(accepted)
	if err != nil {
		return netip.AddrPort{}, err
	}
	flow, err := conn.Get(conntrack.Flow{TupleReply: replies})
	if errors.Is(err, fs.ErrNotExist) {
		return replies.Source(), nil // not tracked, so not translated
	}
	return flow.Dialed(), err
}
