//go:build linux

package conntrack_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net"
	"net/netip"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/netfilter"
)

// dnsQuery returns a UDP flow from port to a name server.
func dnsQuery(port uint16) conntrack.Flow {
	return conntrack.NewFlow(conntrack.ProtocolUDP, 0,
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2"), port, 53, 120, 0)
}

// ftpControl returns a control connection of FTP, and the expectation of its data
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

// Close ends loops that are under way in other goroutines.
func ExampleConn_Close() {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	opts := &conntrack.EventOptions{Joined: func() { go c.Close() }}
	for _, err := range c.Events(context.Background(), netfilter.GroupsCT, opts) {
		if errors.Is(err, fs.ErrClosed) {
			fmt.Println("closed")
		}
	}
	// Output: closed
}

// A reconcile loop wants a flow to be there as it should be.
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
	for range 2 { // the second time they are there already
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

// Flows that are gone by the time that they are to be deleted are no trouble.
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

// The mark of a client's flows moves to another bit.
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
		return conntrack.Flow{Mark: 2, MarkMask: 3}, true // the change alone
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

// A program tells the events that it caused from those that others caused.
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
	for ev, err := range c.Events(context.Background(), netfilter.GroupsCT, &conntrack.EventOptions{Joined: create}) {
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

// Listeners that may fall behind get a large buffer, and are told where it was too
// small all the same.
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
	for _, err := range c.Events(context.Background(), netfilter.GroupsCT, &conntrack.EventOptions{Joined: flood}) {
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

	// Batches are sent in pieces that fit.
	if err := c.SetWriteBuffer(1 << 20); err != nil {
		log.Fatal(err)
	}
}

// Events of the namespaces that this one has ids for come with those ids.
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
	for ev, err := range c.Events(context.Background(), netfilter.GroupsCT, &conntrack.EventOptions{Joined: create}) {
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

	// A counter for a metrics exporter.
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

// A program looks up the flow of a connection of its own: does NAT change what the
// other end sees? For an accepted connection, TupleOf is the TupleReply.
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

// Connections to one address are sent to another one, from now on.
func ExampleNATTo() {
	f := conntrack.NewFlow(conntrack.ProtocolTCP, 0,
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2"), 40000, 80, 120, 0)
	f.NAT = &conntrack.NAT{Destination: conntrack.NATTo(netip.MustParseAddrPort("10.0.0.7:8080"))}
	fmt.Println(f.NAT.Destination.MinAddr, f.NAT.Destination.MinPort)
	// Output: 10.0.0.7 8080
}

// A key that was kept finds the flow again.
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
