//go:build linux

package dropin

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/netfilter"
)

func TestMain(m *testing.M) {
	nstest.Main(m)
}

var (
	client = netip.MustParseAddrPort("127.0.0.2:40000")
	server = netip.MustParseAddrPort("127.0.0.1:8080")
)

func newConn(t *testing.T, ns *nstest.NS) *conntrack.Conn {
	t.Helper()
	c, err := Dial(ns.FD())
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	for name, groups := range map[string][]netfilter.NetlinkGroup{
		"all":      append(netfilter.GroupsCT, netfilter.GroupsCTExp...),
		"flows":    netfilter.GroupsCT,
		"two":      {netfilter.GroupCTNew, netfilter.GroupCTDestroy},
		"one":      {netfilter.GroupCTDestroy},
		"expected": netfilter.GroupsCTExp,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			ns.Helper("ftp", unix.IPPROTO_TCP, server.Port())
			w, err := Watch(func() (listener, error) { return Dial(ns.FD()) }, 1, groups)
			must(t, err)
			control := ns.TCP(client, server)
			control.Send([]byte("USER anonymous\r\n")) // from here on, the helper knows where lines end
			control.Send([]byte("PORT 127,0,0,2,200,10\r\n"))
			must(t, newConn(t, ns).Flush())

			joined := map[netfilter.NetlinkGroup]string{
				netfilter.GroupCTNew: "EventNew", netfilter.GroupCTUpdate: "EventUpdate",
				netfilter.GroupCTDestroy: "EventDestroy", netfilter.GroupCTExpNew: "EventExpNew",
			}
			for _, g := range groups {
				if text, ok := joined[g]; ok {
					eventually(t, text, func() bool { return w.Counts()[text] > 0 })
				}
			}
			must(t, w.Close())
		})
	}
}

// A mock is a listener that sends prepared events.
type mock struct {
	events []conntrack.Event
	err    error
	errs   chan error
	closed bool
}

func (m *mock) Listen(evChan chan<- conntrack.Event, _ uint8, _ []netfilter.NetlinkGroup) (chan error, error) {
	for _, ev := range m.events {
		evChan <- ev
	}
	return m.errs, m.err
}

func (m *mock) Close() error {
	m.closed = true
	return nil
}

func TestWatchMock(t *testing.T) {
	t.Parallel()
	f := conntrack.NewFlow(6, conntrack.StatusSeenReply|conntrack.StatusAssured,
		netip.MustParseAddr("1.2.3.4"), netip.MustParseAddr("5.6.7.8"), 1234, 80, 120, 0x00ff)
	f.ID = 7
	m := &mock{errs: make(chan error), events: []conntrack.Event{
		{Type: conntrack.EventNew, Flow: &f},
		{Type: conntrack.EventExpNew, Expect: &conntrack.Expect{HelpName: "ftp"}},
		{Type: conntrack.EventDestroy, Flow: &f},
	}}
	w, err := Watch(func() (listener, error) { return m, nil }, 1, netfilter.GroupsCT)
	must(t, err)
	eventually(t, "the end of the flow", func() bool { return w.Counts()["EventDestroy"] == 1 })
	if flow := w.closed[7]; flow.Mark != 0x00ff || len(w.live) != 0 || w.expects[0].HelpName != "ftp" {
		t.Errorf("closed %v, live %v, expectations %v", w.closed, w.live, w.expects)
	}
	failure := errors.New("failure")
	m.errs <- failure
	if err := w.Close(); !errors.Is(err, failure) || !m.closed {
		t.Errorf("Close returns %v, want %v", err, failure)
	}

	_, err = Watch(func() (listener, error) { return &mock{err: failure}, nil }, 1, netfilter.GroupsCT)
	if !errors.Is(err, failure) {
		t.Errorf("Watch returns %v, want %v", err, failure)
	}
}

