//go:build linux

package conntrack_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/netfilter"
)

// TestConcurrent asserts that many goroutines get correct results from one
// Conn.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	const (
		writers = 8
		each    = 12 // few enough for the buffer to hold all events, even if net.core.rmem_max limits it
	)
	c := dial(t, nstest.New(t))
	require.NoError(t, c.SetReadBuffer(4<<20))
	events := make(chan conntrack.Event, 3*writers*each)
	errs, err := c.Listen(events, 2, netfilter.GroupsCT)
	require.NoError(t, err)

	failed := make(chan error, 100)
	var wg, readers sync.WaitGroup
	done := make(chan struct{})
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := liveFlow(c, newFlow(w*each+i)); err != nil {
					failed <- err
				}
			}
		})
	}
	for name, read := range readings(writers) {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := read(c); err != nil {
					failed <- fmt.Errorf("%s: %w", name, err)
					return
				}
			}
		})
	}
	within(t, wg.Wait)
	close(done)
	within(t, readers.Wait)
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	stats, err := c.StatsGlobal()
	require.NoError(t, err)
	require.Zero(t, stats.Entries)

	// Each flow was created, updated and destroyed.
	count := make(map[conntrack.EventType]int)
	for range 3 * writers * each {
		count[receive(t, events).Type]++
	}
	require.Empty(t, errs)
	for _, typ := range []conntrack.EventType{conntrack.EventNew, conntrack.EventUpdate, conntrack.EventDestroy} {
		require.Equal(t, writers*each, count[typ], "%s", typ)
	}
}

// liveFlow creates, reads, changes and deletes a flow.
func liveFlow(c *conntrack.Conn, f conntrack.Flow) error {
	f.Mark = 1
	if err := c.Create(f); err != nil {
		return err
	}
	if err := c.Create(f); !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("create again: %w", err)
	}
	f.Mark = 2
	if err := c.Update(f); err != nil {
		return err
	}
	got, err := c.Get(f)
	if err != nil {
		return err
	}
	if got.Mark != f.Mark || got.TupleOrig != f.TupleOrig || got.TupleReply != f.TupleReply {
		return fmt.Errorf("got %v, mark %d", got.TupleOrig, got.Mark)
	}
	if err := c.Delete(got); err != nil {
		return err
	}
	if _, err := c.Get(f); !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("get after delete: %w", err)
	}
	return nil
}

// readings are calls that may run while other goroutines change at most that
// many flows.
func readings(most int) map[string]func(c *conntrack.Conn) error {
	check := func(flows []conntrack.Flow, err error) error {
		if err != nil {
			return err
		}
		for _, f := range flows {
			if f.Mark != 1 && f.Mark != 2 || f.TupleOrig.Proto != newFlow(0).TupleOrig.Proto {
				return fmt.Errorf("unknown flow %s, mark %d", f.TupleOrig, f.Mark)
			}
		}
		return nil
	}
	return map[string]func(c *conntrack.Conn) error{
		"Dump": func(c *conntrack.Conn) error { return check(c.Dump(nil)) },
		"DumpFilter": func(c *conntrack.Conn) error {
			flows, err := c.DumpFilter(conntrack.Filter{Mark: 2, Mask: 0xffffffff}, nil)
			for _, f := range flows {
				if f.Mark != 2 {
					return fmt.Errorf("mark %d", f.Mark)
				}
			}
			return check(flows, err)
		},
		"Flows": func(c *conntrack.Conn) error {
			for f, err := range c.Flows(context.Background(), conntrack.Filter{}, nil) {
				if err := check([]conntrack.Flow{f}, err); err != nil {
					return err
				}
				break
			}
			return nil
		},
		"DumpExpect": func(c *conntrack.Conn) error {
			expects, err := c.DumpExpect()
			if len(expects) != 0 {
				return fmt.Errorf("%d expectations", len(expects))
			}
			return err
		},
		"Stats": func(c *conntrack.Conn) error {
			stats, err := c.Stats()
			if err == nil && len(stats) == 0 {
				return errors.New("no statistics")
			}
			return err
		},
		"StatsExpect": func(c *conntrack.Conn) error {
			_, err := c.StatsExpect()
			return err
		},
		"StatsGlobal": func(c *conntrack.Conn) error {
			stats, err := c.StatsGlobal()
			if stats.Entries > uint32(most) {
				return fmt.Errorf("%d entries", stats.Entries)
			}
			return err
		},
		"SetReadBuffer": func(c *conntrack.Conn) error { return c.SetReadBuffer(4 << 20) },
	}
}

