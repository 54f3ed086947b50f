//go:build linux

package conntrack_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/netfilter"
)

// TestListenGroups asserts that each group brings only its own events.
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

			// Each round makes one event for each group. The events of the
			// second round follow those of the first directly, so there were no
			// others.
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

// TestListenEvent asserts what an event contains.
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
	// Only destroy events have counters and a start time. No event has a use
	// count.
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
	if kernelAtLeast(t, 5, 11) { // older ones leave it out
		require.Equal(t, &conntrack.ProtoInfoTCP{State: tcpEstablished}, got.ProtoInfo.TCP)
	}
	require.True(t, got.CountersReply.Direction)
	require.Equal(t, there.Timestamp.Start, got.Timestamp.Start)
	require.WithinRange(t, got.Timestamp.Stop, got.Timestamp.Start, time.Now())
}

// TestListenTraffic asserts the events of a TCP connection from its first
// packet to its end.
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

// TestListenSysctl asserts which sysctl makes the kernel send events.
func TestListenSysctl(t *testing.T) {
	t.Parallel()
	const sysctl = "net.netfilter.nf_conntrack_events"
	ns := nstest.New(t)
	c := dial(t, ns)
	ns.Sysctl(sysctl, "1") // not only for flows created while a program listens
	create(t, c, newFlow(1))
	events := listen(t, c, netfilter.GroupsCT)
	require.NoError(t, c.Delete(newFlow(1)))
	require.Equal(t, newFlow(1).TupleOrig, receive(t, events).Flow.TupleOrig)

	ns.Sysctl(sysctl, "0")
	create(t, c, newFlow(2))
	require.NoError(t, c.Delete(newFlow(2)))
	on := "2"
	if !kernelAtLeast(t, 5, 19) {
		on = "1"
	}
	ns.Sysctl(sysctl, on)
	create(t, c, newFlow(3))
	require.Equal(t, newFlow(3).TupleOrig, receive(t, events).Flow.TupleOrig)
}

