package conntracktest_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/conntracktest"
	"github.com/ti-mo/conntrack/netfilter"
)

// eventsOf returns the types of the events and the errors that c sees of what do
// does.
func eventsOf(t testing.TB, c *conntrack.Conn, opts conntrack.EventOptions, do func()) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var seen []string
	opts.Joined, opts.Drained = do, cancel
	for ev, err := range c.Events(ctx, append(netfilter.GroupsCT, netfilter.GroupsCTExp...), &opts) {
		switch {
		case errors.Is(err, context.Canceled):
			return seen
		case errors.Is(err, conntrack.ErrOverrun):
			seen = append(seen, "overrun")
		case err != nil:
			seen = append(seen, err.Error())
		case ev.Flow != nil:
			seen = append(seen, fmt.Sprintf("%v %d", ev.Type, ev.Flow.TupleOrig.IP.SourceAddress.As4()[3]))
		default:
			seen = append(seen, ev.Type.String())
		}
	}
	return seen
}

func TestOverrun(t *testing.T) {
	t.Parallel()
	k, c := dial(t, nil)
	require.Equal(t, []string{"EventNew 1", "overrun"}, eventsOf(t, c, conntrack.EventOptions{}, func() {
		require.NoError(t, k.Add(udp(1)))
		k.Overrun(1)
		require.NoError(t, k.Add(udp(2), udp(3)))
	}))
	require.EqualValues(t, 1, c.Overruns())
	require.Len(t, k.Flows(), 3)
}

func TestFullBuffer(t *testing.T) {
	t.Parallel()
	k, c := dial(t, nil)
	require.NoError(t, c.SetReadBuffer(10<<10))
	seen := eventsOf(t, c, conntrack.EventOptions{}, func() {
		for i := range 100 {
			require.NoError(t, k.Add(udp(i)))
		}
	})
	require.Equal(t, "overrun", seen[len(seen)-1])
	require.Greater(t, len(seen), 10)
	require.Less(t, len(seen), 50)
}

func TestReliable(t *testing.T) {
	t.Parallel()
	k, c := dial(t, nil)
	for i := range 100 {
		require.NoError(t, k.Add(udp(i)))
	}
	require.NoError(t, c.SetReadBuffer(10<<10))
	ctx, cancel := context.WithCancel(t.Context())
	ended := 0
	groups := []netfilter.NetlinkGroup{netfilter.GroupCTDestroy}
	for ev, err := range c.Events(ctx, groups, &conntrack.EventOptions{Reliable: true, Joined: func() {
		require.NoError(t, c.Flush())
		dying := 0
		for _, err := range c.Dying(ctx) {
			require.NoError(t, err)
			dying++
		}
		require.Greater(t, dying, 50)
	}}) {
		if errors.Is(err, context.Canceled) {
			break
		}
		require.NoError(t, err)
		require.Equal(t, conntrack.EventDestroy, ev.Type)
		if ended++; ended == 100 {
			cancel()
		}
	}
	cancel()
	require.Equal(t, 100, ended)
	for range c.Dying(t.Context()) {
		t.Error("dying")
	}
}

func TestHold(t *testing.T) {
	t.Parallel()
	k, c := dial(t, nil)
	release := k.Hold()
	events := make(chan conntrack.Event, 1)
	_, err := c.Listen(events, 1, netfilter.GroupsCT)
	require.NoError(t, err)
	require.NoError(t, k.Add(udp(1)))
	select {
	case ev := <-events:
		t.Error(ev)
	case <-time.After(10 * time.Millisecond):
	}
	release()
	require.Equal(t, conntrack.EventNew, (<-events).Type)
}

// TestCloseWhileListening asserts that Close ends those who wait.
func TestCloseWhileListening(t *testing.T) {
	t.Parallel()
	_, c := dial(t, nil)
	_, err := c.Listen(make(chan conntrack.Event), 4, netfilter.GroupsCT)
	require.NoError(t, err)
	joined, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for _, err := range c.Events(t.Context(), nil, &conntrack.EventOptions{Joined: func() { close(joined) }}) {
			done <- err
		}
	}()
	<-joined
	require.NoError(t, c.Close())
	require.ErrorIs(t, <-done, fs.ErrClosed)
	require.ErrorIs(t, c.Flush(), fs.ErrClosed)
}

