package conntrack

import (
	"cmp"
	"errors"
	"io/fs"
	"sync"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack/internal/nfnl"
)

// A request holds the memory that one request needs, to be used again.
type request struct {
	enc  nfnl.Encoder
	flow Flow
	slab slab

	// onFlow is decodeFlow as a func value, made once because making it
	// allocates.
	onFlow func(nfnl.Message) error
}

var requests = sync.Pool{New: func() any {
	r := new(request)
	r.onFlow = r.decodeFlow
	return r
}}

func newRequest() *request {
	r := requests.Get().(*request)
	r.enc.Reset()
	return r
}

func (r *request) free() { requests.Put(r) }

func (r *request) decodeFlow(m nfnl.Message) error {
	r.flow = Flow{}
	return r.flow.unmarshal(m.Attributes, &r.slab)
}

// A key is a way to make the kernel look up a flow.
type key uint8

const (
	// looseKey is one tuple, the original one if there are both. The kernel
	// finds the flow that has it in either direction.
	looseKey key = iota
	// exactKey is a tuple together with its direction in the flow.
	exactKey
)

// key returns the key to try first.
func (f *Flow) key() key {
	if f.hasBothTuples() {
		return exactKey
	}
	return looseKey
}

// next returns the key to try after k has led to err. ok is false if none is
// left.
func (k key) next(f *Flow, err error) (key, bool) {
	if k == looseKey || err == nil {
		return k, false
	}
	// The caller may have the directions the wrong way round, but not if f came
	// from the kernel. If a zone is that of both directions, exactKey may have
	// found another flow.
	missed := errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errReplaced) || errors.Is(err, errHidden)
	if missed && (f.ID == 0 || f.Zone != 0) {
		return looseKey, true
	}
	// A kernel that was built without zones refuses them, and needs none.
	return looseKey, errors.Is(err, errors.ErrUnsupported)
}

// unusedZone is a zone that no flow is expected to be in.
const unusedZone = 0xfffe

// marshal appends what the kernel finds f by.
//
// The kernel looks a tuple up among those of both directions, and a zone of one
// direction leaves the other direction in the default zone. So if zones differ
// by direction, the original tuple of a flow may be the reply tuple of another
// one. If the original direction is in the default zone, the exact key is that
// tuple given as the reply direction of unusedZone: nothing matches it as a
// reply, so the kernel finds the original direction. The reply direction works
// the same way. If both directions are in one zone, no key is certain. The
// tuple in the zone of the original direction alone excludes at least the
// replies in the default zone, which recent kernels look at last.
func (k key) marshal(e *nfnl.Encoder, f *Flow) {
	orig, reply := &f.TupleOrig, &f.TupleReply
	switch {
	case k == looseKey && orig.filled():
		orig.marshal(e, ctaTupleOrig)
		f.marshalZone(e)
	case k == looseKey:
		reply.marshal(e, ctaTupleReply)
		f.marshalZone(e)
	case f.Zone|orig.Zone == 0:
		orig.marshalIn(e, ctaTupleReply, unusedZone)
	case f.Zone|reply.Zone == 0 && reply.filled():
		reply.marshalIn(e, ctaTupleOrig, unusedZone)
	default:
		orig.marshalIn(e, ctaTupleOrig, max(f.Zone, orig.Zone))
	}
}

// marshalIn appends t, moved to another zone, as an attribute of the given
// type.
func (t *Tuple) marshalIn(e *nfnl.Encoder, typ, zone uint16) {
	moved := *t
	moved.Zone = zone
	moved.marshal(e, typ)
}

// check returns an error if got, which the kernel found for f, is another flow.
// It can tell only if f came from the kernel. The error is errReplaced if got
// has taken the place of f.
func (f *Flow) check(got *Flow) error {
	start := f.Timestamp.Start
	switch {
	case f.ID == 0, f.ID == got.ID && (start.IsZero() || start.Equal(got.Timestamp.Start)):
		return nil
	case f.Zone == got.Zone && (f.TupleOrig == got.TupleOrig || !f.TupleOrig.filled()):
		return errReplaced
	}
	return errHidden
}

// orSuccessor returns err, or nil if err is errReplaced, for operations that a
// successor will do for.
func orSuccessor(err error) error {
	if errors.Is(err, errReplaced) {
		return nil
	}
	return err
}

// Create adds a flow to the table. It needs a timeout and both tuples; with
// NAT, the original tuple is enough. If a flow has one of the tuples already,
// or another flow uses what this one is to be translated into, the error
// satisfies errors.Is(err, unix.EEXIST).
//
// The flow is translated if NAT is set. It is also translated if [Flow.Status]
// has [StatusSrcNAT] or [StatusDstNAT], into what TupleReply says. So a flow
// from [Conn.Dump] can be put back, except for its counters, times and security
// context. If it has a master, add that one first.
//
// Labels need room: see [Flow.Labels]. If there is none, the flow is added
// without labels, and the error satisfies errors.Is(err, unix.ENOSPC). A flow
// with Labels or Helper.Info takes two or three requests.
func (c *Conn) Create(f Flow) error { return c.do(opCreate, &f) }