// TestListenOrder asserts that one worker receives events in order, and several
// receive all.
func TestListenOrder(t *testing.T) {
	t.Parallel()
	const (
		n       = 300
		waiting = 50 // few enough for the default buffer
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
	// The first listener is not affected.
	create(t, c, newFlow(1))
	require.Equal(t, newFlow(1).TupleOrig, receive(t, events).Flow.TupleOrig)
}

// TestListenAgain asserts that Listen can be called again after it failed.
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

// TestListenNothing asserts that Listen needs at least one group, and does
// nothing without.
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

// TestListenClose asserts that Close ends workers that wait for an event or for
// a reader, even if nobody reads the channels.
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

// TestListenOverrun asserts that lost events are reported, and that later
// events arrive.
func TestListenOverrun(t *testing.T) {
	t.Parallel()
	const n = 2000
	ns := nstest.New(t)
	listener, c := dial(t, ns), dial(t, ns)
	require.NoError(t, listener.SetReadBuffer(8192))
	events := make(chan conntrack.Event)
	errs, err := listener.Listen(events, 1, netfilter.GroupsCT)
	require.NoError(t, err)

	// Nobody reads the events.
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

	// No more events are lost.
	for i := range 10 {
		f := newFlow6(i)
		create(t, c, f)
		for receive(t, events).Flow.TupleOrig != f.TupleOrig {
		}
	}
	require.Empty(t, errs)
}

// TestListenOverrunQuiet asserts that an overrun is reported even if no event
// follows it, with any number of workers.
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

// TestListenSettings asserts that options and buffer sizes apply to running and
// later listeners.
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

// requireEventsGoOn creates f and asserts that one of its events arrives
// eventually: the kernel drops events until all queued ones have been read.
// Events of other flows are passed to other.
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

// TestListenManyOverruns asserts that unread overruns do not stop the events.
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

// TestListenWithDumps asserts that a Conn that listens can do everything else.
func TestListenWithDumps(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	events := listen(t, c, netfilter.GroupsCT)
	const n = 30 // few enough for the default buffer
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

// TestForeign asserts that a message from another program is counted but has no
// effect.
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

// lastMark is the mark of the flow that ends a test.
const lastMark = 0xe0d

func lastFlow() conntrack.Flow {
	return with(newFlow6(0), func(f *conntrack.Flow) { f.Mark = lastMark })
}

func manyFlows(n int) []conntrack.Flow {
	flows := make([]conntrack.Flow, n)
	for i := range flows {
		flows[i] = newFlow(i)
	}
	return flows
}

// drops returns how many events the kernel has dropped for all sockets of the
// namespace (column Drops of /proc/net/netlink).
func drops(t *testing.T, ns *nstest.NS) (n int) {
	t.Helper()
	ns.Do(func() error {
		b, err := os.ReadFile("/proc/thread-self/net/netlink")
		if err != nil {
			return err
		}
		lines := bufio.NewScanner(bytes.NewReader(b))
		for lines.Scan() {
			fields := strings.Fields(lines.Text())
			if fields[1] != fmt.Sprint(unix.NETLINK_NETFILTER) {
				continue
			}
			var dropped int
			if _, err := fmt.Sscan(fields[8], &dropped); err != nil {
				return err
			}
			n += dropped
		}
		return nil
	})
	return n
}

// TestEventsOverrun asserts that a slow consumer learns of an overrun where the
// gap is, and can continue. The events received and the events dropped add up.
func TestEventsOverrun(t *testing.T) {
	t.Parallel()
	const n = 20_000
	ns := nstest.New(t)
	c := dial(t, ns)
	require.NoError(t, c.SetReadBuffer(256<<10))
	flows := manyFlows(n)

	received, overruns, last := 0, 0, false
	for ev, err := range c.Events(t.Context(), []netfilter.NetlinkGroup{netfilter.GroupCTNew}, &conntrack.EventOptions{
		Joined: func() { create(t, c, newFlow6(1)) },
	}) {
		switch {
		case err != nil:
			require.ErrorIs(t, err, conntrack.ErrOverrun)
			overruns++
			// All events from here on are received, and the table shows all
			// that happened before.
			table, err := c.Dump(nil)
			require.NoError(t, err)
			require.Len(t, table, n+1)
			create(t, c, lastFlow())
		case received == 0:
			// The socket's buffer fills up while this loop is busy.
			require.NoError(t, c.CreateBatch(flows))
			received++
		case ev.Flow.Mark == lastMark:
			last = true
		default:
			received++
		}
		if last {
			break
		}
	}
	require.Equal(t, 1, overruns)
	require.EqualValues(t, 1, c.Overruns())
	require.Less(t, received, n)
}

// TestEventsAddUp asserts that the events received and the events that the
// kernel reports as dropped are all events.
func TestEventsAddUp(t *testing.T) {
	t.Parallel()
	const n = 20_000
	ns := nstest.New(t)
	c := dial(t, ns)
	require.NoError(t, c.SetReadBuffer(64<<10))
	flows := manyFlows(n)

	received, sent, dropped := 0, 0, 0
	send := func(k int) {
		require.NoError(t, c.CreateBatch(flows[sent:sent+k]))
		sent += k
	}
	for ev, err := range c.Events(t.Context(), []netfilter.NetlinkGroup{netfilter.GroupCTNew}, &conntrack.EventOptions{
		Joined: func() { send(1) },
	}) {
		if err != nil {
			require.ErrorIs(t, err, conntrack.ErrOverrun)
			if sent < n {
				send(n / 10) // overruns the socket again
				continue
			}
			create(t, c, lastFlow())
			continue
		}
		if ev.Flow.Mark == lastMark {
			dropped = drops(t, ns)
			break
		}
		received++
		if received == 1 {
			send(n - 1 - 3*n/10)
		}
	}
	require.Greater(t, c.Overruns(), uint64(1))
	require.Equal(t, n, received+dropped)
}

// TestEventsReasons asserts that the error at the end of the loop says why it
// ended.
func TestEventsReasons(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	group := []netfilter.NetlinkGroup{netfilter.GroupCTNew}
	last := func(c *conntrack.Conn, ctx context.Context, joined func()) (err error) {
		for _, err = range c.Events(ctx, group, &conntrack.EventOptions{Joined: joined}) {
			require.Error(t, err)
		}
		return err
	}
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := dial(t, ns)
		err := last(c, ctx, cancel)
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, fs.ErrClosed)
		require.NoError(t, c.Create(newFlow(1)), "the Conn goes on")
		require.ErrorIs(t, last(c, ctx, nil), context.Canceled, "cancelled before")
	})
	t.Run("deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.ErrorIs(t, last(dial(t, ns), ctx, nil), context.DeadlineExceeded)
	})
	t.Run("closed", func(t *testing.T) {
		c := dial(t, ns)
		err := last(c, t.Context(), func() { require.NoError(t, c.Close()) })
		require.ErrorIs(t, err, fs.ErrClosed)
		require.ErrorIs(t, last(c, t.Context(), nil), fs.ErrClosed, "closed before")
	})
	t.Run("no such group", func(t *testing.T) {
		c := dial(t, ns)
		for _, err := range c.Events(t.Context(), []netfilter.NetlinkGroup{200}, nil) {
			require.ErrorIs(t, err, unix.EINVAL)
		}
	})
}