func TestFail(t *testing.T) {
	t.Parallel()
	f := udp(1)
	ex := conntrack.Expect{TupleMaster: f.TupleOrig, Tuple: f.TupleReply, Mask: f.TupleReply, Timeout: 1}
	one := func(_ any, err error) error { return err }
	for name, tt := range map[string]struct {
		op conntracktest.Op
		do func(c *conntrack.Conn) error
	}{
		"create":        {conntracktest.OpCreate, func(c *conntrack.Conn) error { return c.Create(udp(2)) }},
		"update":        {conntracktest.OpUpdate, func(c *conntrack.Conn) error { return c.Update(f) }},
		"get":           {conntracktest.OpGet, func(c *conntrack.Conn) error { return one(c.Get(f)) }},
		"delete":        {conntracktest.OpDelete, func(c *conntrack.Conn) error { return c.Delete(f) }},
		"flush":         {conntracktest.OpFlush, func(c *conntrack.Conn) error { return c.Flush() }},
		"dump":          {conntracktest.OpDump, func(c *conntrack.Conn) error { return one(c.DumpFilter(conntrack.Filter{Mark: 1, Mask: 1}, nil)) }},
		"statistics":    {conntracktest.OpStats, func(c *conntrack.Conn) error { return one(c.Stats()) }},
		"create expect": {conntracktest.OpCreateExpect, func(c *conntrack.Conn) error { return c.CreateExpect(ex) }},
		"update expect": {conntracktest.OpUpdateExpect, func(c *conntrack.Conn) error { return c.UpdateExpect(ex) }},
		"get expect":    {conntracktest.OpGetExpect, func(c *conntrack.Conn) error { return one(c.GetExpect(ex)) }},
		"delete expect": {conntracktest.OpDeleteExpect, func(c *conntrack.Conn) error { return c.DeleteExpect(ex) }},
		"flush expects": {conntracktest.OpFlushExpect, func(c *conntrack.Conn) error { return c.FlushExpect() }},
		"dump expects":  {conntracktest.OpDumpExpect, func(c *conntrack.Conn) error { return one(c.DumpExpect()) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, c := dial(t, nil)
			require.NoError(t, k.Add(f))
			k.Fail(tt.op, syscall.EIO)
			require.ErrorIs(t, tt.do(c), syscall.EIO)
			require.NotErrorIs(t, tt.do(c), syscall.EIO, "again")
		})
	}
	k, _ := dial(t, nil)
	require.Panics(t, func() { k.Fail(conntracktest.OpGet, errors.New("no number")) })
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	k, c := dial(t, nil)
	require.NoError(t, k.Add(udp(1)))
	k.Interrupt()
	_, err := c.Dump(nil)
	require.ErrorIs(t, err, conntrack.ErrDumpInterrupted)
	_, err = c.Dump(nil)
	require.NoError(t, err)
}

func TestMiss(t *testing.T) {
	t.Parallel()
	k, c := dial(t, nil)
	require.NoError(t, k.Add(udp(1), udp(2)))
	require.NoError(t, k.Miss(udp(1)))
	flows, err := c.Dump(nil)
	require.NoError(t, err)
	require.Equal(t, k.Flows()[1:], flows)
	flows, err = c.Dump(nil)
	require.NoError(t, err)
	require.Equal(t, k.Flows(), flows)
	require.Error(t, k.Miss(udp(3)))
}

func TestBadUse(t *testing.T) {
	t.Parallel()
	k, _ := dial(t, nil)
	require.NoError(t, k.Add(udp(1)))
	require.ErrorContains(t, k.Add(udp(2), conntrack.Flow{}), "flow 1 to add")
	require.ErrorIs(t, k.Add(udp(1)), fs.ErrExist)
	require.ErrorIs(t, k.Change(udp(3)), fs.ErrNotExist)
	require.ErrorIs(t, k.Remove(udp(3)), fs.ErrNotExist)
	require.ErrorIs(t, k.Count(udp(3).FiveTuple(), false, 1, 1), fs.ErrNotExist)
	require.Panics(t, func() { k.Advance(-1) })
	require.Panics(t, func() { conntracktest.NewKernel(&conntracktest.Options{Release: "new"}) })
	require.Panics(t, func() { conntracktest.NewKernel(&conntracktest.Options{Release: "2.6"}) })
}

