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
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
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

// All ways in which a loop over Events, and Listen, can end, in all orders.
func TestEventsEnd(t *testing.T) {
	const parts = 4
	ns := nstest.New(t)
	leaksNothing(t, func() {
		t.Run("parts", func(t *testing.T) {
			for part := range parts {
				t.Run(strconv.Itoa(part), func(t *testing.T) {
					t.Parallel()
					for i := range rounds(t, 1000) / parts {
						testEventsEnd(t, ns, rand.New(rand.NewPCG(uint64(i), uint64(part))))
					}
				})
			}
		})
	})
}

func testEventsEnd(t *testing.T, ns *nstest.NS, r *rand.Rand) {
	t.Helper()
	c, err := conntrack.Dial(ns.Config())
	require.NoError(t, err)
	require.NoError(t, c.SetReadBuffer(4096)) // for overruns
	ctx, cancel := context.WithCancel(t.Context())
	if r.IntN(2) == 0 {
		_, err := c.Listen(make(chan conntrack.Event), 1+uint8(r.IntN(3)), netfilter.GroupsCT) // nobody reads
		require.NoError(t, err)
	}

	var loops sync.WaitGroup
	var ends []error
	var mu sync.Mutex
	for range 1 + r.IntN(3) {
		leaveAfter := r.IntN(30)
		joined := make(chan struct{})
		loops.Go(func() {
			n := 0
			for _, err := range c.Events(ctx, netfilter.GroupsCT, &conntrack.EventOptions{Joined: func() { close(joined) }}) {
				if n++; n == leaveAfter {
					break
				}
				mu.Lock()
				ends = append(ends, err)
				mu.Unlock()
			}
		})
		<-joined
	}
	steps := []func(){
		func() { _ = c.CreateBatch(manyFlows(50)); _ = c.DeleteBatch(manyFlows(50)) },
		cancel,
		func() { _ = c.Close() },
	}
	r.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	for _, step := range steps {
		within(t, step)
	}
	within(t, loops.Wait)
	for _, err := range ends {
		if err != nil {
			ok := false
			for _, want := range []error{conntrack.ErrOverrun, context.Canceled, fs.ErrClosed} {
				ok = ok || errors.Is(err, want)
			}
			require.True(t, ok, "%v", err)
		}
	}
	cancel()
	require.NoError(t, c.Close())
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
