package conntrack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/ti-mo/conntrack/internal/nfnl"
)

// A BatchError lists the flows of a batch that failed. All others went through.
//
// errors.Is and errors.As look at each of them: errors.Is(err, unix.EEXIST) says
// that at least one of the flows existed.
type BatchError struct {
	// Op is the operation, such as "create flow".
	Op string
	// Total is the number of flows in the batch.
	Total int
	// Failed are those that failed, in the order of the batch.
	Failed []FlowError
}

// A FlowError is the failure of one flow of a batch.
type FlowError struct {
	// Index is the place of the flow in the batch.
	Index int
	// Err is the reason. If it is the kernel's, it wraps an errno. If sending or
	// receiving failed, it is not known whether the flow went through.
	Err error
}

func (e *FlowError) Error() string { return fmt.Sprintf("flow %d: %v", e.Index, e.Err) }

// Unwrap returns e.Err.
func (e *FlowError) Unwrap() error { return e.Err }

func (e *BatchError) Error() string {
	first := &e.Failed[0]
	return fmt.Sprintf("conntrack: %s: %d of %d failed, the first: %v%s",
		e.Op, len(e.Failed), e.Total, first, hint(e.Op, first))
}

// Unwrap returns the failures, each a *FlowError.
func (e *BatchError) Unwrap() []error {
	errs := make([]error, len(e.Failed))
	for i := range e.Failed {
		errs[i] = &e.Failed[i]
	}
	return errs
}

// CreateBatch adds flows to the table, many with one system call. Each is
// attempted, as by Create; if any fails, the error is a *BatchError. Those with
// TupleMaster come last, so that their masters may be among the others.
func (c *Conn) CreateBatch(flows []Flow) error { return c.doAll(opCreate, flows) }

// CreateOrUpdateBatch adds or changes flows, many with one system call, in the
// manner of CreateBatch: each as by CreateOrUpdate.
func (c *Conn) CreateOrUpdateBatch(flows []Flow) error { return c.doAll(opPut, flows) }

// UpdateBatch changes flows, many with one system call. Each is attempted, as by
// Update; if any fails, the error is a *BatchError.
func (c *Conn) UpdateBatch(flows []Flow) error { return c.doAll(opUpdate, flows) }

// DeleteBatch removes flows, many with one system call. Each is attempted, as by
// Delete; if any fails, the error is a *BatchError.
func (c *Conn) DeleteBatch(flows []Flow) error { return c.doAll(opDelete, flows) }

func (c *Conn) doAll(o op, flows []Flow) error {
	b := c.newBatch(o)
	defer b.free()
	var expected []int
	incomplete := false
	for i := range flows {
		f := &flows[i]
		incomplete = incomplete || o.adds() && f.incomplete()
		if o.adds() && f.TupleMaster.filled() {
			expected = append(expected, i)
			continue
		}
		b.add(i, f)
	}
	for _, i := range expected {
		b.add(i, &flows[i])
	}
	b.flush()
	if incomplete {
		c.completeBatch(b, flows)
	}
	if len(b.failed) == 0 {
		return nil
	}
	failed := make([]FlowError, len(b.failed))
	for i, e := range b.failed {
		failed[i] = FlowError{Index: e.index, Err: e.err}
	}
	slices.SortStableFunc(failed, func(x, y FlowError) int { return cmp.Compare(x.Index, y.Index) })
	return &BatchError{Op: opNames[o], Total: len(flows), Failed: failed}
}

// completeBatch is complete for those of the flows that b has added. Whether there
// is room for labels does not depend on the flow: one that has room tells for all.
func (c *Conn) completeBatch(b *batch, flows []Flow) {
	failed := make(map[int]bool, len(b.failed))
	for _, e := range b.failed {
		failed[e.index] = true
	}
	room := false
	for i := range flows {
		f := &flows[i]
		if failed[i] {
			continue
		}
		err := c.completeHelper(f)
		if err == nil && !room && f.labelled() {
			room, err = c.ensureLabels(f)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			b.fail(batchFlow{i, f}, err)
		}
	}
}

// A batch collects requests about flows and sends them as often as there are
// enough.
type batch struct {
	*request
	conn     *nfnl.Conn
	op       op
	messages int // at most, in one send
	bytes    int

	pending []batchFlow // in enc
	retry   []batchFlow // of those in pending
	again   op          // what retry is to be tried with
	tried   int         // how many flows were
	failed  []batchFailure

	onFailure func(i int, err error)
}

// A batchFlow is a flow and its place in the batch.
type batchFlow struct {
	index int
	flow  *Flow
}

// A batchFailure is a flow that failed, and why.
type batchFailure struct {
	batchFlow
	err error
}

func (c *Conn) newBatch(o op) *batch {
	b := &batch{request: newRequest(), conn: c.sockets.request, op: o}
	b.messages, b.bytes = b.conn.MaxBatch()
	b.pending = make([]batchFlow, 0, b.messages)
	b.onFailure = b.refused
	return b
}

// add makes a flow part of the batch, which is sent when it is full. Until then
// the flow must stay as it is: until b.messages more flows were added. Its index
// must be another one than those of these.
func (b *batch) add(index int, f *Flow) {
	p := batchFlow{index, f}
	if err := b.op.append(&b.enc, f, 0); err != nil {
		b.tried++
		b.fail(p, err)
		return
	}
	if b.enc.Len() > b.bytes && len(b.pending) > 0 {
		b.enc.Cancel()
		b.flush()
		_ = b.op.append(&b.enc, f, 0) // as before
	}
	b.pending = append(b.pending, p)
	if len(b.pending) == b.messages {
		b.flush()
	}
}

