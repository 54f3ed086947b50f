package conntrack

import (
	"net/netip"
	"slices"
	"time"
)

// Source returns where t's packets come from. The port is 0 where the protocol has
// none, such as ICMP.
func (t Tuple) Source() netip.AddrPort {
	return netip.AddrPortFrom(t.IP.SourceAddress, t.Proto.SourcePort)
}

// Destination returns where t's packets go. The port is 0 where the protocol has
// none, such as ICMP.
func (t Tuple) Destination() netip.AddrPort {
	return netip.AddrPortFrom(t.IP.DestinationAddress, t.Proto.DestinationPort)
}

// Reverse returns the tuple of the replies to t's packets, without NAT: addresses
// and ports change places, an ICMP query becomes its reply and a reply its query.
// The type of an ICMP message that is neither stays as it is, and so does the
// zone.
func (t Tuple) Reverse() Tuple {
	t.IP.SourceAddress, t.IP.DestinationAddress = t.IP.DestinationAddress, t.IP.SourceAddress
	p := &t.Proto
	p.SourcePort, p.DestinationPort = p.DestinationPort, p.SourcePort
	switch {
	case p.isICMPv4():
		p.ICMPType = reverseType(icmpPairs, p.ICMPType)
	case p.isICMPv6():
		p.ICMPType = reverseType(icmpv6Pairs, p.ICMPType)
	}
	return t
}

func (pt *ProtoTuple) isICMPv4() bool { return pt.ICMPv4 || pt.Protocol == ProtocolICMP }
func (pt *ProtoTuple) isICMPv6() bool { return pt.ICMPv6 || pt.Protocol == ProtocolICMPv6 }

// The queries and their replies that the kernel tracks: invmap in its
// nf_conntrack_proto_icmp.c and nf_conntrack_proto_icmpv6.c.
var (
	icmpPairs = [][2]uint8{
		{8, 0},   // echo
		{13, 14}, // timestamp
		{15, 16}, // information
		{17, 18}, // address mask
	}
	icmpv6Pairs = [][2]uint8{
		{128, 129}, // echo
		{139, 140}, // node information
	}
)

func reverseType(pairs [][2]uint8, typ uint8) uint8 {
	for _, pair := range pairs {
		switch typ {
		case pair[0]:
			return pair[1]
		case pair[1]:
			return pair[0]
		}
	}
	return typ
}

// A FiveTuple is what tells the flows of one zone from each other, in a form that
// can be compared and be the key of a map.
//
// Where the protocol is ICMP or ICMPv6, the port of Source is the id, and that of
// Destination is the type, times 256, plus the code: as in the records of NetFlow
// and IPFIX, which leave out the id.
type FiveTuple struct {
	Protocol            Protocol
	Source, Destination netip.AddrPort
}

// FiveTuple returns that of f's original direction.
func (f Flow) FiveTuple() FiveTuple { return f.TupleOrig.FiveTuple() }

// FiveTuple returns t without its zone.
func (t Tuple) FiveTuple() FiveTuple {
	k := FiveTuple{Protocol(t.Proto.Protocol), t.Source(), t.Destination()}
	if t.Proto.isICMPv4() || t.Proto.isICMPv6() {
		typeCode := uint16(t.Proto.ICMPType)<<8 | uint16(t.Proto.ICMPCode)
		k.Source = netip.AddrPortFrom(k.Source.Addr(), t.Proto.ICMPID)
		k.Destination = netip.AddrPortFrom(k.Destination.Addr(), typeCode)
	}
	return k
}

func (k FiveTuple) isICMP() bool { return k.Protocol == ProtocolICMP || k.Protocol == ProtocolICMPv6 }

// Client returns where the flow's first packet came from. The original direction
// says so.
func (f Flow) Client() netip.AddrPort { return f.TupleOrig.Source() }

// Dialed returns the destination that Client chose. With NAT it may not be
// Server.
func (f Flow) Dialed() netip.AddrPort { return f.TupleOrig.Destination() }

// Server returns where the replies come from, whatever Client dialed. The reply
// direction says so.
func (f Flow) Server() netip.AddrPort { return f.TupleReply.Source() }

// MappedClient returns what Server takes for the client: where it sends the
// replies. With NAT it may not be Client.
func (f Flow) MappedClient() netip.AddrPort { return f.TupleReply.Destination() }

