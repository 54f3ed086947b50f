//go:build linux

package conntrack_test

import (
	"context"
	"io/fs"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/netfilter"
)

// TestListenGroups asserts that each group brings its events and no other.
func TestListenGroups(t *testing.T) {
	t.Parallel()
	type groups = []netfilter.NetlinkGroup
	type types = []conntrack.EventType
	tests := []struct {
		name   string
		groups groups
		want   types
	}{
		{"new", groups{netfilter.GroupCTNew}, types{conntrack.EventNew}},
		{"update", groups{netfilter.GroupCTUpdate}, types{conntrack.EventUpdate}},
		{"destroy", groups{netfilter.GroupCTDestroy}, types{conntrack.EventDestroy}},
		{"all of flows", netfilter.GroupsCT, types{conntrack.EventNew, conntrack.EventUpdate, conntrack.EventDestroy}},
		{"new expectations", groups{netfilter.GroupCTExpNew}, types{conntrack.EventExpNew}},
		{"destroyed expectations", groups{netfilter.GroupCTExpDestroy}, types{conntrack.EventExpDestroy}},
		{"all of expectations", netfilter.GroupsCTExp, types{conntrack.EventExpNew, conntrack.EventExpDestroy}},
		{
			"new of both", groups{netfilter.GroupCTNew, netfilter.GroupCTExpNew},
			types{conntrack.EventNew, conntrack.EventExpNew},
		},
		{
			"all", append(groups{netfilter.GroupCTExpNew, netfilter.GroupCTExpDestroy}, netfilter.GroupsCT...),
			types{conntrack.EventNew, conntrack.EventExpNew, conntrack.EventUpdate, conntrack.EventDestroy, conntrack.EventExpDestroy},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, nstest.New(t))
			events := listen(t, c, tt.groups)

			// Each round makes one event for each group. The second one's follow
			// the first one's, so there were no others.
			for _, f := range []conntrack.Flow{
				newMaster("ftp", unix.IPPROTO_TCP, client4, server4),
				newMaster("tftp", unix.IPPROTO_UDP, client6, server6),
			} {
				create(t, c, f)
				require.NoError(t, c.CreateExpect(newExpect(f, netip.AddrPortFrom(f.TupleOrig.IP.DestinationAddress, 1))))
				require.NoError(t, c.Update(conntrack.Flow{TupleOrig: f.TupleOrig, Mark: 1}))
				require.NoError(t, c.Delete(f))
				for _, want := range tt.want {
					ev := receive(t, events)
					require.Equal(t, want, ev.Type)
					if ev.Flow != nil {
						require.Nil(t, ev.Expect)
						require.Equal(t, f.TupleOrig, ev.Flow.TupleOrig)
						require.Equal(t, f.TupleReply, ev.Flow.TupleReply)
					} else {
						require.Equal(t, f.TupleOrig, ev.Expect.TupleMaster)
					}
				}
			}
		})
	}
}

// TestListenEvent asserts what an event tells about its flow.
func TestListenEvent(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, nstest.Accounting(), nstest.Timestamps())
	ns.Labels()
	c := dial(t, ns)
	events := listen(t, c, netfilter.GroupsCT)
	next := func(want conntrack.EventType) conntrack.Flow {
		t.Helper()
		ev := receive(t, events)
		require.Equal(t, want, ev.Type)
		return *ev.Flow
	}
	f := newMaster("ftp", unix.IPPROTO_TCP, client6, server6)
	f.Mark = 0xbeef
	f.Zone = 3
	f.Labels = []byte{1, 15: 2}
	f.Status.Value = conntrack.StatusConfirmed | conntrack.StatusSeenReply | conntrack.StatusHelper
	f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: tcpEstablished}
	create(t, c, f)
	// Events have no counters but at the end, no use count, and no time of
	// beginning but at the end.
	want := with(f, func(f *conntrack.Flow) { f.ID = get(t, c, *f).ID })
	got := next(conntrack.EventNew)
	require.False(t, got.Counted())
	require.InDelta(t, want.Timeout, got.Timeout, 1, "what is left of it")
	got.Timeout = want.Timeout
	require.Equal(t, want, got)

	require.NoError(t, c.Update(conntrack.Flow{TupleOrig: f.TupleOrig, Zone: 3, Mark: 0xcafe}))
	want.Mark = 0xcafe
	got = next(conntrack.EventUpdate)
	got.Timeout = want.Timeout
	require.Equal(t, want, got)

	there := get(t, c, f)
	require.NoError(t, c.Delete(f))
	got = next(conntrack.EventDestroy)
	require.True(t, got.Counted())
	require.Empty(t, got.Labels)
	require.Empty(t, got.Helper)
	require.True(t, got.Status.Dying())
	require.Equal(t, there.ID, got.ID)
	require.Equal(t, there.Mark, got.Mark)
	require.Equal(t, there.Zone, got.Zone)
	require.Equal(t, &conntrack.ProtoInfoTCP{State: tcpEstablished}, got.ProtoInfo.TCP)
	require.True(t, got.CountersReply.Direction)
	require.Equal(t, there.Timestamp.Start, got.Timestamp.Start)
	require.WithinRange(t, got.Timestamp.Stop, got.Timestamp.Start, time.Now())
}

