package conntrack

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack/internal/nfnl"
)

// DumpOptions say how a dump is made.
type DumpOptions struct {
	// ZeroCounters sets the counters of each flow to zero as it is dumped
	// (IPCTNL_MSG_CT_GET_CTRZERO). The kernel does so as it fills a buffer: in a
	// loop over Flows that is left early, flows that were not yielded may have
	// lost their counters.
	ZeroCounters bool
}

// errStop ends a dump early.
var errStop = errors.New("stop")

// dump carries out the dump that r asks for, on a socket of its own, and passes
// each message to fn until that returns an error. If that is errStop, dump
// returns nil.
func (c *Conn) dump(ctx context.Context, r *request, fn func(nfnl.Message) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s, err := c.sockets.get()
	if err != nil {
		return err
	}
	reusable := false
	defer func() {
		if reusable {
			c.sockets.keep(s)
		} else {
			// Closing it is the only way to end a dump early.
			c.sockets.drop(s)
		}
	}()
	stop := context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Unix(1, 0)) })
	defer stop() // also if fn panics: it keeps the socket's buffer

	err = s.Do(&r.enc, fn)
	reusable = stop() && err == nil
	switch {
	case errors.Is(err, errStop):
		return nil
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	}
	return err
}

// dumpRequest returns a request for a dump.
func dumpRequest(h nfnl.Header) *request {
	r := newRequest()
	h.Flags = netlink.Dump
	r.enc.Message(h)
	return r
}

// A walk is a dump of the flows that a filter selects.
type walk struct {
	filter *Filter
	opts   *DumpOptions

	// next returns where the next flow is to be decoded to: a zero Flow.
	next func() *Flow
	// visit is called with that flow if the filter selects it, and returns
	// false to end the walk.
	visit func(*Flow) bool
	// pause, if not nil, is called when all flows that were received so far have
	// been visited.
	pause func()
	// keep is set if what visit gets is kept after it has returned.
	keep bool
}

// walk carries out w.
func (c *Conn) walk(ctx context.Context, w *walk) error {
	k, err := w.filter.plan(false, c.has)
	if err != nil {
		return err
	}
	zero := w.opts != nil && w.opts.ZeroCounters
	typ, zeroEach := nfnl.MessageType(ctGet), zero && !k.exact
	if zero && k.exact {
		typ = ctGetCtrZero
	}
	r := k.dumpRequest(typ)
	defer r.free()
	// A flow may have changed since the kernel selected it. If its counters are
	// zero by then, it must be passed on all the same.
	match := *w.filter != Filter{} && typ != ctGetCtrZero
	return c.dump(ctx, r, func(m nfnl.Message) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		flow, mark := w.next(), r.slab.mark()
		if err := flow.unmarshal(m.Attributes, &r.slab); err != nil {
			return err
		}
		found := !match || w.filter.match(flow, false)
		if found && zeroEach {
			var err error
			if found, err = c.zeroCounters(flow); err != nil {
				return err
			}
		}
		more := true
		if found {
			more = w.visit(flow)
		} else {
			*flow = Flow{}
		}
		if !found || !w.keep {
			r.slab.release(mark)
		}
		if m.Last && w.pause != nil {
			w.pause()
		}
		if !more {
			return errStop
		}
		return nil
	})
}

// zeroCounters sets the counters of one flow to zero and makes flow what it was
// before, unless it has gone. It looks first, so that the counters of a flow that
// has taken its place, or hides it, stay.
func (c *Conn) zeroCounters(flow *Flow) (found bool, err error) {
	_, key, err := c.find(flow, flow.key())
	if err != nil {
		return false, ignoreGone(err)
	}
	r := newRequest()
	defer r.free()
	if err := c.get(r, flow, key, ctGetCtrZero); err != nil {
		return false, ignoreGone(err)
	}
	*flow = r.flow
	return true, nil
}

// ignoreGone returns err unless it says that there is no such flow.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Flows returns an iterator over the flows that f selects, IPv4 and IPv6, in all
// zones; the zero Filter selects all of them. Each range over it is a dump of its
// own. A Flow is yielded as it is received, so that memory does not grow with the
// table; it is the caller's to keep. A nil opts is the zero [DumpOptions].
//
// If the dump fails, an error is yielded last, with a zero Flow: the flows up to there
// are then not all. It satisfies errors.Is(err, [ErrDumpInterrupted]) if the kernel
// marked the dump as inconsistent, and errors.Is(err, ctx.Err()) if ctx ended.
//
// The table goes on changing during a dump. An entry that was there from beginning to
// end is yielded; one that came or went meanwhile may be; and one may be yielded twice
// when its neighbour in the table goes. When the kernel resizes the table, entries may
// be yielded twice or not at all, and it does not tell: ask for a flow by [Conn.Get]
// before you take it for gone.
//
// The loop body may call any method of the Conn. The loop may be left at any time, at
// the cost of closing a socket.
//
// While the kernel looks for flows to send, it holds up one processor's interrupts
// for packets (softirqs). A Filter that selects few flows of a huge table makes it
// look long: 60 to 80 ms for a table of 200 000 flows. Two loops side by side, one for
// each family, save about a tenth of the time for a tenth more processor time.
func (c *Conn) Flows(ctx context.Context, f Filter, opts *DumpOptions) iter.Seq2[Flow, error] {
	return func(yield func(Flow, error) bool) {
		var flow Flow
		err := c.walk(ctx, &walk{
			filter: &f,
			opts:   opts,
			next:   func() *Flow { flow = Flow{}; return &flow },
			visit:  func(flow *Flow) bool { return yield(*flow, nil) },
			keep:   true,
		})
		if err != nil {
			yield(Flow{}, tableError("dump flows", err))
		}
	}
}

