package conntrack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/ti-mo/conntrack/netfilter"
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
// attempted, as by Create; if any fails, the error is a *BatchError.
func (c *Conn) CreateBatch(flows []Flow) error { return c.doAll(opCreate, flows) }

// UpdateBatch changes flows, many with one system call. Each is attempted, as by
// Update; if any fails, the error is a *BatchError.
func (c *Conn) UpdateBatch(flows []Flow) error { return c.doAll(opUpdate, flows) }

// DeleteBatch removes flows, many with one system call. Each is attempted, as by
// Delete; if any fails, the error is a *BatchError.
func (c *Conn) DeleteBatch(flows []Flow) error { return c.doAll(opDelete, flows) }

func (c *Conn) doAll(o op, flows []Flow) error {
	b := c.newBatch(o)
	defer b.free()
	for i := range flows {
		b.add(i, &flows[i])
	}
	b.flush()
	if o.adds() {
		b.failed = append(b.failed, c.ensureBatchLabels(o, flows, b.failed)...)
	}
	if len(b.failed) == 0 {
		return nil
	}
	slices.SortStableFunc(b.failed, func(x, y FlowError) int { return cmp.Compare(x.Index, y.Index) })
	return &BatchError{Op: opNames[o], Total: len(flows), Failed: b.failed}
}

// ensureBatchLabels is ensureLabels for those of the flows that are not among
// failed. Whether there is room for labels does not depend on the flow.
func (c *Conn) ensureBatchLabels(o op, flows []Flow, failed []FlowError) (lost []FlowError) {
	added := make(map[int]bool)
	for i := range flows {
		if flows[i].labelled() {
			added[i] = true
		}
	}
	for _, e := range failed {
		delete(added, e.Index)
	}
	for i := range flows {
		if !added[i] {
			continue
		}
		err := c.ensureLabels(o, &flows[i])
		if err == nil {
			return nil
		}
		lost = append(lost, FlowError{Index: i, Err: err})
	}
	return lost
}

// A batch collects requests about flows and sends them as often as there are
// enough.
type batch struct {
	*request
	conn     *netfilter.Conn
	op       op
	messages int // at most, in one send
	bytes    int

	pending []batchFlow // in enc
	retry   []batchFlow // of those in pending
	again   op          // what retry is to be tried with
	failed  []FlowError

	onFailure func(i int, err error)
}

// A batchFlow is a flow and its place in the batch.
type batchFlow struct {
	index int
	flow  *Flow
}

// deleteBytes is more than the length of a message that deletes a flow, so that a
// batch of them is only sent when it has all its messages.
const deleteBytes = 256

func (c *Conn) newBatch(o op) *batch {
	b := &batch{request: newRequest(), conn: c.sockets.request, op: o}
	b.messages, b.bytes = b.conn.MaxBatch()
	if o == opDelete {
		b.messages = max(1, min(b.messages, b.bytes/deleteBytes))
	}
	b.pending = make([]batchFlow, 0, b.messages)
	b.onFailure = b.refused
	return b
}

// add makes a flow part of the batch, and reports whether that sent the batch.
// Until then the flow must stay as it is.
func (b *batch) add(index int, f *Flow) (sent bool) {
	if err := b.op.append(&b.enc, f, 0); err != nil {
		b.fail(index, err)
		return false
	}
	if b.enc.Len() > b.bytes && len(b.pending) > 0 {
		b.enc.Cancel()
		b.flush()
		sent = true
		_ = b.op.append(&b.enc, f, 0) // as before
	}
	b.pending = append(b.pending, batchFlow{index, f})
	if len(b.pending) == b.messages {
		b.flush()
		sent = true
	}
	return sent
}

// flush sends what was collected.
func (b *batch) flush() {
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
	b.fail(p.index, err)
}

// failRest makes err the error of all flows of this send but those that are in
// failed from known on.
func (b *batch) failRest(known int, err error) {
	refused := b.failed[known:]
	b.retry = b.retry[:0]
	for _, p := range b.pending {
		if !slices.ContainsFunc(refused, func(e FlowError) bool { return e.Index == p.index }) {
			b.fail(p.index, err)
		}
	}
}

func (b *batch) fail(index int, err error) {
	b.failed = append(b.failed, FlowError{Index: index, Err: err})
}

// DeleteFunc removes the flows that f selects and for which match returns true,
// and returns how many it removed. It does so while it streams the table, in
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
	deleted, err = c.deleteFunc(ctx, &f, match)
	return deleted, opError("delete flows", err)
}

func (c *Conn) deleteFunc(ctx context.Context, f *Filter, match func(*Flow) bool) (deleted int, err error) {
	d := deletion{batch: c.newBatch(opDelete)}
	defer d.free()
	d.flows = make([]Flow, 0, d.messages)
	var flow Flow
	err = c.walk(ctx, &walk{
		filter: f,
		next:   func() *Flow { flow = Flow{}; return &flow },
		visit: func(flow *Flow) bool {
			if match(flow) {
				d.add(flow)
			}
			return true
		},
	})
	if err == nil {
		d.flush()
		d.account()
	}
	return d.deleted, errors.Join(err, d.err)
}

// A deletion deletes flows in batches and counts them.
type deletion struct {
	*batch
	flows   []Flow // of the batch
	deleted int
	err     error // the first, but for flows that were not there
}

func (d *deletion) add(f *Flow) {
	d.flows = append(d.flows, Flow{ID: f.ID, Zone: f.Zone, TupleOrig: f.TupleOrig, TupleReply: f.TupleReply})
	if d.batch.add(len(d.flows)-1, &d.flows[len(d.flows)-1]) {
		d.account()
	}
}

// account counts what became of the batch that was sent, and empties it.
func (d *deletion) account() {
	d.deleted += len(d.flows) - len(d.failed)
	for _, e := range d.failed {
		if d.err == nil && !errors.Is(e.Err, fs.ErrNotExist) {
			d.err = flowError(opNames[opDelete], &d.flows[e.Index], e.Err)
		}
	}
	d.flows, d.failed = d.flows[:0], d.failed[:0]
}