// TestEventsBody asserts that the loop body can use the Conn.
func TestEventsBody(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	c := dial(t, ns)
	deleted := 0
	opts := &conntrack.EventOptions{Joined: func() { require.NoError(t, c.CreateBatch(manyFlows(100))) }}
	for ev, err := range c.Events(t.Context(), netfilter.GroupsCT, opts) {
		require.NoError(t, err)
		if ev.Type == conntrack.EventDestroy {
			if deleted++; deleted == 100 {
				break
			}
			continue
		}
		require.Equal(t, ev.Flow.ID, get(t, c, *ev.Flow).ID)
		require.NoError(t, c.Delete(*ev.Flow))
	}
	table, err := c.Dump(nil)
	require.NoError(t, err)
	require.Empty(t, table)
}

// TestEventsAreKept asserts that an Event belongs to the caller: later ones do
// not change it.
func TestEventsAreKept(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	ns.Labels()
	c := dial(t, ns)
	const n = 500
	label := func(i int) []byte {
		return binary.BigEndian.AppendUint64(make([]byte, 8, 16), uint64(i)+1)
	}
	var events []conntrack.Event
	opts := &conntrack.EventOptions{Joined: func() {
		flows := manyFlows(n)
		for i := range flows {
			flows[i].TupleOrig.Proto.Protocol, flows[i].TupleReply.Proto.Protocol = 6, 6
			flows[i].ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: uint8(1 + i%9)}
			flows[i].Labels = label(i)
		}
		require.NoError(t, c.CreateBatch(flows))
	}}
	for ev, err := range c.Events(t.Context(), []netfilter.NetlinkGroup{netfilter.GroupCTNew}, opts) {
		require.NoError(t, err)
		if events = append(events, ev); len(events) == n {
			break
		}
	}
	for i, ev := range events {
		require.Equal(t, newFlow(i).TupleOrig.IP, ev.Flow.TupleOrig.IP)
		require.Equal(t, uint8(1+i%9), ev.Flow.ProtoInfo.TCP.State)
		require.Equal(t, label(i), ev.Flow.Labels)
	}
}

func TestEventTime(t *testing.T) {
	needKernel(t, 6, 14, "CTA_TIMESTAMP_EVENT")
	t.Parallel()
	ns := nstest.New(t, nstest.Timestamps())
	c := dial(t, ns)
	before := time.Now()
	opts := &conntrack.EventOptions{Joined: func() {
		create(t, c, newFlow(1))
		require.NoError(t, c.Delete(newFlow(1)))
	}}
	var times []time.Time
	for ev, err := range c.Events(t.Context(), netfilter.GroupsCT, opts) {
		require.NoError(t, err)
		times = append(times, ev.Time)
		if ev.Type == conntrack.EventDestroy {
			break
		}
	}
	require.Len(t, times, 2)
	require.False(t, times[0].Before(before.Add(-time.Second)), "%v, %v", before, times[0])
	require.True(t, times[1].After(times[0]))
	require.False(t, times[1].After(time.Now().Add(time.Second)))
}

// TestEventNSID asserts that an event from another namespace carries its id.
func TestEventNSID(t *testing.T) {
	t.Parallel()
	here, there := nstest.New(t), nstest.New(t)
	const id = 42
	setNSID(t, here, there, id)
	c, other := dial(t, here), dial(t, there)
	require.NoError(t, c.SetOption(netlink.ListenAllNSID, true))
	opts := &conntrack.EventOptions{Joined: func() {
		create(t, c, newFlow(1))
		create(t, other, newFlow(2))
	}}
	n := 0
	for ev, err := range c.Events(t.Context(), []netfilter.NetlinkGroup{netfilter.GroupCTNew}, opts) {
		require.NoError(t, err)
		got, ok := ev.NSID.ID()
		if n++; n == 1 {
			require.False(t, ok, "the Conn's own namespace has id %d", got)
			require.Equal(t, newFlow(1).TupleOrig, ev.Flow.TupleOrig)
			continue
		}
		require.True(t, ok)
		require.Equal(t, id, got)
		require.Equal(t, newFlow(2).TupleOrig, ev.Flow.TupleOrig)
		break
	}
}

