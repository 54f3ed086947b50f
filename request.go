package conntrack

import (
	"cmp"
	"errors"
	"io/fs"
	"sync"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack/internal/nfnl"
)

// A request is what one request needs, kept for the next.
type request struct {
	enc  nfnl.Encoder
	flow Flow
	slab slab

	// decodeFlow as a func value, made once: making it allocates.
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

// A key is a way to have the kernel look a flow up.
type key uint8

const (
	// looseKey is one tuple, the original one if there are both. The kernel finds
	// whatever flow has it in either direction.
	looseKey key = iota
	// exactKey is a tuple in the direction that the flow has it in.
	exactKey
)

// key returns the key to begin with.
func (f *Flow) key() key {
	if f.hasBothTuples() {
		return exactKey
	}
	return looseKey
}

// next returns what else to look f up by after k has led to err, if there is
// something.
func (k key) next(f *Flow, err error) (key, bool) {
	if k == looseKey || err == nil {
		return k, false
	}
	// The caller may have the directions the wrong way round, but not where f came
	// from the kernel. With a zone for both directions, exactKey may have found
	// another flow.
	missed := errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errReplaced) || errors.Is(err, errHidden)
	if missed && (f.ID == 0 || f.Zone != 0) {
		return looseKey, true
	}
	// A kernel that was built without zones refuses them, and needs none.
	return looseKey, errors.Is(err, errors.ErrUnsupported)
}

// unusedZone is a zone that no flow is taken to be in.
const unusedZone = 0xfffe

// marshal appends what the kernel finds f by.
//
// The kernel looks a tuple up among those of both directions. A zone that holds
// for one direction leaves the other one in the default zone. So where zones
// differ by direction, the original tuple of a flow may be the reply tuple of
// another one. If the original direction is in the default zone, asking for it in
// a zone that holds for replies alone, where nobody is, leaves the original
// direction to be found; and the other way round. If both directions are in one
// zone, nothing is certain, but asking in the zone of the original direction alone
// leaves the replies of the default zone, where recent kernels look last.
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

// marshalIn appends t as an attribute of the given type, in another zone.
func (t *Tuple) marshalIn(e *nfnl.Encoder, typ, zone uint16) {
	moved := *t
	moved.Zone = zone
	moved.marshal(e, typ)
}

// check returns an error if got, which the kernel found for f, is not f: if f came
// from the kernel, and differs from got in what tells flows apart. It is errReplaced
// if got has the place of f.
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

// orSuccessor returns err unless it is errReplaced, for what does not mind.
func orSuccessor(err error) error {
	if errors.Is(err, errReplaced) {
		return nil
	}
	return err
}

// Create adds a flow to the table. It needs a timeout and both tuples; with NAT, the
// original one is enough. If there is a flow that has one of the tuples, or
// if what the flow is to be translated into is taken, the error satisfies
// errors.Is(err, unix.EEXIST).
//
// With NAT the flow's packets are translated, and so they are if Status has
// [StatusSrcNAT] or [StatusDstNAT]: then into what TupleReply says. So a flow that
// came from [Conn.Dump] can be put back, but for its counters, times and security
// context. Its master must be there before it.
//
// If there is no room for Labels, the flow is there without them, and the error
// satisfies errors.Is(err, unix.ENOSPC): see [Flow]. A flow with Labels or with
// Helper.Info takes two requests or three.
func (c *Conn) Create(f Flow) error { return c.do(opCreate, &f) }

// CreateOrUpdate adds a flow as [Conn.Create] does. If there is one with its
// original tuple, it changes that one as [Conn.Update] does, in a second request:
// what only a new flow can get, its NAT and its master, stays as it is, and so do
// the flags of Status that come from these. If another flow has the reply tuple,
// the error satisfies errors.Is(err, unix.EEXIST).
func (c *Conn) CreateOrUpdate(f Flow) error { return c.do(opPut, &f) }

// Get returns the flow with the tuples and the zone of f. One tuple is enough: then
// it is the flow that has this tuple in either direction. If there is none, the error
// satisfies errors.Is(err, unix.ENOENT).
//
// The flow may be a later one than f: compare the IDs and, since they mostly are the
// same (see [Flow]), Timestamp.Start.
func (c *Conn) Get(f Flow) (Flow, error) {
	flow, _, err := c.find(&f, f.key())
	return flow, flowError(opGet, &f, orSuccessor(err))
}

