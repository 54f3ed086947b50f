//go:build linux

package conntrack_test

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/netfilter"
)

// requireBatchError asserts that err says which flows failed. It returns the
// errors by index in the batch.
func requireBatchError(t *testing.T, err error, total int) map[int]error {
	t.Helper()
	var batch *conntrack.BatchError
	require.ErrorAs(t, err, &batch)
	require.Equal(t, total, batch.Total)
	require.Len(t, batch.Unwrap(), len(batch.Failed))
	failed := make(map[int]error)
	last := -1
	for _, e := range batch.Failed {
		require.Greater(t, e.Index, last, "in the order of the batch")
		last = e.Index
		require.NotZero(t, e.Tuple)
		failed[e.Index] = e.Err
	}
	return failed
}

func TestBatch(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	const n = 1000
	flows := manyFlows(n)

	require.NoError(t, c.CreateBatch(nil))
	require.NoError(t, c.CreateBatch(flows))
	for i := range flows {
		flows[i].Mark = uint32(i)
	}
	require.NoError(t, c.UpdateBatch(flows))
	table, err := c.Dump(nil)
	require.NoError(t, err)
	require.Len(t, table, n)
	marks := make(map[uint32]bool)
	for _, f := range table {
		marks[f.Mark] = true
	}
	require.Len(t, marks, n, "each was updated by its own mark")
	require.NoError(t, c.DeleteBatch(table))
	table, err = c.Dump(nil)
	require.NoError(t, err)
	require.Empty(t, table)
}

// TestBatchFailures asserts that flows that fail here or in the kernel are
// reported by index, and that all others are done.
func TestBatchFailures(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	const n = 1000
	flows := manyFlows(n)
	want := make(map[int]error)
	for _, i := range []int{0, 1, 63, 64, 127, 128, 500, n - 1} {
		create(t, c, flows[i])
		want[i] = unix.EEXIST
	}
	for _, i := range []int{2, 129, n - 2} {
		flows[i].Timeout = 0
		want[i] = conntrack.ErrNeedTimeout
	}
	flows[300].TupleOrig.IP.SourceAddress = server6.Addr()
	want[300] = conntrack.ErrBadIPTuple
	flows[301].Labels = make([]byte, 1<<16)
	want[301] = nil // too long for an attribute

	err := c.CreateBatch(flows)
	require.ErrorIs(t, err, unix.EEXIST)
	require.ErrorIs(t, err, fs.ErrExist)
	require.ErrorIs(t, err, conntrack.ErrNeedTimeout)
	require.NotErrorIs(t, err, unix.ENOENT)
	failed := requireBatchError(t, err, n)
	require.Len(t, failed, len(want))
	for i, err := range want {
		require.Error(t, failed[i])
		if err != nil {
			require.ErrorIs(t, failed[i], err)
		}
	}
	require.Contains(t, err.Error(), "create flow: 13 of 1000 failed, the first: flow 0 <udp, Src: 10.1.0.0:1000, Dst: 10.0.0.2:53>: flow exists")
	stats, err := c.StatsGlobal()
	require.NoError(t, err)
	require.EqualValues(t, n-5, stats.Entries)
}

// TestBatchAllFail asserts that no error is lost if all requests fail, even
// with a small receive buffer.
func TestBatchAllFail(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ n, readBuffer, writeBuffer int }{
		"default buffers":   {n: min(100_000, 100*rounds(t, 1000))},
		"tiny read buffer":  {n: 1000, readBuffer: 1},
		"small read buffer": {n: 10_000, readBuffer: 20_000},
		"tiny write buffer": {n: 1000, writeBuffer: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, nstest.New(t))
			if test.readBuffer != 0 {
				require.NoError(t, c.SetReadBuffer(test.readBuffer))
			}
			if test.writeBuffer != 0 {
				require.NoError(t, c.SetWriteBuffer(test.writeBuffer))
			}
			flows := make([]conntrack.Flow, test.n)
			for i := range flows {
				flows[i] = newFlow(i % 1000)
			}
			for name, do := range map[string]func([]conntrack.Flow) error{
				"update": c.UpdateBatch, "delete": c.DeleteBatch,
			} {
				failed := requireBatchError(t, do(flows), test.n)
				require.Len(t, failed, test.n, name)
				for _, err := range failed {
					require.ErrorIs(t, err, unix.ENOENT)
				}
			}
		})
	}
}

