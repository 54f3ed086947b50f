//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/cttext"
	"github.com/ti-mo/conntrack/internal/netns"
	"github.com/ti-mo/conntrack/netfilter"
)

// demo is the state that the steps of the demonstration share.
type demo struct {
	*output
	conn    *conntrack.Conn
	traffic traffic
	events  chan conntrack.Event
	errs    <-chan error
}

// demonstrate shows on w what the package does, in the network namespace of the
// calling thread. It stops at the first step with a wrong result.
func demonstrate(ctx context.Context, w io.Writer) error {
	conn, err := conntrack.Dial(nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	d := &demo{output: &output{w: w, width: len("127.0.0.1:65535")}, conn: conn}
	defer d.traffic.close()

	d.printf("conntrack, in a network namespace of its own: the machine's table is left alone.\n")
	for _, step := range []func(context.Context) error{
		d.track, d.listen, d.dump, d.change, d.filter, d.keep, d.count,
	} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("step %d: %w", d.headings, err)
		}
		if d.err != nil {
			return d.err
		}
	}
	d.printf("\nAll steps gave what they should.\n")
	return d.err
}

// track turns on tracking, counters and timestamps.
func (d *demo) track(context.Context) error {
	d.heading("Switch tracking on",
		"Linux tracks connections in a network namespace once a rule there looks at",
		"them. One rule of nftables is enough. Counters and timestamps are settings.")

	ns, err := netns.Current()
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := ns.Track(); err != nil {
		return err
	}
	d.printf("   rule     inet track prerouting: ct state new\n")
	for _, name := range []string{"net.netfilter.nf_conntrack_acct", "net.netfilter.nf_conntrack_timestamp"} {
		if err := ns.Sysctl(name, "1"); err != nil {
			return err
		}
		d.printf("   setting  %s = 1\n", name)
	}
	return nil
}

// listen watches events while packets are sent.
func (d *demo) listen(ctx context.Context) error {
	d.heading("Listen: events as they come",
		"A TCP client connects to a server and they talk, then a UDP query is",
		"answered. The kernel reports each flow when it is new and when it changes.")

	d.events = make(chan conntrack.Event, 64)
	var err error
	if d.errs, err = d.conn.Listen(d.events, 1, netfilter.GroupsCT); err != nil {
		return err
	}
	if err := d.traffic.send(ctx); err != nil {
		return err
	}
	return d.await(ctx,
		expected{"a new TCP flow", func(ev conntrack.Event) bool {
			return ev.Type == conntrack.EventNew && isTCP(ev.Flow)
		}},
		expected{"the TCP flow being established", func(ev conntrack.Event) bool {
			return ev.Type == conntrack.EventUpdate && isTCP(ev.Flow) && ev.Flow.ProtoInfo.TCP.State == conntrack.TCPStateEstablished
		}},
		expected{"a new UDP flow", func(ev conntrack.Event) bool {
			return ev.Type == conntrack.EventNew && isUDP(ev.Flow)
		}},
		expected{"the UDP flow being answered", func(ev conntrack.Event) bool {
			return ev.Type == conntrack.EventUpdate && isUDP(ev.Flow) && ev.Flow.Status.SeenReply()
		}},
	)
}

// dump shows the table.
func (d *demo) dump(context.Context) error {
	d.heading("Dump: the table",
		"What the kernel knows of each connection: its addresses, its state, the bytes",
		"and packets in each direction, and when it will be forgotten if nothing comes.")

	flows, err := d.conn.Dump(nil)
	if err != nil {
		return err
	}
	d.flows(flows)
	return errors.Join(
		checkFlow(flows, "TCP", isTCP, len(request), len(answer)),
		checkFlow(flows, "UDP", isUDP, len(request), len(answer)),
	)
}

