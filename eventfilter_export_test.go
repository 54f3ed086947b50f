//go:build linux

package conntrack

import (
	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/netfilter"
)

// KernelEvents passes what the kernel lets through of the events that f selects
// to fn, until fn returns false: without the part of the filter that is done
// after decoding.
func (c *Conn) KernelEvents(groups []netfilter.NetlinkGroup, f EventFilter, joined func(), fn func(*Event, error) bool) error {
	s, err := c.eventSocket(groups, &EventOptions{Filter: f})
	if err != nil {
		return err
	}
	defer c.sockets.drop(s)
	r, err := s.NewReceiver()
	if err != nil {
		return err
	}
	joined()
	more := true
	for more && err == nil {
		err = r.Receive(func(m nfnl.Message, err error) bool {
			var ev Event
			if err == nil {
				err = ev.unmarshal(m, new(Flow), nil)
			}
			more = fn(&ev, err)
			return more
		})
	}
	return err
}

// ProgramLen returns the number of instructions of the program for f.
func (f *EventFilter) ProgramLen() int {
	p, err := f.program(bpfMaxProgramLen)
	if err != nil {
		panic(err)
	}
	return len(p)
}