func TestBatchClosed(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	require.NoError(t, c.Close())
	failed := requireBatchError(t, c.CreateBatch(manyFlows(300)), 300)
	require.Len(t, failed, 300)
	for _, err := range failed {
		require.ErrorIs(t, err, fs.ErrClosed)
	}
}

// TestBatchConcurrent asserts that batches and single requests of several
// goroutines do not get mixed up.
func TestBatchConcurrent(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	const workers, n = 4, 500
	done := make(chan error, workers)
	for w := range workers {
		go func() {
			flows := make([]conntrack.Flow, n)
			for i := range flows {
				flows[i] = newFlow(w*n + i)
			}
			err := c.CreateBatch(flows)
			for i := range flows {
				err = errors.Join(err, c.Delete(flows[i]))
			}
			if e := c.DeleteBatch(flows); err == nil && !errors.Is(e, unix.ENOENT) {
				err = errors.New("flows were there after they had been deleted")
			}
			done <- err
		}()
	}
	for range workers {
		require.NoError(t, receive(t, done))
	}
}

func TestDeleteFunc(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	const n = 10_000
	flows := manyFlows(n)
	for i := range flows {
		flows[i].Mark = uint32(i % 4)
	}
	require.NoError(t, c.CreateBatch(flows))

	deleted, err := c.DeleteFunc(t.Context(), conntrack.Filter{Mark: 1, Mask: 1}, func(f *conntrack.Flow) bool {
		require.NotZero(t, f.Mark&1, "selected by the filter")
		return f.Mark == 3
	})
	require.NoError(t, err)
	require.Equal(t, n/4, deleted)
	left, err := c.Dump(nil)
	require.NoError(t, err)
	require.Len(t, left, n-n/4)
	for _, f := range left {
		require.NotEqual(t, uint32(3), f.Mark)
	}

	deleted, err = c.DeleteFunc(t.Context(), conntrack.Filter{}, func(*conntrack.Flow) bool { return false })
	require.NoError(t, err)
	require.Zero(t, deleted)
}

// TestDeleteFuncMeanwhile asserts that flows that disappear are neither counted
// nor errors, and that a flow with the same tuples as a deleted one stays.
func TestDeleteFuncMeanwhile(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	const n = 300
	require.NoError(t, c.CreateBatch(manyFlows(n)))
	gone, replaced, others, seen := 0, 0, 0, 0
	deleted, err := c.DeleteFunc(t.Context(), conntrack.Filter{Mask: 0xff}, func(f *conntrack.Flow) bool {
		seen++
		switch seen % 3 {
		case 0:
			require.NoError(t, c.Delete(*f))
			gone++
		case 1:
			require.NoError(t, c.Delete(*f))
			if seen%2 == 0 { // or hardly any gets another ID
				create(t, c, with(newFlow6(seen), func(f *conntrack.Flow) { f.Mark = 1 }))
				others++
			}
			create(t, c, with(*f, func(f *conntrack.Flow) { f.Mark = 1 }))
			// A flow in the same memory gets the same ID and cannot be told
			// apart.
			if get(t, c, conntrack.Flow{TupleOrig: f.TupleOrig}).ID != f.ID {
				replaced++
			}
		}
		return true
	})
	require.NoError(t, err)
	require.NotZero(t, replaced)
	require.Equal(t, seen-gone-replaced, deleted)
	left, err := c.Dump(nil)
	require.NoError(t, err)
	require.Len(t, left, replaced+others)
	for _, f := range left {
		require.EqualValues(t, 1, f.Mark)
	}
}

