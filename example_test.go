//go:build linux

package conntrack_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/netfilter"
)

func ExampleDial() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	// Requests need CAP_NET_ADMIN, unlike Dial.
	_, err = c.Dump(nil)
	switch {
	case errors.Is(err, fs.ErrPermission):
		fmt.Println("not allowed")
	case err != nil:
		log.Fatal(err)
	default:
		fmt.Println("ready")
	}
	// Output: ready
}

// A Conn can use a network namespace other than the caller's.
func ExampleDial_namespace() {
	// The path of a namespace made by "ip netns add" is /run/netns/NAME.
	ns, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		log.Fatal(err)
	}
	c, err := conntrack.Dial(&netlink.Config{NetNS: ns})
	unix.Close(ns) // the Conn does not need it any more
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	stats, err := c.StatsGlobal()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("flows:", stats.Entries)
	// Output: flows: 0
}

func ExampleConn_Create() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	f := conntrack.NewFlow(unix.IPPROTO_TCP, conntrack.StatusSeenReply|conntrack.StatusAssured,
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2"),
		54321, 80, 120, 0xff00)
	f.Helper.Name = "ftp"
	if err := c.Create(f); err != nil {
		log.Fatal(err)
	}
	defer c.Delete(f)

	err = c.Create(f)
	fmt.Println("again:", errors.Is(err, fs.ErrExist))
	// Output: again: true
}

// A load balancer sends connections to the address of a service to one of its
// servers, from an address of this machine.
func ExampleConn_Create_nat() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	f := conntrack.NewFlow(conntrack.ProtocolTCP, 0,
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2"), 54321, 80, 120, 0)
	f.NAT = &conntrack.NAT{
		Destination: conntrack.NATTo(netip.MustParseAddrPort("10.0.0.7:8080")),
		Source: conntrack.NATRange{
			MinAddr: netip.MustParseAddr("10.0.0.1"),
			MinPort: 61000, MaxPort: 61000,
		},
	}
	if err := c.Create(f); err != nil {
		log.Fatal(err)
	}
	defer c.Delete(f)

	got, err := c.Get(f)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(got.TupleOrig)
	fmt.Println(got.TupleReply)
	// Output:
	// <tcp, Src: 192.0.2.1:54321, Dst: 198.51.100.2:80>
	// <tcp, Src: 10.0.0.7:8080, Dst: 10.0.0.1:61000>
}

func ExampleConn_Get() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	f := conntrack.NewFlow(unix.IPPROTO_UDP, 0,
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2"),
		5353, 53, 120, 42)
	if err := c.Create(f); err != nil {
		log.Fatal(err)
	}
	defer c.Delete(f)

	// Either tuple finds the flow.
	got, err := c.Get(conntrack.Flow{TupleReply: f.TupleReply})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(got.TupleOrig, got.Status, "mark", got.Mark)

	_, err = c.Get(conntrack.Flow{TupleOrig: f.TupleOrig, Zone: 7})
	fmt.Println("in zone 7:", !errors.Is(err, fs.ErrNotExist))
	// Output:
	// <udp, Src: 192.0.2.1:5353, Dst: 198.51.100.2:53> CONFIRMED mark 42
	// in zone 7: false
}

func ExampleConn_Update() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	f := conntrack.NewFlow(unix.IPPROTO_UDP, 0,
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2"),
		5353, 53, 120, 1)
	if err := c.Create(f); err != nil {
		log.Fatal(err)
	}
	defer c.Delete(f)

	// Fields that are zero stay unchanged.
	if err := c.Update(conntrack.Flow{TupleOrig: f.TupleOrig, Mark: 2}); err != nil {
		log.Fatal(err)
	}
	got, err := c.Get(f)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("mark", got.Mark)
	// Output: mark 2
}

// This changes only some bits of a mark, and sets others of them to zero.
func ExampleConn_Update_mask() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	f := conntrack.NewFlow(conntrack.ProtocolUDP, 0,
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2"),
		5353, 53, 120, 0x1234)
	if err := c.Create(f); err != nil {
		log.Fatal(err)
	}
	defer c.Delete(f)

	if err := c.Update(conntrack.Flow{TupleOrig: f.TupleOrig, Mark: 0x05, MarkMask: 0xff}); err != nil {
		log.Fatal(err)
	}
	got, err := c.Get(f)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("mark %#x\n", got.Mark)
	// Output: mark 0x1205
}

func ExampleConn_Delete() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	f := conntrack.NewFlow(unix.IPPROTO_UDP, 0,
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2"),
		5353, 53, 120, 0)
	if err := c.Create(f); err != nil {
		log.Fatal(err)
	}
	got, err := c.Get(f)
	if err != nil {
		log.Fatal(err)
	}

	// Because got has an ID, a later flow with the same tuples would stay.
	fmt.Println(c.Delete(got))

	err = c.Delete(got)
	fmt.Println("gone:", errors.Is(err, fs.ErrNotExist))
	// Output:
	// <nil>
	// gone: true
}

func ExampleConn_Dump() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	f := conntrack.NewFlow(unix.IPPROTO_TCP, conntrack.StatusSeenReply,
		netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"),
		54321, 443, 120, 0)
	if err := c.Create(f); err != nil {
		log.Fatal(err)
	}
	defer c.Delete(f)

	flows, err := c.Dump(nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range flows {
		fmt.Println(f.TupleOrig, f.Status, f.CountersOrig, f.CountersReply)
	}
	// Output: <tcp, Src: [2001:db8::1]:54321, Dst: [2001:db8::2]:443> SEEN_REPLY|CONFIRMED [orig: 0 pkts/0 B] [reply: 0 pkts/0 B]
}

