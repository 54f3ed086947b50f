package conntrack

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack/internal/nfnl"
)

// A Conn is a connection to the kernel's connection tracking, in one network
// namespace. Its methods may be called from several goroutines, those that
// iterate also from within each other's loops.
//
// It opens one socket at Dial, for requests. Each dump and each listener has a
// socket of its own, opened when it is needed in the same network namespace and
// with the same options.
type Conn struct {
	sockets sockets

	mu        sync.Mutex // held by Listen and Close while they change what is below
	listening bool
	workers   sync.WaitGroup // of Listen
	closed    bool
	done      chan struct{} // closed by Close

	overruns atomic.Uint64
}

// Dial opens a connection to the network namespace of the calling thread or, if
// config.NetNS is set, of that descriptor, which may be closed afterwards. A nil
// config is the zero config. Dial ignores config.Groups, since [Conn.Listen] and
// [Conn.Events] join groups; config.PID is the address of the socket for requests
// alone.
//
// config.NetNS takes CAP_SYS_ADMIN. A Conn in another namespace than the process
// keeps a thread there until it is closed, for the sockets that it opens later: the
// process may drop all capabilities but CAP_NET_ADMIN.
//
// Otherwise Dial succeeds without privilege, but no operation of the Conn does. On
// other systems than Linux the error satisfies errors.Is(err,
// errors.ErrUnsupported).
func Dial(config *netlink.Config) (*Conn, error) {
	if config != nil {
		own := *config
		own.Groups = 0
		config = &own
	}
	request, err := nfnl.Dial(config)
	if err != nil {
		return nil, opError("dial", err)
	}
	return &Conn{
		sockets: sockets{request: request},
		done:    make(chan struct{}),
	}, nil
}

// Close ends what the Conn does, in whatever goroutine, and closes its sockets.
// It returns when the workers of Listen have ended, which does not depend on
// anybody reading their channels; the caller may close these then. Operations
// that were under way, and later ones, return an error that satisfies
// errors.Is(err, fs.ErrClosed). Closing twice is no error.
func (c *Conn) Close() error {
	err := c.closeOnce()
	c.workers.Wait()
	return opError("close", err)
}

func (c *Conn) closeOnce() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	close(c.done)
	return c.sockets.close()
}

// PortID returns the netlink address of the socket that all requests but dumps go
// through: Event.PortID of the events that they cause.
func (c *Conn) PortID() uint32 { return c.sockets.request.PortID() }

// SetOption switches an option of all sockets of the Conn on or off, including
// those that it opens later. With netlink.NoENOBUFS the kernel does not tell of
// overruns, so that events are lost without ErrOverrun; there is no need for it.
func (c *Conn) SetOption(option netlink.ConnOption, enable bool) error {
	return opError("set option", c.sockets.each(func(s *nfnl.Conn) error {
		return s.SetOption(option, enable)
	}))
}

// SetReadBuffer sets the size in bytes of the kernel's receive buffer for all
// sockets of the Conn, including those that it opens later. With CAP_NET_ADMIN in
// the initial user namespace it may exceed the sysctl net.core.rmem_max, which
// limits it otherwise. The kernel doubles the value, to make room for its
// bookkeeping. A size below 1, or too large to be doubled, from 1<<30 on, gives an
// error that satisfies errors.Is(err, fs.ErrInvalid).
func (c *Conn) SetReadBuffer(bytes int) error {
	return opError("set read buffer", c.sockets.each(func(s *nfnl.Conn) error {
		return s.SetReadBuffer(bytes)
	}))
}

// SetWriteBuffer sets the size in bytes of the kernel's send buffer for all
// sockets of the Conn, in the manner of SetReadBuffer (net.core.wmem_max).
func (c *Conn) SetWriteBuffer(bytes int) error {
	return opError("set write buffer", c.sockets.each(func(s *nfnl.Conn) error {
		return s.SetWriteBuffer(bytes)
	}))
}

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
	return r.flow.unmarshal(m.Attributes, &r.slab, nil)
}

// An op is a change of one flow.
type op uint8

const (
	opCreate op = iota
	opPut
	opUpdate
	opDelete
	// opDeleteAgain is opDelete for a flow with an ID that opDelete did not
	// find: it may have found another one.
	opDeleteAgain
)

