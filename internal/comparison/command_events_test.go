//go:build linux

package comparison_test

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/netfilter"
)

// TestConntrackStats asserts that both show the same counters of each CPU. The
// test makes some of them count.
func TestConntrackStats(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	const udp = unix.IPPROTO_UDP
	ns := nstest.New(t)
	c := dial(t, ns)
	// This counts insert and found: the translated port is taken.
	ns.SNAT(udp, server4, netip.AddrPortFrom(other4.Addr(), 0))
	create(t, c, flowBetween(udp, netip.AddrPortFrom(other4.Addr(), client4.Port()), server4))
	ns.UDP(client4, server4, true)
	// This counts invalid or error: the TCP header is truncated.
	ns.Raw(unix.IPPROTO_TCP, client4.Addr(), server4.Addr(), []byte{1, 2, 3, 4})

	sum := make(map[string]uint32)
	requireEventually(t, func() (ours, theirs map[uint16]map[string]uint32) {
		theirs = parseStats(t, run(t, ns, "-S"))
		stats, err := c.Stats()
		require.NoError(t, err)
		ours = make(map[uint16]map[string]uint32)
		clear(sum)
		for _, s := range stats {
			ours[s.CPUID] = statsOf(s)
			for name, n := range ours[s.CPUID] {
				sum[name] += n
				// Counters that the kernel does not send are not listed.
				if _, listed := theirs[s.CPUID][name]; !listed && n == 0 {
					delete(ours[s.CPUID], name)
				}
			}
		}
		return ours, theirs
	}, nil)
	require.NotZero(t, sum["found"])
	require.NotZero(t, sum["insert"])
	require.NotZero(t, sum["invalid"]+sum["error"])
}

// TestConntrackStatsExpect asserts that both show the same counters for
// expectations, and the same numbers of flows and expectations.
func TestConntrackStatsExpect(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	ns := nstest.New(t)
	c := dial(t, ns)
	master := newMaster("ftp", unix.IPPROTO_TCP, client4, server4)
	create(t, c, master)
	// This creates an expectation, fulfills it, and creates another one.
	require.NoError(t, c.CreateExpect(newExpect(master, other4)))
	ns.UDP(client4, other4, false)
	require.NoError(t, c.CreateExpect(newExpect(master, other4)))

	var sum conntrack.StatsExpect
	requireEventually(t, func() (ours, theirs map[uint16]map[string]uint32) {
		theirs = parseStats(t, run(t, ns, "-S expect"))
		stats, err := c.StatsExpect()
		require.NoError(t, err)
		ours, sum = make(map[uint16]map[string]uint32), conntrack.StatsExpect{}
		for _, s := range stats {
			ours[s.CPUID] = map[string]uint32{"expect_new": s.New, "expect_create": s.Create, "expect_delete": s.Delete}
			sum.New += s.New
			sum.Create += s.Create
			sum.Delete += s.Delete
		}
		return ours, theirs
	}, nil)
	require.Equal(t, conntrack.StatsExpect{New: 1, Create: 2, Delete: 1}, sum)

	stats, err := c.StatsGlobal()
	require.NoError(t, err)
	require.Equal(t, uint32(2), stats.Entries)
	require.Equal(t, "2", strings.TrimSpace(run(t, ns, "-C")))
	expects, err := c.DumpExpect()
	require.NoError(t, err)
	require.Len(t, expects, 1)
	require.Equal(t, "1", strings.TrimSpace(run(t, ns, "-C expect")))
}

func statsOf(s conntrack.Stats) map[string]uint32 {
	return map[string]uint32{
		"found": s.Found, "invalid": s.Invalid, "ignore": s.Ignore, "insert": s.Insert, "insert_failed": s.InsertFailed,
		"drop": s.Drop, "early_drop": s.EarlyDrop, "error": s.Error, "search_restart": s.SearchRestart,
		"clash_resolve": s.ClashResolve, "chaintoolong": s.ChainTooLong,
		"searched": s.Searched, "new": s.New, "delete": s.Delete, "delete_list": s.DeleteList,
	}
}

// parseStats parses lines such as "cpu=0 found=1 ...". It returns the counters
// by CPU and name.
func parseStats(t *testing.T, output string) map[uint16]map[string]uint32 {
	t.Helper()
	stats := make(map[uint16]map[string]uint32)
	for line := range strings.Lines(output) {
		counters := make(map[string]uint32)
		for _, word := range strings.Fields(line) {
			name, value, _ := strings.Cut(word, "=")
			n, err := strconv.ParseUint(value, 10, 32)
			require.NoError(t, err, line)
			counters[name] = uint32(n)
		}
		require.Contains(t, counters, "cpu")
		cpu := uint16(counters["cpu"])
		delete(counters, "cpu")
		stats[cpu] = counters
	}
	return stats
}

