//go:build linux

package cttext_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net/netip"
	"strings"
	"time"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/cttext"
)

// A line copied from a terminal becomes a flow, which can be passed to Get,
// Update, Delete or Create.
func ExampleOptions_ParseFlow() {
	var o cttext.Options
	f, err := o.ParseFlow("tcp      6 431999 ESTABLISHED src=192.0.2.1 dst=192.0.2.2 sport=40000 dport=443 " +
		"src=192.0.2.2 dst=198.51.100.1 sport=443 dport=50000 [ASSURED] mark=7 use=1")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(f.TupleOrig)
	fmt.Println(f.Status)
	fmt.Println(cttext.Options{Save: true}.Flow(&f))

	_, err = o.ParseFlow("tcp 6 431999 ESTABLISHED src=192.0.2.1 dst=192.0.2.300 sport=40000 dport=443")
	fmt.Println(err)
	// Output:
	// <tcp, Src: 192.0.2.1:40000, Dst: 192.0.2.2:443>
	// SEEN_REPLY|ASSURED|CONFIRMED|SRC_NAT|SRC_NAT_DONE|DST_NAT_DONE
	// -A -t 431999 -u SEEN_REPLY,ASSURED -s 192.0.2.1 -d 192.0.2.2 -r 192.0.2.2 -n 198.51.100.1 -p tcp --sport 40000 --dport 443 --reply-port-src 443 --reply-port-dst 50000 --state ESTABLISHED
	// cttext: parse flow: word 6, "dst=192.0.2.300": no address
}

func ExampleOptions_Flow() {
	f := conntrack.NewFlow(conntrack.ProtocolUDP, conntrack.StatusConfirmed,
		netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), 40000, 53, 30, 0)
	f.Timestamp.Start = time.Date(2025, time.August, 2, 9, 0, 0, 5e8, time.UTC)
	names, err := cttext.ReadLabelNames(strings.NewReader("0 dns\n1 guest\n"))
	if err != nil {
		log.Fatal(err)
	}
	f.SetLabel(1)

	fmt.Println(cttext.Options{
		Extended:   true,
		KTimestamp: true,
		Labels:     names,
		Now:        time.Date(2025, time.August, 2, 9, 1, 0, 0, time.UTC),
		Location:   time.UTC,
	}.Flow(&f))
	// Output:
	// ipv6     10 udp      17 30 src=2001:db8::1 dst=2001:db8::2 sport=40000 dport=53 [UNREPLIED] src=2001:db8::2 dst=2001:db8::1 sport=53 dport=40000 mark=0 delta-time=60 [start=Sat Aug  2 09:00:00 2025] labels=guest
}

// Most machines have no such file: flows then have no names of labels.
func ExampleLoadLabelNames() {
	names, err := cttext.LoadLabelNames()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Fatal(err)
	}
	f := conntrack.NewFlow(conntrack.ProtocolUDP, 0,
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), 40000, 53, 30, 0)
	fmt.Println(cttext.Options{Labels: names}.Flow(&f))
	// Output:
	// udp      17 30 src=192.0.2.1 dst=192.0.2.2 sport=40000 dport=53 [UNREPLIED] src=192.0.2.2 dst=192.0.2.1 sport=53 dport=40000 mark=0
}

func ExampleReadLabelNames() {
	names, err := cttext.ReadLabelNames(strings.NewReader("# number and name\n0 dns\n1 guest\n"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(names[0], names[1])
	// Output: dns guest
}

// Each command has a method of Conn that carries it out.
func ExampleOptions_ParseCommand() {
	conn, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	ctx := context.Background()
	run := func(line string) error {
		c, err := cttext.Options{}.ParseCommand(line)
		if err != nil {
			return err
		}
		switch c.Op {
		case cttext.OpCreate:
			return conn.Create(c.Flow)
		case cttext.OpAdd:
			return conn.CreateOrUpdate(c.Flow)
		case cttext.OpUpdate:
			n, err := conn.UpdateFunc(ctx, c.Filter, c.Change)
			fmt.Println("updated", n)
			return err
		case cttext.OpDelete:
			n, err := conn.DeleteFunc(ctx, c.Filter, c.Match)
			fmt.Println("deleted", n)
			return err
		case cttext.OpGet:
			f, err := conn.Get(c.Flow)
			if err == nil && c.Match(&f) {
				fmt.Println(f.TupleOrig, "mark", f.Mark)
			}
			return err
		case cttext.OpList:
			for f, err := range conn.Flows(ctx, c.Filter, nil) {
				if err != nil {
					return err
				}
				if c.Match(&f) {
					fmt.Println(f.TupleOrig, "mark", f.Mark)
				}
			}
		}
		return nil
	}
	for _, line := range []string{
		"conntrack -I -s 192.0.2.1 -d 192.0.2.2 -p udp --sport 40000 --dport 53 -t 30 -m 7",
		"conntrack -U -s 192.0.2.0/24 -m 0x10/0xf0",
		"conntrack -L -p udp --dport 53",
		"conntrack -D -d 192.0.2.2 -m 7", // does not match: the mark has changed
		"conntrack -D -d 192.0.2.2",
	} {
		if err := run(line); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// updated 1
	// <udp, Src: 192.0.2.1:40000, Dst: 192.0.2.2:53> mark 23
	// deleted 0
	// deleted 1
}
