package conntrack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"slices"

	"github.com/ti-mo/conntrack/internal/nfnl"
)

// A BatchError lists the flows of a batch that failed. All others went through.
//
// errors.Is and errors.As look at each of the failures: errors.Is(err,
// unix.EEXIST) means that at least one of the flows existed.
type BatchError struct {
	// Op is the operation, such as "create flow".
	Op string
	// Total is the number of flows in the batch.
	Total int
	// Failed are the failures, in the order of the batch.
	Failed []FlowError
}

// A FlowError is the failure of one flow of a batch.
type FlowError struct {
	// Index is the flow's index in the batch.
	Index int
	// Tuple is the flow's original tuple, or its reply tuple if that is all it
	// has.
	Tuple Tuple
	// Err is the reason. It wraps the errno if the kernel refused the flow. If
	// sending or receiving failed, the flow may have gone through or not.
	Err error

	hint string
}

// Error returns which flow failed and why.
func (e *FlowError) Error() string {
	return fmt.Sprintf("flow %d %s: %s", e.Index, e.Tuple, inWords("flow", e.Err, e.hint))
}

// Unwrap returns e.Err.
func (e *FlowError) Unwrap() error { return e.Err }

// Error returns how many flows failed, and the text of the first failure.
func (e *BatchError) Error() string {
	text := fmt.Sprintf("conntrack: %s: %d of %d failed", e.Op, len(e.Failed), e.Total)
	if len(e.Failed) > 0 {
		text += ", the first: " + e.Failed[0].Error()
	}
	return text
}

// Unwrap returns the failures, each a *[FlowError].
func (e *BatchError) Unwrap() []error {
	errs := make([]error, len(e.Failed))
	for i := range e.Failed {
		errs[i] = &e.Failed[i]
	}
	return errs
}

// CreateBatch adds flows to the table as [Conn.Create] does, many with one
// system call. A flow that fails does not stop the rest; the error is then a
// [*BatchError]. Flows with TupleMaster are added last, so their masters may be
// in the same batch.
func (c *Conn) CreateBatch(flows []Flow) error { return c.doAll(opCreate, flows) }

// CreateOrUpdateBatch adds or changes flows as [Conn.CreateOrUpdate] does, many
// with one system call. Otherwise it is like [Conn.CreateBatch].
func (c *Conn) CreateOrUpdateBatch(flows []Flow) error { return c.doAll(opPut, flows) }

// UpdateBatch changes flows as [Conn.Update] does, many with one system call. A
// flow that fails does not stop the rest; the error is then a [*BatchError].
func (c *Conn) UpdateBatch(flows []Flow) error { return c.doAll(opUpdate, flows) }

// DeleteBatch removes flows as [Conn.Delete] does, many with one system call. A
// flow that fails does not stop the rest; the error is then a [*BatchError].
func (c *Conn) DeleteBatch(flows []Flow) error { return c.doAll(opDelete, flows) }

func (c *Conn) doAll(o op, flows []Flow) error {
	b := c.newBatch(o, len(flows))
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
		f := &flows[e.index]
		failed[i] = FlowError{Index: e.index, Tuple: f.tuple(), Err: e.err, hint: flowHint(o, f, e.err)}
	}
	slices.SortStableFunc(failed, func(x, y FlowError) int { return cmp.Compare(x.Index, y.Index) })
	return &BatchError{Op: opNames[o], Total: len(flows), Failed: failed}
}

// completeBatch is complete for the flows that b has added. Room for labels
// does not depend on the flow, so the first that has room answers for all.
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
			b.failed = append(b.failed, batchFailure{i, f, err})
		}
	}
}

// A batch collects changes of flows and sends them whenever it is full.
type batch struct {
	*request
	c        *Conn
	op       op
	messages int // at most in one send
	bytes    int

	// careful is set if flows are to be looked up before the change, where that
	// tells them from later flows in their places.
	careful bool
	getter  *getter // nil until needed

	waiting []batchFlow  // to encode
	spare   []batchFlow  // memory for waiting
	sent    []*batchFlow // encoded in enc
	tried   int          // number of flows
	failed  []batchFailure

	onFailure func(i int, err error)
}