// TestSuccessorsStay asserts that a flow that replaces a selected one is not
// deleted, whatever its ID. Flows must have a start time.
func TestSuccessorsStay(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t, nstest.Timestamps()))
	const n = 300
	replace := func(f conntrack.Flow) {
		require.NoError(t, c.Delete(conntrack.Flow{TupleOrig: f.TupleOrig}))
		create(t, c, flowBetween(unix.IPPROTO_UDP, f.Client(), f.Server()))
	}
	require.NoError(t, c.CreateBatch(manyFlows(n)))
	done, err := c.DeleteFunc(t.Context(), conntrack.Filter{Status: conntrack.StatusConfirmed}, func(f *conntrack.Flow) bool {
		replace(*f)
		return true
	})
	require.NoError(t, err)
	require.Zero(t, done)
	done, err = c.UpdateFunc(t.Context(), conntrack.Filter{}, func(f *conntrack.Flow) (conntrack.Flow, bool) {
		replace(*f)
		return conntrack.Flow{Mark: 1}, true
	})
	require.NoError(t, err)
	require.Zero(t, done)
	left, err := c.Dump(nil)
	require.NoError(t, err)
	require.Len(t, left, n)
	for _, f := range left {
		require.Zero(t, f.Mark)
	}
}

// TestDeleteFuncSoon asserts that a selected flow is removed without waiting
// for others to remove with it.
func TestDeleteFuncSoon(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	c := dial(t, ns)
	const n, one = 5000, 50
	require.NoError(t, c.CreateBatch(manyFlows(n)))
	seen, selected := 0, 0
	deleted, err := c.DeleteFunc(t.Context(), conntrack.Filter{}, func(*conntrack.Flow) bool {
		if seen++; seen%one != 0 {
			return false
		}
		waiting := selected - (n - ns.Count())
		require.LessOrEqual(t, waiting, 400/one, "of %d flows seen", seen)
		selected++
		return true
	})
	require.NoError(t, err)
	require.Equal(t, selected, deleted)
}

// TestBatchLosesAnswers asserts that if answers to a batch are lost, the count
// has neither the flows that failed nor those with an unknown result.
func TestBatchLosesAnswers(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	c := dial(t, ns)
	const n = 90 // fewer than are sent at once
	require.NoError(t, c.CreateBatch(manyFlows(n)))
	seen := 0
	deleted, err := c.DeleteFunc(t.Context(), conntrack.Filter{}, func(f *conntrack.Flow) bool {
		if seen++; seen == n {
			require.NoError(t, c.SetReadBuffer(1)) // too late for the size of the batch
		}
		require.NoError(t, c.Delete(*f))
		return true
	})
	require.ErrorIs(t, err, unix.ENOBUFS)
	require.Zero(t, deleted)
	require.Zero(t, ns.Count())
}

func TestGetBatch(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	ns.Labels()
	c := dial(t, ns)
	const n = 1000
	flows := manyFlows(n)
	for i := range flows {
		flows[i].Mark = uint32(i) + 1
		flows[i].Labels = []byte{1, 15: 2}
		flows[i].Zone = uint16(i % 2)
	}
	require.NoError(t, c.CreateBatch(flows))
	dumped, err := c.Dump(nil)
	require.NoError(t, err)
	byMark := make([]conntrack.Flow, n)
	for _, f := range dumped {
		byMark[f.Mark-1] = f
	}

	keys := make([]conntrack.Flow, n)
	for i := range keys {
		switch keys[i] = byMark[i]; i % 7 {
		case 1:
			keys[i].TupleOrig = conntrack.Tuple{}
		case 2:
			keys[i].ID++ // as if the flow were a later one
		case 3:
			keys[i].TupleOrig.Proto.SourcePort++
			keys[i].TupleReply = conntrack.Tuple{}
		case 4:
			keys[i] = conntrack.Flow{}
		case 5: // inverted
			keys[i].ID = 0
			keys[i].TupleOrig, keys[i].TupleReply = keys[i].TupleReply, keys[i].TupleOrig
		}
	}
	for name, setup := range map[string]func() error{
		"default buffers":   func() error { return nil },
		"tiny read buffer":  func() error { return c.SetReadBuffer(1) },
		"small read buffer": func() error { return c.SetReadBuffer(20_000) },
		"tiny write buffer": func() error { return errors.Join(c.SetReadBuffer(1<<18), c.SetWriteBuffer(1)) },
	} {
		require.NoError(t, setup())
		var got []conntrack.Flow
		for f, err := range c.GetBatch(keys) {
			i := len(got)
			got = append(got, f)
			switch i % 7 {
			case 3:
				require.ErrorIs(t, err, unix.ENOENT, name)
				require.ErrorContains(t, err, "no such flow")
			case 4:
				require.ErrorIs(t, err, conntrack.ErrNeedTuples, name)
			default:
				require.NoError(t, err, name)
				require.Equal(t, byMark[i].ID, f.ID, name)
				require.Equal(t, byMark[i].Labels, f.Labels, name)
				continue
			}
			require.Zero(t, f)
			var op *conntrack.OpError
			require.ErrorAs(t, err, &op)
			require.Equal(t, "get flow", op.Op)
		}
		require.Len(t, got, n, name)
	}
	for range c.GetBatch(nil) {
		t.Error("a pair for no key")
	}
	for f, err := range c.GetBatch(byMark) {
		require.NoError(t, err)
		require.NoError(t, c.Delete(f)) // the loop body may use the Conn
		break
	}
}

