package conntrack

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/netfilter"
)

// A Tuple is one direction of a flow: the source and the destination of its
// packets.
type Tuple struct {
	IP    IPTuple
	Proto ProtoTuple

	// Zone is the zone of this direction alone (CTA_TUPLE_ZONE, Linux 4.3). It
	// is 0 for the default zone, and if Flow.Zone is the zone of both
	// directions.
	Zone uint16
}

// NewTuple returns the [Tuple] of packets from src to dst. If both addresses
// are IPv4-mapped, they become IPv4. IPv6 zones are dropped, since the kernel
// has none. For ICMP and ICMPv6 the ports have the meaning that they have in a
// [FiveTuple].
//
// In a [Filter] either side may be the zero AddrPort, which selects nothing out.
func NewTuple(proto Protocol, src, dst netip.AddrPort) Tuple {
	ip := IPTuple{SourceAddress: src.Addr().WithZone(""), DestinationAddress: dst.Addr().WithZone("")}
	t := Tuple{IP: ip.unmapped()}
	p := &t.Proto
	p.setProtocol(uint8(proto))
	if p.isICMP() {
		p.ICMPID = src.Port()
		p.ICMPType, p.ICMPCode = uint8(dst.Port()>>8), uint8(dst.Port())
		return t
	}
	p.SourcePort, p.DestinationPort = src.Port(), dst.Port()
	return t
}

// Tuple returns the tuple whose [Tuple.FiveTuple] is k, in the default zone.
func (k FiveTuple) Tuple() Tuple { return NewTuple(k.Protocol, k.Source, k.Destination) }

// TupleOf returns the tuple of the packets that c sends, for [Conn.Get]. c must
// be a TCP connection, or a UDP one with a remote address.
//
// If this machine does NAT, the flow may have other addresses in its other
// direction: [Flow.Dialed] is what the client of an accepted connection dialed.
func TupleOf(c net.Conn) (Tuple, error) {
	local, okLocal := c.LocalAddr().(interface{ AddrPort() netip.AddrPort })
	remote, okRemote := c.RemoteAddr().(interface{ AddrPort() netip.AddrPort })
	if !okLocal || !okRemote {
		return Tuple{}, fmt.Errorf("conntrack: no tuple of a %T from %v to %v: %w", c, c.LocalAddr(), c.RemoteAddr(), ErrBadIPTuple)
	}
	var proto Protocol
	switch network := c.LocalAddr().Network(); network {
	case "tcp":
		proto = ProtocolTCP
	case "udp":
		proto = ProtocolUDP
	default:
		return Tuple{}, fmt.Errorf("conntrack: no tuple of a %T: network %q is neither tcp nor udp", c, network)
	}
	t := NewTuple(proto, local.AddrPort(), remote.AddrPort())
	if !t.filled() {
		return Tuple{}, fmt.Errorf("conntrack: no tuple of a %T from %v to %v: %w", c, c.LocalAddr(), c.RemoteAddr(), ErrBadIPTuple)
	}
	return t, nil
}

// An IPTuple is the addresses of a [Tuple]. Both are IPv4 or both are IPv6. Two
// IPv4-mapped IPv6 addresses count as IPv4.
type IPTuple struct {
	SourceAddress      netip.Addr
	DestinationAddress netip.Addr
}

// A ProtoTuple is the part of a [Tuple] that belongs to the transport protocol:
// ports (TCP, UDP, UDP-Lite, SCTP, DCCP), keys in place of ports (GRE), or the
// id, type and code of an ICMP query.
type ProtoTuple struct {
	// Protocol is the IP protocol number, such as [ProtocolTCP].
	Protocol uint8

	SourcePort      uint16
	DestinationPort uint16

	// ICMPv4 and ICMPv6 say which of the two the following fields belong to.
	// They need not be set if Protocol is [ProtocolICMP] or [ProtocolICMPv6].
	ICMPv4 bool
	ICMPv6 bool

	ICMPID   uint16
	ICMPType uint8
	ICMPCode uint8
}

// IsIPv6 reports whether both addresses are in IPv6 form, which includes
// IPv4-mapped ones.
func (ipt IPTuple) IsIPv6() bool {
	return ipt.SourceAddress.Is6() && ipt.DestinationAddress.Is6()
}

// family returns the family of both addresses, or ErrBadIPTuple.
func (ipt *IPTuple) family() (netfilter.ProtoFamily, error) {
	switch ip := ipt.unmapped(); {
	case ip.SourceAddress.Is4() && ip.DestinationAddress.Is4():
		return netfilter.ProtoIPv4, nil
	case ip.IsIPv6():
		return netfilter.ProtoIPv6, nil
	}
	return 0, ErrBadIPTuple
}

// unmapped returns ipt with IPv4-mapped addresses as IPv4, or as it is if one
// address is IPv6.
func (ipt *IPTuple) unmapped() IPTuple {
	u := IPTuple{ipt.SourceAddress.Unmap(), ipt.DestinationAddress.Unmap()}
	if u.SourceAddress.Is6() || u.DestinationAddress.Is6() {
		return *ipt
	}
	return u
}

// family returns the one family of all addresses of those tuples that are
// given, or ErrBadIPTuple. The kernel takes the family of all tuples from the
// header.
func family(tuples ...*Tuple) (netfilter.ProtoFamily, error) {
	family := netfilter.ProtoUnspec
	for _, t := range tuples {
		if !t.filled() {
			continue
		}
		f, err := t.IP.family()
		if err != nil {
			return 0, err
		}
		if family != netfilter.ProtoUnspec && f != family {
			return 0, ErrBadIPTuple
		}
		family = f
	}
	return family, nil
}

