package conntracktest

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/netlink"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/internal/release"
	"github.com/ti-mo/conntrack/internal/testkit"
)

// Options say how a Kernel is set up. The zero Options are those of a network
// namespace of Linux 6.18, but that all flows have events and room for labels.
type Options struct {
	// Release is the release of Linux that it plays, from "4.18" on, "" for "6.18".
	// Older ones cannot filter by all that newer ones can, and send no Event.Time.
	// It makes no other difference.
	Release string

	// Accounting counts packets and bytes of flows (net.netfilter.nf_conntrack_acct),
	// Timestamps notes when they begin and end (nf_conntrack_timestamp).
	Accounting, Timestamps bool

	// Events says which flows have events (nf_conntrack_events).
	Events EventMode

	// MaxEntries is how many flows the table has room for (nf_conntrack_max), 0 for
	// any number. Past it, new ones are refused with ENOMEM; unlike Linux, a Kernel
	// drops no flow to make room.
	MaxEntries int

	// NoLabels leaves flows without room for labels, as they are where no rule of
	// the namespace uses labels.
	NoLabels bool

	// Helpers are the helpers there are, nil for some of Linux's.
	Helpers []Helper

	// DumpPart is how many entries one part of a dump has at most, 0 for as many as
	// the kernel puts into one, some hundred. See [Kernel.OnDump].
	DumpPart int

	// Unprivileged refuses all requests and groups, as the kernel does without
	// CAP_NET_ADMIN.
	Unprivileged bool

	// Start is what the Kernel's clock shows at first, the beginning of 2026 if it
	// is zero.
	Start time.Time
}

// An EventMode says which flows have events (net.netfilter.nf_conntrack_events).
type EventMode uint8

const (
	// EventsAlways gives all flows events: the sysctl is 1.
	EventsAlways EventMode = iota
	// EventsHeard gives events to flows that begin when somebody listens: the sysctl
	// is 2, Linux's default. The others have none ever after.
	EventsHeard
	// EventsNever gives flows no events: the sysctl is 0.
	EventsNever
)

// A Kernel is a connection tracking table and who talks to it. Its methods may be
// called from several goroutines.
type Kernel struct {
	opts    Options
	release release.Release
	newConn func(*nfnl.Conn) any

	// traffic is for what packets do: its socket has the port id 0. It is held for
	// one call, with what packets bring along and requests cannot.
	traffic struct {
		sync.Mutex
		conn *conntrack.Conn
		flow *conntrack.Flow // guarded by mu
	}

	mu      sync.Mutex
	now     time.Time
	sockets []*socket
	pids    uint32

	entries     []*entry // in the order of their serials, some of them gone
	holes       int      // how many are
	serials     uint64
	slots       slots
	index       map[tupleKey][]half
	unburied    int      // entries that left the table and that something refers to
	undelivered []*entry // those whose destroy events found no room
	expects     []*expect
	expectIDs   uint32

	stats struct {
		insert, insertFailed                  uint32
		expectNew, expectCreate, expectDelete uint32
	}

	// What is to go wrong.
	overruns    int
	faults      map[Op][]errno
	interrupted bool
	missing     map[*entry]bool
	held        bool
	onDump      func(int)
}

// NewKernel returns a Kernel with an empty table. Nil stands for the zero Options.
// It panics if Options.Release is no release.
func NewKernel(o *Options) *Kernel {
	k := &Kernel{
		index:  make(map[tupleKey][]half),
		faults: make(map[Op][]errno),
	}
	if o != nil {
		k.opts = *o
	}
	if k.opts.Release == "" {
		k.opts.Release = "6.18"
	}
	if k.opts.Helpers == nil {
		k.opts.Helpers = linuxHelpers()
	}
	k.now = k.opts.Start
	if k.now.IsZero() {
		k.now = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)
	}
	var err error
	if k.release, err = release.Parse(k.opts.Release); err != nil || !k.atLeast(4, 18) {
		panic(fmt.Sprintf("conntracktest: Options.Release is %q, no release of Linux from 4.18 on", k.opts.Release))
	}
	k.newConn = testkit.NewKernel(k.release, k.sysctl)
	s := k.newSocket()
	k.pids, s.pid = 0, 0
	k.traffic.conn = k.dial(s)
	return k
}

func (k *Kernel) atLeast(major, minor int) bool {
	return !k.release.Less(release.Release{Major: major, Minor: minor})
}