// checkFlow checks that flows contains a certain flow, and that it carried at
// least the given number of bytes in each direction.
func checkFlow(flows []conntrack.Flow, name string, is func(*conntrack.Flow) bool, sent, received int) error {
	i := slices.IndexFunc(flows, func(f conntrack.Flow) bool { return is(&f) })
	if i < 0 {
		return fmt.Errorf("the table has no %s flow", name)
	}
	f := flows[i]
	if f.CountersOrig.Bytes <= uint64(sent) || f.CountersReply.Bytes <= uint64(received) {
		return fmt.Errorf("the %s flow carried more than %v and %v", name, f.CountersOrig, f.CountersReply)
	}
	if f.Timestamp.Start.IsZero() {
		return fmt.Errorf("the %s flow has no timestamp", name)
	}
	return nil
}

// change creates, updates and deletes a flow.
func (d *demo) change(ctx context.Context) error {
	d.heading("Create, Get, Update, Delete: one flow",
		"Flows can be made, looked up, changed and removed without any packet. Here is",
		"one between two addresses that are nobody's, and the events that it causes.")

	flow := conntrack.NewFlow(unix.IPPROTO_UDP, 0,
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), 40000, 53, 120, 0)
	if err := d.conn.Create(flow); err != nil {
		return err
	}
	d.printf("   Create  %s\n", flow.TupleOrig)
	if err := d.get(flow); err != nil {
		return err
	}

	flow.Timeout, flow.Mark = 600, 0x2a
	if err := d.conn.Update(flow); err != nil {
		return err
	}
	d.printf("   Update  timeout %s, mark %s\n", seconds(flow.Timeout), mark(flow.Mark))
	if err := d.get(flow); err != nil {
		return err
	}

	if err := d.conn.Delete(flow); err != nil {
		return err
	}
	d.printf("   Delete\n")
	if _, err := d.conn.Get(flow); !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("looking up a flow that was deleted gives error %v, want %v", err, unix.ENOENT)
	}
	d.printf("   Get     ENOENT: there is no such flow\n\n")

	is := func(kind conntrack.EventType, mark uint32) func(conntrack.Event) bool {
		return func(ev conntrack.Event) bool {
			return ev.Type == kind && ev.Flow.TupleOrig == flow.TupleOrig && ev.Flow.Mark == mark
		}
	}
	return d.await(ctx,
		expected{"the flow created", is(conntrack.EventNew, 0)},
		expected{"the flow updated", is(conntrack.EventUpdate, flow.Mark)},
		expected{"the flow deleted", is(conntrack.EventDestroy, flow.Mark)},
	)
}

// get looks up a flow and checks it.
func (d *demo) get(want conntrack.Flow) error {
	got, err := d.conn.Get(want)
	if err != nil {
		return err
	}
	d.printf("   Get     timeout %s, mark %s, status %s\n", seconds(got.Timeout), mark(got.Mark), got.Status)
	// The timeout counts down: some seconds may have passed.
	if got.Timeout > want.Timeout || got.Timeout+10 < want.Timeout || got.Mark != want.Mark {
		return fmt.Errorf("the flow has timeout %d and mark %#x, want %d and %#x",
			got.Timeout, got.Mark, want.Timeout, want.Mark)
	}
	return nil
}

// filter selects flows by their mark.
func (d *demo) filter(context.Context) error {
	d.heading("DumpFilter: flows by mark",
		"Four flows are made, with marks 0x11, 0x12, 0x21 and 0x22. A filter with mark",
		"0x10 and mask 0xf0 selects those of 0x1*, and the kernel sends no others.")

	for i, mark := range []uint32{0x11, 0x12, 0x21, 0x22} {
		flow := conntrack.NewFlow(unix.IPPROTO_UDP, 0,
			netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), uint16(50000+i), 443, 300, mark)
		if err := d.conn.Create(flow); err != nil {
			return err
		}
	}
	flows, err := d.conn.DumpFilter(conntrack.Filter{Mark: 0x10, Mask: 0xf0}, nil)
	if err != nil {
		return err
	}
	d.flows(flows)
	var marks []uint32
	for _, f := range flows {
		marks = append(marks, f.Mark)
	}
	slices.Sort(marks)
	if want := []uint32{0x11, 0x12}; !slices.Equal(marks, want) {
		return fmt.Errorf("the flows have marks %#x, want %#x", marks, want)
	}
	return nil
}