// A batchFlow is a flow of a batch, its index, and the attempt to make.
type batchFlow struct {
	index   int
	flow    *Flow
	attempt attempt
	first   error // of the previous attempt
	refused bool
}

// A batchFailure is a flow that failed, its index, and why.
type batchFailure struct {
	index int
	flow  *Flow
	err   error
}

// newBatch returns a batch that is flushed at n flows or earlier.
func (c *Conn) newBatch(o op, n int) *batch {
	b := &batch{request: newRequest(), c: c, op: o}
	b.messages, b.bytes = c.sockets.request.MaxBatch()
	b.messages = max(1, min(b.messages, n))
	b.waiting = make([]batchFlow, 0, b.messages)
	b.sent = make([]*batchFlow, 0, b.messages)
	b.onFailure = b.refused
	return b
}

func (b *batch) free() {
	b.request.free()
	if b.getter != nil {
		b.getter.free()
	}
}

// add adds a flow, and flushes the batch if it is full. Until then the flow
// must stay as it is.
func (b *batch) add(index int, f *Flow) {
	b.waiting = append(b.waiting, batchFlow{index: index, flow: f, attempt: attempt{b.op, f.key()}})
	if len(b.waiting) == b.messages {
		b.flush()
	}
}

// flush sends what was collected, and then further attempts until none is left.
func (b *batch) flush() {
	b.tried += len(b.waiting)
	b.look()
	for len(b.waiting) > 0 {
		now := b.waiting
		b.waiting = b.spare[:0]
		for i := range now {
			b.put(&now[i])
		}
		b.send()
		b.spare = now
	}
	b.waiting, b.spare = b.spare[:0], b.waiting
}

// look looks up the flows that need it, and drops those that are no longer the
// same.
func (b *batch) look() {
	var keys []*Flow
	for _, p := range b.waiting {
		if b.needsLook(p.flow) {
			keys = append(keys, p.flow)
		}
	}
	if len(keys) == 0 {
		return
	}
	if b.getter == nil {
		b.getter = b.c.newGetter()
	}
	mark := b.getter.slab.mark()
	found := b.getter.get(keys)
	b.getter.slab.release(mark)
	kept := b.waiting[:0]
	for _, p := range b.waiting {
		if b.needsLook(p.flow) {
			got := &found[0]
			found = found[1:]
			if err := got.err; b.careful && err != nil || orSuccessor(err) != nil {
				b.fail(&p, err)
				continue
			}
			p.attempt.key = got.key
		}
		kept = append(kept, p)
	}
	b.waiting = kept
}

func (b *batch) needsLook(f *Flow) bool {
	return b.op.needsLook(f) || b.careful && !f.Timestamp.Start.IsZero()
}

// put encodes the attempt for p, and sends the batch first if it would be too
// long.
func (b *batch) put(p *batchFlow) {
	err := p.attempt.append(&b.enc, p.flow, 0)
	if err == nil && b.enc.Len() > b.bytes && len(b.sent) > 0 {
		b.enc.Cancel()
		b.send()
		err = p.attempt.append(&b.enc, p.flow, 0)
	}
	if err != nil {
		b.fail(p, err)
		return
	}
	b.sent = append(b.sent, p)
}

// send sends the encoded messages.
func (b *batch) send() {
	if len(b.sent) == 0 {
		return
	}
	if err := b.c.sockets.request.DoBatch(&b.enc, b.onFailure); err != nil {
		b.failRest(err)
	}
	b.enc.Reset()
	b.sent = b.sent[:0]
}

// failRest fails with err all sent flows that the kernel has not refused: it is
// unknown whether they went through.
func (b *batch) failRest(err error) {
	for _, p := range b.sent {
		if !p.refused {
			b.fail(p, err)
		}
	}
}

// refused notes that the kernel refused message i.
func (b *batch) refused(i int, err error) {
	p := b.sent[i]
	p.refused = true
	next, again := p.attempt.next(p.flow, err)
	if !again {
		b.fail(p, outcome(p.first, err))
		return
	}
	b.waiting = append(b.waiting, batchFlow{index: p.index, flow: p.flow, attempt: next, first: err})
}

func (b *batch) fail(p *batchFlow, err error) {
	b.failed = append(b.failed, batchFailure{p.index, p.flow, err})
}

