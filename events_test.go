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
	"os"
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
// namespace: the column Drops of /proc/net/netlink.
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

// A consumer that stops in the middle of a burst is told of the overrun where
// the gap is, goes on afterwards, and what it received and what the kernel
// dropped add up.
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
			// What happens from here on is received, and the table shows all
			// that happened before.
			table, err := c.Dump(nil)
			require.NoError(t, err)
			require.Len(t, table, n+1)
			create(t, c, lastFlow())
		case received == 0:
			// The socket's buffer fills while this loop is busy.
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

// What was received and what the kernel says it dropped is all that there was.
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
				send(n / 10) // which overruns the socket again
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

// The end of the loop says why it ended.
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

// The loop body may do everything else with the Conn.
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

// An Event is the caller's: later ones do not change it.
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

// Events of another namespace tell which one it is.
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

// setNSID gives a namespace an id in another one (RTM_NEWNSID, rtnetlink(7)).
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

// TestEventPortID asserts that an event tells whose doing it is.
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

// No groups stand for all events of flows.
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

// Joined is not called where joining fails.
func TestEventsNotJoined(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	opts := &conntrack.EventOptions{Joined: func() { t.Error("called") }}
	for _, err := range c.Events(t.Context(), []netfilter.NetlinkGroup{netfilter.GroupCTNew, 200}, opts) {
		require.ErrorIs(t, err, unix.EINVAL)
	}
}

// Drained is called when all that is queued was passed, and not in between.
func TestEventsDrained(t *testing.T) {
	t.Parallel()
	const n = 200
	tests := []struct {
		name   string
		joined int // flows that are created before the loop begins
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
			var drained []int // what was passed before
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

// A function sent to Fence is called when all that happened before has been passed,
// whether the loop waits for events or has many to pass.
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

	// Nothing has to ask again for those that come together.
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

// While events go on coming, Fence does not wait for their end.
func TestEventsFenceBusy(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	ns := nstest.New(t)
	c := dial(t, ns)
	fence, joined := make(chan func()), make(chan struct{})
	var others sync.WaitGroup
	var passed atomic.Uint32 // the last mark
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

// The end of a loop leaves what was sent to Fence behind.
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

// With Reuse the Flow is overwritten, and a copy of it is not.
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

// With Reliable each destroy arrives, however small the buffer and slow the loop.
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
					time.Sleep(time.Millisecond) // slower than the flows went
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

// With Reliable, the next event of a flow whose beginning was lost tells of it.
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
