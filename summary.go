package conntrack

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