func TestDeleteFuncEnds(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	const n = 2000
	fill := func(t *testing.T) *conntrack.Conn {
		c := dial(t, ns)
		require.NoError(t, c.Flush())
		require.NoError(t, c.CreateBatch(manyFlows(n)))
		return c
	}
	count := func(t *testing.T) int {
		s, err := dial(t, ns).StatsGlobal()
		require.NoError(t, err)
		return int(s.Entries)
	}
	t.Run("cancelled", func(t *testing.T) {
		c := fill(t)
		ctx, cancel := context.WithCancel(t.Context())
		seen := 0
		deleted, err := c.DeleteFunc(ctx, conntrack.Filter{}, func(*conntrack.Flow) bool {
			if seen++; seen == n/2 {
				cancel()
			}
			return true
		})
		require.ErrorIs(t, err, context.Canceled)
		require.LessOrEqual(t, deleted, n/2)
		require.NotZero(t, deleted)
		require.Equal(t, n-deleted, count(t))
		require.NoError(t, c.Create(newFlow6(1)), "the Conn goes on")
	})
	t.Run("closed", func(t *testing.T) {
		c := fill(t)
		seen := 0
		deleted, err := c.DeleteFunc(t.Context(), conntrack.Filter{}, func(*conntrack.Flow) bool {
			if seen++; seen == n/2 {
				require.NoError(t, c.Close())
			}
			return true
		})
		require.ErrorIs(t, err, fs.ErrClosed)
		require.Equal(t, n-deleted, count(t))
	})
	t.Run("contradiction", func(t *testing.T) {
		deleted, err := dial(t, ns).DeleteFunc(t.Context(), conntrack.Filter{
			Family: netfilter.ProtoIPv6,
			Orig:   conntrack.Tuple{IP: conntrack.IPTuple{SourceAddress: server4.Addr()}},
		}, func(*conntrack.Flow) bool { return true })
		require.ErrorIs(t, err, conntrack.ErrFilterSelectsNothing)
		require.Zero(t, deleted)
	})
}

// TestBatchErrorText asserts that a BatchError made by a program has a text.
func TestBatchErrorText(t *testing.T) {
	require.EqualError(t, &conntrack.BatchError{}, "conntrack: : 0 of 0 failed")
	require.Empty(t, (&conntrack.BatchError{}).Unwrap())
	require.NotEmpty(t, (&conntrack.FlowError{Err: fs.ErrExist}).Error())
}

// TestBatchOversized asserts that a flow too large for the send buffer is the
// only one to fail.
func TestBatchOversized(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	require.NoError(t, c.SetWriteBuffer(16_000))
	flows := manyFlows(100)
	flows[50].Labels = make([]byte, 40_000)
	failed := requireBatchError(t, c.CreateBatch(flows), len(flows))
	require.Len(t, failed, 1)
	require.ErrorIs(t, failed[50], unix.EMSGSIZE)
	table, err := c.Dump(nil)
	require.NoError(t, err)
	require.Len(t, table, 99)
}

// TestRequestAfterOverrun asserts that requests do not block after the socket
// lost answers.
func TestRequestAfterOverrun(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	config := ns.Config()
	config.Groups = 7
	c, err := conntrack.Dial(config)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	require.NoError(t, dial(t, ns).CreateBatch(manyFlows(5000)))
	within(t, func() { err = c.Create(newFlow6(1)) })
	require.NoError(t, err, "events do not come to the socket of requests")
}