// TestConntrackEvents asserts that conntrack -E and this package receive the
// same events.
func TestConntrackEvents(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	const tcp, udp = unix.IPPROTO_TCP, unix.IPPROTO_UDP
	tests := []struct {
		name string
		do   func(t *testing.T, ns *nstest.NS, c *conntrack.Conn)
		want []string // types of the first events
	}{
		{
			"by this package", func(t *testing.T, _ *nstest.NS, c *conntrack.Conn) {
				ns := with(newFlow(1), func(f *conntrack.Flow) { f.Mark, f.Zone = 7, 3 })
				create(t, c, ns, newFlow6(1), with(newFlow(2), func(f *conntrack.Flow) { f.TupleOrig.Zone = 9 }))
				require.NoError(t, c.Update(with(newFlow6(1), func(f *conntrack.Flow) { f.Mark = 5 })))
				require.NoError(t, c.Update(with(newFlow6(1), func(f *conntrack.Flow) { f.MarkMask = 0xff })))
				require.NoError(t, c.Update(with(newFlow6(1), func(f *conntrack.Flow) { f.Status.Value = conntrack.StatusAssured })))
				require.NoError(t, c.Update(with(newFlow6(1), func(f *conntrack.Flow) { f.Labels = []byte{1, 15: 0x80} })))
				require.NoError(t, c.Delete(ns))
				require.NoError(t, c.Flush())
			}, []string{"new", "new", "new", "update", "update", "update", "update", "destroy", "destroy", "destroy"},
		},
		{
			"by conntrack(8)", func(t *testing.T, ns *nstest.NS, _ *conntrack.Conn) {
				const flow = "-p sctp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 2 "
				run(t, ns, "-I "+flow+"-t 100 --state COOKIE_WAIT --orig-vtag 1 --reply-vtag 2 --label-add label9")
				run(t, ns, "-U -p sctp -s 10.0.0.1 -m 0x10")
				run(t, ns, "-U -p sctp -s 10.0.0.1 --state ESTABLISHED --orig-vtag 1 --reply-vtag 2")
				run(t, ns, "-U -p sctp -s 10.0.0.1 --label-add label100")
				run(t, ns, "-D "+flow)
			}, []string{"new", "update", "update", "update", "destroy"},
		},
		{
			"TCP", func(_ *testing.T, ns *nstest.NS, _ *conntrack.Conn) {
				ns.TCP(client4, server4).Close()
				ns.TCP(client6, server6).Abort()
			}, []string{"new", "update", "update", "update"},
		},
		{
			"UDP and ICMP", func(t *testing.T, ns *nstest.NS, c *conntrack.Conn) {
				ns.UDP(client4, server4, true)
				ns.UDP(client6, server6, false)
				ns.ICMPEcho(server4.Addr(), 5)
				ns.ICMPEcho(server6.Addr(), 5)
				require.NoError(t, c.Flush())
			}, []string{"new", "update", "new", "new", "update", "new", "update", "destroy", "destroy", "destroy", "destroy"},
		},
		{
			"NAT, mark, label and zone", func(t *testing.T, ns *nstest.NS, c *conntrack.Conn) {
				ns.DNAT(udp, server4, other4)
				ns.SNAT(udp, other4, netip.AddrPortFrom(server4.Addr(), 7))
				ns.UDPThrough(client4, server4, other4, true)
				ns.Mark(udp, server6.Port(), 9)
				ns.Label(udp, server6.Port(), [16]byte{1, 15: 0x80})
				ns.Zone(udp, server6.Port(), 6)
				ns.UDP(client6, server6, true)
				require.NoError(t, c.Flush())
			}, []string{"new", "update", "new", "update", "destroy", "destroy"},
		},
		{
			"helper", func(_ *testing.T, ns *nstest.NS, _ *conntrack.Conn) {
				ns.Helper("ftp", tcp, server4.Port())
				p := ns.TCP(client4, server4)
				p.Send([]byte("USER anonymous\r\n"))
				p.Send([]byte("PORT 127,0,0,2,200,10\r\n"))
				ns.TCP(netip.AddrPortFrom(server4.Addr(), 20), netip.AddrPortFrom(client4.Addr(), 51210))
			}, []string{"new", "update", "update", "new", "update", "update"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t, nstest.Accounting(), nstest.Timestamps())
			ns.Labels()
			c := dial(t, ns)
			theirs := events[xmlFlow](t, ns, "-E -o xml,timestamp,id,ktimestamp,labels")
			ours := listen(t, dial(t, ns), netfilter.GroupsCT)
			awaitListeners(t, ns, 2)
			awaitBoth(t, c, ours, theirs)
			tt.do(t, ns, c)
			create(t, c, lastFlow())

			var types []string
			for last := false; !last; {
				ev := receive(t, ours)
				require.NotNil(t, ev.Flow)
				last = ev.Flow.Mark == lastMark
				their, our := receive(t, theirs), asXML(ev.Flow, time.Now())
				requireWhen(t, ev.Time, their.When)
				our.Type, their.When = xmlType(ev.Type), nil
				adaptEvent(&our, &their)
				require.Equal(t, their, our)
				types = append(types, our.Type)
			}
			require.Greater(t, len(types), len(tt.want), types)
			require.Equal(t, tt.want, types[:len(tt.want)])
		})
	}
}