// CreateOrUpdate adds a flow as [Conn.Create] does or, if a flow with its
// original tuple exists, changes that flow as [Conn.Update] does, with a second
// request. Some things only a new flow can get: an existing flow keeps its NAT,
// its master, and the flags of [Flow.Status] that come from these. If another
// flow has the reply tuple, the error satisfies errors.Is(err, unix.EEXIST).
func (c *Conn) CreateOrUpdate(f Flow) error { return c.do(opPut, &f) }

// Get returns the flow with the tuples and the zone of f. One tuple is enough:
// Get then returns the flow that has it in either direction. If no such flow
// exists, the error satisfies errors.Is(err, unix.ENOENT).
//
// If f came from the kernel, the result may be a later flow with the same
// tuples. Compare Timestamp.Start to find out: the ID is usually the same, as
// [Flow.ID] explains.
func (c *Conn) Get(f Flow) (Flow, error) {
	flow, _, err := c.find(&f, f.key())
	return flow, flowError(opGet, &f, orSuccessor(err))
}

// Update changes the flow with the tuples and the zone of f: it sets all other
// fields of f that are not zero. One tuple is enough. TupleMaster and NAT must
// be empty, since the kernel changes neither. The ID is not compared. If no
// such flow exists, the error satisfies errors.Is(err, unix.ENOENT).
//
// Give Update the tuples, the zone and the change, and not a whole flow from
// [Conn.Get] or [Conn.Dump]. A whole flow would set timeout, status and state
// back to what they were, or fail with EBUSY if the flow has gained flags
// since. For example:
//
//	Flow{TupleOrig: f.TupleOrig, TupleReply: f.TupleReply, Zone: f.Zone, Mark: 5}
//
// A [Flow.Status] other than zero must hold [StatusExpected], [StatusSeenReply]
// and [StatusAssured] if the flow has them, or the kernel answers EBUSY. The
// kernel ignores changes of the flags about NAT, sequence numbers, the helper
// and offloading.
//
// The kernel changes helper, timeout, status, protocol state, mark, sequence
// adjustment, SYN proxy and labels, in this order, and stops at the first that
// it refuses. So an update that returns an error may have changed part of the
// flow.
func (c *Conn) Update(f Flow) error { return c.do(opUpdate, &f) }

// Delete removes the flow with the tuples and the zone of f. One tuple is
// enough: Delete then removes the flow that has it in either direction. If no
// such flow exists, the error satisfies errors.Is(err, unix.ENOENT).
//
// If f.ID is not 0, as in a [Flow] from the kernel, only a flow with that ID is
// removed. This hardly protects a later flow with the same tuples, as [Flow.ID]
// explains.
func (c *Conn) Delete(f Flow) error { return c.do(opDelete, &f) }

// An op is an operation on one flow.
type op uint8

const (
	opGet op = iota
	opCreate
	opPut
	opUpdate
	opDelete
	opExpects
	// opChange is the second part of opPut: it changes the flow that exists.
	opChange
)

var opNames = [...]string{
	opGet:     "get flow",
	opCreate:  "create flow",
	opPut:     "create or update flow",
	opUpdate:  "update flow",
	opDelete:  "delete flow",
	opExpects: "dump expectations of a flow",
	opChange:  "create or update flow",
}

// adds reports whether o may add a flow to the table.
func (o op) adds() bool { return o == opCreate || o == opPut }

// An attempt is one request of an operation. Others may follow it.
type attempt struct {
	op  op
	key key
}

// next returns the attempt to make on f after a has led to err. ok is false if
// none is left.
func (a attempt) next(f *Flow, err error) (attempt, bool) {
	switch {
	case a.op == opPut && errors.Is(err, fs.ErrExist):
		return attempt{opChange, exactKey}, true
	case a.op.adds(), a.op == opChange && errors.Is(err, fs.ErrNotExist):
		return a, false
	}
	k, ok := a.key.next(f, err)
	return attempt{a.op, k}, ok
}

// append appends the message for f.
func (a attempt) append(e *nfnl.Encoder, f *Flow, flags netlink.HeaderFlags) error {
	family, err := f.family()
	if err != nil {
		return err
	}
	h := nfnl.Header{Family: family, SubsystemID: nfnl.NFSubsysCTNetlink, MessageType: ctNew, Flags: flags}
	switch a.op {
	case opCreate, opPut:
		if f.Timeout == 0 {
			return ErrNeedTimeout
		}
		h.Flags |= netlink.Create | netlink.Excl
		e.Message(h)
		err = f.marshalNew(e)
	case opUpdate:
		switch {
		case f.TupleMaster.filled():
			return ErrUpdateMaster
		case f.NAT != nil:
			return ErrUpdateNAT
		}
		e.Message(h)
		a.key.marshal(e, f)
		err = f.marshalUpdate(e, f.Status.Value)
	case opChange:
		e.Message(h)
		a.key.marshal(e, f)
		err = f.marshalUpdate(e, f.changeStatus())
	case opDelete:
		h.MessageType = ctDelete
		e.Message(h)
		a.key.marshal(e, f)
		if f.ID != 0 {
			e.Uint32(ctaID, f.ID)
		}
	}
	if err := cmp.Or(err, e.Err()); err != nil {
		e.Cancel()
		return err
	}
	return nil
}