// TestCloseWhileInUse asserts that calls that are running when a Conn is closed
// either succeed or return fs.ErrClosed, and leave nothing behind.
func TestCloseWhileInUse(t *testing.T) {
	ns := nstest.New(t)
	filler := dial(t, ns)
	for i := range 100 {
		f := newFlow6(i)
		f.Mark = 1
		create(t, filler, f)
	}
	leaksNothing(t, func() {
		for range 5 {
			c, err := conntrack.Dial(ns.Config())
			require.NoError(t, err)
			var wg sync.WaitGroup
			var busy sync.WaitGroup
			failed := make(chan error, 100)
			use := func(name string, do func(c *conntrack.Conn) error) {
				busy.Add(1)
				wg.Go(func() {
					err := do(c)
					busy.Done()
					for ; err == nil; err = do(c) {
					}
					if !errors.Is(err, fs.ErrClosed) || !errors.Is(err, unix.EBADF) {
						failed <- fmt.Errorf("%s: %w", name, err)
					}
				})
			}
			_, err = c.Listen(make(chan conntrack.Event), 2, netfilter.GroupsCT)
			require.NoError(t, err)
			for name, read := range readings(1000) {
				use(name, read)
			}
			for w := range 3 {
				use("flow", func(c *conntrack.Conn) error { return liveFlow(c, newFlow(w)) })
			}
			within(t, busy.Wait)
			within(t, func() { require.NoError(t, c.Close()) })
			within(t, wg.Wait)
			close(failed)
			for err := range failed {
				t.Error(err)
			}
			for w := range 3 {
				_ = filler.Delete(newFlow(w)) // may be left over
			}
		}
	})
}

// TestCloseTogether asserts that several goroutines can close a Conn at once.
func TestCloseTogether(t *testing.T) {
	ns := nstest.New(t)
	leaksNothing(t, func() {
		c, err := conntrack.Dial(ns.Config())
		require.NoError(t, err)
		_, err = c.Listen(make(chan conntrack.Event), 2, netfilter.GroupsCT)
		require.NoError(t, err)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { require.NoError(t, c.Close()) })
		}
		within(t, wg.Wait)
	})
}

// TestFlowsLeftEarly asserts that a Conn works after loops over flows were left
// early, and in their bodies.
func TestFlowsLeftEarly(t *testing.T) {
	ns := nstest.New(t)
	c := dial(t, ns)
	for i := range 500 {
		create(t, c, newFlow(i))
	}
	require.Len(t, mustDump(t, c), 500) // opens the socket that is kept
	leaksNothing(t, func() {
		for i := range 50 {
			ctx, cancel := context.WithCancel(t.Context())
			seen := 0
			for f, err := range c.Flows(ctx, conntrack.Filter{}, nil) {
				if err != nil {
					require.ErrorIs(t, err, context.Canceled)
					break
				}
				get(t, c, f)
				if seen++; seen == 3 {
					if i%2 == 0 {
						break
					}
					cancel()
				}
			}
			cancel()
			require.Equal(t, 3, seen)
		}
	})
	require.Len(t, mustDump(t, c), 500)
}

func mustDump(t testing.TB, c *conntrack.Conn) []conntrack.Flow {
	t.Helper()
	flows, err := c.Dump(nil)
	require.NoError(t, err)
	return flows
}

// TestChaos asserts that a Conn survives everything at once, in random order:
// calls that end by Close, by the context, by a break or by a panic, and
// overruns. It runs for the time in CONNTRACK_TEST_CHAOS.
func TestChaos(t *testing.T) {
	duration := 2 * time.Second
	if s := os.Getenv("CONNTRACK_TEST_CHAOS"); s != "" {
		var err error
		duration, err = time.ParseDuration(s)
		require.NoError(t, err)
	}
	spaces := []*nstest.NS{nstest.New(t), nstest.New(t)}
	leaksNothing(t, func() {
		end := time.Now().Add(duration)
		for seed := uint64(0); time.Now().Before(end) && !t.Failed(); seed++ {
			r := rand.New(rand.NewPCG(seed, 0))
			c := newChaos(t, spaces[r.IntN(len(spaces))])
			c.run(r)
			if t.Failed() {
				t.Logf("with the seed %d", seed)
			}
		}
	})
}

// chaos is a Conn and its users.
type chaos struct {
	t      *testing.T
	conn   *conntrack.Conn
	ctx    context.Context
	cancel context.CancelFunc
	fence  chan func()
	actors sync.WaitGroup
}