// This dumps the flows with a given mark.
func ExampleConn_DumpFilter() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	src, dst := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	for port := uint16(1); port <= 4; port++ {
		f := conntrack.NewFlow(unix.IPPROTO_UDP, 0, src, dst, port, 53, 120, uint32(port))
		if err := c.Create(f); err != nil {
			log.Fatal(err)
		}
		defer c.Delete(f)
	}

	flows, err := c.DumpFilter(conntrack.Filter{Mark: 3, Mask: 0xffffffff}, nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range flows {
		fmt.Println(f.TupleOrig)
	}
	// Output: <udp, Src: 192.0.2.1:3, Dst: 198.51.100.2:53>
}

// Flows reads tables of any size in constant memory.
func ExampleConn_Flows() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	src, dst := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	for port := uint16(1); port <= 10; port++ {
		f := conntrack.NewFlow(unix.IPPROTO_UDP, 0, src, dst, port, 53, 120, 0)
		if err := c.Create(f); err != nil {
			log.Fatal(err)
		}
	}

	deleted := 0
	for f, err := range c.Flows(context.Background(), conntrack.Filter{}, nil) {
		if err != nil {
			log.Fatal(err)
		}
		if f.TupleOrig.IP.DestinationAddress != dst {
			continue
		}
		// The loop body can use the Conn.
		if err := c.Delete(f); err != nil {
			log.Fatal(err)
		}
		deleted++
	}
	fmt.Println("deleted:", deleted)
	// Output: deleted: 10
}

func ExampleConn_Flush() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	f := conntrack.NewFlow(unix.IPPROTO_UDP, 0,
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2"),
		5353, 53, 120, 0)
	if err := c.Create(f); err != nil {
		log.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		log.Fatal(err)
	}

	stats, err := c.StatsGlobal()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("flows:", stats.Entries)
	// Output: flows: 0
}

// This removes only the flows that have one bit of the mark set.
func ExampleConn_FlushFilter() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	src, dst := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	for mark := uint32(1); mark <= 4; mark++ {
		f := conntrack.NewFlow(unix.IPPROTO_UDP, 0, src, dst, uint16(mark), 53, 120, mark)
		if err := c.Create(f); err != nil {
			log.Fatal(err)
		}
		defer c.Delete(f)
	}

	if err := c.FlushFilter(conntrack.Filter{Mark: 1, Mask: 1}); err != nil {
		log.Fatal(err)
	}
	flows, err := c.Dump(nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("left:", len(flows))
	// Output: left: 2
}

func ExampleConn_Listen() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	// A single worker keeps the order of events.
	events := make(chan conntrack.Event, 1024)
	errs, err := c.Listen(events, 1, netfilter.GroupsCT)
	if err != nil {
		log.Fatal(err)
	}

	f := conntrack.NewFlow(unix.IPPROTO_UDP, 0,
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2"),
		5353, 53, 120, 0)
	if err := c.Create(f); err != nil {
		log.Fatal(err)
	}
	if err := c.Delete(f); err != nil {
		log.Fatal(err)
	}

	for done := false; !done; {
		select {
		case ev := <-events:
			fmt.Println(ev.Type, ev.Flow.TupleOrig)
			done = ev.Type == conntrack.EventDestroy
		case err := <-errs:
			if errors.Is(err, conntrack.ErrOverrun) {
				// Events were lost. A larger SetReadBuffer may help, and Dump
				// shows the current table.
				continue
			}
			log.Fatal(err)
		}
	}
	// Output:
	// EventNew <udp, Src: 192.0.2.1:5353, Dst: 198.51.100.2:53>
	// EventDestroy <udp, Src: 192.0.2.1:5353, Dst: 198.51.100.2:53>
}

// To follow the table, dump it once the events have started.
func ExampleConn_Events() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	f := conntrack.NewFlow(unix.IPPROTO_UDP, 0,
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2"),
		5353, 53, 120, 0)

	opts := conntrack.EventOptions{
		Filters: []conntrack.Filter{
			{Orig: conntrack.Tuple{Proto: conntrack.ProtoTuple{DestinationPort: 53}}},
		},
		Joined: func() {
			flows, err := c.Dump(nil)
			if err != nil {
				log.Fatal(err)
			}
			// Those that began unheard may end without an event.
			fmt.Println("flows to begin with:", len(flows))

			// This causes an event.
			if err := c.Create(f); err != nil {
				log.Fatal(err)
			}
			if err := c.Delete(f); err != nil {
				log.Fatal(err)
			}
		},
	}
	for ev, err := range c.Events(context.Background(), nil, &opts) {
		switch {
		case errors.Is(err, conntrack.ErrOverrun):
			continue // events were lost: dump again now
		case err != nil:
			log.Fatal(err)
		}
		fmt.Println(ev.Type, ev.Flow.TupleOrig)
		if ev.Type == conntrack.EventDestroy {
			break
		}
	}
	// Output:
	// flows to begin with: 0
	// EventNew <udp, Src: 192.0.2.1:5353, Dst: 198.51.100.2:53>
	// EventDestroy <udp, Src: 192.0.2.1:5353, Dst: 198.51.100.2:53>
}

// CreateBatch creates many flows at once.
func ExampleConn_CreateBatch() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	src, dst := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	var flows []conntrack.Flow
	for port := range uint16(1000) {
		flows = append(flows, conntrack.NewFlow(unix.IPPROTO_UDP, 0, src, dst, port, 53, 120, 0))
	}
	if err := c.Create(flows[7]); err != nil {
		log.Fatal(err)
	}
	defer c.DeleteBatch(flows)

	err = c.CreateBatch(flows)
	var batch *conntrack.BatchError
	if !errors.As(err, &batch) {
		log.Fatal(err)
	}
	for _, failed := range batch.Failed {
		fmt.Println(flows[failed.Index].TupleOrig, "was there:", errors.Is(failed.Err, fs.ErrExist))
	}
	fmt.Println("others:", batch.Total-len(batch.Failed))
	// Output:
	// <udp, Src: 192.0.2.1:7, Dst: 198.51.100.2:53> was there: true
	// others: 999
}