// outcome returns the error of an operation that took two attempts. If a flow
// exists but cannot be found for the change, it has the reply tuple and not the
// original one: the first error says more.
func outcome(first, err error) error {
	if errors.Is(first, fs.ErrExist) && errors.Is(err, fs.ErrNotExist) {
		return first
	}
	return err
}

// do carries out o on f.
func (c *Conn) do(o op, f *Flow) error {
	err := c.change(o, f)
	if err == nil && o.adds() && f.incomplete() {
		err = c.complete(f)
	}
	return flowError(o, f, err)
}

func (c *Conn) change(o op, f *Flow) error {
	a := attempt{o, f.key()}
	if o.needsLook(f) {
		var err error
		if _, a.key, err = c.find(f, a.key); orSuccessor(err) != nil {
			return err
		}
	}
	var first error
	for {
		err := c.attempt(a, f)
		next, again := a.next(f, err)
		if !again {
			return outcome(first, err)
		}
		a, first = next, err
	}
}

// needsLook reports whether to look f up before o: no key is certain to find
// it, and the kernel does not compare the ID.
func (o op) needsLook(f *Flow) bool { return o == opUpdate && f.ID != 0 && f.Zone != 0 }

func (c *Conn) attempt(a attempt, f *Flow) error {
	r := newRequest()
	defer r.free()
	if err := a.append(&r.enc, f, netlink.Acknowledge); err != nil {
		return err
	}
	return c.sockets.request.Do(&r.enc, nil)
}

// incomplete reports whether f has fields that the kernel may leave out of a
// new flow without an error.
func (f *Flow) incomplete() bool { return len(f.Labels) > 0 || len(f.Helper.Info) > 0 }

// complete gives f, which was added, the fields that the kernel left out. A
// flow that has gone since needs none.
func (c *Conn) complete(f *Flow) error {
	err := c.completeHelper(f)
	if err == nil && f.labelled() {
		_, err = c.ensureLabels(f)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// added returns the tuples and the zone of f, which was added.
func (f *Flow) added() Flow {
	return Flow{TupleOrig: f.TupleOrig, TupleReply: f.TupleReply, Zone: f.Zone}
}

// completeHelper sets Helper.Info of f. The kernel takes it only once the flow
// has the helper.
func (c *Conn) completeHelper(f *Flow) error {
	if len(f.Helper.Info) == 0 {
		return nil
	}
	update := f.added()
	update.Helper = f.Helper
	return c.change(opUpdate, &update)
}

// ensureLabels returns an error if f did not get its labels for want of room. A
// flow that has labels has room.
func (c *Conn) ensureLabels(f *Flow) (room bool, err error) {
	update := f.added()
	got, _, err := c.find(&update, update.key())
	if err != nil || len(got.Labels) > 0 {
		return err == nil, err
	}
	// Another program may have cleared them. An update with a mask of zeros
	// changes none, but fails without room.
	update.Labels = make([]byte, labelBytes)
	update.LabelsMask = update.Labels
	err = c.change(opUpdate, &update)
	return err == nil, err
}

// appendGet appends the message that asks for f by k.
func (k key) appendGet(e *nfnl.Encoder, f *Flow, typ nfnl.MessageType) error {
	family, err := f.family()
	if err != nil {
		return err
	}
	// Without NLM_F_ACK only the reply comes.
	e.Message(nfnl.Header{
		SubsystemID: nfnl.NFSubsysCTNetlink,
		MessageType: typ,
		Family:      family,
	})
	k.marshal(e, f)
	return nil
}

// get asks for f by k, and decodes the answer into r.flow.
func (c *Conn) get(r *request, f *Flow, k key, typ nfnl.MessageType) error {
	r.enc.Reset()
	if err := k.appendGet(&r.enc, f, typ); err != nil {
		return err
	}
	if err := c.sockets.request.Do(&r.enc, r.onFlow); err != nil {
		return err
	}
	return f.check(&r.flow)
}

// find returns the flow that f stands for, and the key that found it: k or one
// of those that follow it. With errReplaced it returns the flow that has taken
// the place of f.
func (c *Conn) find(f *Flow, k key) (Flow, key, error) {
	r := newRequest()
	defer r.free()
	for {
		err := c.get(r, f, k, ctGet)
		if orSuccessor(err) == nil {
			return r.flow, k, err
		}
		next, again := k.next(f, err)
		if !again {
			return Flow{}, k, err
		}
		k = next
	}
}
