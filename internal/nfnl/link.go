package nfnl

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
)

// A netlinkSocket is what a Conn needs of a [netlink.Conn] besides its datagrams.
type netlinkSocket interface {
	Close() error
	PID() uint32
	JoinGroup(group uint32) error
	SetDeadline(t time.Time) error
	SetBPF(program []bpf.RawInstruction) error
	SetOption(option netlink.ConnOption, enable bool) error
	SetReadBuffer(bytes int) error
	ReadBuffer() (int, error)
	SetWriteBuffer(bytes int) error
	WriteBuffer() (int, error)
}

// An exchanger sends requests and receives what answers them: a *requestIO.
type exchanger interface {
	send(b []byte) error
	receive() ([]byte, error)
}

// An eventReader receives events: an *eventIO.
type eventReader interface {
	receive(wait bool) (int, error)
	foreign(i int) bool
	datagram(i int) ([]byte, error)
	nsid(i int) int
}

// A Link stands in for a socket of the kernel's, so that a Conn works on any
// system, with a kernel that a test plays.
type Link interface {
	netlinkSocket

	// Send hands a datagram of requests over. It is answered when Send returns.
	Send(b []byte) error
	// Receive returns the next datagram, which is the caller's to keep. If there
	// is none, it waits for one, or returns ErrWouldBlock if wait is not set. An
	// overrun is the error 105 (ENOBUFS), once.
	Receive(wait bool) ([]byte, error)
	// Sibling returns another Link to the same kernel.
	Sibling() (Link, error)
}

// ErrWouldBlock is returned by [Link.Receive] if there is nothing to receive.
var ErrWouldBlock = errors.New("nothing to receive")

// Error returns this system's error for one of Linux's numbers.
func Error(code int32) error { return errno(code) }

// NewConn returns a Conn on a Link.
func NewConn(link Link) *Conn {
	c := &Conn{nl: link, link: link, io: linkRequests{link}}
	c.setup.foreign = new(atomic.Uint64)
	return c
}

func (c *Conn) linkSibling() (*Conn, error) {
	link, err := c.link.Sibling()
	if err != nil {
		return nil, err
	}
	s := NewConn(link)
	if err := s.apply(&c.setup); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

type linkRequests struct{ link Link }

func (r linkRequests) send(b []byte) error { return linkError("send", r.link.Send(b)) }

func (r linkRequests) receive() ([]byte, error) {
	b, err := r.link.Receive(false)
	if errors.Is(err, ErrWouldBlock) {
		return nil, ErrNoReply
	}
	return b, linkError("receive", err)
}

func linkError(op string, err error) error {
	if err == nil {
		return nil
	}
	return &netlink.OpError{Op: op, Err: err}
}

// linkEvents receives as many datagrams at a time as an eventIO.
type linkEvents struct {
	link      Link
	datagrams [][]byte
	err       error // seen behind the datagrams
}

func (e *linkEvents) receive(wait bool) (int, error) {
	e.datagrams = e.datagrams[:0]
	err := e.err
	e.err = nil
	for err == nil && len(e.datagrams) < eventBatch {
		var b []byte
		if b, err = e.link.Receive(wait && len(e.datagrams) == 0); err == nil {
			e.datagrams = append(e.datagrams, b)
		}
	}
	if errors.Is(err, ErrWouldBlock) {
		err = nil
	}
	if len(e.datagrams) > 0 {
		e.err, err = err, nil
	}
	return len(e.datagrams), linkError("receive", err)
}

func (e *linkEvents) foreign(int) bool { return false }

func (e *linkEvents) datagram(i int) ([]byte, error) { return e.datagrams[i], nil }

func (e *linkEvents) nsid(int) int { return -1 }