// After a backend of a service is gone, its flows would still go there until
// they expire.
func ExampleConn_DeleteFunc() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	client, service := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	backends := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}
	for port := range uint16(10) {
		f := conntrack.NewFlow(unix.IPPROTO_UDP, 0, client, service, port, 53, 120, 0)
		f.TupleReply.IP.SourceAddress = backends[port%2]
		if err := c.Create(f); err != nil {
			log.Fatal(err)
		}
		defer c.Delete(f)
	}

	var udp conntrack.Filter
	udp.Orig.Proto.Protocol = unix.IPPROTO_UDP
	deleted, err := c.DeleteFunc(context.Background(), udp, func(f *conntrack.Flow) bool {
		return f.TupleOrig.IP.DestinationAddress == service && f.TupleReply.IP.SourceAddress == backends[0]
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("deleted:", deleted)
	// Output: deleted: 5
}

func ExampleFilter() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	client := netip.MustParseAddr("192.0.2.1")
	for i, server := range []string{"198.51.100.1", "198.51.100.2", "203.0.113.1"} {
		for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			f := conntrack.NewFlow(proto, 0, client, netip.MustParseAddr(server), uint16(i), 53, 120, 0)
			if err := c.Create(f); err != nil {
				log.Fatal(err)
			}
			defer c.Delete(f)
		}
	}

	// The filter selects DNS over UDP to one network.
	filter := conntrack.Filter{
		Orig:            conntrack.Tuple{Proto: conntrack.ProtoTuple{Protocol: unix.IPPROTO_UDP, DestinationPort: 53}},
		OrigDestination: netip.MustParsePrefix("198.51.100.0/24"),
	}
	flows, err := c.DumpFilter(filter, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(flows))
	// Output: 2
}

// After a peer has left, this removes its flows in either direction.
func ExampleFilter_either() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	peer, other := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("198.51.100.2")
	for _, f := range []conntrack.Flow{
		conntrack.NewFlow(unix.IPPROTO_UDP, 0, peer, other, 5000, 53, 120, 0),
		conntrack.NewFlow(unix.IPPROTO_UDP, 0, other, peer, 6000, 443, 120, 0),
	} {
		if err := c.Create(f); err != nil {
			log.Fatal(err)
		}
	}

	filter := conntrack.Filter{Either: netip.PrefixFrom(peer, peer.BitLen())}
	fmt.Println(filter)
	deleted, err := c.DeleteFunc(context.Background(), filter, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("deleted:", deleted)
	// Output:
	// either=192.0.2.7/32
	// deleted: 2
}

// An FTP server is expected to open a connection to port 5000 of its client.
func ExampleConn_CreateExpect() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	client, server := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	control := conntrack.NewFlow(unix.IPPROTO_TCP, 0, client, server, 54321, 21, 120, 0)
	control.Helper.Name = "ftp" // expectations need a helper
	if err := c.Create(control); err != nil {
		log.Fatal(err)
	}
	defer c.Delete(control) // deletes its expectation, too

	exact := netip.MustParseAddr("255.255.255.255")
	err = c.CreateExpect(conntrack.Expect{
		TupleMaster: control.TupleOrig,
		Tuple: conntrack.Tuple{
			IP:    conntrack.IPTuple{SourceAddress: server, DestinationAddress: client},
			Proto: conntrack.ProtoTuple{Protocol: unix.IPPROTO_TCP, DestinationPort: 5000},
		},
		// The source may have any port.
		Mask: conntrack.Tuple{
			IP:    conntrack.IPTuple{SourceAddress: exact, DestinationAddress: exact},
			Proto: conntrack.ProtoTuple{Protocol: unix.IPPROTO_TCP, DestinationPort: 0xffff},
		},
	})
	if err != nil {
		log.Fatal(err)
	}

	expects, err := c.DumpExpect()
	if err != nil {
		log.Fatal(err)
	}
	for _, ex := range expects {
		fmt.Println(ex.Tuple, ex.HelpName)
	}
	// Output: <tcp, Src: 198.51.100.2:0, Dst: 192.0.2.1:5000> ftp
}

// This extends the timeout of an expectation, and then deletes it.
func ExampleConn_UpdateExpect() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	client, server := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	control := conntrack.NewFlow(conntrack.ProtocolTCP, 0, client, server, 54321, 21, 120, 0)
	control.Helper.Name = "ftp"
	data := conntrack.NewFlow(conntrack.ProtocolTCP, 0, server, client, 20, 5000, 0, 0)
	exact := netip.MustParseAddr("255.255.255.255")
	ex := conntrack.Expect{
		TupleMaster: control.TupleOrig,
		Tuple:       data.TupleOrig,
		Mask: conntrack.Tuple{
			IP:    conntrack.IPTuple{SourceAddress: exact, DestinationAddress: exact},
			Proto: conntrack.ProtoTuple{SourcePort: 0xffff, DestinationPort: 0xffff},
		},
		Flags: conntrack.ExpectPermanent,
	}
	if err := errors.Join(c.Create(control), c.CreateExpect(ex)); err != nil {
		log.Fatal(err)
	}
	defer c.Delete(control)

	ex.Timeout = 3600
	if err := c.UpdateExpect(ex); err != nil {
		log.Fatal(err)
	}
	for ex, err := range c.ExpectsOf(context.Background(), control) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(ex.HelpName, conntrack.ExpectFlags(ex.Flags), ex.Timeout > 3000)
	}
	if err := c.DeleteExpect(ex); err != nil {
		log.Fatal(err)
	}
	// Output: ftp PERMANENT true
}

