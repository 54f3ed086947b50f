package nfnl

import (
	"errors"
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
	c      *Conn
	io     eventReader
	gather bool

	last    int  // number of datagrams received last
	overrun bool // the kernel dropped events, which is still to be told
}

// NewReceiver returns a Receiver for c. Requests on the same Conn would take
// its events for their replies: use one Conn for events alone.
func (c *Conn) NewReceiver() (*Receiver, error) {
	if c.link != nil {
		return &Receiver{c: c, io: &linkEvents{link: c.link}}, nil
	}
	size, err := c.nl.ReadBuffer()
	gather := err == nil && size >= gatherBuffer
	return &Receiver{c: c, io: newEventIO(c.raw), gather: gather}, nil
}

// Receive waits for events, passes each of those that have arrived to fn, and
// returns once fn has returned for all of them, or as soon as it returned
// false. A message that cannot be used is passed as an error: it is malformed,
// was too long (ErrTruncated) or is not the kernel's (ErrForeignSender).
//
// If it returns ErrOverrun, the kernel dropped events at about this place among
// those that were passed, and receiving can go on. So it can when a deadline has
// passed and another one is set. Any other error lasts.
func (r *Receiver) Receive(fn func(Message, error) bool) error {
	for {
		n, err := r.receive()
		if err != nil {
			return err
		}
		more := r.pass(n, fn)
		switch {
		case !r.overrun || !more:
			return nil
		case n < eventBatch:
			r.overrun = false
			return ErrOverrun
		}
	}
}

// receive receives the datagrams that have arrived, and waits for one if there
// is nothing to tell.
//
// The kernel reports an overrun ahead of the events that it had queued before,
// and drops all that come until these were read: that is where the gap is.
func (r *Receiver) receive() (int, error) {
	if r.gather && burst <= r.last && r.last < eventBatch {
		sleep(gatherTime)
	}
	for {
		n, err := r.io.receive(!r.overrun)
		r.last = n
		if !errors.Is(err, errNoBufferSpace) {
			return n, r.c.fault(err)
		}
		r.overrun = true
	}
}

// pass passes the messages of the n datagrams that were received to fn, and
// reports whether fn wants more.
func (r *Receiver) pass(n int, fn func(Message, error) bool) bool {
	for i := range n {
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
