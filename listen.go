package conntrack

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"iter"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/netfilter"
)

// ErrOverrun says that the kernel dropped events, since the socket's receive
// buffer was full. It satisfies errors.Is(ErrOverrun, unix.ENOBUFS). It stands
// among the events where the gap is: a dump made when it is seen shows what the
// dropped events would have told, and what happens from then on is received.
var ErrOverrun = nfnl.ErrOverrun

// eventBuffer is the size of the receive buffer of a socket that listens. The
// kernel doubles it. Each event takes the size of the kernel's buffer for it,
// about 1 KiB, and none is taken in advance.
const eventBuffer = 8 << 20

// EventOptions say which events Events yields, and how.
type EventOptions struct {
	// Filters and Except select the events of flows. An event passes if one of
	// Filters selects it, or there are none, and if none of Except does. Events of
	// expectations always pass. A Filter that contradicts itself gives
	// ErrFilterSelectsNothing.
	//
	// Each event is judged by what it carries. If a flow's mark or status changes,
	// some of its events may pass and others may not, its end among them. A mark or
	// zone that the kernel leaves out is 0. An event that carries no TCP state, as
	// that of a UDP flow, is not dropped for its TCPState: Filters take it for the
	// state they want, Except for another one.
	//
	// A classic BPF program on the socket does this in the kernel, so that events
	// that are dropped take no room in the receive buffer. Whoever causes the event
	// waits for it, about a nanosecond a Filter. It has room for some hundred; where
	// there are more, events are dropped after they were received.
	Filters, Except []Filter

	// Joined, if not nil, is called when the groups were joined: what happens
	// from then on is caught. This is the moment to dump the table for a state
	// that the events then change. It is not called if joining fails.
	Joined func()

	// Drained, if not nil, is called whenever the loop has found the receive queue
	// empty and is about to wait for events: at the latest when it has passed all
	// that are queued, and if none are, right after Joined. All events of what
	// happened before the loop looked have been passed then, so what Joined or the
	// loop body has done itself is among them.
	Drained func()

	// Fence, if not nil, makes it possible to ask from other goroutines how far the
	// loop has come. It calls each function that it receives, once all events of
	// what happened before the function was sent have been passed. For example,
	// when a goroutine has dumped the table while events came and then sends a
	// function, this is called when all that happened until the end of the dump is
	// known, even if no event comes after it.
	//
	// The loop calls the functions in its own goroutine, between events. When it has
	// ended, it receives no more and calls none of those that it has: send in a
	// select that can also be left otherwise.
	Fence <-chan func()

	// Reuse makes the loop decode all events of flows into one Flow: the next event
	// overwrites what Event.Flow points to. A copy of the Flow is the caller's to
	// keep. This saves an allocation for each event.
	Reuse bool

	// Reliable makes the kernel repeat each EventDestroy that found no room in the
	// receive buffer, some ten times a second, until it finds some
	// (NETLINK_BROADCAST_ERROR). So none is lost, but some come late: after Drained
	// and Fence said that all had come, and after the EventNew of a later flow with
	// the same tuples, which has another ID. The kernel keeps the flows that wait, and
	// counts them towards the sysctl net.netfilter.nf_conntrack_max: a loop that
	// never catches up leaves no room for new ones.
	//
	// Other events are lost as without it, and ErrOverrun tells of that, as it does
	// where an EventDestroy has to wait. The next event of a flow whose EventNew was
	// lost is an EventNew. With GroupCTDestroy as the only group there is no
	// ErrOverrun.
	Reliable bool
}

// Events returns an iterator over the events of the given groups: see
// netfilter.GroupsCT, which no groups stand for, and netfilter.GroupsCTExp. Each
// range over it has a socket of its own, joins the groups when it begins, and
// leaves them when the loop is left. A nil opts is the zero EventOptions. Events
// come in the kernel's order, and are the caller's to keep.
//
// Errors are yielded with a zero Event, and most loops go on after them: an error
// that satisfies errors.Is(err, ErrOverrun) says that the kernel dropped events
// at this place, other ones are about a message that cannot be decoded. The
// loop ends after an error that satisfies errors.Is(err, ctx.Err()) when ctx has
// ended, errors.Is(err, fs.ErrClosed) when the Conn was closed, or neither if
// the socket failed.
//
// Flows that began when nobody listened, in any network namespace, have no
// events, unless the sysctl net.netfilter.nf_conntrack_events is 1; nor do their
// expectations. So a program that dumps the table when Joined is called, and then
// changes its copy as the events say, keeps these flows for ever: it must look
// them up, with Get, when their timeout has passed.
//
// The loop body may call any method of the Conn. While it takes its time, the
// kernel's buffer fills up: it holds some thousand events, unless SetReadBuffer
// was called.
func (c *Conn) Events(ctx context.Context, groups []netfilter.NetlinkGroup, opts *EventOptions) iter.Seq2[Event, error] {
	if opts == nil {
		opts = &EventOptions{}
	}
	return func(yield func(Event, error) bool) {
		w := watch{conn: c, ctx: ctx, opts: opts, yield: yield}
		if err := w.run(groups); err != nil && !errors.Is(err, errStop) {
			yield(Event{}, opError("watch events", err))
		}
	}
}