func ExampleConn_DumpExpect() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	expects, err := c.DumpExpect()
	if err != nil {
		log.Fatal(err)
	}
	for _, ex := range expects {
		fmt.Println(ex.Tuple, "expected by", ex.TupleMaster, "for", ex.Timeout, "seconds")
	}
	fmt.Println("expectations:", len(expects))
	// Output: expectations: 0
}

func ExampleConn_Expects() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	helpers := make(map[string]int)
	for ex, err := range c.Expects(context.Background()) {
		if err != nil {
			log.Fatal(err)
		}
		helpers[ex.HelpName]++
	}
	fmt.Println(helpers)
	// Output: map[]
}

func ExampleConn_Stats() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	stats, err := c.Stats()
	if err != nil {
		log.Fatal(err)
	}
	var drops uint32
	for _, cpu := range stats {
		drops += cpu.Drop + cpu.EarlyDrop + cpu.InsertFailed
	}
	fmt.Println("lost:", drops)
	// Output: lost: 0
}

func ExampleConn_StatsGlobal() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	f := conntrack.NewFlow(unix.IPPROTO_UDP, 0,
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2"),
		5353, 53, 120, 0)
	if err := c.Create(f); err != nil {
		log.Fatal(err)
	}
	defer c.Delete(f)

	stats, err := c.StatsGlobal()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("flows:", stats.Entries, "full:", stats.Entries >= stats.MaxEntries)
	// Output: flows: 1 full: false
}

// What is missing has a cause that can be printed.
func ExampleConn_Settings() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	s, err := c.Settings()
	if err != nil {
		log.Fatal(err)
	}
	if s.TrackingKnown && !s.TracksIPv4 {
		fmt.Println("no IPv4 flows: no rule asks for connection tracking")
	}
	if !s.Accounting {
		fmt.Println("no counters: set net.netfilter.nf_conntrack_acct=1")
	}
	if s.Events == 0 {
		fmt.Println("no events: set net.netfilter.nf_conntrack_events=1")
	}
	fmt.Println("counters:", s.Accounting, "times:", s.Timestamps)
	// Output: counters: true times: true
}

func ExampleNewFlow() {
	f := conntrack.NewFlow(unix.IPPROTO_TCP, 0,
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2"),
		54321, 80, 120, 0)
	fmt.Println(f.TupleOrig)
	fmt.Println(f.TupleReply)

	// With destination NAT, replies come from another address.
	f.TupleReply.IP.SourceAddress = netip.MustParseAddr("10.0.0.1")
	f.TupleReply.Proto.SourcePort = 8080
	fmt.Println(f.TupleReply)
	// Output:
	// <tcp, Src: 192.0.2.1:54321, Dst: 198.51.100.2:80>
	// <tcp, Src: 198.51.100.2:80, Dst: 192.0.2.1:54321>
	// <tcp, Src: 10.0.0.1:8080, Dst: 192.0.2.1:54321>
}

// ICMP flows are distinguished by the id of their queries.
func ExampleFlow_icmp() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	const echo, echoReply = 8, 0
	f := conntrack.NewFlow(unix.IPPROTO_ICMP, 0,
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2"), 0, 0, 30, 0)
	f.TupleOrig.Proto.ICMPType, f.TupleOrig.Proto.ICMPID = echo, 77
	f.TupleReply.Proto.ICMPType, f.TupleReply.Proto.ICMPID = echoReply, 77
	if err := c.Create(f); err != nil {
		log.Fatal(err)
	}
	defer c.Delete(f)

	got, err := c.Get(f)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(got.TupleOrig.Proto.ICMPv4, got.TupleOrig.Proto.ICMPID)
	// Output: true 77
}

// A program that receives the kernel's messages itself can decode them.
func ExampleEvent_Unmarshal() {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{
		Groups: 1 << (netfilter.GroupCTNew - 1),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	f := conntrack.NewFlow(unix.IPPROTO_UDP, 0,
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2"),
		5353, 53, 120, 0)
	if err := c.Create(f); err != nil {
		log.Fatal(err)
	}
	defer c.Delete(f)

	messages, err := conn.Receive()
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range messages {
		var ev conntrack.Event
		if err := ev.Unmarshal(m); err != nil {
			log.Fatal(err)
		}
		fmt.Println(ev.Type, ev.Flow.TupleOrig)
	}
	// Output: EventNew <udp, Src: 192.0.2.1:5353, Dst: 198.51.100.2:53>
}

// Every error contains the kernel's reason.
func ExampleOpError() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	f := conntrack.NewFlow(unix.IPPROTO_UDP, 0,
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2"),
		5353, 53, 120, 0)
	err = c.Delete(f)

	var op *conntrack.OpError
	if errors.As(err, &op) {
		fmt.Println(op.Op, op.Tuple)
	}
	fmt.Println(errors.Is(err, unix.ENOENT), errors.Is(err, fs.ErrNotExist))
	// Output:
	// delete flow <udp, Src: 192.0.2.1:5353, Dst: 198.51.100.2:53>
	// true true
}

