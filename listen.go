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

// ErrOverrun says that the kernel dropped events because the socket's receive
// buffer was full. Test for it with errors.Is. It satisfies
// errors.Is(ErrOverrun, unix.ENOBUFS) itself.
//
// [Conn.Events] yields it at the point where the events were lost. A program
// that keeps a copy of the table then dumps the table to catch up: the dump
// shows what the lost events would have told, and the loop goes on with what
// happens afterwards.
var ErrOverrun = nfnl.ErrOverrun

// eventBuffer is the receive buffer of a socket that listens, in bytes. The
// kernel doubles it, and takes about 1 KiB of it for each event that waits. It
// allocates nothing in advance.
const eventBuffer = 8 << 20

// EventOptions say which events [Conn.Events] yields, and how.
type EventOptions struct {
	// Filters and Except select the events of flows. An event passes if one of
	// Filters selects it, or Filters is empty, and none of Except selects it.
	// Events of expectations always pass. A [Filter] that contradicts itself is
	// an error, [ErrFilterSelectsNothing].
	//
	// Each event is judged by what it carries. If the mark or status of a flow
	// changes, some of its events may pass and others not, its [EventDestroy]
	// among them. A mark or zone that the kernel leaves out counts as 0. An
	// event without a TCP state, such as any of a UDP flow, is not dropped for
	// a TCPState: Filters treat it as being in the wanted state, Except as not
	// being in it.
	//
	// A classic BPF program on the socket does the selecting in the kernel, so
	// that dropped events take no room in the receive buffer. It costs whoever
	// causes an event about a nanosecond per Filter. The program has room for
	// some hundred Filters; with more, events are dropped after they were
	// received.
	Filters, Except []Filter

	// Joined, if not nil, is called when the groups are joined: every later
	// event is received. This is the moment to dump the table if the events are
	// to keep a copy of it current. Joined is not called if joining fails.
	Joined func()

	// Drained, if not nil, is called whenever the loop has found the receive
	// queue empty and is about to wait for events. If the queue is empty at the
	// start, that is right after Joined. All events of what happened before the
	// loop looked have been yielded by then, including those that Joined or the
	// loop body caused.
	Drained func()

	// Fence, if not nil, lets other goroutines find out how far the loop has
	// come. The loop calls each function that it receives from Fence, once it
	// has yielded all events of what happened before the function was sent. For
	// example, a goroutine dumps the table while events come in, then sends a
	// function: when it is called, the loop has seen all that happened until
	// the end of the dump, even if no event follows.
	//
	// The loop calls the functions in its own goroutine, between events. It
	// receives a few of them ahead. A loop that is slower than events come
	// calls them late: when it has caught up, at the latest after an
	// [ErrOverrun]. When the loop has ended, it receives no more functions and
	// calls none of those that it holds. So send and wait in a select that has
	// another way out.
	Fence <-chan func()

	// Reuse makes the loop decode all events of flows into one [Flow], to save
	// an allocation for each event. The next event overwrites what Event.Flow
	// points to; a copy of the Flow itself (*ev.Flow) is the caller's to keep.
	Reuse bool

	// Reliable makes the kernel repeat each [EventDestroy] that found no room
	// in the receive buffer, about ten times a second, until it does
	// (NETLINK_BROADCAST_ERROR). None is lost, but some come late: after
	// Drained and Fence said that all had come, or after the [EventNew] of a
	// later flow with the same tuples. That flow then has another ID. The
	// kernel keeps the flows whose events wait and counts them towards the
	// sysctl net.netfilter.nf_conntrack_max, so a loop that never catches up
	// leaves no room for new flows.
	//
	// Other events are lost as without Reliable, and [ErrOverrun] says so. It
	// also comes when an EventDestroy has to wait, unless
	// netfilter.GroupCTDestroy is the only group: then there is no ErrOverrun
	// at all. If the EventNew of a flow was lost, its next event is an
	// EventNew.
	Reliable bool
}

// Events returns an iterator over the events of the given groups, in the
// kernel's order. If groups is empty, it is [netfilter.GroupsCT], the events of
// flows; those of expectations are [netfilter.GroupsCTExp]. A nil opts is the
// zero [EventOptions]. Each range over the iterator has a socket of its own,
// which joins the groups at the start of the loop and leaves them at its end. A
// yielded [Event] is the caller's to keep, unless opts.Reuse is set.
//
// Errors are yielded with a zero [Event]. The loop goes on after an error that
// satisfies errors.Is(err, [ErrOverrun]), which says that the kernel dropped
// events at this point, and after an error about a message that cannot be
// decoded. The loop ends after
//
//   - an error that satisfies errors.Is(err, ctx.Err()), when ctx has ended,
//   - an error that satisfies errors.Is(err, fs.ErrClosed), when the [Conn] was
//     closed,
//   - any other error of the socket.
//
// A flow that began while no program listened, in any network namespace, has no
// events, not even its [EventDestroy], unless the sysctl
// net.netfilter.nf_conntrack_events is 1. Nor do its expectations. A program
// that dumps the table when opts.Joined is called, and then changes its copy by
// the events, would keep such a flow forever: look a flow up with [Conn.Get]
// when its timeout has passed.
//
// The loop body may call any method of the [Conn]. While it is busy, events
// wait in the kernel's buffer, which holds some thousand events unless
// [Conn.SetReadBuffer] changed it.
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