// sysctl returns the value of the sysctl nf_conntrack_NAME.
func (k *Kernel) sysctl(name string) (uint32, error) {
	set := func(b bool) uint32 {
		if b {
			return 1
		}
		return 0
	}
	switch name {
	case "acct":
		return set(k.opts.Accounting), nil
	case "timestamp":
		return set(k.opts.Timestamps), nil
	case "events":
		return map[EventMode]uint32{EventsAlways: 1, EventsHeard: 2}[k.opts.Events], nil
	case "max":
		return uint32(k.opts.MaxEntries), nil
	case "buckets":
		return 1, nil
	}
	return 0, fs.ErrNotExist
}

// Dial returns a Conn that speaks to the Kernel. The caller closes it. The error is
// always nil: so Dial looks like [conntrack.Dial], which it may stand in for.
func (k *Kernel) Dial() (*conntrack.Conn, error) {
	k.mu.Lock()
	s := k.newSocket()
	k.mu.Unlock()
	return k.dial(s), nil
}

func (k *Kernel) dial(s *socket) *conntrack.Conn {
	return k.newConn(nfnl.NewConn(s)).(*conntrack.Conn)
}

// forget lets a socket that was closed go.
func (k *Kernel) forget(s *socket) {
	k.sockets = slices.DeleteFunc(k.sockets, func(o *socket) bool { return o == s })
}

func (k *Kernel) socketOf(pid uint32) *socket {
	for _, s := range k.sockets {
		if s.pid == pid {
			return s
		}
	}
	return nil
}

// Add adds flows, as if packets had begun them: with EventNew, whose PortID is 0. A
// flow without a reply tuple gets its original one turned round, one without a
// timeout that of its protocol. Counters and Timestamp.Start are taken over if the
// Kernel has them. A flow that an expectation expects gets its TupleMaster, and ends
// the expectation.
func (k *Kernel) Add(flows ...conntrack.Flow) error {
	for i := range flows {
		if err := k.add(&flows[i]); err != nil {
			return fmt.Errorf("conntracktest: flow %d to add: %w", i, err)
		}
	}
	return nil
}

func (k *Kernel) add(f *conntrack.Flow) error {
	flow := *f
	if flow.TupleReply == (conntrack.Tuple{}) {
		flow.TupleReply = flow.TupleOrig.Reverse()
	}
	if flow.Timeout == 0 {
		flow.Timeout = defaultTimeout(&flow)
	}
	k.traffic.Lock()
	defer k.traffic.Unlock()
	k.bring(&flow)
	defer k.bring(nil)
	return k.traffic.conn.Create(flow)
}

// defaultTimeout returns Linux's default.
func defaultTimeout(f *conntrack.Flow) uint32 {
	switch f.TupleOrig.Proto.Protocol {
	case protoTCP:
		if f.ProtoInfo.TCP != nil && f.ProtoInfo.TCP.State == uint8(conntrack.TCPStateEstablished) {
			return 432000
		}
		return 120
	case protoUDP, protoICMP, protoICMPv6, protoGRE:
		if f.Status.SeenReply() && f.TupleOrig.Proto.Protocol == protoUDP {
			return 120
		}
		return 30
	}
	return 600
}

func (k *Kernel) bring(f *conntrack.Flow) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.traffic.flow = f
}

// beginTraffic gives e, which packets have begun, what they bring along, and returns
// the events of it.
func (k *Kernel) beginTraffic(e *entry, ev events) events {
	if f := k.traffic.flow; f != nil {
		e.setCounters(f)
		if !f.Timestamp.Start.IsZero() && !e.start.IsZero() {
			e.start = f.Timestamp.Start
		}
	}
	if x := k.findExpect(&e.tuples[0], e.zone); x != nil && e.master == nil && !x.inactive() {
		e.master = x.master
		e.master.children++
		e.status |= statusExpected
		ev = ev&^evNew | evRelated
		k.stats.expectNew++
		if !x.permanent() {
			k.removeExpect(x, 0, false)
		}
	}
	if e.mark == 0 {
		ev &^= evMark
	}
	return ev
}

func (x *expect) permanent() bool { return x.flags&1 != 0 }
func (x *expect) inactive() bool  { return x.flags&2 != 0 }

func (e *entry) setCounters(f *conntrack.Flow) {
	for i, c := range []*conntrack.Counter{&f.CountersOrig, &f.CountersReply} {
		if e.counted && (c.Packets != 0 || c.Bytes != 0) {
			e.counters[i] = counter{c.Packets, c.Bytes}
		}
	}
}