// Update changes the flow with the tuples and the zone of f, of which one tuple is
// enough: it sets those fields that are not zero in f. TupleMaster and NAT must be
// empty, since the kernel changes neither. The ID is not compared.
//
// A flow from [Conn.Get] or [Conn.Dump], changed and given to Update, carries more
// than the change: it puts timeout, status and state back to what they were, or
// fails with EBUSY if the flow has got more flags meanwhile. Give Update the tuples,
// the zone and the change:
//
//	Flow{TupleOrig: f.TupleOrig, TupleReply: f.TupleReply, Zone: f.Zone, Mark: 5}
//
// If Status is not zero, it must hold [StatusExpected], [StatusSeenReply] and
// [StatusAssured] where the flow has them, or the kernel answers EBUSY. It ignores
// changes of the flags about NAT, sequence numbers, the helper and offloading.
//
// The kernel changes helper, timeout, status, protocol state, mark, sequence
// adjustment, SYN proxy and labels, in this order, and stops at the first that it
// refuses: an update that returns an error may have been carried out in part.
func (c *Conn) Update(f Flow) error { return c.do(opUpdate, &f) }

// Delete removes the flow with the tuples and the zone of f. One tuple is enough:
// then it removes the flow that has this tuple in either direction. If f.ID is not
// 0, as in a Flow that came from the kernel, the flow must have that ID. That
// hardly protects a flow that took the place of f: see [Flow]. If there is no such
// flow, the error satisfies errors.Is(err, unix.ENOENT).
func (c *Conn) Delete(f Flow) error { return c.do(opDelete, &f) }

// An op is what is done with one flow.
type op uint8

const (
	opGet op = iota
	opCreate
	opPut
	opUpdate
	opDelete
	opExpects
	// opChange is the part of opPut that changes the flow that is there already.
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

// An attempt is a request that carries out an operation. Another one may follow it.
type attempt struct {
	op  op
	key key
}

// next returns what to try on f after a has led to err, if there is something.
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

// outcome returns the error of what was attempted twice. A flow that exists but
// cannot be changed has the reply tuple, not the original one: then the first error
// says more.
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

// needsLook reports whether f is to be looked for before o is attempted: no key is
// certain to find it, and the kernel does not compare the ID.
func (o op) needsLook(f *Flow) bool { return o == opUpdate && f.ID != 0 && f.Zone != 0 }

func (c *Conn) attempt(a attempt, f *Flow) error {
	r := newRequest()
	defer r.free()
	if err := a.append(&r.enc, f, netlink.Acknowledge); err != nil {
		return err
	}
	return c.sockets.request.Do(&r.enc, nil)
}

// incomplete reports whether f has what the kernel may leave out of a new flow
// without a word.
func (f *Flow) incomplete() bool { return len(f.Labels) > 0 || len(f.Helper.Info) > 0 }

// complete gives f, which was added, what the kernel leaves out of a new flow
// without a word. A flow that has gone since needs nothing.
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

// completeHelper sets what is private to a new flow's helper: the kernel does so
// only once the flow has the helper.
func (c *Conn) completeHelper(f *Flow) error {
	if len(f.Helper.Info) == 0 {
		return nil
	}
	update := f.added()
	update.Helper = f.Helper
	return c.change(opUpdate, &update)
}

// ensureLabels returns an error if f did not get its labels since there is no
// room for them. There is room where it has some.
func (c *Conn) ensureLabels(f *Flow) (room bool, err error) {
	update := f.added()
	got, _, err := c.find(&update, update.key())
	if err != nil || len(got.Labels) > 0 {
		return err == nil, err
	}
	// Another program may have cleared them. A mask of zeros changes none, but
	// asks for room.
	update.Labels = make([]byte, labelBytes)
	update.LabelsMask = update.Labels
	err = c.change(opUpdate, &update)
	return err == nil, err
}

// appendGet appends the message that asks for f by a key.
func (k key) appendGet(e *nfnl.Encoder, f *Flow, typ nfnl.MessageType) error {
	family, err := f.family()
	if err != nil {
		return err
	}
	// Without NLM_F_ACK the reply is all that comes.
	e.Message(nfnl.Header{
		SubsystemID: nfnl.NFSubsysCTNetlink,
		MessageType: typ,
		Family:      family,
	})
	k.marshal(e, f)
	return nil
}

// get asks for f by a key, and leaves the answer in r.flow.
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

// find returns the flow that f stands for, and the key that leads to it: k or one
// of those that come after it. With errReplaced it returns the flow that has the
// place of f.
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