// Overruns returns how often the kernel has dropped events of this Conn, since
// a receive buffer was full. Each time one or many were lost.
func (c *Conn) Overruns() uint64 { return c.overruns.Load() }

// A watch is a range over Events.
type watch struct {
	conn   *Conn
	ctx    context.Context
	opts   *EventOptions
	slab   slab
	flow   *Flow // that of the next event
	yield  func(Event, error) bool
	fences fences
	err    error // why the loop is over
}

// run yields events until the loop is over, and returns the reason.
func (w *watch) run(groups []netfilter.NetlinkGroup) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if len(groups) == 0 {
		groups = netfilter.GroupsCT
	}
	if err := w.opts.checkFilters(); err != nil {
		return err
	}
	s, err := w.conn.eventSocket(groups, w.opts)
	if err != nil {
		return err
	}
	defer w.conn.sockets.drop(s)
	r, err := s.NewReceiver()
	if err != nil {
		return err
	}
	wake := func() { _ = s.SetDeadline(time.Unix(1, 0)) }
	defer context.AfterFunc(w.ctx, wake)()
	defer w.fences.collect(w.opts.Fence, wake)()
	if w.opts.Joined != nil {
		w.opts.Joined()
	}
	for w.err == nil {
		w.prepare(r)
		err := r.Receive(w.message)
		switch {
		case err == nil:
		case errors.Is(err, ErrOverrun):
			w.conn.overruns.Add(1)
			w.report(err)
		case w.ctx.Err() != nil:
			return w.ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
			w.err = w.wait(s)
		default:
			return err
		}
	}
	return w.err
}

// prepare makes r call what is due when the queue is empty.
func (w *watch) prepare(r *nfnl.Receiver) {
	r.Eager, r.Idle = w.fences.due(), nil
	if r.Eager || w.opts.Drained != nil {
		r.Idle = w.idle
	}
}

// idle calls what is due.
func (w *watch) idle() {
	if w.opts.Drained != nil {
		w.opts.Drained()
	}
	w.fences.call()
}

// wait lets s wait again, after the loop was woken up by a deadline.
func (w *watch) wait(s *nfnl.Conn) error {
	err := s.SetDeadline(time.Time{})
	// The end of ctx sets a deadline too, once.
	return cmp.Or(w.ctx.Err(), err)
}

// message yields the event that m is, and reports whether the loop goes on.
func (w *watch) message(m nfnl.Message, err error) bool {
	if w.err = w.ctx.Err(); w.err != nil {
		return false
	}
	if w.flow == nil {
		w.flow = new(Flow)
	} else {
		*w.flow = Flow{}
	}
	var ev Event
	if err == nil {
		err = ev.unmarshal(m, w.flow, &w.slab)
	}
	if err != nil {
		return w.report(err)
	}
	if !w.opts.selects(&ev) {
		return true
	}
	if ev.Flow != nil && !w.opts.Reuse {
		w.flow = nil
	}
	if !w.yield(ev, nil) {
		w.err = errStop
	}
	return w.err == nil
}

// report yields an error that does not end the loop, and reports whether the loop
// goes on.
func (w *watch) report(err error) bool {
	if !w.yield(Event{}, opError("watch events", err)) {
		w.err = errStop
	}
	return w.err == nil
}

// Listen sends the events of the given groups, at least one, to evChan, until the
// Conn is closed. As to which flows have events, see Events. It takes numWorkers
// goroutines; with more than one, the order of events is lost. It may be called
// once on a Conn. When it returns, events of what happens from then on are caught.
//
// The channel returned carries errors: ErrOverrun if the kernel dropped events,
// those of messages that cannot be decoded, and an error that ends a worker.
// Nobody needs to read it: while some of these wait to be read, further ones that
// end no worker are left out, and Overruns still counts them. Closing the Conn
// ends the workers without an error; neither channel is closed then, but both may
// be by the caller once Close has returned.
//
// An ErrOverrun overtakes the events that were sent to evChan before it and wait
// there. They are older than a dump that is made when it is seen, and applied to
// the dump they bring back flows that have ended. A program that keeps a copy of
// the table uses Events, where the error stands in its place.
//
// A slow reader of evChan makes the kernel's buffer fill up: see
// SetReadBuffer.
func (c *Conn) Listen(evChan chan<- Event, numWorkers uint8, groups []netfilter.NetlinkGroup) (chan error, error) {
	errChan, err := c.listen(evChan, numWorkers, groups)
	return errChan, opError("listen", err)
}

