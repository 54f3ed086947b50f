package conntrack

import (
	"errors"
	"io/fs"

	"github.com/ti-mo/conntrack/netfilter"
)

// ErrOverrun says that the kernel dropped events, since the socket's receive
// buffer was full. It satisfies errors.Is(ErrOverrun, unix.ENOBUFS). What comes
// after it is received; what was lost can be found out by a dump.
var ErrOverrun = netfilter.ErrOverrun

// Listen sends the events of the given groups to evChan, until the Conn is
// closed. It takes numWorkers goroutines; with more than one, the order of events
// is lost. It may be called once on a Conn. When it returns, events of what
// happens from then on are caught.
//
// The channel returned carries errors: ErrOverrun if the kernel dropped events,
// those of messages that cannot be decoded, and an error that ends a worker.
// Nobody needs to read it: while ErrOverrun or a decoding error waits to be
// read, further ones are left out. Closing the Conn ends the workers without an
// error; neither channel is closed then, but both may be by the caller once
// Close has returned.
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
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.listening {
		return nil, ErrListening
	}
	s, err := c.eventSocket(groups)
	if err != nil {
		return nil, err
	}
	receivers := make([]*netfilter.Receiver, numWorkers)
	for i := range receivers {
		if receivers[i], err = s.NewReceiver(); err != nil {
			c.sockets.drop(s)
			return nil, err
		}
	}
	c.listening = true
	errChan := make(chan error, int(numWorkers)+pendingErrors)
	for _, r := range receivers {
		w := worker{receiver: r, events: evChan, errors: errChan, done: c.done}
		c.workers.Go(w.run)
	}
	return errChan, nil
}

// eventSocket returns a socket that has joined groups.
func (c *Conn) eventSocket(groups []netfilter.NetlinkGroup) (*netfilter.Conn, error) {
	s, err := c.sockets.get()
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		if err := s.JoinGroup(g); err != nil {
			c.sockets.drop(s)
			return nil, err
		}
	}
	return s, nil
}

// pendingErrors is how many errors that end no worker may wait to be read.
const pendingErrors = 16

// A worker of Listen.
type worker struct {
	receiver *netfilter.Receiver
	slab     slab
	events   chan<- Event
	errors   chan<- error
	done     <-chan struct{}
}

func (w *worker) run() {
	for {
		err := w.receiver.Receive(w.message)
		switch {
		case err == nil:
		case errors.Is(err, ErrOverrun):
			w.report(opError("listen", ErrOverrun))
		case errors.Is(err, fs.ErrClosed):
			return
		default:
			select {
			case w.errors <- opError("listen", err):
			case <-w.done:
			}
			return
		}
		select {
		case <-w.done:
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
func (w *worker) message(m netfilter.Message, err error) bool {
	var ev Event
	if err == nil {
		err = ev.unmarshal(m.Header, m.Attributes, &w.slab)
	}
	if err != nil {
		w.report(opError("listen", err))
		return true
	}
	select {
	case w.events <- ev:
		return true
	case <-w.done:
		return false
	}
}
