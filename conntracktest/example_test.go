package conntracktest_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/conntracktest"
	"github.com/ti-mo/conntrack/netfilter"
)

// web returns a flow to a web server.
func web(client string) conntrack.Flow {
	server := netip.MustParseAddrPort("192.0.2.1:443")
	return conntrack.Flow{
		TupleOrig: conntrack.NewTuple(conntrack.ProtocolTCP, netip.MustParseAddrPort(client), server),
		ProtoInfo: conntrack.ProtoInfo{TCP: &conntrack.ProtoInfoTCP{State: conntrack.TCPStateEstablished}},
	}
}

// A flow exporter prints what each flow has transferred when it ends. Its test plays the
// packets, and moves the clock.
func ExampleKernel_exporter() {
	export := func(ctx context.Context, c *conntrack.Conn, opts *conntrack.EventOptions) {
		groups := []netfilter.NetlinkGroup{netfilter.GroupCTDestroy}
		for ev, err := range c.Events(ctx, groups, opts) {
			if err != nil {
				return
			}
			f := ev.Flow
			fmt.Println(f.TupleOrig.IP.SourceAddress, f.CountersOrig, f.CountersReply,
				f.Timestamp.Stop.Sub(f.Timestamp.Start))
		}
	}

	k := conntracktest.NewKernel(&conntracktest.Options{Accounting: true, Timestamps: true})
	c, err := k.Dial()
	if err != nil {
		panic(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(context.Background())
	joined := func() {
		f := web("10.0.0.1:40000")
		f.Timeout = 60
		_ = k.Add(f)
		_ = k.Count(f.FiveTuple(), false, 2, 400)
		_ = k.Count(f.FiveTuple(), true, 3, 9000)
		k.Advance(time.Minute)
	}
	export(ctx, c, &conntrack.EventOptions{Joined: joined, Drained: cancel})
	// Output:
	// 10.0.0.1 [orig: 2 pkts/400 B] [reply: 3 pkts/9000 B] 1m0s
}

// A VPN removes the flows of a peer that has gone. Its test looks at what is left, also
// on a kernel that cannot filter by addresses.
func ExampleKernel_cleanup() {
	cleanUp := func(c *conntrack.Conn, peer netip.Addr) error {
		return c.FlushFilter(conntrack.Filter{
			Orig: conntrack.Tuple{IP: conntrack.IPTuple{SourceAddress: peer}},
		})
	}

	for _, release := range []string{"4.18", "6.18"} {
		k := conntracktest.NewKernel(&conntracktest.Options{Release: release})
		c, err := k.Dial()
		if err != nil {
			panic(err)
		}
		defer c.Close()
		if err := k.Add(web("10.0.0.1:40000"), web("10.0.0.2:40000"), web("10.0.0.1:40001")); err != nil {
			panic(err)
		}
		if err := cleanUp(c, netip.MustParseAddr("10.0.0.1")); err != nil {
			panic(err)
		}
		for _, f := range k.Flows() {
			fmt.Println(release, f.TupleOrig)
		}
	}
	// Output:
	// 4.18 <tcp, Src: 10.0.0.2:40000, Dst: 192.0.2.1:443>
	// 6.18 <tcp, Src: 10.0.0.2:40000, Dst: 192.0.2.1:443>
}

// A program that keeps a copy of the table dumps it again when events were lost. Its test
// makes that happen.
func ExampleKernel_Overrun() {
	k := conntracktest.NewKernel(nil)
	c, err := k.Dial()
	if err != nil {
		panic(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(context.Background())
	known := 0
	opts := &conntrack.EventOptions{
		Joined: func() {
			k.Overrun(2)
			_ = k.Add(web("10.0.0.1:40000"), web("10.0.0.2:40000"))
		},
		Drained: cancel,
	}
	for ev, err := range c.Events(ctx, nil, opts) {
		switch {
		case errors.Is(err, conntrack.ErrOverrun):
			flows, _ := c.Dump(nil)
			known = len(flows)
		case err == nil && ev.Type == conntrack.EventNew:
			known++
		}
	}
	fmt.Println(known, "flows known, of", len(k.Flows()))
	// Output:
	// 2 flows known, of 2
}
