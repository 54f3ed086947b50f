//go:build linux

// Package dropin uses a Conn like programs written for
// github.com/ti-mo/conntrack v0.5.0. It compiles unchanged with that version,
// using -modfile=v050.mod, and with this library.
package dropin

import (
	"errors"
	"fmt"
	"sync"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/netfilter"
)

// A listener has the methods of Conn that a Watcher needs. Tests can implement
// it without a kernel.
type listener interface {
	Listen(evChan chan<- conntrack.Event, numWorkers uint8, groups []netfilter.NetlinkGroup) (chan error, error)
	Close() error
}

var _ listener = (*conntrack.Conn)(nil)

// dialKernel opens a listener for the kernel.
func dialKernel() (listener, error) { return conntrack.Dial(nil) }

// A Watcher keeps track of flows, like mesh clients and flow exporters.
type Watcher struct {
	conn listener
	done chan struct{}
	wg   sync.WaitGroup

	mu      sync.Mutex
	live    map[uint32]conntrack.Flow
	closed  map[uint32]conntrack.Flow
	expects []conntrack.Expect
	seen    map[uint8]int // by type of event
	err     error
}

// Watch starts a Watcher for the events of groups. A nil dial means the kernel.
func Watch(dial func() (listener, error), workers uint8, groups []netfilter.NetlinkGroup) (*Watcher, error) {
	if dial == nil {
		dial = dialKernel
	}
	conn, err := dial()
	if err != nil {
		return nil, fmt.Errorf("dial conntrack: %w", err)
	}
	events := make(chan conntrack.Event, 100)
	errs, err := conn.Listen(events, workers, groups)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen: %w", err), conn.Close())
	}
	w := &Watcher{
		conn:   conn,
		done:   make(chan struct{}),
		live:   map[uint32]conntrack.Flow{},
		closed: map[uint32]conntrack.Flow{},
		seen:   map[uint8]int{},
	}
	w.wg.Go(func() { w.receive(events, errs) })
	return w, nil
}

// Close stops the Watcher. It returns the error that stopped it earlier, if
// any.
func (w *Watcher) Close() error {
	err := w.conn.Close()
	close(w.done)
	w.wg.Wait()
	return errors.Join(w.err, err)
}

func (w *Watcher) receive(events <-chan conntrack.Event, errs <-chan error) {
	for {
		select {
		case ev := <-events:
			w.handle(ev)
		case err := <-errs:
			w.err = err
			return
		case <-w.done:
			return
		}
	}
}

func (w *Watcher) handle(ev conntrack.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[uint8(ev.Type)]++
	switch ev.Type {
	case conntrack.EventNew, conntrack.EventUpdate:
		w.live[ev.Flow.ID] = *ev.Flow
	case conntrack.EventDestroy:
		delete(w.live, ev.Flow.ID)
		w.closed[ev.Flow.ID] = *ev.Flow
	case conntrack.EventExpNew:
		w.expects = append(w.expects, *ev.Expect)
	case conntrack.EventExpDestroy:
	case conntrack.EventUnknown:
	default:
	}
}

// Counts returns the number of events of each type, by the type's text.
func (w *Watcher) Counts() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	counts := map[string]int{}
	for typ, n := range w.seen {
		for _, t := range []conntrack.Event{
			{Type: conntrack.EventNew}, {Type: conntrack.EventUpdate}, {Type: conntrack.EventDestroy},
			{Type: conntrack.EventExpNew}, {Type: conntrack.EventExpDestroy},
		} {
			if uint8(t.Type) == typ {
				counts[t.Type.String()] = n
			}
		}
	}
	return counts
}