// DeleteFunc removes the flows that f selects and for which match returns true,
// and returns how many it removed. A nil match selects all. Memory use does not
// grow with the table: the [Flow] given to match, with all that it points to,
// is overwritten after match has returned.
//
// A flow may change between match and its removal, within the time that match
// takes for some 300 flows: the kernel reads up to 64 KiB ahead, and selected
// flows are removed at least every 32 KiB. A flow that vanishes meanwhile is
// neither counted nor an error. A later flow with the same tuples usually has
// the same ID, as [Flow.ID] explains, and is then removed in its place. If
// flows have a Timestamp.Start, DeleteFunc compares it just before the removal,
// with another request for each flow, and spares the later flow.
//
// A flow that the kernel refuses to remove, such as an offloaded one on some
// kernels, does not stop the rest; the first such error is returned at the end.
// DeleteFunc stops when ctx ends or the dump fails, and returns how many flows
// it removed until then. As in a loop over [Conn.Flows], match may see a flow
// twice.
func (c *Conn) DeleteFunc(ctx context.Context, f Filter, match func(*Flow) bool) (deleted int, err error) {
	if match == nil {
		match = func(*Flow) bool { return true }
	}
	deleted, err = c.deleteFunc(ctx, &f, match)
	return deleted, opError("delete flows", err)
}

func (c *Conn) deleteFunc(ctx context.Context, f *Filter, match func(*Flow) bool) (deleted int, err error) {
	return c.sweep(ctx, opDelete, f, func(flow *Flow) (Flow, bool) { return Flow{}, match(flow) })
}

// UpdateFunc changes the flows that f selects and for which change returns
// true, and returns how many it changed. The [Flow] that change returns holds
// only what is to change, as for [Conn.Update]: Flow{Mark: 5}. UpdateFunc fills
// in tuples and zone.
//
// Otherwise it is like [Conn.DeleteFunc], except that the kernel does not
// compare the ID of an update: a later flow with the same tuples is changed in
// the place of the one that change has seen, unless Timestamp.Start tells them
// apart.
//
// If zones differ by direction, a flow whose zone is that of both directions
// may be hidden by another flow that has its tuple. It is then not changed, and
// the error names it. Finding out takes one more request for each flow with a
// Zone.
func (c *Conn) UpdateFunc(ctx context.Context, f Filter, change func(*Flow) (Flow, bool)) (updated int, err error) {
	if change == nil {
		return 0, opError("update flows", ErrNoChange)
	}
	updated, err = c.sweep(ctx, opUpdate, &f, func(flow *Flow) (Flow, bool) {
		update, ok := change(flow)
		update.TupleMaster = Tuple{} // the kernel cannot change it
		return update, ok
	})
	return updated, opError("update flows", err)
}

// sweep carries out o on each flow that f selects and pick returns true for,
// and returns how many succeeded. pick returns what the operation needs besides
// the flow's tuples, zone, ID and start, which are those of the flow that it
// was given.
func (c *Conn) sweep(ctx context.Context, o op, f *Filter, pick func(*Flow) (Flow, bool)) (done int, err error) {
	s := sweep{batch: c.newBatch(o, math.MaxInt)}
	defer s.free()
	s.careful = true
	s.flows = make([]Flow, s.messages)
	var flow Flow
	err = c.walk(ctx, &walk{
		filter: f,
		next:   func() *Flow { flow = Flow{}; return &flow },
		visit: func(flow *Flow) bool {
			if picked, ok := pick(flow); ok {
				s.add(flow, picked)
			}
			return true
		},
		pause: s.finish,
	})
	if err == nil {
		s.finish()
	}
	return s.tried - s.lost, errors.Join(err, s.err)
}

// A sweep carries out an operation on the flows of a dump, in batches.
type sweep struct {
	*batch
	flows []Flow // of the batch
	lost  int    // how many of the tried flows failed
	err   error  // the first that is not about a flow that has gone
}

func (s *sweep) add(flow *Flow, picked Flow) {
	i := len(s.waiting)
	f := &s.flows[i]
	*f = picked
	f.ID, f.Zone, f.Timestamp = flow.ID, flow.Zone, flow.Timestamp
	f.TupleOrig, f.TupleReply = flow.TupleOrig, flow.TupleReply
	s.batch.add(i, f)
	if len(s.waiting) == 0 {
		s.account()
	}
}

