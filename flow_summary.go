package conntrack

import (
	"net/netip"
	"slices"
	"time"
)

// Source returns the source of t's packets. The port is 0 if the protocol has
// none, such as ICMP.
func (t Tuple) Source() netip.AddrPort {
	return netip.AddrPortFrom(t.IP.SourceAddress, t.Proto.SourcePort)
}

// Destination returns the destination of t's packets. The port is 0 if the
// protocol has none, such as ICMP.
func (t Tuple) Destination() netip.AddrPort {
	return netip.AddrPortFrom(t.IP.DestinationAddress, t.Proto.DestinationPort)
}

// Reverse returns the tuple of the replies to t's packets without NAT.
// Addresses and ports change places, and the type of an ICMP query becomes that
// of its reply, or the other way round. Any other ICMP type stays as it is, and
// so does the zone.
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

// The ICMP queries that the kernel tracks, and their replies (invmap in its
// nf_conntrack_proto_icmp.c and nf_conntrack_proto_icmpv6.c).
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

// A FiveTuple identifies a flow within a zone. It can be compared, and be the
// key of a map.
//
// For ICMP and ICMPv6, the port of Source is the id, and the port of
// Destination is 256 times the type, plus the code. Records of NetFlow and
// IPFIX have the latter too, but not the id.
type FiveTuple struct {
	Protocol            Protocol
	Source, Destination netip.AddrPort
}

// FiveTuple returns the [FiveTuple] of f's original direction.
func (f Flow) FiveTuple() FiveTuple { return f.TupleOrig.FiveTuple() }

// FiveTuple returns t as a [FiveTuple], which has no zone.
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

// Client returns the source of the flow's first packet, from the original
// direction.
func (f Flow) Client() netip.AddrPort { return f.TupleOrig.Source() }

// Dialed returns the destination that the client chose, from the original
// direction. With NAT it may differ from [Flow.Server].
func (f Flow) Dialed() netip.AddrPort { return f.TupleOrig.Destination() }

// Server returns the source of the replies, from the reply direction. With NAT
// it may differ from [Flow.Dialed].
func (f Flow) Server() netip.AddrPort { return f.TupleReply.Source() }

// MappedClient returns the destination of the replies, from the reply
// direction: what the server takes for the client. With NAT it may differ from
// [Flow.Client].
func (f Flow) MappedClient() netip.AddrPort { return f.TupleReply.Destination() }

// Translated reports whether NAT changes the source or the destination of f's
// packets. Like [Flow.SourceTranslated] and [Flow.DestinationTranslated], it
// compares the two tuples, and is false if f lacks one of them. It looks at
// neither Status nor the field NAT.
func (f Flow) Translated() bool { return f.sourceTranslated() || f.destinationTranslated() }

// SourceTranslated reports whether [Flow.MappedClient] differs from
// [Flow.Client], in the address, the port or the ICMP id.
func (f Flow) SourceTranslated() bool { return f.sourceTranslated() }

// DestinationTranslated reports whether [Flow.Server] differs from
// [Flow.Dialed], in the address or the port.
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

// State returns the kernel's name for the state of f's protocol, such as
// ESTABLISHED. It is empty for protocols without a state, such as UDP.
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

// Age returns the time from f's start to now. ok is false if the start is
// unknown: see [Timestamp].
func (f Flow) Age(now time.Time) (age time.Duration, ok bool) {
	return between(f.Timestamp.Start, now)
}

// Duration returns how long f lasted. ok is false if the start or the end is
// unknown, or f has not ended: see [Timestamp].
func (f Flow) Duration() (d time.Duration, ok bool) {
	return between(f.Timestamp.Start, f.Timestamp.Stop)
}

// between returns the time from start to stop, if both are known. It is never
// negative, though the kernel may put the end before the start (see Timestamp),
// and clocks may be set back.
func between(start, stop time.Time) (d time.Duration, ok bool) {
	if start.IsZero() || stop.IsZero() {
		return 0, false
	}
	return max(0, stop.Sub(start)), true
}

// A Bound is the direction of a flow as seen from a network: see [Flow.Bound].
// The zero Bound is for a flow that lacks one of its tuples.
type Bound uint8

const (
	// Inbound is a flow from elsewhere into the network.
	Inbound Bound = 1 + iota
	// Outbound is a flow from the network to elsewhere.
	Outbound
	// Internal is a flow within the network.
	Internal
	// Forwarded is a flow with neither end in the network.
	Forwarded
)

var boundNames = []string{"unknown", "inbound", "outbound", "internal", "forwarded"}

// String returns inbound, outbound, internal, forwarded, or unknown for the zero
// Bound.
func (b Bound) String() string { return nameOrNumber(b) }

func (b Bound) name() string { return nameIn(boundNames, b) }

// MarshalText returns the text of [Bound.String].
func (b Bound) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText sets b to the Bound whose [Bound.String] is text, in any case.
func (b *Bound) UnmarshalText(text []byte) error { return parseName(b, "bound", boundNames, text) }

// Bound returns the direction of f as seen from the network with the given
// prefixes. It goes by the real ends, [Flow.Client] and [Flow.Server]: a
// connection to a public address that NAT translates into one of the network is
// [Inbound], whether or not the prefixes contain the public address.
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