func TestUnprivileged(t *testing.T) {
	t.Parallel()
	k, c := dial(t, &conntracktest.Options{Unprivileged: true})
	require.NoError(t, k.Add(udp(1)), "packets need no privilege")
	require.ErrorIs(t, c.Flush(), fs.ErrPermission)
	_, err := c.Dump(nil)
	require.ErrorIs(t, err, fs.ErrPermission)
	_, err = c.Listen(nil, 1, netfilter.GroupsCT)
	require.ErrorIs(t, err, fs.ErrPermission)
	var batch *conntrack.BatchError
	require.ErrorAs(t, c.DeleteBatch([]conntrack.Flow{udp(1), udp(2)}), &batch)
	require.Len(t, batch.Failed, 2)
}

func TestFullTable(t *testing.T) {
	t.Parallel()
	k, c := dial(t, &conntracktest.Options{MaxEntries: 2})
	require.NoError(t, k.Add(udp(1), udp(2)))
	require.ErrorIs(t, c.Create(udp(3)), syscall.ENOMEM)
	stats, err := c.StatsGlobal()
	require.NoError(t, err)
	require.Equal(t, conntrack.StatsGlobal{Entries: 2, MaxEntries: 2}, stats)
	require.NoError(t, k.Remove(udp(1)))
	require.NoError(t, c.Create(udp(3)))
}

func TestEventModes(t *testing.T) {
	t.Parallel()
	for mode, want := range map[conntracktest.EventMode][]string{
		conntracktest.EventsAlways: {"EventNew 2", "EventDestroy 1", "EventDestroy 2"},
		conntracktest.EventsHeard:  {"EventNew 2", "EventDestroy 2"},
		conntracktest.EventsNever:  nil,
	} {
		k, c := dial(t, &conntracktest.Options{Events: mode})
		require.NoError(t, k.Add(udp(1)))
		require.Equal(t, want, eventsOf(t, c, conntrack.EventOptions{}, func() {
			require.NoError(t, k.Add(udp(2)))
			require.NoError(t, c.Flush())
		}))
	}
}

// TestEventFilter asserts that the program that the filters become works on the
// Kernel's events.
func TestEventFilter(t *testing.T) {
	t.Parallel()
	k, c := dial(t, nil)
	opts := conntrack.EventOptions{Filters: []conntrack.Filter{{Orig: conntrack.Tuple{IP: udp(2).TupleOrig.IP}}}}
	require.NoError(t, c.SetReadBuffer(1)) // so that what is dropped takes no room
	require.Equal(t, []string{"EventNew 2"}, eventsOf(t, c, opts, func() {
		for i := range 100 {
			require.NoError(t, k.Add(udp(i)))
		}
	}))
}

// TestReleases asserts that filters select the same on kernels that cannot do all of
// them.
func TestReleases(t *testing.T) {
	t.Parallel()
	zone := uint16(3)
	filters := []conntrack.Filter{
		{Mark: 1, Mask: 1},
		{Family: netfilter.ProtoIPv6},
		{Status: conntrack.StatusSeenReply},
		{Zone: &zone},
		{Orig: conntrack.Tuple{IP: udp(1).TupleOrig.IP}},
		{Orig: conntrack.Tuple{IP: conntrack.IPTuple{SourceAddress: netip.MustParseAddr("2001:db8::1")}}},
	}
	for _, release := range []string{"4.18", "5.4", "5.10", "5.15", "6.8", "6.12", "6.18", "7.2"} {
		for _, filter := range filters {
			k, c := dial(t, &conntracktest.Options{Release: release})
			a, b := udp(1), udp(2)
			a.Mark, b.Zone, a.Status.Value = 1, 3, conntrack.StatusSeenReply
			v6 := conntrack.NewFlow(17, 0, netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), 1, 2, 100, 0)
			require.NoError(t, k.Add(a, b, v6))
			flows, err := c.DumpFilter(filter, nil)
			require.NoError(t, err)
			require.Len(t, flows, 1, "%s %v", release, filter)
			require.True(t, filter.Match(&flows[0]))
			require.NoError(t, c.FlushFilter(filter))
			require.Len(t, k.Flows(), 2, "%s %v", release, filter)
		}
	}
}

func TestClock(t *testing.T) {
	t.Parallel()
	k, c := dial(t, &conntracktest.Options{Timestamps: true, Accounting: true})
	begin := k.Now()
	long := udp(2)
	long.Timeout = 1000
	require.NoError(t, k.Add(udp(1), long))
	require.NoError(t, k.Count(udp(1).FiveTuple(), true, 3, 400))
	require.Equal(t, []string{"EventDestroy 1"}, eventsOf(t, c, conntrack.EventOptions{}, func() { k.Advance(500 * time.Second) }))
	flows := k.Flows()
	require.Len(t, flows, 1)
	require.EqualValues(t, 500, flows[0].Timeout)
	require.True(t, begin.Equal(flows[0].Timestamp.Start))
	require.Equal(t, 500*time.Second, k.Now().Sub(begin))
}

