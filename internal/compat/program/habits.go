//go:build linux

package main

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/netfilter"
	"golang.org/x/sys/unix"
)

// patience is how long a call that does not wait for anything may take.
const patience = 10 * time.Second

// A habit is something that a program does with its own Conn.
type habit struct {
	name string
	do   func(c *conntrack.Conn) error
}

// printHabits prints the outcome of each habit, as an object by name. Habits
// run concurrently, with their own flows.
func printHabits(print func(any)) error {
	habits := allHabits()
	ends := make([]chan object, len(habits))
	for i, h := range habits {
		ends[i] = make(chan object, 1)
		go func() { ends[i] <- outcome(h.do(dial())) }()
	}
	late, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	outcomes := object{}
	for i, h := range habits {
		outcomes[h.name] = await(late, ends[i])
	}
	print(outcomes)
	return nil
}

func await(late context.Context, end <-chan object) object {
	select {
	case o := <-end:
		return o
	case <-late.Done():
	}
	select {
	case o := <-end:
		return o
	default:
		return object{"Hangs": true}
	}
}

// outcome returns what a program can learn from err.
func outcome(err error) object {
	o := object{"Error": err != nil}
	if err == nil {
		return o
	}
	o["Text"] = err.Error()
	for name, errno := range map[string]error{
		"EBADF": unix.EBADF, "ENOENT": unix.ENOENT, "EEXIST": unix.EEXIST, "EINVAL": unix.EINVAL,
		"EBUSY": unix.EBUSY, "EPERM": unix.EPERM, "EOPNOTSUPP": unix.EOPNOTSUPP, "EAGAIN": unix.EAGAIN,
	} {
		if errors.Is(err, errno) {
			o[name] = true
		}
	}
	return o
}

func allHabits() (all []habit) {
	for _, m := range methods() {
		all = append(all, habit{m.name + " after Close", func(c *conntrack.Conn) error {
			if err := c.Close(); err != nil {
				return nil // differs from the expected error
			}
			return m.do(c)
		}})
	}
	all = append(all, tupleHabits()...)
	all = append(all, expectHabits()...)
	all = append(all, listenHabits()...)
	all = append(all, kernelHabits()...)
	return all
}

// methods are calls of all methods of Conn with valid arguments.
func methods() []habit {
	f := newFlow(1)
	return []habit{
		{"Close", (*conntrack.Conn).Close},
		{"SetOption", func(c *conntrack.Conn) error { return c.SetOption(netlink.ExtendedAcknowledge, true) }},
		{"SetReadBuffer", func(c *conntrack.Conn) error { return c.SetReadBuffer(65536) }},
		{"SetWriteBuffer", func(c *conntrack.Conn) error { return c.SetWriteBuffer(65536) }},
		{"Listen", func(c *conntrack.Conn) error { return listen(c, 1, netfilter.GroupsCT) }},
		{"Dump", func(c *conntrack.Conn) error { _, err := c.Dump(nil); return err }},
		{"DumpFilter", func(c *conntrack.Conn) error { _, err := c.DumpFilter(conntrack.Filter{}, nil); return err }},
		{"DumpExpect", func(c *conntrack.Conn) error { _, err := c.DumpExpect(); return err }},
		{"Flush", (*conntrack.Conn).Flush},
		{"FlushFilter", func(c *conntrack.Conn) error { return c.FlushFilter(conntrack.Filter{}) }},
		{"Create", func(c *conntrack.Conn) error { return c.Create(f) }},
		{"CreateExpect", func(c *conntrack.Conn) error { return c.CreateExpect(newExpect()) }},
		{"Get", func(c *conntrack.Conn) error { _, err := c.Get(f); return err }},
		{"Update", func(c *conntrack.Conn) error { return c.Update(f) }},
		{"Delete", func(c *conntrack.Conn) error { return c.Delete(f) }},
		{"Stats", func(c *conntrack.Conn) error { _, err := c.Stats(); return err }},
		{"StatsExpect", func(c *conntrack.Conn) error { _, err := c.StatsExpect(); return err }},
		{"StatsGlobal", func(c *conntrack.Conn) error { _, err := c.StatsGlobal(); return err }},
	}
}