// dnsQuery returns a UDP flow from port to a name server.
func dnsQuery(port uint16) conntrack.Flow {
	return conntrack.NewFlow(conntrack.ProtocolUDP, 0,
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2"), port, 53, 120, 0)
}

// ftpControl returns an FTP control connection and the expectation of its data
// connection.
func ftpControl() (conntrack.Flow, conntrack.Expect) {
	client, server := netip.MustParseAddrPort("192.0.2.1:54321"), netip.MustParseAddrPort("198.51.100.2:21")
	control := conntrack.NewFlow(conntrack.ProtocolTCP, 0,
		client.Addr(), server.Addr(), client.Port(), server.Port(), 120, 0)
	control.Helper.Name = "ftp"
	data := conntrack.NewTuple(conntrack.ProtocolTCP,
		netip.AddrPortFrom(server.Addr(), 20), netip.AddrPortFrom(client.Addr(), 5000))
	exact := netip.MustParseAddr("255.255.255.255")
	return control, conntrack.Expect{
		TupleMaster: control.TupleOrig,
		Tuple:       data,
		Mask: conntrack.Tuple{
			IP:    conntrack.IPTuple{SourceAddress: exact, DestinationAddress: exact},
			Proto: conntrack.ProtoTuple{SourcePort: 0xffff, DestinationPort: 0xffff},
		},
	}
}

// Close ends loops that are running in other goroutines.
func ExampleConn_Close() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	opts := &conntrack.EventOptions{Joined: func() { go c.Close() }}
	for _, err := range c.Events(context.Background(), nil, opts) {
		if errors.Is(err, fs.ErrClosed) {
			fmt.Println("closed")
		}
	}
	// Output: closed
}

// A reconcile loop makes sure that a flow exists with the right values.
func ExampleConn_CreateOrUpdate() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	f := dnsQuery(5353)
	for _, f.Mark = range []uint32{1, 2} {
		if err := c.CreateOrUpdate(f); err != nil {
			log.Fatal(err)
		}
	}
	defer c.Delete(f)

	got, err := c.Get(f)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("mark:", got.Mark)
	// Output: mark: 2
}

func ExampleConn_CreateOrUpdateBatch() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	flows := []conntrack.Flow{dnsQuery(1), dnsQuery(2), dnsQuery(3)}
	for range 2 { // the second time, they exist already
		if err := c.CreateOrUpdateBatch(flows); err != nil {
			log.Fatal(err)
		}
	}
	defer c.DeleteBatch(flows)

	stats, err := c.StatsGlobal()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("flows:", stats.Entries)
	// Output: flows: 3
}

func ExampleConn_UpdateBatch() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	flows := []conntrack.Flow{dnsQuery(1), dnsQuery(2)}
	if err := c.CreateBatch(flows); err != nil {
		log.Fatal(err)
	}
	defer c.DeleteBatch(flows)

	var changes []conntrack.Flow
	for _, f := range flows {
		changes = append(changes, conntrack.Flow{TupleOrig: f.TupleOrig, Mark: 7})
	}
	if err := c.UpdateBatch(changes); err != nil {
		log.Fatal(err)
	}
	marked, err := c.DumpFilter(conntrack.Filter{Mark: 7, Mask: ^uint32(0)}, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("marked:", len(marked))
	// Output: marked: 2
}

// Flows that no longer exist are not an error.
func ExampleConn_DeleteBatch() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	flows := []conntrack.Flow{dnsQuery(1), dnsQuery(2), dnsQuery(3)}
	if err := c.CreateBatch(flows[:2]); err != nil {
		log.Fatal(err)
	}
	err = c.DeleteBatch(flows)
	var batch *conntrack.BatchError
	if errors.As(err, &batch) {
		for _, failed := range batch.Failed {
			if !errors.Is(failed.Err, fs.ErrNotExist) {
				log.Fatal(failed.Err)
			}
			fmt.Println("gone already:", flows[failed.Index].TupleOrig)
		}
	}
	// Output: gone already: <udp, Src: 192.0.2.1:3, Dst: 198.51.100.2:53>
}

// This moves the mark of a client's flows to another bit.
func ExampleConn_UpdateFunc() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	for i := range uint16(4) {
		f := dnsQuery(i)
		f.Mark = uint32(i % 2)
		if err := c.Create(f); err != nil {
			log.Fatal(err)
		}
		defer c.Delete(f)
	}

	marked := conntrack.Filter{Mark: 1, Mask: 1}
	updated, err := c.UpdateFunc(context.Background(), marked, func(f *conntrack.Flow) (conntrack.Flow, bool) {
		return conntrack.Flow{Mark: 2, MarkMask: 3}, true // only the change
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("updated:", updated)
	// Output: updated: 2
}

func ExampleConn_GetExpect() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	control, expect := ftpControl()
	if err := errors.Join(c.Create(control), c.CreateExpect(expect)); err != nil {
		log.Fatal(err)
	}
	defer c.Delete(control)

	got, err := c.GetExpect(conntrack.Expect{Tuple: expect.Tuple})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(got.Tuple, "expected by", got.TupleMaster)
	// Output: <tcp, Src: 198.51.100.2:20, Dst: 192.0.2.1:5000> expected by <tcp, Src: 192.0.2.1:54321, Dst: 198.51.100.2:21>
}

func ExampleConn_DeleteExpect() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	control, expect := ftpControl()
	if err := errors.Join(c.Create(control), c.CreateExpect(expect)); err != nil {
		log.Fatal(err)
	}
	defer c.Delete(control)

	for range 2 {
		switch err := c.DeleteExpect(expect); {
		case errors.Is(err, fs.ErrNotExist):
			fmt.Println("there is none")
		case err != nil:
			log.Fatal(err)
		default:
			fmt.Println("deleted")
		}
	}
	// Output:
	// deleted
	// there is none
}

func ExampleConn_ExpectsOf() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	control, expect := ftpControl()
	if err := errors.Join(c.Create(control), c.CreateExpect(expect)); err != nil {
		log.Fatal(err)
	}
	defer c.Delete(control)

	for ex, err := range c.ExpectsOf(context.Background(), control) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(ex.Tuple)
	}
	// Output: <tcp, Src: 198.51.100.2:20, Dst: 192.0.2.1:5000>
}