// TestListenTraffic follows a TCP connection from its first packet to its end.
func TestListenTraffic(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, nstest.Accounting())
	c := dial(t, ns)
	events := listen(t, c, netfilter.GroupsCT)
	ns.TCP(client6, server6).Close()
	require.NoError(t, c.Flush())

	ev := receive(t, events)
	require.Equal(t, conntrack.EventNew, ev.Type)
	require.Equal(t, uint8(tcpSynSent), ev.Flow.ProtoInfo.TCP.State)
	require.False(t, ev.Flow.Status.SeenReply())
	var states []uint8
	for {
		ev = receive(t, events)
		require.Equal(t, tuple(unix.IPPROTO_TCP, client6, server6), ev.Flow.TupleOrig)
		if ev.Type == conntrack.EventDestroy {
			break
		}
		require.Equal(t, conntrack.EventUpdate, ev.Type)
		require.True(t, ev.Flow.Status.SeenReply())
		states = append(states, ev.Flow.ProtoInfo.TCP.State)
	}
	require.IsNonDecreasing(t, states)
	require.Contains(t, states, uint8(tcpEstablished))
	require.Equal(t, uint8(tcpTimeWait), states[len(states)-1])
	require.GreaterOrEqual(t, ev.Flow.CountersOrig.Packets, uint64(4))
}

// TestListenSysctl pins what makes the kernel tell of a flow.
func TestListenSysctl(t *testing.T) {
	t.Parallel()
	const sysctl = "net.netfilter.nf_conntrack_events"
	ns := nstest.New(t)
	c := dial(t, ns)
	ns.Sysctl(sysctl, "1") // and not just for flows made while somebody listens
	create(t, c, newFlow(1))
	events := listen(t, c, netfilter.GroupsCT)
	require.NoError(t, c.Delete(newFlow(1)))
	require.Equal(t, newFlow(1).TupleOrig, receive(t, events).Flow.TupleOrig)

	ns.Sysctl(sysctl, "0")
	create(t, c, newFlow(2))
	require.NoError(t, c.Delete(newFlow(2)))
	ns.Sysctl(sysctl, "2")
	create(t, c, newFlow(3))
	require.Equal(t, newFlow(3).TupleOrig, receive(t, events).Flow.TupleOrig)
}

// TestListenOrder asserts that one worker keeps the order, and several get
// everything.
func TestListenOrder(t *testing.T) {
	t.Parallel()
	const (
		n       = 300
		waiting = 50 // so few that the default buffer holds them
	)
	for _, workers := range []uint8{1, 4, 255} {
		ns := nstest.New(t)
		c := dial(t, ns)
		events := make(chan conntrack.Event)
		errs, err := c.Listen(events, workers, []netfilter.NetlinkGroup{netfilter.GroupCTNew, netfilter.GroupCTDestroy})
		require.NoError(t, err)

		want := make([]conntrack.Tuple, n)
		got := make([]conntrack.Tuple, n)
		for i := range n {
			f := newFlow(i)
			if i%2 == 1 {
				f = newFlow6(i)
			}
			create(t, c, f)
			want[i] = f.TupleOrig
			if i >= waiting {
				got[i-waiting] = receive(t, events).Flow.TupleOrig
			}
		}
		for i := n - waiting; i < n; i++ {
			got[i] = receive(t, events).Flow.TupleOrig
		}
		require.Empty(t, errs)
		if workers == 1 {
			require.Equal(t, want, got)
		} else {
			require.ElementsMatch(t, want, got)
		}
	}
}

func TestListenTwice(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	events := listen(t, c, netfilter.GroupsCT)
	errs, err := c.Listen(make(chan conntrack.Event), 1, netfilter.GroupsCTExp)
	require.ErrorIs(t, err, conntrack.ErrListening)
	require.Nil(t, errs)
	// The first one does not mind.
	create(t, c, newFlow(1))
	require.Equal(t, newFlow(1).TupleOrig, receive(t, events).Flow.TupleOrig)
}