var opNames = [...]string{
	opCreate:      "create flow",
	opPut:         "create or update flow",
	opUpdate:      "update flow",
	opDelete:      "delete flow",
	opDeleteAgain: "delete flow",
}

// append appends the message that carries out o on f.
func (o op) append(e *nfnl.Encoder, f *Flow, flags netlink.HeaderFlags) error {
	family, err := f.family()
	if err != nil {
		return err
	}
	h := nfnl.Header{Family: family, SubsystemID: nfnl.NFSubsysCTNetlink, Flags: flags}
	switch o {
	case opCreate, opPut:
		if f.Timeout == 0 {
			return ErrNeedTimeout
		}
		h.MessageType = ctNew
		h.Flags |= netlink.Create
		if o == opCreate {
			h.Flags |= netlink.Excl
		}
		e.Message(h)
		err = f.marshalNew(e, family)
	case opUpdate:
		switch {
		case f.TupleMaster.filled():
			return ErrUpdateMaster
		case f.NAT != nil:
			return ErrUpdateNAT
		}
		h.MessageType = ctNew
		e.Message(h)
		err = f.marshalUpdate(e)
	case opDelete:
		h.MessageType = ctDelete
		e.Message(h)
		f.marshalKey(e)
		if f.ID != 0 {
			e.Uint32(ctaID, f.ID)
		}
	case opDeleteAgain:
		h.MessageType = ctDelete
		e.Message(h)
		f.marshalKeyInOneDirection(e)
		e.Uint32(ctaID, f.ID)
	}
	if err := cmp.Or(err, e.Err()); err != nil {
		e.Cancel()
		return err
	}
	return nil
}

// again returns what to try after o has failed, if there is something.
func (o op) again(f *Flow, err error) (op, bool) {
	try := o == opDelete && f.ID != 0 && f.TupleOrig.filled() && f.TupleReply.filled() &&
		errors.Is(err, fs.ErrNotExist)
	return opDeleteAgain, try
}

// do carries out o on f.
func (c *Conn) do(o op, f *Flow) error {
	err := c.attempt(o, f)
	if o, again := o.again(f, err); again {
		err = c.attempt(o, f)
	}
	if err == nil && o.adds() && f.incomplete() {
		err = c.complete(f)
	}
	return flowError(opNames[o], f, err)
}

func (c *Conn) attempt(o op, f *Flow) error {
	r := newRequest()
	defer r.free()
	if err := o.append(&r.enc, f, netlink.Acknowledge); err != nil {
		return err
	}
	return c.sockets.request.Do(&r.enc, nil)
}

// adds reports whether o may add a flow to the table.
func (o op) adds() bool { return o == opCreate || o == opPut }

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

// completeHelper sets what is private to a new flow's helper: the kernel does so
// only once the flow has the helper.
func (c *Conn) completeHelper(f *Flow) error {
	if len(f.Helper.Info) == 0 {
		return nil
	}
	return c.attempt(opUpdate, &Flow{TupleOrig: f.TupleOrig, Zone: f.Zone, Helper: f.Helper})
}

// ensureLabels returns an error if f did not get its labels since there is no
// room for them. There is room where it has some.
func (c *Conn) ensureLabels(f *Flow) (room bool, err error) {
	got, err := c.get(f, ctGet)
	if err != nil || len(got.Labels) > 0 {
		return err == nil, err
	}
	// Another program may have cleared them. A mask of zeros changes none, but
	// asks for room.
	none := make([]byte, labelBytes)
	err = c.attempt(opUpdate, &Flow{TupleOrig: f.TupleOrig, Zone: f.Zone, Labels: none, LabelsMask: none})
	return err == nil, err
}

// Create adds a flow to the table. It needs a timeout and, for the kernel, both
// tuples. If a flow is there already that has one of them, or if what the flow is
// to be translated into is taken, the error satisfies errors.Is(err, unix.EEXIST).
//
// With NAT the flow's packets are translated, and so they are if Status has
// StatusSrcNAT or StatusDstNAT: then into what TupleReply says. So a flow that
// came from a Dump can be put back, but for its counters, times and security
// context; its master must be there before it.
//
// If there is no room for Labels, the flow is there without them, and the error
// satisfies errors.Is(err, unix.ENOSPC): see Flow.Labels. A flow with Labels or
// with Helper.Info takes two requests or three.
func (c *Conn) Create(f Flow) error { return c.do(opCreate, &f) }