func xmlType(typ conntrack.EventType) string {
	switch typ {
	case conntrack.EventNew, conntrack.EventExpNew:
		return "new"
	case conntrack.EventUpdate:
		return "update"
	case conntrack.EventDestroy, conntrack.EventExpDestroy:
		return "destroy"
	}
	return typ.String()
}

// requireWhen asserts that their shows the time of the event. It may be a
// little later, as it is the time of receipt.
func requireWhen(t *testing.T, happened time.Time, their *xmlWhen) {
	t.Helper()
	require.NotNil(t, their)
	require.Empty(t, their.Rest)
	at := time.Date(their.Year, time.Month(their.Month), their.Day, their.Hour, their.Minute, their.Second, 0, time.UTC)
	require.Equal(t, int(at.Weekday())+1, their.Weekday)
	if happened.IsZero() {
		happened = time.Now()
	}
	require.WithinDuration(t, happened, at, patience)
}

// adaptEvent removes from ours what the kernel does not send: a mark of zero,
// and some timeouts. The elapsed time may differ by a second.
func adaptEvent(ours, theirs *xmlFlow) {
	if len(theirs.Metas) != 3 {
		return
	}
	our, their := &ours.Metas[2], &theirs.Metas[2]
	for _, field := range []struct{ ours, theirs *string }{{&our.Mark, &their.Mark}, {&our.Timeout, &their.Timeout}} {
		if *field.theirs == "" && *field.ours == "0" {
			*field.ours = ""
		}
	}
	adaptTime(&our.DeltaTime, their.DeltaTime)
}

// events starts a conntrack(8) that prints received events as XML elements of
// type T, and returns them.
func events[T any](t *testing.T, ns *nstest.NS, args string) <-chan T {
	t.Helper()
	cmd := conntrackCommand(t, strings.Fields(args)...)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	ns.Do(cmd.Start)
	elements := make(chan T, 4096)
	done := make(chan struct{})
	go func() {
		defer close(done)
		decode(stdout, elements)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		<-done
		_ = cmd.Wait()
	})
	return elements
}

// decode sends the elements named flow of an XML document.
func decode[T any](r io.Reader, elements chan<- T) {
	d := xml.NewDecoder(r)
	for {
		token, err := d.Token()
		if err != nil {
			return
		}
		start, ok := token.(xml.StartElement)
		if !ok || start.Name.Local != "flow" {
			continue
		}
		var element T
		if d.DecodeElement(&element, &start) != nil {
			return
		}
		elements <- element
	}
}

// awaitBoth creates and deletes flows until conntrack(8) has shown the end of
// one: on slow machines, it sometimes misses the first event. It leaves no
// event of these flows in either channel.
func awaitBoth(t *testing.T, c *conntrack.Conn, ours <-chan conntrack.Event, theirs <-chan xmlFlow) {
	t.Helper()
	f := newFlow(999)
	for f.Mark = 0xbeef0000; ; f.Mark++ {
		create(t, c, f)
		require.NoError(t, c.Delete(f))
		require.Less(t, f.Mark, uint32(0xbeef0000+20), "conntrack -E shows nothing")
		if awaitDestroy(theirs, fmt.Sprint(f.Mark)) {
			break
		}
	}
	for ev := receive(t, ours); ev.Type != conntrack.EventDestroy || ev.Flow.Mark != f.Mark; {
		ev = receive(t, ours)
	}
}

// awaitDestroy reports whether the end of the flow with the given mark is shown
// within a second.
func awaitDestroy(theirs <-chan xmlFlow, mark string) bool {
	timeout := time.After(time.Second)
	for {
		select {
		case their := <-theirs:
			if their.Type == "destroy" && their.Metas[2].Mark == mark {
				return true
			}
		case <-timeout:
			return false
		}
	}
}

