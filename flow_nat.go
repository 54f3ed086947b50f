package conntrack

import (
	"fmt"
	"net/netip"

	"github.com/ti-mo/conntrack/internal/nfnl"
)

// A NAT says what a new flow's packets are translated into, in the original
// direction; the kernel turns it round for the replies. The zero NATRange leaves
// the source or the destination as it is.
type NAT struct {
	Source      NATRange // CTA_NAT_SRC
	Destination NATRange // CTA_NAT_DST
}

// A NATRange is the addresses and ports from which the kernel chooses one that no
// other flow uses. They are of the flow's family, and a mapped IPv4 address is taken
// as IPv4. IPv6 takes Linux 3.7.
type NATRange struct {
	// The first and the last address. An invalid MaxAddr is MinAddr. Without
	// MinAddr only ports are translated.
	MinAddr, MaxAddr netip.Addr
	// The first and the last port, or ICMP id, or GRE key. A zero MaxPort is
	// MinPort. Without either the kernel keeps the port if it can.
	MinPort, MaxPort uint16
}

// NATTo returns the range of one address and one port. A port of zero leaves the
// port as it is, if no other flow uses it.
func NATTo(to netip.AddrPort) NATRange {
	return NATRange{MinAddr: to.Addr(), MinPort: to.Port()}
}

// marshalTranslation appends the tuples of f, which is to be created, and what it is
// to be translated into.
func (f *Flow) marshalTranslation(e *nfnl.Encoder) error {
	nat, reply, err := f.translation()
	if err != nil {
		return err
	}
	if nat.Source != (NATRange{}) {
		nat.Source.marshal(e, ctaNATSrc)
	}
	if nat.Destination != (NATRange{}) {
		nat.Destination.marshal(e, ctaNATDst)
	}
	return f.marshalTuples(e, &reply)
}

// translation returns what f, which is to be created, is to be translated into,
// and its reply tuple before that.
func (f *Flow) translation() (NAT, Tuple, error) {
	if f.NAT == nil {
		nat, reply := f.translated()
		return nat, reply, nil
	}
	nat, err := f.NAT.complete(&f.TupleOrig.IP)
	reply := f.TupleReply
	if !reply.filled() {
		reply = f.TupleOrig.Reverse()
	}
	return nat, reply, err
}

// translated returns the same for a flow as the kernel shows it: Status says that
// it is translated, and TupleReply is what came of it. The kernel takes no such
// flags, and begins with the original direction turned round.
func (f *Flow) translated() (nat NAT, reply Tuple) {
	orig, reply := f.TupleOrig.Reverse(), f.TupleReply
	if f.Status.SrcNAT() && f.sourceTranslated() {
		nat.Source = exactly(reply.IP.DestinationAddress, reply.Proto.DestinationPort|reply.Proto.ICMPID)
		reply.IP.DestinationAddress = orig.IP.DestinationAddress
		reply.Proto.DestinationPort, reply.Proto.ICMPID = orig.Proto.DestinationPort, orig.Proto.ICMPID
	}
	if f.Status.DstNAT() && f.destinationTranslated() {
		nat.Destination = exactly(reply.IP.SourceAddress, reply.Proto.SourcePort)
		reply.IP.SourceAddress = orig.IP.SourceAddress
		reply.Proto.SourcePort = orig.Proto.SourcePort
	}
	return nat, reply
}

func exactly(addr netip.Addr, port uint16) NATRange {
	return NATRange{MinAddr: addr, MaxAddr: addr, MinPort: port, MaxPort: port}
}

func (f *Flow) newNAT() *NAT {
	if f.NAT == nil {
		f.NAT = new(NAT)
	}
	return f.NAT
}

// complete returns n with the ends of its ranges filled in, or an error if one of
// them is no range of addresses such as those of ip.
func (n *NAT) complete(ip *IPTuple) (NAT, error) {
	source, err := n.Source.complete(ip)
	if err != nil {
		return NAT{}, fmt.Errorf("source: %w", err)
	}
	destination, err := n.Destination.complete(ip)
	if err != nil {
		return NAT{}, fmt.Errorf("destination: %w", err)
	}
	return NAT{source, destination}, nil
}

func (r NATRange) complete(ip *IPTuple) (NATRange, error) {
	// The kernel knows no zones of addresses, and they would count below.
	r.MinAddr, r.MaxAddr = r.MinAddr.Unmap().WithZone(""), r.MaxAddr.Unmap().WithZone("")
	if !r.MaxAddr.IsValid() {
		r.MaxAddr = r.MinAddr
	}
	if r.MaxPort == 0 {
		r.MaxPort = r.MinPort
	}
	if addrs := (IPTuple{r.MinAddr, r.MaxAddr}); addrs != (IPTuple{}) {
		family, err := addrs.family()
		if of, _ := ip.family(); err != nil || family != of {
			return r, fmt.Errorf("%w: its addresses are not all of the flow's family", ErrBadNAT)
		}
	}
	if r.MaxAddr.Less(r.MinAddr) || r.MaxPort < r.MinPort || r.MaxPort != 0 && r.MinPort == 0 {
		return r, fmt.Errorf("%w: the last address or port comes before the first", ErrBadNAT)
	}
	return r, nil
}

func (r *NATRange) unmarshal(b []byte) error {
	var d nfnl.Decoder
	for typ, v := range d.Attributes(b) {
		switch typ {
		case ctaNATv4MinIP:
			r.MinAddr = d.Addr4(v)
		case ctaNATv4MaxIP:
			r.MaxAddr = d.Addr4(v)
		case ctaNATProto:
			d.Fail(r.unmarshalPorts(v))
		case ctaNATv6MinIP:
			r.MinAddr = d.Addr6(v)
		case ctaNATv6MaxIP:
			r.MaxAddr = d.Addr6(v)
		}
	}
	return d.Err(ctaNATNames)
}

func (r *NATRange) unmarshalPorts(b []byte) error {
	var d nfnl.Decoder
	for typ, v := range d.Attributes(b) {
		switch typ {
		case ctaProtoNATPortMin:
			r.MinPort = d.Uint16(v)
		case ctaProtoNATPortMax:
			r.MaxPort = d.Uint16(v)
		}
	}
	return d.Err(ctaProtoNATNames)
}

// marshal appends r, which is complete.
func (r *NATRange) marshal(e *nfnl.Encoder, typ uint16) {
	nat := e.Nest(typ)
	if r.MinAddr.IsValid() {
		e.Addr(ctaNATv4MinIP, ctaNATv6MinIP, r.MinAddr)
		e.Addr(ctaNATv4MaxIP, ctaNATv6MaxIP, r.MaxAddr)
	}
	if r.MinPort != 0 {
		proto := e.Nest(ctaNATProto)
		e.Uint16(ctaProtoNATPortMin, r.MinPort)
		e.Uint16(ctaProtoNATPortMax, r.MaxPort)
		e.End(proto)
	}
	e.End(nat)
}