// Dying returns an iterator over the flows that were removed from the table but
// wait for their EventDestroy to be delivered, to a listener with
// netlink.BroadcastError whose buffer is full (the kernel's dying list, Linux 3.8),
// in the manner of Flows. Most of the time there are none.
func (c *Conn) Dying(ctx context.Context) iter.Seq2[Flow, error] {
	return c.list(ctx, ctGetDying, "dump dying flows")
}

// Unconfirmed returns an iterator over the flows whose first packet is still on
// its way through the machine, in the manner of Flows. They are in no list
// since Linux 6.3, and before that only for a moment, unless a packet waits in a
// queue for user space.
func (c *Conn) Unconfirmed(ctx context.Context) iter.Seq2[Flow, error] {
	return c.list(ctx, ctGetUnconfirmed, "dump unconfirmed flows")
}

// list returns an iterator over one of the lists beside the table.
func (c *Conn) list(ctx context.Context, typ nfnl.MessageType, name string) iter.Seq2[Flow, error] {
	return func(yield func(Flow, error) bool) {
		r := dumpRequest(nfnl.Header{SubsystemID: nfnl.NFSubsysCTNetlink, MessageType: typ})
		defer r.free()
		err := stream(ctx, c, r, func(f *Flow, m nfnl.Message) error { return f.unmarshal(m.Attributes, &r.slab) }, yield)
		if err != nil {
			yield(Flow{}, tableError(name, err))
		}
	}
}

// stream carries out the dump that r asks for and yields each entry as it is
// decoded.
func stream[T any](ctx context.Context, c *Conn, r *request, decode func(*T, nfnl.Message) error, yield func(T, error) bool) error {
	return c.dump(ctx, r, func(m nfnl.Message) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		var entry T
		if err := decode(&entry, m); err != nil {
			return err
		}
		if !yield(entry, nil) {
			return errStop
		}
		return nil
	})
}

// Dump returns all flows, IPv4 and IPv6, in all zones. A nil opts is the zero
// [DumpOptions].
//
// A Flow takes half a kilobyte of memory and a little more. Under a memory limit use
// [Conn.Flows]: with 200 000 flows and GOMEMLIMIT=50MiB, Dump took 61 garbage
// collections and 2.6 times as long as without a limit.
func (c *Conn) Dump(opts *DumpOptions) ([]Flow, error) {
	return c.DumpFilter(Filter{}, opts)
}

// DumpFilter returns the flows that f selects, in the manner of [Conn.Dump].
func (c *Conn) DumpFilter(f Filter, opts *DumpOptions) ([]Flow, error) {
	d := collector{c: c}
	if f == (Filter{}) {
		s, err := c.statsGlobal()
		if err != nil {
			return nil, tableError("dump flows", err)
		}
		d.flows = make([]Flow, 0, roomFor(s.Entries))
	}
	err := c.walk(context.Background(), &walk{filter: &f, opts: opts, next: d.next, visit: d.visit, keep: true})
	if err != nil {
		return nil, tableError("dump flows", err)
	}
	return d.clip(), nil
}

// A collector keeps the flows of a dump. They are too large to be copied often.
type collector struct {
	c     *Conn
	flows []Flow
}

// next returns where the next flow is to be decoded to.
func (d *collector) next() *Flow {
	n := len(d.flows)
	if n == cap(d.flows) {
		d.grow()
	}
	return &d.flows[:n+1][n]
}

// visit keeps the flow that was decoded last.
func (d *collector) visit(*Flow) bool {
	d.flows = d.flows[:len(d.flows)+1]
	return true
}

// grow makes room for more flows: for twice as many, or for the whole table once
// there are so many that the filter may well select much of it. Memory that is not
// written to costs little.
func (d *collector) grow() {
	const few, part = 1024, 32
	n := len(d.flows)
	room := max(16, 2*n)
	if n >= few {
		s, err := d.c.statsGlobal()
		if err == nil && n >= int(s.Entries/part) {
			room = max(n*5/4, roomFor(s.Entries))
		}
	}
	flows := make([]Flow, n, room)
	copy(flows, d.flows)
	d.flows = flows
}

// clip returns the flows, without most of the room that none came for.
func (d *collector) clip() []Flow {
	if cap(d.flows)/4 > len(d.flows) {
		return slices.Clone(d.flows)
	}
	return d.flows
}

// roomFor returns for how many flows to make room if there are so many entries: for
// some more that may come in the meantime, and at most for 16 million.
func roomFor(entries uint32) int {
	const most = 1 << 24
	return int(min(entries, most))*33/32 + 16
}