func TestRecords(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, nstest.Accounting(), nstest.Timestamps())
	to := netip.MustParseAddrPort("127.0.0.3:9090")
	ns.DNAT(unix.IPPROTO_TCP, server, to)
	ns.TCPThrough(client, server, to)
	ns.UDP(client, to, true)
	c := newConn(t, ns)

	translated, err := Records(c, 0, true)
	must(t, err)
	if len(translated) != 1 || translated[0].TCPState != 3 || translated[0].Packets < 3 || translated[0].Start.IsZero() {
		t.Errorf("records of translated flows: %+v", translated)
	}
	others, err := Records(c, 0, false)
	must(t, err)
	const text = "<udp, Src: 127.0.0.2:40000, Dst: 127.0.0.3:9090> SEEN_REPLY|CONFIRMED"
	if len(others) != 1 || !strings.HasPrefix(others[0].Text, text) {
		t.Errorf("records of other flows: %+v", others)
	}
	none, err := Records(c, 1, true)
	must(t, err)
	if len(none) != 0 {
		t.Errorf("records of another zone: %+v", none)
	}
	if ratio, _, err := Occupancy(c); err != nil || ratio <= 0 || ratio >= 1 {
		t.Errorf("occupancy %v, %v", ratio, err)
	}
}

// TestRequests asserts that what v0.5.0's examples do works.
func TestRequests(t *testing.T) {
	t.Parallel()
	c := newConn(t, nstest.New(t, nstest.NoTracking()))
	f1 := conntrack.NewFlow(6, conntrack.StatusConfirmed, netip.MustParseAddr("1.2.3.4"), netip.MustParseAddr("5.6.7.8"), 1234, 80, 120, 0x00ff)
	f2 := conntrack.NewFlow(17, conntrack.StatusConfirmed, netip.MustParseAddr("2a00:1450:400e:804::200e"),
		netip.MustParseAddr("2a00:1450:400e:804::200f"), 1234, 80, 120, 0xff00)
	must(t, c.Create(f1))
	must(t, c.Create(f2))

	marked, err := ByTuple(c, 0xff00, 0xff00)
	must(t, err)
	if got := marked[f2.TupleOrig]; len(marked) != 1 || got == nil || got.Mark != 0xff00 {
		t.Errorf("flows with the mark: %v", marked)
	}

	key := Key(6, netip.MustParseAddrPort("1.2.3.4:1234"), netip.MustParseAddrPort("5.6.7.8:80"))
	got, err := c.Get(key)
	must(t, err)
	if got.TupleReply != f1.TupleReply || got.Timeout == 0 {
		t.Errorf("got %v", got)
	}
	change := key
	change.Timeout = 240
	must(t, c.Update(change))
	got, err = c.Get(key)
	must(t, err)
	if got.Timeout <= 120 {
		t.Errorf("the timeout is %d", got.Timeout)
	}

	n, err := Forget(c, 6, netip.MustParseAddrPort("5.6.7.8:80"))
	must(t, err)
	if n != 1 {
		t.Errorf("forgot %d flows", n)
	}
	if _, err := c.Get(key); !errors.Is(err, unix.ENOENT) {
		t.Errorf("Get of a flow that is gone: %v", err)
	}
	must(t, c.FlushFilter(conntrack.Filter{Mark: 0xff00, Mask: 0xff00}))
	if flows, err := c.Dump(nil); err != nil || len(flows) != 0 {
		t.Errorf("after the flush: %v, %v", flows, err)
	}
}

// TestUnmarshal asserts that a program that receives messages itself can decode
// them with Unmarshal, which v0.5.1 added.
func TestUnmarshal(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, ns.Config())
	must(t, err)
	defer conn.Close()
	must(t, conn.JoinGroup(uint32(netfilter.GroupCTNew)))
	ns.UDP(client, server, false)
	messages, err := conn.Receive()
	must(t, err)
	var ev conntrack.Event
	must(t, ev.Unmarshal(messages[0]))
	const text = "[EventNew] (Unreplied) Timeout: 30, <udp, Src: 127.0.0.2:40000, Dst: 127.0.0.1:8080>, Zone 0"
	if got := fmt.Sprint(ev); !strings.HasPrefix(got, text) {
		t.Errorf("the event is %s", got)
	}
	slog.Debug("event", "event", ev.String())
}