// TestListenAgain asserts that a Listen that failed has left nothing.
func TestListenAgain(t *testing.T) {
	ns := nstest.New(t)
	c := dial(t, ns)
	leaksNothing(t, func() {
		for _, groups := range [][]netfilter.NetlinkGroup{{200}, {netfilter.GroupCTNew, 200}} {
			errs, err := c.Listen(make(chan conntrack.Event), 1, groups)
			require.ErrorIs(t, err, unix.EINVAL)
			require.Nil(t, errs)
		}
	})
	events := listen(t, c, netfilter.GroupsCT)
	create(t, c, newFlow(1))
	require.Equal(t, newFlow(1).TupleOrig, receive(t, events).Flow.TupleOrig)
}

// TestListenNothing asserts that Listen takes at least one group, and does nothing
// without.
func TestListenNothing(t *testing.T) {
	c := dial(t, nstest.New(t))
	for _, groups := range [][]netfilter.NetlinkGroup{nil, {}} {
		leaksNothing(t, func() {
			errs, err := c.Listen(make(chan conntrack.Event), 1, groups)
			require.ErrorContains(t, err, "need one or more multicast groups to join")
			require.Nil(t, errs)
		})
	}
	events := listen(t, c, netfilter.GroupsCT)
	create(t, c, newFlow(1))
	require.Equal(t, newFlow(1).TupleOrig, receive(t, events).Flow.TupleOrig)
}

// TestListenChannels asserts what may be done with the channels after Close.
func TestListenChannels(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	events := make(chan conntrack.Event)
	errs, err := c.Listen(events, 4, netfilter.GroupsCT)
	require.NoError(t, err)
	create(t, c, newFlow(1), newFlow(2))
	within(t, func() { require.NoError(t, c.Close()) })
	close(errs)
	close(events)
	require.Empty(t, errs, "Close is no error")

	_, err = c.Listen(events, 1, netfilter.GroupsCT)
	require.ErrorIs(t, err, fs.ErrClosed)
	require.ErrorIs(t, err, unix.EBADF)
}

// TestListenClose closes Conns that listen, while the workers wait for an event
// or for a reader, and nobody reads either channel.
func TestListenClose(t *testing.T) {
	ns := nstest.New(t)
	other := dial(t, ns)
	leaksNothing(t, func() {
		for i := range 200 {
			c, err := conntrack.Dial(ns.Config())
			require.NoError(t, err)
			_, err = c.Listen(make(chan conntrack.Event), uint8(i%3+1), netfilter.GroupsCT)
			require.NoError(t, err)
			for range i % 4 {
				create(t, other, newFlow(i))
				require.NoError(t, other.Delete(newFlow(i)))
			}
			within(t, func() { require.NoError(t, c.Close()) })
		}
	})
}

// TestListenOverrun asserts that lost events are told, and that others follow.
func TestListenOverrun(t *testing.T) {
	t.Parallel()
	const n = 2000
	ns := nstest.New(t)
	listener, c := dial(t, ns), dial(t, ns)
	require.NoError(t, listener.SetReadBuffer(8192))
	events := make(chan conntrack.Event)
	errs, err := listener.Listen(events, 1, netfilter.GroupsCT)
	require.NoError(t, err)

	// Nobody reads.
	for i := range n {
		create(t, c, newFlow(i))
	}
	var seen []int
	requireEventsGoOn(t, c, events, newFlow6(n), func(ev conntrack.Event) {
		require.Equal(t, conntrack.EventNew, ev.Type)
		address := ev.Flow.TupleOrig.IP.SourceAddress.As4()
		seen = append(seen, int(address[2])<<8|int(address[3]))
	})
	require.NotEmpty(t, seen)
	require.Less(t, len(seen), n)
	require.IsIncreasing(t, seen)

	require.NotEmpty(t, errs)
	require.Equal(t, uint64(len(errs)), listener.Overruns())
	for len(errs) > 0 {
		err := <-errs
		require.ErrorIs(t, err, conntrack.ErrOverrun)
		require.ErrorIs(t, err, unix.ENOBUFS)
		require.NotErrorIs(t, err, fs.ErrClosed)
	}

	// Nothing is lost any more.
	for i := range 10 {
		f := newFlow6(i)
		create(t, c, f)
		for receive(t, events).Flow.TupleOrig != f.TupleOrig {
		}
	}
	require.Empty(t, errs)
}

