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

// DumpOptions say how to make a dump.
type DumpOptions struct {
	// ZeroCounters sets the counters of each flow in the kernel to zero as it
	// is dumped (IPCTNL_MSG_CT_GET_CTRZERO); the Flow has their last values.
	// The kernel does so when it fills a buffer: if a loop over [Conn.Flows] is
	// left early, flows that it did not see may have lost their counters.
	ZeroCounters bool
}

// errStop ends a dump early.
var errStop = errors.New("stop")

// dump makes the dump that r asks for, on a socket of its own, and passes each
// message to fn until fn returns an error. If that is errStop, dump returns
// nil.
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
			// Only closing the socket ends a dump early.
			c.sockets.drop(s)
		}
	}()
	stop := context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Unix(1, 0)) })
	defer stop() // also if fn panics: until then ctx keeps the socket's buffer alive

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

// A walk is a dump of the flows that a filter selects, with what to do with
// them.
type walk struct {
	filter *Filter
	opts   *DumpOptions

	// next returns a zero Flow to decode the next flow into.
	next func() *Flow
	// visit is called with each selected flow. It returns false to end the
	// walk.
	visit func(*Flow) bool
	// pause, if not nil, is called when visit has seen all flows that were
	// received so far.
	pause func()
	// keep is set if what visit gets must stay valid after it has returned.
	keep bool
}

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
	// A flow may have changed since the kernel selected it. If the kernel has
	// zeroed its counters by then, it must be passed on all the same.
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

// zeroCounters sets the counters of one flow to zero, and makes flow what it
// was just before. found is false if the flow has gone. zeroCounters looks the
// flow up first, so that it leaves the counters of another flow alone that has
// taken its place or hides it.
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

// ignoreGone returns err, or nil if err says that the flow does not exist.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Flows returns an iterator over the flows that f selects, IPv4 and IPv6, in
// all zones. The zero [Filter] selects all flows; a nil opts is the zero
// [DumpOptions]. Each range over the iterator is a new dump. Flows are yielded
// as they are received, so memory use does not grow with the table. A yielded
// [Flow] is the caller's to keep.
//
// If the dump fails, the error is yielded last, with a zero [Flow], and the
// flows before it may not be all. The error satisfies errors.Is(err,
// [ErrDumpInterrupted]) if the kernel marked the dump as inconsistent, and
// errors.Is(err, ctx.Err()) if ctx ended.
//
// The table changes while it is dumped:
//
//   - A flow that exists from the beginning to the end of the dump is yielded.
//     It may be yielded twice if its neighbour in the table is removed
//     meanwhile.
//   - A flow that begins or ends during the dump may be yielded or not.
//   - If the kernel resizes the table, flows may be yielded twice or not at
//     all, and the kernel does not say so. Ask for a flow with [Conn.Get]
//     before you conclude that it has gone.
//
// The loop body may call any method of the [Conn]. Leaving the loop early
// closes a socket, which a later dump has to open again.
//
// While the kernel looks for a flow to send, packets wait on one CPU (softirqs
// are off). This takes longest with a [Filter] that selects few flows of a huge
// table: 60 to 80 ms in a table of 200 000. Two loops side by side, one for
// each family, take about a tenth less time and a tenth more CPU time.
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

// Dying returns an iterator over the flows that were removed from the table,
// but whose [EventDestroy] is not delivered yet (the kernel's dying list, Linux
// 3.8). An event waits only if the buffer of a listener with
// netlink.BroadcastError is full, as with [EventOptions.Reliable], so most of
// the time the list is empty. Otherwise it is like [Conn.Flows].
func (c *Conn) Dying(ctx context.Context) iter.Seq2[Flow, error] {
	return c.list(ctx, ctGetDying, "dump dying flows")
}

// Unconfirmed returns an iterator over the flows whose first packet is still on
// its way through the machine (the kernel's unconfirmed list, Linux 3.8). The
// list is always empty on Linux 6.3 and later. On older kernels a flow is on it
// for a moment only, unless its packet waits in a queue for user space.
// Otherwise it is like [Conn.Flows].
func (c *Conn) Unconfirmed(ctx context.Context) iter.Seq2[Flow, error] {
	return c.list(ctx, ctGetUnconfirmed, "dump unconfirmed flows")
}

// list returns an iterator over one of the kernel's lists beside the table.
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

// stream makes the dump that r asks for and yields each entry as it is decoded.
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
// [DumpOptions]. For flows that change meanwhile, and for errors, see
// [Conn.Flows].
//
// A [Flow] takes a little more than half a kilobyte of memory. Use [Conn.Flows]
// under a memory limit: with 200 000 flows and GOMEMLIMIT=50MiB, Dump took 61
// garbage collections and 2.6 times as long as without the limit.
func (c *Conn) Dump(opts *DumpOptions) ([]Flow, error) {
	return c.DumpFilter(Filter{}, opts)
}

// DumpFilter returns the flows that f selects. The zero [Filter] selects all
// flows. Otherwise it is like [Conn.Dump]. A filter that selected all of 200 000
// flows took 1.05 times the CPU time of Dump and 1.08 times the memory.
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

// A collector keeps the flows of a dump. It decodes them in place, since they
// are too large to be copied often.
type collector struct {
	c     *Conn
	flows []Flow
}

// next returns where to decode the next flow.
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

// grow makes room for more flows. It doubles the room until the filter is seen
// to select a good part of the table, and then makes room for the whole table:
// memory that is not written to costs little.
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

// clip returns the flows, in less memory if most of it is unused.
func (d *collector) clip() []Flow {
	if cap(d.flows)/4 > len(d.flows) {
		return slices.Clone(d.flows)
	}
	return d.flows
}

// roomFor returns how many flows to make room for in a table of that many
// entries: some more, since entries may be added meanwhile, but at most 16
// million.
func roomFor(entries uint32) int {
	const most = 1 << 24
	return int(min(entries, most))*33/32 + 16
}
