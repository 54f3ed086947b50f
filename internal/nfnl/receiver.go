package nfnl

import (
	"errors"
	"sync"
	"time"
)

// Events are far smaller than a datagram of a dump, and come one in each.
const (
	eventBatch      = 64
	eventBufferSize = 4 << 10
)

// In a burst, each event would wake the receiver up, which costs more than the
// event. So if a wake-up brought as many as burst, the next one waits as long as
// gatherTime for more of them. In that time, a receive buffer of gatherBuffer
// does not fill up.
const (
	burst        = 4
	gatherTime   = 50 * time.Microsecond
	gatherBuffer = 512 << 10
)

// A Receiver receives the events of the groups that its Conn has joined, many
// with one system call. It is for one goroutine, but a Conn may have several:
// each event is received by one of them.
type Receiver struct {
	// Idle, if not nil, is called by Receive when it has found that no event is
	// queued, before it waits for one.
	Idle func()
	// Eager makes Receive look at once, where it would let events gather.
	Eager bool

	c      *Conn
	io     eventReader
	gather bool
}

// An eventQueue is what the Receivers of a Conn know of its receive queue.
type eventQueue struct {
	mu      sync.Mutex // held by the Receiver that receives or waits
	last    int        // number of datagrams received last
	overrun bool       // the kernel dropped events, which is still to be told
}

// NewReceiver returns a Receiver for c. Requests on the same Conn would take
// its events for their replies: use one Conn for events alone.
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

// Receive waits for events, passes each of those that have arrived to fn, and
// returns once fn has returned for all of them, or as soon as it returned
// false: the others are lost then. A message that cannot be used is passed as an
// error: it is malformed, or was too long (ErrTruncated).
//
// If it returns ErrOverrun, the kernel dropped events behind those that were
// passed, and receiving can go on. One of the Conn's Receivers returns it, and with
// several of them, the others may still pass earlier events. Receiving can go on
// too when a deadline has passed and another one is set. Any other error lasts.
func (r *Receiver) Receive(fn func(Message, error) bool) error {
	n, overrun, err := r.receive(r.Idle == nil)
	if r.Idle != nil && n == 0 && !overrun && err == nil {
		r.Idle()
		n, overrun, err = r.receive(true)
	}
	if err != nil {
		return err
	}
	if r.pass(n, fn) && overrun {
		return ErrOverrun
	}
	return nil
}

// receive receives the datagrams that have arrived, and reports whether the kernel
// dropped events behind them. If there is nothing to tell, it waits if it is to.
//
// The kernel reports an overrun ahead of the events that it had queued before,
// and drops all that come until these were read: that is where the gap is.
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

// pass passes the messages of the n datagrams that were received to fn, and
// reports whether fn wants more.
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

// messages passes the messages in b to fn, and reports whether fn wants more.
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
