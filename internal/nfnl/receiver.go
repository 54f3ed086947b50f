package nfnl

import (
	"errors"
	"sync"
	"time"
)

// Events are far shorter than the datagrams of a dump, and each is a datagram
// of its own.
const (
	eventBatch      = 64
	eventBufferSize = 4 << 10
)

// During a burst of events, waking up for each one costs more than handling it.
// So if the last wake-up brought at least burst events, the receiver waits for
// gatherTime before it looks again. A receive buffer of gatherBuffer does not
// fill up in that time.
const (
	burst        = 4
	gatherTime   = 50 * time.Microsecond
	gatherBuffer = 512 << 10
)

// A Receiver receives the events of the groups that its Conn has joined, many
// with one system call. A Receiver is for one goroutine. A Conn may have
// several Receivers: each event goes to one of them.
type Receiver struct {
	// Idle, if not nil, is called by Receive when no event is queued, before it
	// waits for one.
	Idle func()
	// Eager makes Receive look for events at once instead of letting them
	// gather, and call Idle also after events that were all that was queued.
	Eager bool

	c      *Conn
	io     eventReader
	gather bool
}

// An eventQueue is what the Receivers of a Conn know about its receive queue.
type eventQueue struct {
	mu      sync.Mutex // held by the Receiver that receives or waits
	last    int        // number of datagrams received last
	overrun bool       // the kernel dropped events, and Receive has not reported it yet
}

// NewReceiver returns a Receiver for c. Requests on the same Conn would mistake
// its events for replies: use a separate Conn for events.
func (c *Conn) NewReceiver() (*Receiver, error) {
	if c.closed.Load() {
		return nil, c.fault(ErrClosed)
	}
	if c.link != nil {
		return &Receiver{c: c, io: &linkEvents{link: c.link}}, nil
	}
	size, err := c.nl.ReadBuffer()
	gather := err == nil && size >= gatherBuffer
	return &Receiver{c: c, io: newEventIO(c.raw), gather: gather}, nil
}

// Receive waits for events and passes those that have arrived to fn. It returns
// when fn has returned for all of them, or once fn returns false: then the rest
// are lost. A message that is malformed or too long ([ErrTruncated]) is passed
// as an error.
//
// [ErrOverrun] means that the kernel dropped events after those that were
// passed. Receiving can continue. Only one of the Conn's Receivers returns it,
// and the others may still pass earlier events. Receiving can also continue
// after a deadline, once a new one is set. Any other error is permanent.
func (r *Receiver) Receive(fn func(Message, error) bool) error {
	n, overrun, err := r.receive(r.Idle == nil)
	if r.Idle != nil && n == 0 && !overrun && err == nil {
		r.Idle()
		n, overrun, err = r.receive(true)
	}
	if err != nil {
		return err
	}
	more := r.pass(n, fn)
	switch {
	case more && overrun:
		return ErrOverrun
	case more && r.Eager && r.Idle != nil && n < eventBatch:
		r.Idle()
	}
	return nil
}

// receive receives the datagrams that have arrived, and reports whether the
// kernel dropped events after them. If there is nothing to report and wait is
// set, it waits.
//
// The kernel reports an overrun before the events that it has already queued,
// and drops new ones until those are read. So the gap is after the queued
// events.
func (r *Receiver) receive(wait bool) (n int, overrun bool, err error) {
	q := &r.c.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if r.gather && !r.Eager && burst <= q.last && q.last < eventBatch {
		sleep(gatherTime)
	}
	for {
		n, err = r.io.receive(wait && !q.overrun)
		q.last = n
		if !errors.Is(err, errNoBufferSpace) {
			break
		}
		q.overrun = true
	}
	if n < eventBatch && err == nil {
		overrun, q.overrun = q.overrun, false
	}
	return n, overrun, r.c.fault(err)
}

// pass passes the messages of the first n datagrams to fn. It reports whether
// fn wants more.
func (r *Receiver) pass(n int, fn func(Message, error) bool) bool {
	for i := range n {
		if r.io.foreign(i) {
			r.c.setup.foreign.Add(1)
			continue
		}
		b, err := r.io.datagram(i)
		if err != nil {
			if !fn(Message{}, err) {
				return false
			}
			continue
		}
		if !r.messages(b, r.io.nsid(i), fn) {
			return false
		}
	}
	return true
}

// messages passes the messages in b to fn. It reports whether fn wants more.
func (r *Receiver) messages(b []byte, nsid int, fn func(Message, error) bool) bool {
	for len(b) > 0 {
		raw, rest, err := nextMessage(b)
		if err == nil && len(raw) < nlmsgHeaderLen+nfgenmsgLen {
			err = raw.tooShort()
		}
		if err != nil {
			return fn(Message{}, err)
		}
		b = rest
		m := raw.message()
		m.NSID = nsid
		if !fn(m, nil) {
			return false
		}
	}
	return true
}