// setNSID assigns id to the namespace of within the namespace in (RTM_NEWNSID,
// rtnetlink(7)).
func setNSID(t *testing.T, in, of *nstest.NS, id uint32) {
	t.Helper()
	c, err := netlink.Dial(unix.NETLINK_ROUTE, in.Config())
	require.NoError(t, err)
	defer c.Close()
	const netnsaNSID, netnsaFD = 1, 3 // NETNSA_NSID, NETNSA_FD
	e := netlink.NewAttributeEncoder()
	e.Uint32(netnsaNSID, id)
	e.Uint32(netnsaFD, uint32(of.FD()))
	attrs, err := e.Encode()
	require.NoError(t, err)
	_, err = c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_NEWNSID, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append([]byte{unix.AF_UNSPEC, 0, 0, 0}, attrs...), // struct rtgenmsg
	})
	require.NoError(t, err)
}

// TestEventPortID asserts that an event says which socket caused it.
func TestEventPortID(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	c, other := dial(t, ns), dial(t, ns)
	require.NotEqual(t, c.PortID(), other.PortID())
	events := listen(t, c, netfilter.GroupsCT)
	for _, by := range []*conntrack.Conn{c, other} {
		create(t, by, newFlow(1))
		require.Equal(t, by.PortID(), receive(t, events).PortID)
		require.NoError(t, by.Flush())
		require.Equal(t, by.PortID(), receive(t, events).PortID)
	}
	ns.UDP(client4, server4, false)
	require.Zero(t, receive(t, events).PortID)
}

// TestEventsGroups asserts that no groups means all events of flows.
func TestEventsGroups(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	var types []conntrack.EventType
	opts := &conntrack.EventOptions{Joined: func() {
		create(t, c, newFlow(1))
		require.NoError(t, c.Update(conntrack.Flow{TupleOrig: newFlow(1).TupleOrig, Mark: 1}))
		require.NoError(t, c.Flush())
	}}
	for ev, err := range c.Events(t.Context(), nil, opts) {
		require.NoError(t, err)
		if types = append(types, ev.Type); len(types) == 3 {
			break
		}
	}
	require.Equal(t, []conntrack.EventType{conntrack.EventNew, conntrack.EventUpdate, conntrack.EventDestroy}, types)
}

// TestEventsNotJoined asserts that Joined is not called if joining fails.
func TestEventsNotJoined(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	opts := &conntrack.EventOptions{Joined: func() { t.Error("called") }}
	for _, err := range c.Events(t.Context(), []netfilter.NetlinkGroup{netfilter.GroupCTNew, 200}, opts) {
		require.ErrorIs(t, err, unix.EINVAL)
	}
}

// TestEventsDrained asserts that Drained is called after all queued events were
// passed, and not before.
func TestEventsDrained(t *testing.T) {
	t.Parallel()
	const n = 200
	tests := []struct {
		name   string
		joined int // flows created before the loop starts
	}{
		{"nothing queued", 0},
		{"one queued", 1},
		{"many queued", n},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			c := dial(t, nstest.New(t))
			require.NoError(t, c.SetReadBuffer(4<<20))
			passed, created := 0, 0
			add := func(n int) {
				require.NoError(t, c.CreateBatch(manyFlows(created + n)[created:]))
				created += n
			}
			var drained []int // number of events passed before each call
			for _, err := range c.Events(ctx, nil, &conntrack.EventOptions{
				Joined: func() { add(tt.joined) },
				Drained: func() {
					switch drained = append(drained, passed); len(drained) {
					case 1:
						add(n)
					case 2:
						add(1)
					default:
						cancel()
					}
				},
			}) {
				if err != nil {
					require.ErrorIs(t, err, context.Canceled)
					break
				}
				passed++
			}
			require.Equal(t, []int{tt.joined, tt.joined + n, tt.joined + n + 1}, drained)
		})
	}
}