// finish carries out what the batch still holds.
func (s *sweep) finish() {
	s.flush()
	s.account()
}

// account counts the failures, and empties failed so that flows can be reused.
func (s *sweep) account() {
	for _, e := range s.failed {
		if s.err == nil && !errors.Is(e.err, fs.ErrNotExist) {
			s.err = flowError(s.op, e.flow, e.err)
		}
	}
	s.lost += len(s.failed)
	s.failed = s.failed[:0]
}

// GetBatch returns an iterator over the flows that the keys stand for. It
// yields one pair for each key, in order, with what [Conn.Get] returns for it,
// but asks for many with one system call. A flow that does not exist does not
// end the loop: its pair has an error that satisfies errors.Is(err,
// unix.ENOENT). The kernel is asked while the loop goes on, for some hundred
// keys at a time.
func (c *Conn) GetBatch(keys []Flow) iter.Seq2[Flow, error] {
	return func(yield func(Flow, error) bool) {
		g := c.newGetter()
		defer g.free()
		block := make([]*Flow, 0, min(g.messages, len(keys)))
		for part := range slices.Chunk(keys, g.messages) {
			block = block[:0]
			for i := range part {
				block = append(block, &part[i])
			}
			for i, got := range g.get(block) {
				if !yield(got.flow, flowError(opGet, block[i], orSuccessor(got.err))) {
					return
				}
			}
		}
	}
}

// A getter asks for many flows with one send.
type getter struct {
	*request
	c        *Conn
	messages int // at most in one send
	bytes    int

	found []found // by key
	sent  []int   // the keys in enc, by message

	onReply   func(i int, m nfnl.Message) error
	onFailure func(i int, err error)
}

// found is the answer to a key.
type found struct {
	flow Flow
	key  key // the one that found flow
	err  error
}

func (c *Conn) newGetter() *getter {
	g := &getter{request: newRequest(), c: c}
	g.messages, g.bytes = c.sockets.request.MaxReplies()
	g.onReply, g.onFailure = g.reply, g.refused
	return g
}

// get returns the answers to keys. They are valid until the next call.
func (g *getter) get(keys []*Flow) []found {
	g.found = slices.Grow(g.found[:0], len(keys))[:len(keys)]
	clear(g.found)
	for i, f := range keys {
		g.found[i].key = f.key()
		g.put(i, f)
	}
	g.send()
	for i, f := range keys {
		got := &g.found[i]
		if got.err == nil {
			got.err = f.check(&got.flow)
		}
		if k, again := got.key.next(f, got.err); again {
			flow, k, err := g.c.find(f, k)
			*got = found{flow, k, err}
		}
		if orSuccessor(got.err) != nil {
			got.flow = Flow{}
		}
	}
	return g.found
}

// put encodes the question for key i, which is f.
func (g *getter) put(i int, f *Flow) {
	k := g.found[i].key
	err := k.appendGet(&g.enc, f, ctGet)
	if err == nil && len(g.sent) > 0 && (len(g.sent) == g.messages || g.enc.Len() > g.bytes) {
		g.enc.Cancel()
		g.send()
		err = k.appendGet(&g.enc, f, ctGet)
	}
	if err != nil {
		g.found[i].err = err
		return
	}
	g.found[i].err = nfnl.ErrNoReply // until one comes
	g.sent = append(g.sent, i)
}

// send sends the encoded messages.
func (g *getter) send() {
	if len(g.sent) == 0 {
		return
	}
	if err := g.c.sockets.request.DoReplies(&g.enc, g.onReply, g.onFailure); err != nil {
		for _, i := range g.sent {
			if got := &g.found[i]; got.err == nfnl.ErrNoReply {
				got.err = err
			}
		}
	}
	g.enc.Reset()
	g.sent = g.sent[:0]
}

func (g *getter) reply(i int, m nfnl.Message) error {
	got := &g.found[g.sent[i]]
	got.err = got.flow.unmarshal(m.Attributes, &g.slab)
	return nil
}

func (g *getter) refused(i int, err error) { g.found[g.sent[i]].err = err }