// Change changes the flow that has one of the tuples of f, and its zone, as if packets
// had done it: what of timeout, status, protocol state, mark, labels and counters is
// not zero in f. Flags of the status are added. There is an EventUpdate if something
// changed of which the kernel tells: timeout and counters alone are not.
func (k *Kernel) Change(f conntrack.Flow) error {
	k.traffic.Lock()
	defer k.traffic.Unlock()
	c := k.traffic.conn
	is, err := c.Get(f)
	if err == nil {
		if f.Status.Value != 0 {
			f.Status.Value |= is.Status.Value
		}
		err = k.with(&is, func(e *entry) { e.setCounters(&f) })
	}
	if err == nil {
		err = c.Update(f)
	}
	if err != nil {
		return fmt.Errorf("conntracktest: flow to change: %w", err)
	}
	return nil
}

// with calls change for the entry that f is in the table.
func (k *Kernel) with(f *conntrack.Flow, change func(*entry)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := (*entry)(nil)
	k.live(0, func(o *entry) bool {
		if o.id == f.ID {
			e = o
		}
		return e == nil
	})
	if e == nil {
		return enoent.error()
	}
	change(e)
	return nil
}

// Remove removes the flow that has one of the tuples of f, and its zone, as if it had
// ended by itself: with an EventDestroy whose PortID is 0.
func (k *Kernel) Remove(f conntrack.Flow) error {
	k.traffic.Lock()
	defer k.traffic.Unlock()
	if err := k.traffic.conn.Delete(f); err != nil {
		return fmt.Errorf("conntracktest: flow to remove: %w", err)
	}
	return nil
}

// Count adds packets to a flow's counters, of the original direction or of the
// replies. There is no event. The flow is that in the default zone, or else the one
// that began first. Without Options.Accounting it does nothing but look for the flow.
func (k *Kernel) Count(t conntrack.FiveTuple, reply bool, packets, bytes uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.findFiveTuple(t)
	if e == nil {
		return fmt.Errorf("conntracktest: flow to count packets of: %w: %v", enoent.error(), t)
	}
	if e.counted {
		i := 0
		if reply {
			i = 1
		}
		e.counters[i].packets += packets
		e.counters[i].bytes += bytes
	}
	return nil
}

func (k *Kernel) findFiveTuple(t conntrack.FiveTuple) *entry {
	want := tuple{
		src: t.Source.Addr().Unmap(), dst: t.Destination.Addr().Unmap(), proto: uint8(t.Protocol),
		srcPort: t.Source.Port(), dstPort: t.Destination.Port(),
	}
	e := k.find(&want, zone{0, zoneBoth})
	if e != nil && e.tuples[0] == want {
		return e
	}
	e = nil
	k.live(0, func(o *entry) bool {
		if k.flow(o).FiveTuple() == t {
			e = o
		}
		return e == nil
	})
	return e
}

// Advance lets time pass on the Kernel's clock, which nothing else moves. Flows and
// expectations whose time is up end one after the other, at their time; Linux is up to a
// minute late. It panics if d is negative.
func (k *Kernel) Advance(d time.Duration) {
	if d < 0 {
		panic("conntracktest: Kernel.Advance: time goes forward alone")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	end := k.now.Add(d)
	for _, x := range k.expiring(end) {
		if x.at.After(k.now) {
			k.now = x.at
		}
		x.expire()
	}
	k.now = end
	k.retryDestroys()
}

// An expiry is the end of a flow or an expectation, if it is still there then.
type expiry struct {
	at     time.Time
	expire func()
}

// expiring returns what ends until end, in order.
func (k *Kernel) expiring(end time.Time) []expiry {
	var list []expiry
	for _, x := range k.expects {
		list = append(list, expiry{x.expires, func() { k.removeExpect(x, 0, false) }})
	}
	k.live(0, func(e *entry) bool {
		list = append(list, expiry{e.expires, func() { k.delete(e, 0, false) }})
		return true
	})
	list = slices.DeleteFunc(list, func(x expiry) bool { return x.at.After(end) })
	slices.SortStableFunc(list, func(a, b expiry) int { return a.at.Compare(b.at) })
	return list
}

// Now returns what the Kernel's clock shows.
func (k *Kernel) Now() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now
}

// Flows returns the flows of the table, in the order in which they began: what
// [conntrack.Conn.Dump] would return, whatever is to go wrong.
func (k *Kernel) Flows() []conntrack.Flow {
	k.mu.Lock()
	defer k.mu.Unlock()
	var flows []conntrack.Flow
	k.live(0, func(e *entry) bool {
		flows = append(flows, k.flow(e))
		return true
	})
	return flows
}

