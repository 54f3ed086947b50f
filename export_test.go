//go:build linux

package conntrack

import (
	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/netfilter"
)

// KernelEvents passes the events that the BPF program for opts accepts to fn,
// until fn returns false. It skips the filtering after decoding.
func (c *Conn) KernelEvents(groups []netfilter.NetlinkGroup, opts *EventOptions, joined func(), fn func(*Event, error) bool) error {
	s, err := c.eventSocket(groups, opts)
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

// ProgramLen returns the number of instructions in the BPF program for o.
func (o *EventOptions) ProgramLen() int {
	p, err := o.program(bpfMaxProgramLen)
	if err != nil {
		panic(err)
	}
	return len(p)
}

// Check returns an error if no flow can match f.
func (f Filter) Check() error {
	_, err := f.check()
	return err
}
