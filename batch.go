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
	return fmt.Sprintf("conntrack: %s: %d of %d failed, the first: %v",
		e.Op, len(e.Failed), e.Total, &e.Failed[0])
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
	if len(b.failed) == 0 {
		return nil
	}
	slices.SortStableFunc(b.failed, func(x, y FlowError) int { return cmp.Compare(x.Index, y.Index) })
	return &BatchError{Op: opNames[o], Total: len(flows), Failed: b.failed}
}

// A batch collects requests about flows and sends them as often as there are
// enough.
type batch struct {
	*request
	conn     *netfilter.Conn
	op       op
	messages int // at most, in one send
	bytes    int

	// ignoreMissing makes flows that are not there no failures.
	ignoreMissing bool

	indexes   []int // of the flows in enc
	refused   int   // of them
	failed    []FlowError
	succeeded int

	onFailure func(i int, err error)
}

func (c *Conn) newBatch(o op) *batch {
	b := &batch{request: newRequest(), conn: c.sockets.request, op: o}
	b.messages, b.bytes = b.conn.MaxBatch()
	b.indexes = make([]int, 0, b.messages)
	b.onFailure = b.refuse
	return b
}

// add makes the flow with the given index part of the batch.
func (b *batch) add(index int, f *Flow) {
	if err := b.op.append(&b.enc, f, 0); err != nil {
		b.fail(index, err)
		return
	}
	b.indexes = append(b.indexes, index)
	if len(b.indexes) == b.messages || b.enc.Len() >= b.bytes {
		b.flush()
	}
}

// flush sends what was collected.
func (b *batch) flush() {
	if len(b.indexes) == 0 {
		return
	}
	known := len(b.failed)
	b.refused = 0
	if err := b.conn.DoBatch(&b.enc, b.onFailure); err != nil {
		b.failRest(known, err)
	}
	b.succeeded += len(b.indexes) - b.refused
	b.enc.Reset()
	b.indexes = b.indexes[:0]
}

// refuse notes that the kernel refused the i'th message.
func (b *batch) refuse(i int, err error) {
	b.refused++
	if !b.ignoreMissing || !errors.Is(err, fs.ErrNotExist) {
		b.fail(b.indexes[i], err)
	}
}

// failRest makes err the error of all flows of this send but those that are in
// failed from known on.
func (b *batch) failRest(known int, err error) {
	refused := b.failed[known:]
	for _, index := range b.indexes {
		if !slices.ContainsFunc(refused, func(e FlowError) bool { return e.Index == index }) {
			b.fail(index, err)
		}
	}
	b.refused = len(b.indexes)
}

func (b *batch) fail(index int, err error) {
	b.failed = append(b.failed, FlowError{Index: index, Err: err})
}

// DeleteFunc removes the flows that f selects and for which match returns true,
// and returns how many it removed. It does so while it streams the table, in
// memory that does not depend on the table. The Flow that match is given is
// overwritten once match has returned.
//
// A flow that vanished by itself is neither counted nor an error, and one that
// was replaced meanwhile by another one with the same tuples is left alone. Any
// other error ends DeleteFunc, and so does the end of ctx; what was removed
// until then is counted. As in a loop over Flows, a flow may come to match twice.
func (c *Conn) DeleteFunc(ctx context.Context, f Filter, match func(*Flow) bool) (deleted int, err error) {
	b := c.newBatch(opDelete)
	defer b.free()
	b.ignoreMissing = true
	err = c.walk(ctx, &f, nil, func(flow *Flow) bool {
		if match(flow) {
			b.add(0, flow)
		}
		return len(b.failed) == 0
	})
	if err == nil && len(b.failed) == 0 {
		b.flush()
	}
	if len(b.failed) > 0 {
		err = b.failed[0].Err
	}
	return b.succeeded, opError("delete flows", err)
}