// filled reports whether t is given: it is not without both addresses and a
// protocol.
func (t *Tuple) filled() bool { return t.IP.filled() && t.Proto.Protocol != 0 }

func (ipt *IPTuple) filled() bool {
	return ipt.SourceAddress.IsValid() && ipt.DestinationAddress.IsValid()
}

func (t *Tuple) unmarshal(b []byte) error {
	var d nfnl.Decoder
	for typ, v := range d.Attributes(b) {
		switch typ {
		case ctaTupleIP:
			d.Fail(t.IP.unmarshal(v))
		case ctaTupleProto:
			d.Fail(t.Proto.unmarshal(v))
		case ctaTupleZone:
			t.Zone = d.Uint16(v)
		}
	}
	return d.Err(ctaTupleNames)
}

// marshal appends t as an attribute of the given type. Its addresses must be of
// one family.
func (t *Tuple) marshal(e *nfnl.Encoder, typ uint16) {
	tuple := e.Nest(typ)
	t.IP.marshal(e)
	t.Proto.marshal(e)
	if t.Zone != 0 {
		e.Uint16(ctaTupleZone, t.Zone)
	}
	e.End(tuple)
}

func (ipt *IPTuple) unmarshal(b []byte) error {
	switch {
	case len(b) == 16 && nfnl.Holds(b, 0, ctaIPv4Src, 4) && nfnl.Holds(b, 8, ctaIPv4Dst, 4):
		ipt.SourceAddress = netip.AddrFrom4([4]byte(b[4:]))
		ipt.DestinationAddress = netip.AddrFrom4([4]byte(b[12:]))
		return nil
	case len(b) == 40 && nfnl.Holds(b, 0, ctaIPv6Src, 16) && nfnl.Holds(b, 20, ctaIPv6Dst, 16):
		ipt.SourceAddress = netip.AddrFrom16([16]byte(b[4:]))
		ipt.DestinationAddress = netip.AddrFrom16([16]byte(b[24:]))
		return nil
	}
	var d nfnl.Decoder
	for typ, v := range d.Attributes(b) {
		switch typ {
		case ctaIPv4Src:
			ipt.SourceAddress = d.Addr4(v)
		case ctaIPv4Dst:
			ipt.DestinationAddress = d.Addr4(v)
		case ctaIPv6Src:
			ipt.SourceAddress = d.Addr6(v)
		case ctaIPv6Dst:
			ipt.DestinationAddress = d.Addr6(v)
		}
	}
	return d.Err(ctaIPNames)
}

func (ipt *IPTuple) marshal(e *nfnl.Encoder) {
	addrs := ipt.unmapped()
	ip := e.Nest(ctaTupleIP)
	e.Addr(ctaIPv4Src, ctaIPv6Src, addrs.SourceAddress)
	e.Addr(ctaIPv4Dst, ctaIPv6Dst, addrs.DestinationAddress)
	e.End(ip)
}

func (pt *ProtoTuple) unmarshal(b []byte) error {
	if len(b) == 24 && nfnl.Holds(b, 0, ctaProtoNum, 1) &&
		nfnl.Holds(b, 8, ctaProtoSrcPort, 2) && nfnl.Holds(b, 16, ctaProtoDstPort, 2) {
		pt.setProtocol(b[4])
		pt.SourcePort = nfnl.Uint16(b[12:])
		pt.DestinationPort = nfnl.Uint16(b[20:])
		return nil
	}
	var d nfnl.Decoder
	for typ, v := range d.Attributes(b) {
		switch typ {
		case ctaProtoNum:
			pt.setProtocol(d.Uint8(v))
		case ctaProtoSrcPort:
			pt.SourcePort = d.Uint16(v)
		case ctaProtoDstPort:
			pt.DestinationPort = d.Uint16(v)
		case ctaProtoICMPID, ctaProtoICMPv6ID:
			pt.ICMPID = d.Uint16(v)
		case ctaProtoICMPType, ctaProtoICMPv6Type:
			pt.ICMPType = d.Uint8(v)
		case ctaProtoICMPCode, ctaProtoICMPv6Code:
			pt.ICMPCode = d.Uint8(v)
		}
	}
	return d.Err(ctaProtoNames)
}

func (pt *ProtoTuple) setProtocol(p uint8) {
	pt.Protocol = p
	pt.ICMPv4 = p == ProtocolICMP
	pt.ICMPv6 = p == ProtocolICMPv6
}

func (pt *ProtoTuple) marshal(e *nfnl.Encoder) {
	proto := e.Nest(ctaTupleProto)
	e.Uint8(ctaProtoNum, pt.Protocol)
	switch {
	case pt.ICMPv4 || pt.Protocol == ProtocolICMP:
		e.Uint16(ctaProtoICMPID, pt.ICMPID)
		e.Uint8(ctaProtoICMPType, pt.ICMPType)
		e.Uint8(ctaProtoICMPCode, pt.ICMPCode)
	case pt.ICMPv6 || pt.Protocol == ProtocolICMPv6:
		e.Uint16(ctaProtoICMPv6ID, pt.ICMPID)
		e.Uint8(ctaProtoICMPv6Type, pt.ICMPType)
		e.Uint8(ctaProtoICMPv6Code, pt.ICMPCode)
	default:
		e.Uint16(ctaProtoSrcPort, pt.SourcePort)
		e.Uint16(ctaProtoDstPort, pt.DestinationPort)
	}
	e.End(proto)
}