func newChaos(t *testing.T, ns *nstest.NS) *chaos {
	t.Helper()
	conn, err := conntrack.Dial(ns.Config())
	require.NoError(t, err)
	c := &chaos{t: t, conn: conn, fence: make(chan func())}
	c.ctx, c.cancel = context.WithCancel(t.Context())
	return c
}

func (c *chaos) run(r *rand.Rand) {
	c.t.Helper()
	defer c.cancel()
	c.check(c.conn.SetReadBuffer(4096 << r.IntN(6)))
	actors := []func(*rand.Rand){c.watch, c.listen, c.dump, c.change, c.ask}
	for range 2 + r.IntN(8) {
		actor, r := actors[r.IntN(len(actors))], rand.New(rand.NewPCG(r.Uint64(), 0))
		c.actors.Go(func() { actor(r) })
	}
	ends := []func(){c.cancel, func() { c.check(c.conn.Close()) }, func() { c.check(c.conn.SetReadBuffer(1 << 20)) }}
	r.Shuffle(len(ends), func(i, j int) { ends[i], ends[j] = ends[j], ends[i] })
	for _, end := range ends {
		time.Sleep(time.Duration(r.IntN(3000)) * time.Microsecond)
		within(c.t, end)
	}
	within(c.t, c.actors.Wait)
}

// check fails the test if err is not an expected error.
func (c *chaos) check(err error) {
	if batch := (*conntrack.BatchError)(nil); errors.As(err, &batch) {
		for _, failed := range batch.Unwrap() {
			c.check(failed)
		}
		return
	}
	for _, expected := range []error{
		nil, context.Canceled, unix.EBADF, conntrack.ErrOverrun, conntrack.ErrListening, conntrack.ErrDumpInterrupted,
		unix.ENOENT, unix.EEXIST,
		unix.ENOBUFS, // if the buffer is too small for an answer
	} {
		if errors.Is(err, expected) {
			return
		}
	}
	c.t.Errorf("unexpected: %v", err)
}

var errChaos = errors.New("panic on purpose")

// leave leaves a loop at random: by its result, or by a panic that its caller
// recovers from.
func (c *chaos) leave(r *rand.Rand) bool {
	switch r.IntN(50) {
	case 0:
		panic(errChaos)
	case 1:
		return true
	}
	return false
}

func (c *chaos) recover() {
	if v := recover(); v != nil && v != errChaos {
		panic(v)
	}
}

func (c *chaos) watch(r *rand.Rand) {
	defer c.recover()
	opts := &conntrack.EventOptions{Reuse: r.IntN(2) == 0, Reliable: r.IntN(2) == 0, Fence: c.fence}
	if r.IntN(2) == 0 {
		opts.Drained = func() { c.leave(r) }
	}
	if r.IntN(2) == 0 {
		opts.Joined = func() { c.leave(r) }
	}
	for ev, err := range c.conn.Events(c.ctx, nil, opts) {
		c.check(err)
		if err == nil && ev.Flow == nil {
			c.t.Error("an event without a flow")
		}
		if c.leave(r) {
			return
		}
	}
}

// listen reads some of the events.
func (c *chaos) listen(r *rand.Rand) {
	events := make(chan conntrack.Event, r.IntN(3))
	errs, err := c.conn.Listen(events, uint8(1+r.IntN(8)), netfilter.GroupsCT)
	c.check(err)
	if err != nil {
		return
	}
	for range r.IntN(100) {
		select {
		case <-events:
		case err := <-errs:
			c.check(err)
		case <-c.ctx.Done():
			return
		}
	}
}

func (c *chaos) dump(r *rand.Rand) {
	defer c.recover()
	for range 5 {
		for f, err := range c.conn.Flows(c.ctx, conntrack.Filter{}, nil) {
			c.check(err)
			if err == nil {
				c.check(c.conn.Update(conntrack.Flow{TupleOrig: f.TupleOrig, Mark: r.Uint32()}))
			}
			if c.leave(r) {
				return
			}
		}
	}
}

func (c *chaos) change(r *rand.Rand) {
	flows := manyFlows(1 + r.IntN(50))
	for range 5 {
		c.check(c.conn.CreateBatch(flows))
		_, err := c.conn.Get(flows[0])
		c.check(err)
		c.check(c.conn.DeleteBatch(flows))
	}
}

// ask sends a fence to the running event loop, if there is one.
func (c *chaos) ask(*rand.Rand) {
	for range 5 {
		called := make(chan struct{})
		select {
		case c.fence <- func() { close(called) }:
		case <-c.ctx.Done():
			return
		}
		select {
		case <-called:
		case <-c.ctx.Done():
			return
		}
	}
}