// awaitListeners waits until n sockets in ns are listening.
func awaitListeners(t *testing.T, ns *nstest.NS, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		listening := 0
		ns.Do(func() error {
			sockets, err := os.ReadFile("/proc/thread-self/net/netlink")
			for line := range strings.Lines(string(sockets)) {
				fields := strings.Fields(line)
				if fields[1] == strconv.Itoa(unix.NETLINK_NETFILTER) && fields[3] != "00000000" {
					listening++
				}
			}
			return err
		})
		return listening == n
	}, patience, time.Millisecond)
}

// TestConntrackExpectEvents asserts that conntrack -E expect and this package
// receive the same events.
func TestConntrackExpectEvents(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	ns := nstest.New(t)
	ns.Helper("ftp", unix.IPPROTO_TCP, server4.Port())
	c := dial(t, ns)
	theirs := events[xmlExpect](t, ns, "-E expect -o xml,timestamp,id")
	ours := listen(t, dial(t, ns), netfilter.GroupsCTExp)
	awaitListeners(t, ns, 2)

	p := ns.TCP(client4, server4)
	p.Send([]byte("USER anonymous\r\n"))
	p.Send([]byte("PORT 127,0,0,2,200,10\r\n"))
	ns.TCP(netip.AddrPortFrom(server4.Addr(), 20), netip.AddrPortFrom(client4.Addr(), 51210))
	master := newMaster("ftp", unix.IPPROTO_TCP, client6, server6)
	create(t, c, master)
	last := newExpect(master, server6)
	require.NoError(t, c.CreateExpect(last))
	run(t, ns, "-F expect")

	var types []string
	for done := false; !done; {
		ev := receive(t, ours)
		require.NotNil(t, ev.Expect)
		done = ev.Type == conntrack.EventExpDestroy && ev.Expect.Tuple == last.Tuple
		their, our := receive(t, theirs), asXMLExpect(ev.Expect)
		requireWhen(t, ev.Time, their.Meta.When)
		our.Type, their.Meta.When = xmlType(ev.Type), nil
		require.Equal(t, their, our)
		types = append(types, our.Type)
	}
	// Over loopback, the helper reads everything twice. Its second expectation
	// replaces the first.
	require.Equal(t, []string{"new", "destroy", "new", "destroy", "new", "destroy"}, types)
}

// TestConntrackListsDying asserts that -L dying lists flows as they were
// before. Their last event does not fit into the buffer of a listener that
// requires it.
func TestConntrackListsDying(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	const n = 5
	ns := nstest.New(t, nstest.Timestamps())
	c := dial(t, ns)
	config := ns.Config()
	config.Groups = 1 << (netfilter.GroupCTDestroy - 1)
	listener, err := netlink.Dial(unix.NETLINK_NETFILTER, config)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, listener.Close()) })
	require.NoError(t, listener.SetOption(netlink.BroadcastError, true))
	require.NoError(t, listener.SetReadBuffer(1)) // the kernel raises it to its minimum

	for i := range n {
		create(t, c, with(newFlow(i), func(f *conntrack.Flow) { f.Mark = uint32(i) }), newFlow6(i))
	}
	before := map[string]map[string]xmlFlow{"ipv4": xmlFlows(t, c, "ipv4"), "ipv6": xmlFlows(t, c, "ipv6")}
	require.NoError(t, c.Flush())
	flows, err := c.Dump(nil)
	require.NoError(t, err)
	require.Empty(t, flows)

	dying := make(map[string]xmlFlow)
	for family := range before {
		maps.Copy(dying, listedFlows(t, run(t, ns, "-L dying -o xml,id,ktimestamp -f "+family)))
	}
	require.NotEmpty(t, dying)
	ends := lastEvents(t, listener, 2*n)
	for id, f := range dying {
		our := before[f.Metas[0].Layer3.Name][id]
		our.Metas[2].Timestamp.Stop = asXML(ends[id], time.Now()).Metas[2].Timestamp.Stop
		adaptTime(&our.Metas[2].Timeout, f.Metas[2].Timeout)
		adaptTime(&our.Metas[2].DeltaTime, f.Metas[2].DeltaTime)
		require.Equal(t, f, our)
	}
}

// lastEvents receives the destroy events of n flows, which the kernel keeps
// trying to deliver.
func lastEvents(t *testing.T, listener *netlink.Conn, n int) map[string]*conntrack.Flow {
	t.Helper()
	require.NoError(t, listener.SetReadDeadline(time.Now().Add(patience)))
	flows := make(map[string]*conntrack.Flow)
	for len(flows) < n {
		messages, err := listener.Receive()
		if errors.Is(err, unix.ENOBUFS) {
			continue
		}
		require.NoError(t, err)
		for _, m := range messages {
			var ev conntrack.Event
			require.NoError(t, ev.Unmarshal(m))
			flows[fmt.Sprint(ev.Flow.ID)] = ev.Flow
		}
	}
	return flows
}