// TestEventsFence asserts that a function sent to Fence is called after all
// earlier events were passed, whether the loop is waiting or busy.
func TestEventsFence(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	c := dial(t, nstest.New(t))
	require.NoError(t, c.SetReadBuffer(4<<20))
	fence, joined := make(chan func()), make(chan struct{})
	var loop sync.WaitGroup
	passed := 0
	loop.Go(func() {
		for _, err := range c.Events(ctx, nil, &conntrack.EventOptions{
			Joined: func() { close(joined) },
			Fence:  fence,
		}) {
			if err != nil {
				assert.ErrorIs(t, err, context.Canceled)
				return
			}
			passed++
		}
	})
	receive(t, joined)
	ask := func() int {
		answer := make(chan int, 1)
		fence <- func() { answer <- passed }
		return receive(t, answer)
	}
	require.Zero(t, ask())
	require.Zero(t, ask())
	created := 0
	for left := manyFlows(8000); len(left) > 0; {
		n := min(1+created%80, len(left))
		require.NoError(t, c.CreateBatch(left[:n]))
		left, created = left[n:], created+n
		require.Equal(t, created, ask())
	}

	// Functions that arrive together need no further request to the kernel.
	answers := make(chan int, 3)
	for range 3 {
		fence <- func() { answers <- passed }
	}
	for range 3 {
		require.Equal(t, created, receive(t, answers))
	}
	close(fence)
	create(t, c, newFlow6(1))
	cancel()
	within(t, loop.Wait)
}

// TestEventsFenceBusy asserts that Fence does not wait for a stream of events
// to end.
func TestEventsFenceBusy(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	ns := nstest.New(t)
	c := dial(t, ns)
	fence, joined := make(chan func()), make(chan struct{})
	var others sync.WaitGroup
	var passed atomic.Uint32 // the last mark passed
	others.Go(func() {
		for ev, err := range c.Events(ctx, nil, &conntrack.EventOptions{
			Joined: func() { close(joined) }, Fence: fence, Reuse: true,
		}) {
			switch {
			case err == nil:
				passed.Store(max(passed.Load(), ev.Flow.Mark))
			case !errors.Is(err, conntrack.ErrOverrun):
				assert.ErrorIs(t, err, context.Canceled)
			}
		}
	})
	receive(t, joined)
	create(t, c, newFlow(1))
	var sent atomic.Uint32
	others.Go(func() {
		for ctx.Err() == nil {
			assert.NoError(t, c.Update(conntrack.Flow{TupleOrig: newFlow(1).TupleOrig, Mark: sent.Load() + 1}))
			sent.Add(1)
		}
	})
	answer := make(chan uint32)
	for before := uint32(0); before < 2000; {
		before = sent.Load()
		fence <- func() { answer <- passed.Load() }
		require.GreaterOrEqual(t, receive(t, answer), before)
	}
	cancel()
	within(t, others.Wait)
}

// TestEventsFenceHeld asserts that a loop that is busy takes no more than a few
// functions ahead, and that nil among them does no harm.
func TestEventsFenceHeld(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	c := dial(t, nstest.New(t))
	fence, joined, release := make(chan func()), make(chan struct{}), make(chan struct{})
	var loop sync.WaitGroup
	loop.Go(func() {
		for range c.Events(ctx, nil, &conntrack.EventOptions{Joined: func() { close(joined) }, Fence: fence}) {
			<-release
		}
	})
	receive(t, joined)
	create(t, c, newFlow(1))
	held := 0
	for taken := true; taken && held < 1000; {
		select {
		case fence <- nil:
			held++
		case <-time.After(100 * time.Millisecond):
			taken = false
		}
	}
	require.LessOrEqual(t, held, 64)
	close(release)
	called := make(chan struct{})
	fence <- func() { close(called) }
	receive(t, called)
	cancel()
	within(t, loop.Wait)
}

// TestEventsFenceEnds asserts that functions are left in Fence when the loop
// ends.
func TestEventsFenceEnds(t *testing.T) {
	ns := nstest.New(t)
	leaksNothing(t, func() {
		c, err := conntrack.Dial(ns.Config())
		require.NoError(t, err)
		for range 20 {
			ctx, cancel := context.WithCancel(t.Context())
			fence := make(chan func())
			called := make(chan struct{})
			go func() {
				fence <- func() { cancel(); close(called) }
			}()
			for _, err := range c.Events(ctx, nil, &conntrack.EventOptions{Fence: fence}) {
				require.ErrorIs(t, err, context.Canceled)
			}
			receive(t, called)
			select {
			case fence <- func() {}:
				t.Error("received after the end")
			default:
			}
		}
		require.NoError(t, c.Close())
	})
}