func ExampleConn_FlushExpect() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	control, expect := ftpControl()
	if err := errors.Join(c.Create(control), c.CreateExpect(expect)); err != nil {
		log.Fatal(err)
	}
	defer c.Delete(control)

	if err := c.FlushExpect(); err != nil {
		log.Fatal(err)
	}
	expects, err := c.DumpExpect()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("expectations:", len(expects))
	// Output: expectations: 0
}

func ExampleConn_FlushExpectHelper() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	control, expect := ftpControl()
	if err := errors.Join(c.Create(control), c.CreateExpect(expect)); err != nil {
		log.Fatal(err)
	}
	defer c.Delete(control)

	for _, helper := range []string{"tftp", "ftp"} {
		if err := c.FlushExpectHelper(helper); err != nil {
			log.Fatal(err)
		}
		expects, err := c.DumpExpect()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("without those of", helper+":", len(expects))
	}
	// Output:
	// without those of tftp: 1
	// without those of ftp: 0
}

func ExampleConn_Dying() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	waiting := 0
	for _, err := range c.Dying(context.Background()) {
		if err != nil {
			log.Fatal(err)
		}
		waiting++
	}
	fmt.Println("events that wait for a listener:", waiting)
	// Output: events that wait for a listener: 0
}

func ExampleConn_Unconfirmed() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	for f, err := range c.Unconfirmed(context.Background()) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("its first packet waits in a queue:", f.TupleOrig)
	}
	// Output:
}

func ExampleConn_StatsExpect() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	stats, err := c.StatsExpect()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("one for each CPU:", len(stats) > 0)
	// Output: one for each CPU: true
}

// A program can tell the events that it caused from those of others.
func ExampleConn_PortID() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	create := func() {
		if err := c.Create(dnsQuery(5353)); err != nil {
			log.Fatal(err)
		}
	}
	for ev, err := range c.Events(context.Background(), nil, &conntrack.EventOptions{Joined: create}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("mine:", ev.PortID == c.PortID())
		break
	}
	if err := c.Delete(dnsQuery(5353)); err != nil {
		log.Fatal(err)
	}
	// Output: mine: true
}

// Listeners that may fall behind use a large buffer. They are still told if it
// was too small.
func ExampleConn_SetReadBuffer() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if err := c.SetReadBuffer(32 << 20); err != nil {
		log.Fatal(err)
	}

	flood := func() {
		for port := range uint16(1000) {
			if err := errors.Join(c.Create(dnsQuery(port)), c.Delete(dnsQuery(port))); err != nil {
				log.Fatal(err)
			}
		}
	}
	events := 0
	for _, err := range c.Events(context.Background(), nil, &conntrack.EventOptions{Joined: flood}) {
		if err != nil {
			log.Fatal(err)
		}
		if events++; events == 2000 {
			break
		}
	}
	fmt.Println("events:", events)
	// Output: events: 2000
}

func ExampleConn_SetWriteBuffer() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	// Batches are sent in parts that fit.
	if err := c.SetWriteBuffer(1 << 20); err != nil {
		log.Fatal(err)
	}
}

// With this option, events from other namespaces that have an id in this one
// carry that id.
func ExampleConn_SetOption() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	if err := c.SetOption(netlink.ListenAllNSID, true); err != nil {
		log.Fatal(err)
	}
	create := func() {
		if err := c.Create(dnsQuery(5353)); err != nil {
			log.Fatal(err)
		}
	}
	defer c.Delete(dnsQuery(5353))
	for ev, err := range c.Events(context.Background(), nil, &conntrack.EventOptions{Joined: create}) {
		if err != nil {
			log.Fatal(err)
		}
		_, other := ev.NSID.ID()
		fmt.Println("of another namespace:", other)
		break
	}
	// Output: of another namespace: false
}

func ExampleConn_Overruns() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	// A metrics exporter can export this counter.
	fmt.Println("conntrack_overruns_total", c.Overruns())
	// Output: conntrack_overruns_total 0
}

func ExampleNewTuple() {
	t := conntrack.NewTuple(conntrack.ProtocolTCP,
		netip.MustParseAddrPort("[::ffff:192.0.2.1]:40000"), netip.MustParseAddrPort("198.51.100.2:443"))
	fmt.Println(t)
	fmt.Println(t.Reverse())
	// Output:
	// <tcp, Src: 192.0.2.1:40000, Dst: 198.51.100.2:443>
	// <tcp, Src: 198.51.100.2:443, Dst: 192.0.2.1:40000>
}

// A program looks up the flow of its own connection, to see whether NAT changes
// what the other end sees. For an accepted connection, TupleOf returns the
// TupleReply.
func ExampleTupleOf() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	conn, err := net.Dial("udp", "127.0.0.1:53")
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "a packet, for the kernel to track")

	tuple, err := conntrack.TupleOf(conn)
	if err != nil {
		log.Fatal(err)
	}
	f, err := c.Get(conntrack.Flow{TupleOrig: tuple})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Delete(f)
	fmt.Println("server:", f.Server(), "translated:", f.Translated())
	// Output: server: 127.0.0.1:53 translated: false
}