// keep removes a translated flow and restores it from text.
func (d *demo) keep(context.Context) error {
	d.heading("cttext, JSON: text of a flow",
		"A flow whose destination is translated prints as conntrack(8) prints it, and as",
		"JSON. It is removed, and put back from the one and from the other.")

	flow := conntrack.NewFlow(conntrack.ProtocolTCP, conntrack.StatusSeenReply|conntrack.StatusAssured,
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), 40000, 80, 3600, 0)
	flow.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: conntrack.TCPStateEstablished}
	flow.NAT = &conntrack.NAT{Destination: conntrack.NATTo(netip.MustParseAddrPort("10.0.0.7:8080"))}
	if err := d.conn.Create(flow); err != nil {
		return err
	}
	flow, err := d.conn.Get(flow)
	if err != nil {
		return err
	}
	server := flow.Server()
	text, err := json.Marshal(flow)
	if err != nil {
		return err
	}
	var o cttext.Options
	line := o.Flow(&flow)
	d.printf("   %s\n\n   %s\n\n", line, text)

	for name, parse := range map[string]func() (conntrack.Flow, error){
		"line": func() (conntrack.Flow, error) { return o.ParseFlow(line) },
		"JSON": func() (kept conntrack.Flow, err error) { return kept, json.Unmarshal(text, &kept) },
	} {
		kept, err := parse()
		if err != nil {
			return err
		}
		if err := errors.Join(d.conn.Delete(flow), d.conn.Create(kept)); err != nil {
			return err
		}
		// The restored flow has a new ID: only the tuples are the same.
		if flow, err = d.conn.Get(conntrack.Flow{TupleOrig: kept.TupleOrig, TupleReply: kept.TupleReply}); err != nil {
			return err
		}
		if flow.Server() != server {
			return fmt.Errorf("from %s, the server is %s, want %s", name, flow.Server(), server)
		}
	}
	d.printf("   dialed %s, served by %s, as before\n", flow.Dialed(), server)
	return nil
}

// count shows statistics.
func (d *demo) count(context.Context) error {
	d.heading("Stats, StatsGlobal: counters",
		"How full the table is, and what each CPU has met: packets that could not be",
		"tracked, flows that could not be added, packets and flows dropped for it.")

	global, err := d.conn.StatsGlobal()
	if err != nil {
		return err
	}
	stats, err := d.conn.Stats()
	if err != nil {
		return err
	}
	d.printf("   %d flows, of %d at most\n\n", global.Entries, global.MaxEntries)
	d.stats(stats)

	flows, err := d.conn.Dump(nil)
	if err != nil {
		return err
	}
	if int(global.Entries) != len(flows) {
		return fmt.Errorf("the table has %d flows, and statistics say %d", len(flows), global.Entries)
	}
	if len(stats) == 0 {
		return errors.New("no CPU has statistics")
	}
	return nil
}

// expected is an event that must arrive.
type expected struct {
	name string
	is   func(conntrack.Event) bool
}

// await prints events until each expected one has arrived.
func (d *demo) await(ctx context.Context, missing ...expected) error {
	d.output.events()
	for len(missing) > 0 {
		select {
		case ev := <-d.events:
			d.event(ev)
			missing = slices.DeleteFunc(missing, func(e expected) bool { return e.is(ev) })
		case err := <-d.errs:
			return err
		case <-ctx.Done():
			return fmt.Errorf("no event tells of %s", missing[0].name)
		}
	}
	return nil
}

func isTCP(f *conntrack.Flow) bool {
	return f.TupleOrig.Proto.Protocol == unix.IPPROTO_TCP && f.TupleOrig.Proto.DestinationPort == tcpServer.Port()
}

func isUDP(f *conntrack.Flow) bool {
	return f.TupleOrig.Proto.Protocol == unix.IPPROTO_UDP && f.TupleOrig.Proto.DestinationPort == udpServer.Port()
}
