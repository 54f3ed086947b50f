package conntrack

import (
	"errors"
	"slices"
	"sync"

	"github.com/ti-mo/conntrack/internal/nfnl"
)

// sockets are the sockets of a Conn: one for requests, and others for dumps and
// listeners.
type sockets struct {
	request *nfnl.Conn

	mu     sync.Mutex
	open   []*nfnl.Conn // all but request
	idle   []*nfnl.Conn // those of open that nobody uses
	closed bool
}

// maxIdle is how many unused sockets are kept for later dumps.
const maxIdle = 4

// get returns a socket that nobody else uses.
func (s *sockets) get() (*nfnl.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nfnl.ErrClosed
	}
	if n := len(s.idle); n > 0 {
		c := s.idle[n-1]
		s.idle = s.idle[:n-1]
		return c, nil
	}
	c, err := s.request.Sibling()
	if err != nil {
		return nil, err
	}
	s.open = append(s.open, c)
	return c, nil
}

// keep takes back a socket for a later get. No message may be on its way to it.
func (s *sockets) keep(c *nfnl.Conn) {
	s.mu.Lock()
	if !s.closed && len(s.idle) < maxIdle {
		s.idle = append(s.idle, c)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	s.drop(c)
}

// drop closes a socket that get returned.
func (s *sockets) drop(c *nfnl.Conn) {
	s.mu.Lock()
	s.open = slices.DeleteFunc(s.open, func(o *nfnl.Conn) bool { return o == c })
	s.mu.Unlock()
	_ = c.Close()
}

// Foreign returns how many messages the Conn has ignored because they did not
// come from the kernel. Any process with CAP_NET_ADMIN can send some.
func (c *Conn) Foreign() uint64 { return c.sockets.request.Foreign() }

// each calls fn for all sockets, and returns the first error.
func (s *sockets) each(fn func(*nfnl.Conn) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := fn(s.request); err != nil {
		return err
	}
	for _, c := range s.open {
		if err := fn(c); err != nil {
			return err
		}
	}
	return nil
}

func (s *sockets) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	err := s.request.Close()
	for _, c := range s.open {
		err = errors.Join(err, c.Close())
	}
	s.open, s.idle = nil, nil
	return err
}
