package main

import (
	"github.com/ti-mo/conntrack"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// floorEach prepares the message of each flow and calls do with it.
func floorEach(r *run, message func(*requests, *flow), do func(*socket, []byte) error) error {
	s, err := newSocket()
	if err != nil {
		return err
	}
	defer s.close()
	var messages requests
	var ends []int
	return r.each(nil, func(f *flow) {
		message(&messages, f)
		ends = append(ends, len(messages.buf))
	}, func() error {
		start := 0
		for _, end := range ends {
			if err := do(s, messages.buf[start:end]); err != nil {
				return err
			}
			start = end
		}
		messages.reset()
		ends = ends[:0]
		return nil
	})
}

func floorCreate(r *run) error {
	return floorEach(r, func(m *requests, f *flow) { m.create(f, false, unix.NLM_F_ACK) }, (*socket).do)
}

func floorGet(r *run) error { return floorEach(r, (*requests).get, (*socket).get) }

func floorUpdate(r *run) error {
	return floorEach(r, func(m *requests, f *flow) { m.update(f, unix.NLM_F_ACK) }, (*socket).do)
}

func floorDelete(r *run) error {
	return floorEach(r, func(m *requests, f *flow) { m.delete(f, unix.NLM_F_ACK) }, (*socket).do)
}

var established = conntrack.ProtoInfoTCP{
	State:               tcpEstablished,
	OriginalWindowScale: tcpWindowScale,
	ReplyWindowScale:    tcpWindowScale,
	OriginalFlags:       tcpFlags,
	ReplyFlags:          tcpFlags,
}

// libraryFlow returns f as a user of this library would write it.
func (f *flow) libraryFlow() conntrack.Flow {
	lf := conntrack.NewFlow(f.proto, conntrack.StatusFlag(f.status()),
		f.source.Addr(), f.destination.Addr(), f.source.Port(), f.destination.Port(), f.timeout, f.mark)
	lf.TupleReply.IP.DestinationAddress = f.translated.Addr()
	lf.TupleReply.Proto.DestinationPort = f.translated.Port()
	if f.icmp() {
		o, p := &lf.TupleOrig.Proto, &lf.TupleReply.Proto
		o.ICMPType, p.ICMPType = f.icmpTypes()
		o.ICMPID, p.ICMPID = f.id, f.id
	}
	if f.proto == unix.IPPROTO_TCP {
		lf.ProtoInfo.TCP = &established
	}
	return lf
}

// libraryEach calls do with a few flows at a time.
func libraryEach(r *run, translate func(*flow) conntrack.Flow, do func(*conntrack.Conn, []conntrack.Flow) error) error {
	c, err := conntrack.Dial(nil)
	if err != nil {
		return err
	}
	defer c.Close()
	var flows []conntrack.Flow
	return r.each(nil, func(f *flow) { flows = append(flows, translate(f)) }, func() error {
		err := do(c, flows)
		flows = flows[:0]
		return err
	})
}

func libraryCreate(r *run) error {
	return libraryEach(r, (*flow).libraryFlow, func(c *conntrack.Conn, flows []conntrack.Flow) error {
		for i := range flows {
			if err := c.Create(flows[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func libraryGet(r *run) error {
	return libraryEach(r, (*flow).libraryKey, func(c *conntrack.Conn, flows []conntrack.Flow) error {
		for i := range flows {
			if _, err := c.Get(flows[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func libraryUpdate(r *run) error {
	return libraryEach(r, func(f *flow) conntrack.Flow {
		lf := f.libraryKey()
		lf.Timeout, lf.Mark = f.timeout, f.updatedMark()
		return lf
	}, func(c *conntrack.Conn, flows []conntrack.Flow) error {
		for i := range flows {
			if err := c.Update(flows[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// libraryKey returns only the parts of f that are needed to find it.
func (f *flow) libraryKey() conntrack.Flow {
	return conntrack.Flow{TupleOrig: f.libraryFlow().TupleOrig}
}

// libraryDelete passes complete flows, as a program would have them.
func libraryDelete(r *run) error {
	return libraryEach(r, (*flow).libraryFlow, func(c *conntrack.Conn, flows []conntrack.Flow) error {
		for i := range flows {
			if err := c.Delete(flows[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// vishvanandaFlow returns the parts of f that vishvananda/netlink supports.
func (f *flow) vishvanandaFlow() *netlink.ConntrackFlow {
	vf := &netlink.ConntrackFlow{
		FamilyType: unix.AF_INET,
		Forward: netlink.IPTuple{
			SrcIP: f.source.Addr().AsSlice(), SrcPort: f.source.Port(),
			DstIP: f.destination.Addr().AsSlice(), DstPort: f.destination.Port(),
			Protocol: f.proto,
		},
		Reverse: netlink.IPTuple{
			SrcIP: f.destination.Addr().AsSlice(), SrcPort: f.destination.Port(),
			DstIP: f.translated.Addr().AsSlice(), DstPort: f.translated.Port(),
			Protocol: f.proto,
		},
		Mark:    f.mark,
		TimeOut: f.timeout,
	}
	if f.ipv6() {
		vf.FamilyType = unix.AF_INET6
	}
	if f.proto == unix.IPPROTO_TCP {
		vf.ProtoInfo = &netlink.ProtoInfoTCP{State: tcpEstablished}
	}
	return vf
}

type vishvanandaFunc func(netlink.ConntrackTableType, netlink.InetFamily, *netlink.ConntrackFlow) error

// vishvanandaEach calls do for each flow except those of ICMP, which
// vishvananda/netlink does not support.
func vishvanandaEach(r *run, do vishvanandaFunc) error {
	var flows []*netlink.ConntrackFlow
	return r.each((*flow).icmp, func(f *flow) { flows = append(flows, f.vishvanandaFlow()) }, func() error {
		for _, f := range flows {
			if err := do(netlink.ConntrackTable, netlink.InetFamily(f.FamilyType), f); err != nil {
				return err
			}
		}
		flows = flows[:0]
		return nil
	})
}

// These functions open and close a socket for each request.
func vishvanandaCreate(r *run) error { return vishvanandaEach(r, netlink.ConntrackCreate) }
func vishvanandaUpdate(r *run) error { return vishvanandaEach(r, netlink.ConntrackUpdate) }

// withHandle calls fn with a Handle that has its own socket.
func withHandle(fn func(*netlink.Handle) error) error {
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer h.Close()
	return fn(h)
}

func handleCreate(r *run) error {
	return withHandle(func(h *netlink.Handle) error { return vishvanandaEach(r, h.ConntrackCreate) })
}

func handleUpdate(r *run) error {
	return withHandle(func(h *netlink.Handle) error { return vishvanandaEach(r, h.ConntrackUpdate) })
}