func (c *Conn) listen(evChan chan<- Event, numWorkers uint8, groups []netfilter.NetlinkGroup) (chan error, error) {
	if numWorkers == 0 {
		return nil, ErrNoWorkers
	}
	if len(groups) == 0 {
		return nil, errNoGroups
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, nfnl.ErrClosed
	case c.listening:
		return nil, ErrListening
	}
	s, err := c.eventSocket(groups, &EventOptions{})
	if err != nil {
		return nil, err
	}
	receivers := make([]*nfnl.Receiver, numWorkers)
	for i := range receivers {
		if receivers[i], err = s.NewReceiver(); err != nil {
			c.sockets.drop(s)
			return nil, err
		}
	}
	c.listening = true
	errChan := make(chan error, int(numWorkers)+pendingErrors)
	for _, r := range receivers {
		w := worker{conn: c, receiver: r, events: evChan, errors: errChan}
		c.workers.Go(w.run)
	}
	return errChan, nil
}

// eventSocket returns a socket that has joined groups, with a program that does
// the part of the filters that a program can do.
func (c *Conn) eventSocket(groups []netfilter.NetlinkGroup, opts *EventOptions) (*nfnl.Conn, error) {
	s, err := c.sockets.get()
	if err != nil {
		return nil, err
	}
	if err := prepareForEvents(s, groups, opts); err != nil {
		c.sockets.drop(s)
		return nil, err
	}
	return s, nil
}

func prepareForEvents(s *nfnl.Conn, groups []netfilter.NetlinkGroup, opts *EventOptions) error {
	if !s.HasReadBuffer() {
		if err := s.SetReadBuffer(eventBuffer); err != nil {
			return err
		}
	}
	if opts.Reliable {
		if err := makeReliable(s, groups); err != nil {
			return err
		}
	}
	if err := attach(s, opts); err != nil {
		return err
	}
	for _, g := range groups {
		if err := s.JoinGroup(g); err != nil {
			return err
		}
	}
	return nil
}

// makeReliable makes the kernel repeat what it could not deliver to s of groups.
func makeReliable(s *nfnl.Conn, groups []netfilter.NetlinkGroup) error {
	if err := s.SetOption(netlink.BroadcastError, true); err != nil {
		return err
	}
	if slices.ContainsFunc(groups, func(g netfilter.NetlinkGroup) bool { return g != netfilter.GroupCTDestroy }) {
		return nil
	}
	// All of it: there is no loss to tell of.
	return s.SetOption(netlink.NoENOBUFS, true)
}

// attach attaches the longest program for opts that the kernel takes: it limits the
// memory of a program (sysctl net.core.optmem_max). A shorter one, or none, makes
// no difference but in speed.
func attach(s *nfnl.Conn, opts *EventOptions) error {
	for limit := bpfMaxProgramLen; ; limit /= 2 {
		program, err := opts.program(limit)
		if err != nil || program == nil {
			return err
		}
		if s.SetBPF(program) == nil {
			return nil
		}
	}
}

// fences are the functions that came by EventOptions.Fence and are not called yet.
type fences struct {
	mu    sync.Mutex
	asked []func() // since the loop last looked
	next  []func() // to be called when the queue is found empty
}

// collect receives functions from ch in the background, and calls wake for each,
// until stop is called.
func (f *fences) collect(ch <-chan func(), wake func()) (stop func()) {
	if ch == nil {
		return func() {}
	}
	done := make(chan struct{})
	var collector sync.WaitGroup
	collector.Go(func() {
		for {
			select {
			case fn, ok := <-ch:
				if !ok {
					return
				}
				f.mu.Lock()
				f.asked = append(f.asked, fn)
				f.mu.Unlock()
				wake()
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		collector.Wait()
	}
}

// due reports whether call has something to call. What was asked for until now is
// part of that.
func (f *fences) due() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next, f.asked = append(f.next, f.asked...), nil
	return len(f.next) > 0
}

// call calls what is due.
func (f *fences) call() {
	for _, fn := range f.next {
		fn()
	}
	f.next = nil
}

// pendingErrors is how many errors that end no worker may wait to be read.
const pendingErrors = 16

// A worker of Listen.
type worker struct {
	conn     *Conn
	receiver *nfnl.Receiver
	slab     slab
	events   chan<- Event
	errors   chan<- error
}

func (w *worker) run() {
	for {
		err := w.receiver.Receive(w.message)
		switch {
		case err == nil:
		case errors.Is(err, ErrOverrun):
			w.conn.overruns.Add(1)
			w.report(opError("listen", err))
		case errors.Is(err, fs.ErrClosed):
			return
		default:
			select {
			case w.errors <- opError("listen", err):
			case <-w.conn.done:
			}
			return
		}
		select {
		case <-w.conn.done:
			return
		default:
		}
	}
}

// report sends an error that does not end the worker, unless enough of them
// wait already.
func (w *worker) report(err error) {
	if len(w.errors) >= pendingErrors {
		return
	}
	select {
	case w.errors <- err:
	default:
	}
}

// message sends the event that m is, and reports whether the worker is to go on.
func (w *worker) message(m nfnl.Message, err error) bool {
	var ev Event
	if err == nil {
		err = ev.unmarshal(m, new(Flow), &w.slab)
	}
	if err != nil {
		w.report(opError("listen", err))
		return true
	}
	// A select of one case is the quick one, and enough mostly.
	select {
	case w.events <- ev:
		return true
	default:
	}
	select {
	case w.events <- ev:
		return true
	case <-w.conn.done:
		return false
	}
}