// TestEventsReuse asserts that Reuse overwrites the Flow, but not a copy of it.
func TestEventsReuse(t *testing.T) {
	t.Parallel()
	const n = 200
	ns := nstest.New(t)
	ns.Labels()
	c := dial(t, ns)
	flow := func(i int) conntrack.Flow {
		f := newFlow(i)
		if i%2 == 0 {
			f.TupleOrig.Proto.Protocol, f.TupleReply.Proto.Protocol = unix.IPPROTO_TCP, unix.IPPROTO_TCP
			f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: uint8(1 + i%9)}
			f.Labels = binary.BigEndian.AppendUint64(make([]byte, 8, 16), uint64(i)+1)
			f.Mark = uint32(i)
		}
		return f
	}
	var copies []conntrack.Flow
	var flows []*conntrack.Flow
	opts := &conntrack.EventOptions{Reuse: true, Joined: func() {
		for i := range n {
			create(t, c, flow(i))
		}
	}}
	for ev, err := range c.Events(t.Context(), []netfilter.NetlinkGroup{netfilter.GroupCTNew}, opts) {
		require.NoError(t, err)
		flows = append(flows, ev.Flow)
		if copies = append(copies, *ev.Flow); len(copies) == n {
			break
		}
	}
	for i, got := range copies {
		require.Same(t, flows[0], flows[i])
		want := flow(i)
		want.ID, want.Timeout = got.ID, got.Timeout
		want.Status.Value |= conntrack.StatusConfirmed
		require.Equal(t, want, got, "nothing is left of the one before")
	}
}

// TestEventsReliable asserts that with Reliable, every destroy event arrives,
// even with a small buffer and a slow loop.
func TestEventsReliable(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		groups   []netfilter.NetlinkGroup
		n        int
		overruns bool
	}{
		{"destroyed flows", []netfilter.NetlinkGroup{netfilter.GroupCTDestroy}, 20_000, false},
		{"all of flows", nil, 5000, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			c := dial(t, ns)
			require.NoError(t, c.SetReadBuffer(64<<10))
			ended := make(map[conntrack.Tuple]int, tt.n)
			read := 0
			opts := &conntrack.EventOptions{Reliable: true, Reuse: true, Joined: func() {
				require.NoError(t, c.CreateBatch(manyFlows(tt.n)))
				_, err := c.DeleteFunc(t.Context(), conntrack.Filter{}, func(*conntrack.Flow) bool { return true })
				require.NoError(t, err)
			}}
			for ev, err := range c.Events(t.Context(), tt.groups, opts) {
				if err != nil {
					require.ErrorIs(t, err, conntrack.ErrOverrun)
					continue
				}
				if read++; read%100 == 0 {
					time.Sleep(time.Millisecond) // slower than the events come
				}
				if ev.Type == conntrack.EventDestroy {
					ended[ev.Flow.TupleOrig]++
				}
				if len(ended) == tt.n {
					break
				}
			}
			for flow, times := range ended {
				require.Equal(t, 1, times, "%s", flow)
			}
			require.Equal(t, tt.overruns, c.Overruns() > 0)
		})
	}
}

// TestEventsReliableNew asserts that with Reliable, a flow whose new event was
// lost is reported by its next event.
func TestEventsReliableNew(t *testing.T) {
	t.Parallel()
	const n = 1000
	ns := nstest.New(t)
	c := dial(t, ns)
	require.NoError(t, c.SetReadBuffer(64<<10))
	opts := &conntrack.EventOptions{Reliable: true, Joined: func() { require.NoError(t, c.CreateBatch(manyFlows(n))) }}
	known := make(map[conntrack.Tuple]bool)
	for ev, err := range c.Events(t.Context(), nil, opts) {
		if err != nil {
			require.ErrorIs(t, err, conntrack.ErrOverrun)
			require.Less(t, len(known), n)
			for i := range n {
				if f := newFlow(i); !known[f.TupleOrig] {
					require.NoError(t, c.Update(conntrack.Flow{TupleOrig: f.TupleOrig, Mark: 1}))
				}
			}
			continue
		}
		require.Equal(t, conntrack.EventNew, ev.Type)
		if known[ev.Flow.TupleOrig] = true; len(known) == n {
			break
		}
	}
}