// The destination of this flow is translated to another address and port.
func ExampleNATTo() {
	f := conntrack.NewFlow(conntrack.ProtocolTCP, 0,
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2"), 40000, 80, 120, 0)
	f.NAT = &conntrack.NAT{Destination: conntrack.NATTo(netip.MustParseAddrPort("10.0.0.7:8080"))}
	fmt.Println(f.NAT.Destination.MinAddr, f.NAT.Destination.MinPort)
	// Output: 10.0.0.7 8080
}

// A stored key finds the flow again.
func ExampleFiveTuple_Tuple() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if err := c.Create(dnsQuery(5353)); err != nil {
		log.Fatal(err)
	}
	f := dnsQuery(5353)
	key := f.FiveTuple()

	if err := c.Delete(conntrack.Flow{TupleOrig: key.Tuple()}); err != nil {
		log.Fatal(err)
	}
	fmt.Println("deleted:", key)
	// Output: deleted: udp 192.0.2.1:5353 > 198.51.100.2:53
}

// forwardedWeb returns a connection from a network behind this machine. Its
// source is translated to the machine's address.
func forwardedWeb() conntrack.Flow {
	f := conntrack.NewFlow(conntrack.ProtocolTCP, conntrack.StatusSeenReply|conntrack.StatusAssured,
		netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("198.51.100.2"), 40000, 443, 300, 0)
	f.TupleReply.IP.DestinationAddress = netip.MustParseAddr("192.0.2.1")
	f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: conntrack.TCPStateEstablished}
	f.CountersOrig = conntrack.Counter{Packets: 5, Bytes: 620}
	f.CountersReply = conntrack.Counter{Direction: true, Packets: 4, Bytes: 5000}
	return f
}

func ExampleFlow_MarshalJSON() {
	b, err := json.MarshalIndent(forwardedWeb(), "", "  ")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(b))
	// Output:
	// {
	//   "status": [
	//     "SEEN_REPLY",
	//     "ASSURED"
	//   ],
	//   "timeout": 300,
	//   "tcp": {
	//     "state": "ESTABLISHED"
	//   },
	//   "orig": {
	//     "protocol": "tcp",
	//     "src": "10.0.0.1",
	//     "sport": 40000,
	//     "dst": "198.51.100.2",
	//     "dport": 443,
	//     "packets": 5,
	//     "bytes": 620
	//   },
	//   "reply": {
	//     "protocol": "tcp",
	//     "src": "198.51.100.2",
	//     "sport": 443,
	//     "dst": "192.0.2.1",
	//     "dport": 40000,
	//     "packets": 4,
	//     "bytes": 5000
	//   }
	// }
}

func ExampleFlow_UnmarshalJSON() {
	var f conntrack.Flow
	err := json.Unmarshal([]byte(`{
		"timeout": 30,
		"orig": {"protocol": "udp", "src": "192.0.2.1", "sport": 5353, "dst": "192.0.2.2", "dport": 53}
	}`), &f)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(f.TupleOrig.FiveTuple())

	fmt.Println(json.Unmarshal([]byte(`{"orig": {"protocol": "upd"}}`), &f))
	// Output:
	// udp 192.0.2.1:5353 > 192.0.2.2:53
	// conntrack: JSON field orig.protocol is "upd": unknown protocol "upd"
}

func ExampleEvent_MarshalJSON() {
	b, err := json.Marshal(conntrack.Event{
		Type: conntrack.EventDestroy,
		Flow: &conntrack.Flow{ID: 42, Status: conntrack.Status{Value: conntrack.StatusDying}},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(b))
	// Output:
	// {"type":"destroy","flow":{"id":42,"status":["DYING"]}}
}

func ExampleFlow_LogValue() {
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
	f := conntrack.NewFlow(conntrack.ProtocolUDP, conntrack.StatusConfirmed,
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), 5353, 53, 30, 0)
	logger.Info("stale", "flow", &f)
	// Output:
	// level=INFO msg=stale flow.status=[CONFIRMED] flow.timeout=30 flow.orig.protocol=udp flow.orig.src=192.0.2.1 flow.orig.sport=5353 flow.orig.dst=192.0.2.2 flow.orig.dport=53
}

func ExampleFlow_Translated() {
	f := forwardedWeb()
	if f.Translated() {
		fmt.Println(f.Client(), "dialed", f.Dialed())
		fmt.Println(f.Server(), "answers", f.MappedClient())
	}
	// Output:
	// 10.0.0.1:40000 dialed 198.51.100.2:443
	// 198.51.100.2:443 answers 192.0.2.1:40000
}

// A flow exporter counts bytes by direction.
func ExampleFlow_Bound() {
	local := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	bytes := make(map[conntrack.Bound]uint64)
	for _, f := range []conntrack.Flow{forwardedWeb(), forwardedWeb()} {
		bytes[f.Bound(local)] += f.CountersOrig.Bytes + f.CountersReply.Bytes
	}
	fmt.Println(bytes)
	// Output: map[outbound:11240]
}

func ExampleTuple_FiveTuple() {
	seen := make(map[conntrack.FiveTuple]bool)
	f := forwardedWeb()
	seen[f.TupleOrig.FiveTuple()] = true

	packet := conntrack.FiveTuple{
		Protocol:    conntrack.ProtocolTCP,
		Source:      netip.MustParseAddrPort("10.0.0.1:40000"),
		Destination: netip.MustParseAddrPort("198.51.100.2:443"),
	}
	fmt.Println(packet, seen[packet])
	// Output: tcp 10.0.0.1:40000 > 198.51.100.2:443 true
}

// Of many flows some are there. The pairs come in the order of the keys.
func ExampleConn_GetBatch() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	keys := []conntrack.Flow{dnsQuery(1), dnsQuery(2), dnsQuery(3)}
	if err := c.CreateBatch(keys[:2]); err != nil {
		log.Fatal(err)
	}
	defer c.DeleteBatch(keys[:2])

	i := 0
	for f, err := range c.GetBatch(keys) {
		switch key := keys[i].FiveTuple(); {
		case errors.Is(err, fs.ErrNotExist):
			fmt.Println("gone:", key)
		case err != nil:
			log.Fatal(err)
		default:
			fmt.Println(f.FiveTuple(), "expires within 120 s:", f.Timeout <= 120)
		}
		i++
	}
	// Output:
	// udp 192.0.2.1:1 > 198.51.100.2:53 expires within 120 s: true
	// udp 192.0.2.1:2 > 198.51.100.2:53 expires within 120 s: true
	// gone: udp 192.0.2.1:3 > 198.51.100.2:53
}