// An Op is a kind of request.
type Op uint8

// The kinds of requests.
const (
	OpCreate Op = iota + 1 // Create, CreateOrUpdate
	OpUpdate
	OpGet
	OpDelete // of one flow
	OpFlush
	OpDump
	OpCreateExpect
	OpUpdateExpect
	OpGetExpect
	OpDeleteExpect
	OpFlushExpect
	OpDumpExpect
	OpStats
)

// op returns what kind of request c is.
func (c *call) op(subsystem uint16) Op {
	create := c.flags&flagCreate != 0
	if subsystem == subsysHook {
		return 0
	}
	if subsystem == subsysExpect {
		switch {
		case c.typ == expNew && create:
			return OpCreateExpect
		case c.typ == expNew:
			return OpUpdateExpect
		case c.typ == expDelete && c.attrs.has(ctaExpectTuple):
			return OpDeleteExpect
		case c.typ == expDelete:
			return OpFlushExpect
		case c.typ == expGet && c.dumps():
			return OpDumpExpect
		case c.typ == expGet:
			return OpGetExpect
		}
		return OpStats
	}
	switch {
	case c.typ == ctNew && create:
		return OpCreate
	case c.typ == ctNew:
		return OpUpdate
	case c.typ == ctDelete && (c.attrs.has(ctaTupleOrig) || c.attrs.has(ctaTupleReply)) && !c.attrs.has(ctaFilter):
		return OpDelete
	case c.typ == ctDelete:
		return OpFlush
	case c.typ <= ctGetCtrZero && !c.dumps():
		return OpGet
	case c.typ == ctGetStats || c.typ == ctGetStatsCPU:
		return OpStats
	}
	return OpDump
}

// Fail makes the next request of a kind fail with an error of the kernel, such as
// syscall.EBUSY. Called again, it is for the one after that. It panics if err is not
// an error that Linux has a number for.
func (k *Kernel) Fail(op Op, err error) {
	code, ok := nfnl.ErrorNumber(err)
	if !ok || code <= 0 {
		panic(fmt.Sprintf("conntracktest: Kernel.Fail: %v is no error of the kernel's", err))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.faults[op] = append(k.faults[op], errno(code))
}

func (k *Kernel) fault(op Op) errno {
	list := k.faults[op]
	if len(list) == 0 {
		return 0
	}
	k.faults[op] = list[1:]
	return list[0]
}

// Overrun makes the next n events find no room in the receive buffers of those who
// listen. As with Linux, further ones find none until a listener has read what it has.
func (k *Kernel) Overrun(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.overruns += n
}

// Hold keeps events from those who listen until release is called, as if they were
// slow: events take room in the receive buffers meanwhile.
func (k *Kernel) Hold() (release func()) {
	hold := func(held bool) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.held = held
		for _, s := range k.sockets {
			s.arrived.Broadcast()
		}
	}
	hold(true)
	return func() { hold(false) }
}

// Interrupt marks the next dump of flows as inconsistent.
func (k *Kernel) Interrupt() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.interrupted = true
}

// Miss leaves the flow that has one of the tuples of f, and its zone, out of the next
// dump of flows, as Linux does when the table is resized meanwhile.
func (k *Kernel) Miss(f conntrack.Flow) error {
	k.traffic.Lock()
	defer k.traffic.Unlock()
	is, err := k.traffic.conn.Get(f)
	if err == nil {
		err = k.with(&is, func(e *entry) {
			if k.missing == nil {
				k.missing = make(map[*entry]bool)
			}
			k.missing[e] = true
		})
	}
	if err != nil {
		return fmt.Errorf("conntracktest: flow to miss: %w", err)
	}
	return nil
}

// OnDump makes dumps of flows call f between their parts: step, from 1 on, parts were
// received, and the next one is not made yet. What f does to the table is part of the
// dump from there on. A nil f ends that. See Options.DumpPart.
func (k *Kernel) OnDump(f func(step int)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.onDump = f
}

// flow returns e as a request would.
func (k *Kernel) flow(e *entry) conntrack.Flow {
	var w writer
	e.write(&w, k.now, &socket{}, header{}, 1, 0)
	var ev conntrack.Event
	m := netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(binary.NativeEndian.Uint16(w.b[4:]))},
		Data:   w.b[nlmsgHeaderLen:],
	}
	if err := ev.Unmarshal(m); err != nil {
		panic(fmt.Sprintf("conntracktest: a flow of the table cannot be decoded: %v", err))
	}
	return *ev.Flow
}