// TestUpdateFunc asserts that only the selected flows change, and only in the
// given fields.
func TestUpdateFunc(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	ns.Labels()
	c := dial(t, ns)
	const n = 2000
	flows := manyFlows(n)
	for i := range flows {
		flows[i].Mark = uint32(i)
		flows[i].Zone = uint16(i % 3)
	}
	require.NoError(t, c.CreateBatch(flows))

	odd := conntrack.Filter{Mark: 1, Mask: 1}
	updated, err := c.UpdateFunc(t.Context(), odd, func(f *conntrack.Flow) (conntrack.Flow, bool) {
		return conntrack.Flow{Timeout: 9000, Labels: []byte{1, 0, 0, 0}}, f.Mark < 1000
	})
	require.NoError(t, err)
	require.Equal(t, 500, updated)
	for f, err := range c.Flows(t.Context(), conntrack.Filter{}, nil) {
		require.NoError(t, err)
		want := f.Mark%2 == 1 && f.Mark < 1000
		require.Equal(t, want, f.Timeout > 8000, "mark %d", f.Mark)
		require.Equal(t, want, len(f.Labels) > 0, "mark %d", f.Mark)
	}
}

// TestUpdateFuncRefused asserts that flows that cannot be changed do not stop
// the rest. The messages are so long that few fit into a batch.
func TestUpdateFuncRefused(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	const n = 600
	flows := manyFlows(n)
	for i := range flows {
		flows[i].Mark = uint32(i)
	}
	require.NoError(t, c.CreateBatch(flows))
	refused, malformed := 0, 0
	updated, err := c.UpdateFunc(t.Context(), conntrack.Filter{}, func(f *conntrack.Flow) (conntrack.Flow, bool) {
		update := conntrack.Flow{Mark: f.Mark + n}
		switch f.Mark % 7 {
		case 0:
			update.Labels = make([]byte, 3000) // too long
			refused++
		case 1:
			update.Labels = []byte{1}
			malformed++
		case 2:
			require.NoError(t, c.Delete(*f))
		}
		return update, true
	})
	require.True(t, errors.Is(err, conntrack.ErrBadLabels) || errors.Is(err, unix.ERANGE), "the first one: %v", err)
	var op *conntrack.OpError
	require.ErrorAs(t, err, &op)
	require.Equal(t, "update flows", op.Op)
	require.LessOrEqual(t, strings.Count(err.Error(), " ("), 1, "one hint: %v", err)
	gone := (n + 4) / 7
	require.Equal(t, n-refused-malformed-gone, updated)
	left, err := c.Dump(nil)
	require.NoError(t, err)
	require.Len(t, left, n-gone)
	for _, f := range left {
		i := f.Mark % n
		require.Equal(t, i%7 > 1, f.Mark >= n, "flow %d", i)
	}
}

// TestCreateBatchOfMasters asserts that a table can be restored if expected
// flows precede their masters.
func TestCreateBatchOfMasters(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	flows := manyFlows(500)
	for i := range 250 {
		flows[i].TupleMaster = flows[499-i].TupleOrig
	}
	require.NoError(t, c.CreateBatch(flows))
	dumped, err := c.Dump(nil)
	require.NoError(t, err)
	require.NoError(t, c.Flush())
	require.NoError(t, c.CreateBatch(dumped))
	require.ErrorIs(t, c.CreateBatch(dumped), unix.EEXIST)
	require.NoError(t, c.Flush())

	plain := manyFlows(20)
	require.NoError(t, c.CreateOrUpdateBatch(plain[:10]))
	for i := range plain {
		plain[i].Mark = 7
	}
	require.NoError(t, c.CreateOrUpdateBatch(plain))
	marked, err := c.DumpFilter(conntrack.Filter{Mark: 7, Mask: 0xff}, nil)
	require.NoError(t, err)
	require.Len(t, marked, 20)

	_, err = c.UpdateFunc(t.Context(), conntrack.Filter{}, nil)
	require.ErrorIs(t, err, conntrack.ErrNoChange)
	deleted, err := c.DeleteFunc(t.Context(), conntrack.Filter{Mark: 7, Mask: 0xff}, nil)
	require.NoError(t, err)
	require.Equal(t, 20, deleted)
}