// flush sends what was collected.
func (b *batch) flush() {
	b.tried += len(b.pending)
	b.send()
	if len(b.retry) == 0 {
		return
	}
	b.pending, b.retry = append(b.pending, b.retry...), b.retry[:0]
	o := b.op
	b.op = b.again
	for _, p := range b.pending {
		// It could be encoded before, and so it can now.
		_ = b.op.append(&b.enc, p.flow, 0)
	}
	b.send()
	b.op = o
}

func (b *batch) send() {
	if len(b.pending) == 0 {
		return
	}
	known := len(b.failed)
	if err := b.conn.DoBatch(&b.enc, b.onFailure); err != nil {
		b.failRest(known, err)
	}
	b.enc.Reset()
	b.pending = b.pending[:0]
}

// refused notes that the kernel refused the i'th message.
func (b *batch) refused(i int, err error) {
	p := b.pending[i]
	if o, again := b.op.again(p.flow, err); again {
		b.again = o
		b.retry = append(b.retry, p)
		return
	}
	b.fail(p, err)
}

// failRest makes err the error of all flows of this send but those that are in
// failed from known on.
func (b *batch) failRest(known int, err error) {
	b.retry = b.retry[:0]
	for _, p := range b.pending {
		if !b.hasFailed(known, p.index) {
			b.fail(p, err)
		}
	}
}

// hasFailed reports whether the flow with that index is in failed, from known
// on.
func (b *batch) hasFailed(known, index int) bool {
	return slices.ContainsFunc(b.failed[known:], func(e batchFailure) bool { return e.index == index })
}

func (b *batch) fail(p batchFlow, err error) {
	b.failed = append(b.failed, batchFailure{p, err})
}

// DeleteFunc removes the flows that f selects and for which match returns true,
// and returns how many it removed. A nil match is one that always returns true. It
// does so while it streams the table, in
// memory that does not depend on the table. The Flow that match is given, with
// what it points to, is overwritten once match has returned.
//
// A flow that vanished by itself is neither counted nor an error, and one that
// replaced it meanwhile, with the same tuples, is left alone: see Flow.ID. A
// flow that the kernel refuses to remove, as some kernels do with those that are
// offloaded, keeps none of the others; the first such error is returned in the
// end. The end of ctx, or an error of the dump, ends DeleteFunc; what was removed
// until then is counted. As in a loop over Flows, a flow may come to match twice.
func (c *Conn) DeleteFunc(ctx context.Context, f Filter, match func(*Flow) bool) (deleted int, err error) {
	if match == nil {
		match = func(*Flow) bool { return true }
	}
	deleted, err = c.deleteFunc(ctx, &f, match)
	return deleted, opError("delete flows", err)
}

func (c *Conn) deleteFunc(ctx context.Context, f *Filter, match func(*Flow) bool) (deleted int, err error) {
	return c.sweep(ctx, opDelete, f, func(flow *Flow) (Flow, bool) {
		if !match(flow) {
			return Flow{}, false
		}
		return Flow{ID: flow.ID, Zone: flow.Zone, TupleOrig: flow.TupleOrig, TupleReply: flow.TupleReply}, true
	})
}

// UpdateFunc changes the flows that f selects and for which change returns true,
// and returns how many it changed. What change returns says what to change, and
// nothing else, in the manner of Update: Flow{Mark: 5}. Its tuples and zone are the
// flow's, whatever they are. For the rest, the notes about DeleteFunc hold, but
// that a flow which replaced another one is changed in its place.
func (c *Conn) UpdateFunc(ctx context.Context, f Filter, change func(*Flow) (Flow, bool)) (updated int, err error) {
	if change == nil {
		return 0, opError("update flows", ErrNoChange)
	}
	updated, err = c.sweep(ctx, opUpdate, &f, func(flow *Flow) (Flow, bool) {
		update, ok := change(flow)
		update.TupleOrig, update.TupleReply, update.Zone = flow.TupleOrig, flow.TupleReply, flow.Zone
		update.TupleMaster = Tuple{} // it can only be as it is
		return update, ok
	})
	return updated, opError("update flows", err)
}

// sweep carries out o on what pick returns of the flows that f selects, if that
// is ok, and returns how often that went well.
func (c *Conn) sweep(ctx context.Context, o op, f *Filter, pick func(*Flow) (Flow, bool)) (done int, err error) {
	s := sweep{batch: c.newBatch(o)}
	defer s.free()
	s.flows = make([]Flow, s.messages+1)
	var flow Flow
	err = c.walk(ctx, &walk{
		filter: f,
		next:   func() *Flow { flow = Flow{}; return &flow },
		visit: func(flow *Flow) bool {
			if picked, ok := pick(flow); ok {
				s.add(picked)
			}
			return true
		},
	})
	if err == nil {
		s.flush()
		s.account()
	}
	return s.tried - s.lost, errors.Join(err, s.err)
}

// A sweep carries out an operation on many flows, in batches.
type sweep struct {
	*batch
	flows []Flow // one more than a batch has, used in turns
	next  int    // of flows
	lost  int    // of those that were tried
	err   error  // the first, but for flows that were not there
}

func (s *sweep) add(f Flow) {
	s.flows[s.next] = f
	s.batch.add(s.next, &s.flows[s.next])
	s.next = (s.next + 1) % len(s.flows)
	s.account()
}

// account empties failed, for flows to be used again.
func (s *sweep) account() {
	for _, e := range s.failed {
		if s.err == nil && !errors.Is(e.err, fs.ErrNotExist) {
			s.err = flowError(opNames[s.op], e.flow, e.err)
		}
	}
	s.lost += len(s.failed)
	s.failed = s.failed[:0]
}