// CreateOrUpdate adds a flow to the table as Create does, or changes it as Update
// does if there is one with its original tuple. The kernel refuses to change one
// with an f whose NAT, or TupleMaster, is set, or whose Status says that it is
// translated, with EOPNOTSUPP.
func (c *Conn) CreateOrUpdate(f Flow) error { return c.do(opPut, &f) }

// Get returns the flow that has one of the tuples of f, and its zone. If there
// is none, the error satisfies errors.Is(err, unix.ENOENT).
func (c *Conn) Get(f Flow) (Flow, error) {
	flow, err := c.get(&f, ctGet)
	return flow, flowError("get flow", &f, err)
}

func (c *Conn) get(f *Flow, typ nfnl.MessageType) (Flow, error) {
	r := newRequest()
	defer r.free()
	family, err := f.family()
	if err != nil {
		return Flow{}, err
	}
	// Without NLM_F_ACK the reply is all that comes.
	r.enc.Message(nfnl.Header{
		SubsystemID: nfnl.NFSubsysCTNetlink,
		MessageType: typ,
		Family:      family,
	})
	f.marshalKey(&r.enc)
	if err := c.sockets.request.Do(&r.enc, r.onFlow); err != nil {
		return Flow{}, err
	}
	return r.flow, nil
}

// Update changes the flow that has one of the tuples of f, and its zone: those
// of its fields that are not zero in f. The kernel takes no change of the
// tuples or the zone, and TupleMaster and NAT must be empty.
//
// A flow from Get or Dump, changed and given to Update, carries more than the
// change: it puts timeout, status and state back to what they were, or fails with
// EBUSY if the flow has got more flags meanwhile. Give Update a tuple, the zone and
// the change: Flow{TupleOrig: f.TupleOrig, Zone: f.Zone, Mark: 5}.
//
// If Status is not zero, it must hold StatusExpected, StatusSeenReply and
// StatusAssured where the flow has them, or the kernel answers EBUSY. Changes of
// the flags about NAT, sequence numbers, the helper and offloading are ignored by
// the kernel without a word.
//
// The kernel changes helper, timeout, status, protocol state, mark, sequence
// adjustment, SYN proxy and labels, in this order, and stops at the first that it
// refuses: an update that returns an error may have been carried out in part.
func (c *Conn) Update(f Flow) error { return c.do(opUpdate, &f) }

// Delete removes the flow that has one of the tuples of f, and its zone. If f.ID
// is not 0, as in a Flow that came from the kernel, the entry must have that ID:
// a later entry with the same tuples is not removed. If there is no such entry,
// the error satisfies errors.Is(err, unix.ENOENT).
func (c *Conn) Delete(f Flow) error { return c.do(opDelete, &f) }

// Flush removes all flows, IPv4 and IPv6, in all zones.
func (c *Conn) Flush() error {
	var all kernelFilter
	return c.flush("flush", &all)
}

// FlushFilter removes the flows that f selects. The zero Filter selects all of
// them. A filter that contradicts itself gives ErrFilterSelectsNothing.
//
// If the kernel is known to honour all of f, this is one request; else it is
// DeleteFunc, whose notes then hold here too.
func (c *Conn) FlushFilter(f Filter) error {
	const name = "flush with filter"
	k, err := f.plan(true, c.has)
	if err != nil {
		return opError(name, err)
	}
	if k.exact {
		return c.flush(name, &k)
	}
	_, err = c.deleteFunc(context.Background(), &f, func(*Flow) bool { return true })
	return opError(name, err)
}

func (c *Conn) flush(name string, k *kernelFilter) error {
	r := k.flushRequest()
	defer r.free()
	return opError(name, c.sockets.request.Do(&r.enc, nil))
}

// StatsGlobal returns how full the table is.
func (c *Conn) StatsGlobal() (StatsGlobal, error) {
	s, err := c.statsGlobal()
	return s, opError("get global statistics", err)
}

func (c *Conn) statsGlobal() (StatsGlobal, error) {
	r := newRequest()
	defer r.free()
	r.enc.Message(nfnl.Header{
		SubsystemID: nfnl.NFSubsysCTNetlink,
		MessageType: ctGetStats,
	})
	var s StatsGlobal
	err := c.sockets.request.Do(&r.enc, func(m nfnl.Message) error {
		return s.unmarshal(m.Attributes)
	})
	return s, err
}
