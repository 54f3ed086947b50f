//go:build linux

package conntrack_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/netfilter"
)

// TestConcurrent uses one Conn from many goroutines, and checks every result.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	const (
		writers = 8
		each    = 25
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

	// Each flow came, was updated and went, unless the kernel lost something.
	count := make(map[conntrack.EventType]int)
	for range 3 * writers * each {
		select {
		case ev := <-events:
			count[ev.Type]++
			continue
		case err := <-errs:
			require.ErrorIs(t, err, conntrack.ErrOverrun)
			t.Skip("the kernel lost events: the receive buffer could not be made large enough")
		}
	}
	for _, typ := range []conntrack.EventType{conntrack.EventNew, conntrack.EventUpdate, conntrack.EventDestroy} {
		require.Equal(t, writers*each, count[typ], "%s", typ)
	}
}

// liveFlow goes through the life of a flow.
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

// readings are what may go on while up to so many flows live.
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

// TestCloseWhileInUse asserts that whatever goes on when a Conn is closed ends
// with success or with fs.ErrClosed, and leaves nothing behind.
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
					if !errors.Is(err, fs.ErrClosed) {
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
				_ = filler.Delete(newFlow(w)) // which may have been left in the middle
			}
		}
	})
}

// TestCloseTogether closes a Conn from several goroutines.
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

// TestFlowsLeftEarly leaves dumps, which takes a socket each, and uses the Conn
// in the loop body.
func TestFlowsLeftEarly(t *testing.T) {
	ns := nstest.New(t)
	c := dial(t, ns)
	for i := range 500 {
		create(t, c, newFlow(i))
	}
	require.Len(t, mustDump(t, c), 500) // opens the socket that stays
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