// TestExpectation asserts that a flow that is expected ends its expectation.
func TestExpectation(t *testing.T) {
	t.Parallel()
	k, c := dial(t, nil)
	client, server := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.1")
	master := conntrack.NewFlow(conntrack.ProtocolTCP, 0, client, server, 1000, 21, 300, 0)
	master.Helper.Name = "ftp"
	require.NoError(t, k.Add(master))
	data := conntrack.NewFlow(conntrack.ProtocolTCP, 0, server, client, 20, 2000, 120, 0)
	mask := conntrack.Tuple{IP: conntrack.IPTuple{
		SourceAddress: netip.MustParseAddr("255.255.255.255"), DestinationAddress: netip.MustParseAddr("255.255.255.255"),
	}}
	ex := conntrack.Expect{TupleMaster: master.TupleOrig, Tuple: data.TupleOrig, Mask: mask}
	require.Equal(t, []string{"EventExpNew", "EventExpDestroy", "EventNew 1"}, eventsOf(t, c, conntrack.EventOptions{}, func() {
		require.NoError(t, c.CreateExpect(ex))
		require.NoError(t, k.Add(data))
	}))
	got, err := c.Get(data)
	require.NoError(t, err)
	require.Equal(t, master.TupleOrig, got.TupleMaster)
	require.True(t, got.Status.Expected())
	require.NoError(t, c.CreateExpect(ex))
	k.Advance(299 * time.Second)
	require.NoError(t, c.DeleteExpect(ex))
}

// TestTwoConns asserts that what one does the other one sees, and whose it was.
func TestTwoConns(t *testing.T) {
	t.Parallel()
	k, a := dial(t, nil)
	b := dialTo(t, k)
	require.NotEqual(t, a.PortID(), b.PortID())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for ev, err := range a.Events(ctx, nil, &conntrack.EventOptions{Joined: func() { require.NoError(t, b.Create(udp(1))) }}) {
		require.NoError(t, err)
		require.Equal(t, b.PortID(), ev.PortID)
		break
	}
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	_, c := dial(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	for _, err := range c.Events(ctx, nil, nil) {
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	require.NoError(t, c.SetOption(netlink.ListenAllNSID, true))
}

// TestSameID asserts that a flow that is added again has the ID of the one before, as
// with Linux.
func TestSameID(t *testing.T) {
	t.Parallel()
	k, c := dial(t, nil)
	require.NoError(t, k.Add(udp(1), udp(2)))
	before := k.Flows()[1]
	require.NoError(t, k.Remove(udp(2)))
	require.NoError(t, k.Add(udp(2)))
	require.Equal(t, before.ID, k.Flows()[1].ID)
	require.NotEqual(t, before.ID, k.Flows()[0].ID)
	require.NoError(t, c.Delete(before), "it is the new one")
}

// TestConcurrent is for the race detector.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	k, c := dial(t, nil)
	other := dialTo(t, k)
	k.OnDump(func(int) { _ = k.Add(udp(5000)); _ = k.Remove(udp(5000)) })
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for range c.Events(ctx, nil, nil) {
		}
	})
	var workers sync.WaitGroup
	for i := range 4 {
		workers.Go(func() {
			for j := range 50 {
				f := udp(100*i + j)
				assert.NoError(t, k.Add(f))
				assert.NoError(t, c.Update(conntrack.Flow{TupleOrig: f.TupleOrig, Mark: 1}))
				_, err := other.Dump(nil)
				assert.NoError(t, err)
				assert.NoError(t, other.Delete(f))
				k.Advance(time.Millisecond)
				k.Flows()
			}
		})
	}
	workers.Wait()
	cancel()
	wg.Wait()
	require.Empty(t, k.Flows())
}

// TestManyExpire asserts that time passes quickly over many flows.
func TestManyExpire(t *testing.T) {
	t.Parallel()
	const n = 20000
	k, c := dial(t, nil)
	flows := make([]conntrack.Flow, n)
	for i := range flows {
		flows[i] = udp(i)
		flows[i].TupleReply = flows[i].TupleOrig.Reverse()
	}
	require.NoError(t, c.CreateBatch(flows))
	require.Len(t, k.Flows(), n)
	k.Advance(time.Hour)
	require.Empty(t, k.Flows())
}
