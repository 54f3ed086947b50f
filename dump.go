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
	// keep is set if what visit gets is kept after it has returned.
	keep bool
}

// walk carries out w.
func (c *Conn) walk(ctx context.Context, w *walk) error {
	k, err := w.filter.plan(false, c.has)
	if err != nil {
		return err
	}
	typ := nfnl.MessageType(ctGet)
	zero := w.opts != nil && w.opts.ZeroCounters
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
		if err := flow.unmarshal(m.Attributes, &r.slab, nil); err != nil {
			return err
		}
		if match && !w.filter.match(flow, false) {
			r.slab.release(mark)
			*flow = Flow{}
			return nil
		}
		if zero && typ != ctGetCtrZero {
			if found, err := c.zeroCounters(flow); !found {
				*flow = Flow{}
				return err
			}
		}
		more := w.visit(flow)
		if !w.keep {
			r.slab.release(mark)
		}
		if !more {
			return errStop
		}
		return nil
	})
}

// zeroCounters sets the counters of one flow to zero and makes flow what it was
// before, unless it has gone.
func (c *Conn) zeroCounters(flow *Flow) (found bool, err error) {
	before, err := c.get(flow, ctGetCtrZero)
	if errors.Is(err, fs.ErrNotExist) || err == nil && before.ID != flow.ID {
		return false, nil
	}
	*flow = before
	return err == nil, err
}

// Flows returns an iterator over the flows that f selects, IPv4 and IPv6, in all
// zones; the zero Filter selects all of them. Each range over it is a dump of
// its own. A Flow is yielded as it is received, so that memory does not grow
// with the table; it is the caller's to keep. A nil opts is the zero
// DumpOptions.
//
// An error is yielded last, with a zero Flow: the flows up to there are then not
// all. It satisfies errors.Is(err, ErrDumpInterrupted) if the kernel
// marked the dump as inconsistent, and errors.Is(err, ctx.Err()) if ctx ended.
// The table goes on changing during a dump: an entry that was there from
// beginning to end is yielded, one that came or went meanwhile may be, and one
// may be yielded twice when its neighbour in the table goes. When the kernel
// resizes the table, entries may be yielded twice or not at all.
//
// The loop body may call any method of the Conn. The loop may be left at any
// time, at the cost of closing a socket.
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
			yield(Flow{}, opError("dump flows", err))
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
		err := stream(ctx, c, r, func(f *Flow, b []byte) error { return f.unmarshal(b, &r.slab, nil) }, yield)
		if err != nil {
			yield(Flow{}, opError(name, err))
		}
	}
}

// stream carries out the dump that r asks for and yields each entry as it is
// decoded.
func stream[T any](ctx context.Context, c *Conn, r *request, decode func(*T, []byte) error, yield func(T, error) bool) error {
	return c.dump(ctx, r, func(m nfnl.Message) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		var entry T
		if err := decode(&entry, m.Attributes); err != nil {
			return err
		}
		if !yield(entry, nil) {
			return errStop
		}
		return nil
	})
}

// Dump returns all flows, IPv4 and IPv6, in all zones. A nil opts is the zero
// DumpOptions. For large tables see Flows.
func (c *Conn) Dump(opts *DumpOptions) ([]Flow, error) {
	return c.DumpFilter(Filter{}, opts)
}

// maxDumpSize is how many flows a dump makes room for in advance at the most.
const maxDumpSize = 1 << 24

// DumpFilter returns the flows that f selects, in the manner of Dump.
func (c *Conn) DumpFilter(f Filter, opts *DumpOptions) ([]Flow, error) {
	var flows []Flow
	if f == (Filter{}) {
		s, err := c.statsGlobal()
		if err != nil {
			return nil, opError("dump flows", err)
		}
		// Some more may come in the meantime.
		flows = make([]Flow, 0, min(s.Entries, maxDumpSize)*33/32+16)
	}
	err := c.walk(context.Background(), &walk{
		filter: &f,
		opts:   opts,
		next: func() *Flow {
			flows = slices.Grow(flows, 1)
			return &flows[:len(flows)+1][len(flows)]
		},
		visit: func(*Flow) bool {
			flows = flows[:len(flows)+1]
			return true
		},
		keep: true,
	})
	if err != nil {
		return nil, opError("dump flows", err)
	}
	return flows, nil
}

// Stats returns the counters of each CPU.
func (c *Conn) Stats() ([]Stats, error) {
	var stats []Stats
	r := dumpRequest(nfnl.Header{SubsystemID: nfnl.NFSubsysCTNetlink, MessageType: ctGetStatsCPU})
	defer r.free()
	err := c.dump(context.Background(), r, func(m nfnl.Message) error {
		s := Stats{CPUID: m.ResourceID}
		err := s.unmarshal(m.Attributes)
		stats = append(stats, s)
		return err
	})
	if err != nil {
		return nil, opError("get statistics", err)
	}
	return stats, nil
}

// StatsExpect returns the counters of each CPU for expectations.
func (c *Conn) StatsExpect() ([]StatsExpect, error) {
	var stats []StatsExpect
	r := dumpRequest(nfnl.Header{SubsystemID: nfnl.NFSubsysCTNetlinkExp, MessageType: expGetStatsCPU})
	defer r.free()
	err := c.dump(context.Background(), r, func(m nfnl.Message) error {
		s := StatsExpect{CPUID: m.ResourceID}
		err := s.unmarshal(m.Attributes)
		stats = append(stats, s)
		return err
	})
	if err != nil {
		return nil, opError("get expectation statistics", err)
	}
	return stats, nil
}