// Translated reports whether NAT changes f's packets: their source, their
// destination, or both. Like the following two it compares the tuples, and needs
// no status; of a flow that does not have both tuples it is false. It says
// nothing about what the field NAT asks for.
func (f Flow) Translated() bool { return f.sourceTranslated() || f.destinationTranslated() }

// SourceTranslated reports whether MappedClient is not Client: the address, the
// port or, since this is what source NAT changes, an ICMP id.
func (f Flow) SourceTranslated() bool { return f.sourceTranslated() }

// DestinationTranslated reports whether Server is not what was dialed: the
// address or the port.
func (f Flow) DestinationTranslated() bool { return f.destinationTranslated() }

func (f *Flow) sourceTranslated() bool {
	return f.hasBothTuples() &&
		(f.TupleReply.Destination() != f.TupleOrig.Source() || f.TupleReply.Proto.ICMPID != f.TupleOrig.Proto.ICMPID)
}

func (f *Flow) destinationTranslated() bool {
	return f.hasBothTuples() && f.TupleReply.Source() != f.TupleOrig.Destination()
}

func (f *Flow) hasBothTuples() bool { return f.TupleOrig.filled() && f.TupleReply.filled() }

// Protocol returns the protocol of f's packets.
func (f Flow) Protocol() Protocol { return Protocol(f.TupleOrig.Proto.Protocol) }

// State returns the name of the state that the kernel has for f's protocol, such as
// ESTABLISHED. It is empty for protocols without one, such as UDP.
func (f Flow) State() string {
	switch info := &f.ProtoInfo; {
	case info.TCP != nil:
		return TCPState(info.TCP.State).String()
	case info.SCTP != nil:
		return SCTPState(info.SCTP.State).String()
	case info.DCCP != nil:
		return nameOrNumber(dccpState(info.DCCP.State))
	}
	return ""
}

// Age returns how long before now f began. ok is false if the start is unknown: see
// [Timestamp].
func (f Flow) Age(now time.Time) (age time.Duration, ok bool) {
	return between(f.Timestamp.Start, now)
}

// Duration returns how long f lasted. ok is false if the start or the end is
// unknown, as the end of a flow is that has not ended: see [Timestamp].
func (f Flow) Duration() (d time.Duration, ok bool) {
	return between(f.Timestamp.Start, f.Timestamp.Stop)
}

// between returns the time from start to stop, if they are known. It is never
// negative, as it could be by what the kernel takes off the end of a flow, or
// when a clock is set back.
func between(start, stop time.Time) (d time.Duration, ok bool) {
	if start.IsZero() || stop.IsZero() {
		return 0, false
	}
	return max(0, stop.Sub(start)), true
}

// A Bound is which way a flow goes, as seen from a network. The zero Bound is that
// of a flow that lacks one of its tuples.
type Bound uint8

const (
	// Inbound: from elsewhere into the network.
	Inbound Bound = 1 + iota
	// Outbound: from the network to elsewhere.
	Outbound
	// Internal: within the network.
	Internal
	// Forwarded: neither end is in the network.
	Forwarded
)

var boundNames = []string{"unknown", "inbound", "outbound", "internal", "forwarded"}

// String returns inbound, outbound, internal, forwarded, or unknown for the zero
// Bound.
func (b Bound) String() string { return nameOrNumber(b) }

func (b Bound) name() string { return nameIn(boundNames, b) }

// MarshalText returns the text of String.
func (b Bound) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText sets b to the Bound that MarshalText wrote, in any case.
func (b *Bound) UnmarshalText(text []byte) error { return parseName(b, "bound", boundNames, text) }

// Bound returns which way f goes as seen from the network that has the given
// prefixes. What counts is the ends that the flow really has, Client and Server: a
// connection to a public address that is translated into one of the network is
// inbound, whether or not the public address is among the prefixes.
func (f Flow) Bound(local []netip.Prefix) Bound {
	if !f.hasBothTuples() {
		return 0
	}
	switch from, to := contain(local, f.TupleOrig.IP.SourceAddress), contain(local, f.TupleReply.IP.SourceAddress); {
	case from && to:
		return Internal
	case from:
		return Outbound
	case to:
		return Inbound
	}
	return Forwarded
}

func contain(prefixes []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}