// TestListenOverrunQuiet asserts that an overrun is told though no event follows it,
// however many workers there are.
func TestListenOverrunQuiet(t *testing.T) {
	t.Parallel()
	for _, workers := range []uint8{1, 2, 3, 8, 255} {
		t.Run(strconv.Itoa(int(workers)), func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			listener, c := dial(t, ns), dial(t, ns)
			require.NoError(t, listener.SetReadBuffer(64<<10))
			events := make(chan conntrack.Event)
			errs, err := listener.Listen(events, workers, netfilter.GroupsCT)
			require.NoError(t, err)
			for range 3 {
				require.NoError(t, c.CreateBatch(manyFlows(2000)))
				require.NoError(t, c.Flush())
				for told := false; !told; {
					select {
					case <-events:
					case err := <-errs:
						require.ErrorIs(t, err, conntrack.ErrOverrun)
						told = true
					case <-time.After(patience):
						require.FailNow(t, "no overrun told")
					}
				}
			}
			require.GreaterOrEqual(t, listener.Overruns(), uint64(3))
		})
	}
}

// TestListenSettings asserts that options and buffer sizes hold for listeners,
// those that are there already and those to come.
func TestListenSettings(t *testing.T) {
	t.Parallel()
	const n = 500
	small := func(c *conntrack.Conn) error { return c.SetReadBuffer(8192) }
	silent := func(c *conntrack.Conn) error { return c.SetOption(netlink.NoENOBUFS, true) }
	none := func(*conntrack.Conn) error { return nil }
	tests := []struct {
		name          string
		before, after func(c *conntrack.Conn) error
		told          bool
	}{
		{"buffer before", small, none, true},
		{"buffer after", none, small, true},
		{"buffer before, option after", small, silent, false},
		{"option before, buffer after", silent, small, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			listener, c := dial(t, ns), dial(t, ns)
			require.NoError(t, tt.before(listener))
			events := make(chan conntrack.Event)
			errs, err := listener.Listen(events, 1, netfilter.GroupsCT)
			require.NoError(t, err)
			require.NoError(t, tt.after(listener))
			for i := range n {
				create(t, c, newFlow(i))
			}
			seen := 0
			requireEventsGoOn(t, c, events, newFlow6(1), func(conntrack.Event) { seen++ })
			require.Less(t, seen, n)
			require.Equal(t, tt.told, len(errs) > 0)
		})
	}
}

// requireEventsGoOn creates f and asserts that an event of it comes sooner or
// later: the kernel drops events until all of those that wait have been read.
// Those of other flows are passed to other.
func requireEventsGoOn(t testing.TB, c *conntrack.Conn, events <-chan conntrack.Event, f conntrack.Flow, other func(conntrack.Event)) {
	t.Helper()
	create(t, c, f)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		select {
		case ev := <-events:
			if ev.Flow.TupleOrig == f.TupleOrig {
				return
			}
			other(ev)
		case <-time.After(10 * time.Millisecond):
			require.NoError(t, c.Update(f))
		}
	}
	require.FailNow(t, "no event")
}

// TestListenManyOverruns asserts that overruns that nobody reads do not stop the
// events.
func TestListenManyOverruns(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	listener, c := dial(t, ns), dial(t, ns)
	require.NoError(t, listener.SetReadBuffer(8192))
	events := make(chan conntrack.Event)
	errs, err := listener.Listen(events, 1, netfilter.GroupsCT)
	require.NoError(t, err)
	for round := range 20 {
		for i := range 100 {
			create(t, c, newFlow(i))
			require.NoError(t, c.Delete(newFlow(i)))
		}
		requireEventsGoOn(t, c, events, newFlow6(round), func(conntrack.Event) {})
	}
	require.NotEmpty(t, errs)
	for len(errs) > 0 {
		require.ErrorIs(t, <-errs, conntrack.ErrOverrun)
	}
}

// TestListenWithDumps asserts that a Conn that listens serves all else.
func TestListenWithDumps(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	events := listen(t, c, netfilter.GroupsCT)
	const n = 30 // so few that the default buffer holds all events
	for i := range n {
		create(t, c, newFlow(i))
	}
	seen := 0
	for f, err := range c.Flows(context.Background(), conntrack.Filter{}, nil) {
		require.NoError(t, err)
		require.NoError(t, c.Delete(f))
		seen++
	}
	require.Equal(t, n, seen)
	counts := make(map[conntrack.EventType]int)
	for range 2 * n {
		counts[receive(t, events).Type]++
	}
	require.Equal(t, map[conntrack.EventType]int{conntrack.EventNew: n, conntrack.EventDestroy: n}, counts)
}

// TestForeign asserts that a message that another program sends has no effect, and
// is counted.
func TestForeign(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	c := dial(t, ns)
	create(t, c, newFlow(1))
	ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		to := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: c.PortID()}
		return unix.Sendto(fd, make([]byte, 100), 0, to)
	})
	require.Zero(t, c.Foreign())
	require.Equal(t, newFlow(1).TupleOrig, get(t, c, newFlow(1)).TupleOrig)
	require.EqualValues(t, 1, c.Foreign())
}