// newFlow returns a flow that can be created. It is different for each port.
func newFlow(port uint16) conntrack.Flow {
	return conntrack.NewFlow(17, conntrack.StatusConfirmed, addr4, other4, port, 53, 600, 0)
}

func newExpect() conntrack.Expect {
	mask := tuple(6, netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("255.255.255.255"))
	return conntrack.Expect{
		Timeout: 60, TupleMaster: tuple(6, addr4, other4), Tuple: tuple(6, addr4, other4), Mask: mask,
	}
}

func listen(c *conntrack.Conn, workers uint8, groups []netfilter.NetlinkGroup) error {
	_, err := c.Listen(make(chan conntrack.Event, 64), workers, groups)
	return err
}

// tupleHabits are calls that need a tuple, with flows that have none or an
// incomplete one.
func tupleHabits() (all []habit) {
	flows := map[string]func(*conntrack.Flow){
		"no tuple":          func(f *conntrack.Flow) { f.TupleOrig, f.TupleReply = conntrack.Tuple{}, conntrack.Tuple{} },
		"no original tuple": func(f *conntrack.Flow) { f.TupleOrig = conntrack.Tuple{} },
		"no reply tuple":    func(f *conntrack.Flow) { f.TupleReply = conntrack.Tuple{} },
		"no protocols":      func(f *conntrack.Flow) { f.TupleOrig.Proto.Protocol, f.TupleReply.Proto.Protocol = 0, 0 },
		"no sources": func(f *conntrack.Flow) {
			f.TupleOrig.IP.SourceAddress, f.TupleReply.IP.SourceAddress = netip.Addr{}, netip.Addr{}
		},
		"no original protocol":    func(f *conntrack.Flow) { f.TupleOrig.Proto.Protocol = 0 },
		"no original source":      func(f *conntrack.Flow) { f.TupleOrig.IP.SourceAddress = netip.Addr{} },
		"no original destination": func(f *conntrack.Flow) { f.TupleOrig.IP.DestinationAddress = netip.Addr{} },
		"no reply protocol":       func(f *conntrack.Flow) { f.TupleReply.Proto.Protocol = 0 },
		"no reply source":         func(f *conntrack.Flow) { f.TupleReply.IP.SourceAddress = netip.Addr{} },
		"two families":            func(f *conntrack.Flow) { f.TupleOrig.IP.SourceAddress = addr6 },
		"two families in replies": func(f *conntrack.Flow) { f.TupleReply.IP.SourceAddress = addr6 },
		"half a master":           func(f *conntrack.Flow) { f.TupleMaster.IP.SourceAddress = addr4 },
		"a master":                func(f *conntrack.Flow) { f.TupleMaster = tuple(6, addr4, other4) },
		"no timeout":              func(f *conntrack.Flow) { f.Timeout = 0 },
	}
	port := uint16(100)
	for name, change := range flows {
		for call, do := range map[string]func(*conntrack.Conn, conntrack.Flow) error{
			"Create": (*conntrack.Conn).Create,
			"Update": (*conntrack.Conn).Update,
			"Delete": (*conntrack.Conn).Delete,
			"Get":    func(c *conntrack.Conn, f conntrack.Flow) error { _, err := c.Get(f); return err },
		} {
			port++
			f := newFlow(port)
			change(&f)
			all = append(all, habit{call + " with " + name, func(c *conntrack.Conn) error { return do(c, f) }})
		}
	}
	return all
}

func expectHabits() (all []habit) {
	for name, change := range map[string]func(*conntrack.Expect){
		"no tuple":           func(ex *conntrack.Expect) { ex.Tuple = conntrack.Tuple{} },
		"no mask":            func(ex *conntrack.Expect) { ex.Mask = conntrack.Tuple{} },
		"no master":          func(ex *conntrack.Expect) { ex.TupleMaster = conntrack.Tuple{} },
		"half a tuple":       func(ex *conntrack.Expect) { ex.Tuple.Proto.Protocol = 0 },
		"half a mask":        func(ex *conntrack.Expect) { ex.Mask.IP.SourceAddress = netip.Addr{} },
		"half a master":      func(ex *conntrack.Expect) { ex.TupleMaster.Proto.Protocol = 0 },
		"half a translation": func(ex *conntrack.Expect) { ex.NAT.Tuple.IP.SourceAddress = addr4 },
		"two families":       func(ex *conntrack.Expect) { ex.Tuple.IP.SourceAddress = addr6 },
		"no such master":     func(*conntrack.Expect) {},
	} {
		ex := newExpect()
		change(&ex)
		all = append(all, habit{"CreateExpect with " + name, func(c *conntrack.Conn) error { return c.CreateExpect(ex) }})
	}
	return all
}