// What the kernel does not select by itself is dumped and selected here, which
// takes as long as a dump of the whole table.
func ExampleConn_KernelFilters() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	for _, f := range []conntrack.Filter{
		{Mark: 7, Mask: ^uint32(0)},
		{Either: netip.MustParsePrefix("10.0.0.0/8")},
	} {
		dump, flush, err := c.KernelFilters(f)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(f, "dump:", dump, "flush:", flush)
	}
	// Output:
	// mark=0x7/0xffffffff dump: true flush: true
	// either=10.0.0.0/8 dump: false flush: false
}

func ExampleConn_Foreign() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	// A counter for a metrics exporter: above 0, some program sends messages that
	// pretend to be the kernel's.
	fmt.Println("conntrack_foreign_messages_total", c.Foreign())
	// Output: conntrack_foreign_messages_total 0
}

// happen creates and deletes flows, for listeners to hear of.
func happen(c *conntrack.Conn, flows ...conntrack.Flow) {
	for _, f := range flows {
		if err := errors.Join(c.Create(f), c.Delete(f)); err != nil {
			log.Fatal(err)
		}
	}
}

// The kernel drops the events that are not wanted. One Flow serves for all others,
// so only a copy of it may be kept.
func ExampleEventOptions_filters() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	opts := conntrack.EventOptions{
		Filters: []conntrack.Filter{ // one of these
			{Orig: conntrack.Tuple{Proto: conntrack.ProtoTuple{Protocol: conntrack.ProtocolTCP}}},
			{Orig: conntrack.Tuple{Proto: conntrack.ProtoTuple{Protocol: conntrack.ProtocolUDP}}},
		},
		Except: []conntrack.Filter{ // and none of these
			{Either: netip.MustParsePrefix("203.0.113.0/24")},
			{Orig: conntrack.Tuple{Proto: conntrack.ProtoTuple{DestinationPort: 53}}},
		},
		Reuse: true,
		Joined: func() {
			client := netip.MustParseAddr("192.0.2.1")
			happen(c, dnsQuery(5353),
				conntrack.NewFlow(conntrack.ProtocolTCP, 0, client, netip.MustParseAddr("203.0.113.9"), 1, 443, 120, 0),
				conntrack.NewFlow(conntrack.ProtocolTCP, 0, client, netip.MustParseAddr("198.51.100.2"), 2, 443, 120, 0))
		},
	}
	for ev, err := range c.Events(context.Background(), nil, &opts) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(ev.Type, ev.Flow.FiveTuple())
		if ev.Type == conntrack.EventDestroy {
			break
		}
	}
	// Output:
	// EventNew tcp 192.0.2.1:2 > 198.51.100.2:443
	// EventDestroy tcp 192.0.2.1:2 > 198.51.100.2:443
}

// Lines are written together while there are many, and at once while there are few.
func ExampleEventOptions_drained() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	out := bufio.NewWriter(os.Stdout)
	opts := conntrack.EventOptions{
		Joined: func() { happen(c, dnsQuery(1), dnsQuery(2)) },
		Drained: func() {
			fmt.Fprintln(out, "no more for now")
			if err := out.Flush(); err != nil {
				log.Fatal(err)
			}
			cancel() // of the example
		},
	}
	for ev, err := range c.Events(ctx, nil, &opts) {
		if err != nil {
			continue
		}
		fmt.Fprintln(out, ev.Type, ev.Flow.FiveTuple())
	}
	// Output:
	// EventNew udp 192.0.2.1:1 > 198.51.100.2:53
	// EventDestroy udp 192.0.2.1:1 > 198.51.100.2:53
	// EventNew udp 192.0.2.1:2 > 198.51.100.2:53
	// EventDestroy udp 192.0.2.1:2 > 198.51.100.2:53
	// no more for now
}

// Another goroutine does something, and waits until the loop has passed all that
// came of it.
func ExampleEventOptions_fence() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	seen := 0
	fence := make(chan func())
	work := func() {
		defer cancel()
		happen(c, dnsQuery(1), dnsQuery(2))
		passed := make(chan struct{})
		select {
		case fence <- func() { fmt.Println("events:", seen); close(passed) }:
			<-passed
		case <-ctx.Done(): // nobody receives when the loop has ended
		}
	}
	opts := conntrack.EventOptions{Joined: func() { go work() }, Fence: fence}
	for _, err := range c.Events(ctx, nil, &opts) {
		if err == nil {
			seen++
		}
	}
	// Output: events: 4
}

// Each flow's end is counted, however far the loop falls behind: what does not fit
// into the buffer, the kernel sends again.
func ExampleEventOptions_reliable() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if err := c.SetReadBuffer(64 << 10); err != nil { // room for about 60 events
		log.Fatal(err)
	}

	const flows = 500
	opts := conntrack.EventOptions{
		Reliable: true,
		Joined: func() {
			for port := range uint16(flows) {
				happen(c, dnsQuery(port))
			}
		},
	}
	ended := 0
	for _, err := range c.Events(context.Background(), []netfilter.NetlinkGroup{netfilter.GroupCTDestroy}, &opts) {
		if err != nil {
			log.Fatal(err)
		}
		if ended++; ended == flows {
			break
		}
	}
	fmt.Println("ended:", ended)
	// Output: ended: 500
}