// Overruns returns how often the kernel has dropped events of this Conn because
// a receive buffer was full. Each time, it dropped one or more.
func (c *Conn) Overruns() uint64 { return c.overruns.Load() }

// A watch is the state of one range over Events.
type watch struct {
	conn   *Conn
	ctx    context.Context
	opts   *EventOptions
	slab   slab
	flow   *Flow // for the next event
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

// prepare makes r call idle when the queue is empty, if anything is due then.
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

// wait clears the deadline that woke the loop up, so that it can wait again.
func (w *watch) wait(s *nfnl.Conn) error {
	err := s.SetDeadline(time.Time{})
	// The end of ctx sets a deadline too, once.
	return cmp.Or(w.ctx.Err(), err)
}

// message yields the event in m, and reports whether the loop goes on.
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

// Listen sends the events of the given groups to evChan until the Conn is
// closed. New programs should prefer [Conn.Events], which keeps errors in their
// place among the events and can filter. Its documentation also says which
// flows have no events.
//
// Listen starts numWorkers goroutines, at least one; with more than one, the
// order of events is lost. At least one group is needed. A [Conn] can listen
// only once. When Listen returns, the groups are joined: every later event is
// received.
//
// The returned channel carries an error that satisfies errors.Is(err,
// [ErrOverrun]) when the kernel dropped events, errors about messages that
// cannot be decoded, and the error that ended a worker. Nobody needs to read
// it: when it is full, errors that end no worker are left out, but
// [Conn.Overruns] still counts overruns. Closing the [Conn] ends the workers
// without an error and closes neither channel. The caller may close both when
// [Conn.Close] has returned.
//
// [ErrOverrun] may overtake events that still wait in evChan. These are older
// than a dump made at that moment: applied to the dump, they would bring back
// flows that have ended. So use [Conn.Events] to keep a copy of the table.
//
// If evChan is read too slowly, the kernel's buffer fills up: see
// [Conn.SetReadBuffer].
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

// eventSocket returns a socket that has joined groups, with a BPF program that
// does as much of the filtering as one can.
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

// makeReliable makes the kernel repeat an EventDestroy that it could not
// deliver to s.
func makeReliable(s *nfnl.Conn, groups []netfilter.NetlinkGroup) error {
	if err := s.SetOption(netlink.BroadcastError, true); err != nil {
		return err
	}
	if slices.ContainsFunc(groups, func(g netfilter.NetlinkGroup) bool { return g != netfilter.GroupCTDestroy }) {
		return nil
	}
	// Every event of these groups is repeated, so no loss needs reporting.
	return s.SetOption(netlink.NoENOBUFS, true)
}

// attach attaches the longest program for opts that the kernel accepts: the
// sysctl net.core.optmem_max limits its memory. A shorter program, or none,
// only costs time, since the loop selects again.
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

// maxFences is how many functions from EventOptions.Fence the loop may hold.
const maxFences = 64

// fences are the functions from EventOptions.Fence that were not called yet.
type fences struct {
	room  chan struct{} // one for each function that is held
	mu    sync.Mutex
	asked []func() // received since the loop last looked
	next  []func() // to call when the queue is found empty
}

// collect receives functions from ch in the background, and calls wake for each,
// until stop is called.
func (f *fences) collect(ch <-chan func(), wake func()) (stop func()) {
	if ch == nil {
		return func() {}
	}
	f.room = make(chan struct{}, maxFences)
	done := make(chan struct{})
	var collector sync.WaitGroup
	collector.Go(func() {
		for {
			select {
			case f.room <- struct{}{}:
			case <-done:
				return
			}
			select {
			case fn, ok := <-ch:
				if !ok {
					return
				}
				f.ask(fn)
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

func (f *fences) ask(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, fn)
}

// due moves the functions that were asked for to next, and reports whether next
// has any.
func (f *fences) due() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next, f.asked = append(f.next, f.asked...), nil
	return len(f.next) > 0
}

// call calls the functions that are due.
func (f *fences) call() {
	for _, fn := range f.next {
		if fn != nil {
			fn()
		}
		<-f.room
	}
	f.next = nil
}

// pendingErrors is how many errors that end no worker may wait in the channel.
const pendingErrors = 16

// A worker is one goroutine of Listen.
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

// report sends an error that does not end the worker. It drops the error if
// enough of them wait already.
func (w *worker) report(err error) {
	if len(w.errors) >= pendingErrors {
		return
	}
	select {
	case w.errors <- err:
	default:
	}
}

// message sends the event in m, and reports whether the worker goes on.
func (w *worker) message(m nfnl.Message, err error) bool {
	var ev Event
	if err == nil {
		err = ev.unmarshal(m, new(Flow), &w.slab)
	}
	if err != nil {
		w.report(opError("listen", err))
		return true
	}
	// A select with one case is faster, and enough most of the time.
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