func listenHabits() []habit {
	return []habit{
		{"Listen", func(c *conntrack.Conn) error { return listen(c, 1, netfilter.GroupsCT) }},
		{"Listen with 0 workers", func(c *conntrack.Conn) error { return listen(c, 0, netfilter.GroupsCT) }},
		{"Listen with nil groups", func(c *conntrack.Conn) error { return listen(c, 1, nil) }},
		{"Listen with no groups", func(c *conntrack.Conn) error { return listen(c, 1, []netfilter.NetlinkGroup{}) }},
		{"Listen after Listen without groups", func(c *conntrack.Conn) error {
			return errors.Join(invert(listen(c, 1, nil)), listen(c, 1, netfilter.GroupsCT))
		}},
		{"Listen twice", func(c *conntrack.Conn) error {
			if err := listen(c, 1, netfilter.GroupsCT); err != nil {
				return nil
			}
			return listen(c, 1, netfilter.GroupsCTExp)
		}},
		{"Listen to a group that is none", func(c *conntrack.Conn) error {
			return listen(c, 1, []netfilter.NetlinkGroup{netfilter.GroupNone})
		}},
		{"Dump after Listen", func(c *conntrack.Conn) error {
			if err := listen(c, 1, netfilter.GroupsCT); err != nil {
				return nil
			}
			_, err := c.Dump(nil)
			return err
		}},
		{"Close after Listen", closeAfterListen},
	}
}

// invert returns an error if err is nil.
func invert(err error) error {
	if err == nil {
		return errors.New("no error")
	}
	return nil
}

// closeAfterListen asserts that Close ends the workers without an error, and
// that the caller can then close both channels.
func closeAfterListen(c *conntrack.Conn) error {
	events := make(chan conntrack.Event, 64)
	errs, err := c.Listen(events, 4, netfilter.GroupsCT)
	if err != nil {
		return err
	}
	if err := c.Close(); err != nil {
		return err
	}
	close(events)
	close(errs)
	return <-errs
}

// kernelHabits are calls that the kernel may refuse.
func kernelHabits() []habit {
	return []habit{
		{"Get of no such flow", func(c *conntrack.Conn) error { _, err := c.Get(newFlow(10)); return err }},
		{"Update of no such flow", func(c *conntrack.Conn) error { return c.Update(newFlow(11)) }},
		{"Delete of no such flow", func(c *conntrack.Conn) error { return c.Delete(newFlow(12)) }},
		{"Create twice", func(c *conntrack.Conn) error {
			if err := c.Create(newFlow(13)); err != nil {
				return nil
			}
			return c.Create(newFlow(13))
		}},
		{"Create and Delete", func(c *conntrack.Conn) error {
			return errors.Join(c.Create(newFlow(14)), c.Delete(newFlow(14)))
		}},
		{"Create and Delete with another ID", func(c *conntrack.Conn) error {
			f := newFlow(15)
			if err := c.Create(f); err != nil {
				return nil
			}
			f.ID = 1
			return c.Delete(f)
		}},
		{"Create without status", func(c *conntrack.Conn) error {
			f := newFlow(16)
			f.Status.Value = 0
			return c.Create(f)
		}},
		{"Create without confirmed", func(c *conntrack.Conn) error {
			f := newFlow(17)
			f.Status.Value = conntrack.StatusSeenReply
			return c.Create(f)
		}},
		{"Create with a helper that is none", func(c *conntrack.Conn) error {
			f := newFlow(18)
			f.Helper.Name = "nothing"
			return c.Create(f)
		}},
		{"DumpFilter with a mark outside its mask", func(c *conntrack.Conn) error {
			_, err := c.DumpFilter(conntrack.Filter{Mark: 5}, nil)
			return err
		}},
	}
}
