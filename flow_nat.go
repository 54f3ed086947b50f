package conntrack

import (
	"fmt"
	"net/netip"

	"github.com/ti-mo/conntrack/internal/nfnl"
)

// A NAT says how to translate the packets of a new flow in the original
// direction. The kernel translates the replies back. A zero [NATRange] leaves
// the source or the destination as it is.
type NAT struct {
	Source      NATRange // CTA_NAT_SRC
	Destination NATRange // CTA_NAT_DST
}

// A NATRange is a range of addresses and ports. The kernel chooses from it what
// no other flow uses. The addresses must be of the flow's family; IPv4-mapped
// IPv6 addresses count as IPv4. IPv6 needs Linux 3.7.
type NATRange struct {
	// The first and the last address. If MaxAddr is not valid, MinAddr is the
	// only address; if neither is valid, only ports are translated.
	MinAddr, MaxAddr netip.Addr
	// The first and the last port, ICMP id or GRE key. If MaxPort is 0, MinPort
	// is the only one; if both are 0, the kernel keeps the port if it can.
	MinPort, MaxPort uint16
}

// NATTo returns the range of one address and one port. If the port is 0, the
// kernel keeps the flow's own, unless another flow uses it.
func NATTo(to netip.AddrPort) NATRange {
	return NATRange{MinAddr: to.Addr(), MinPort: to.Port()}
}

// marshalTranslation appends the tuples of f, a new flow, and its translation.
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

// translation returns how to translate f, a new flow, and its reply tuple
// before that.
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

// translated is translation for a flow that came from the kernel: Status says
// that it is translated, and TupleReply into what. The kernel does not take
// that for a new flow, which begins with the reverse of the original tuple.
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

// complete returns n with the ends of its ranges filled in, or an error if a
// range is not valid for a flow with the addresses ip.
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
	// The kernel knows no zones of addresses, and the comparisons below would
	// count them.
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

// marshal appends r, whose ends are filled in.
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
