package conntrack

import (
	"fmt"
	"net/netip"

	"github.com/ti-mo/conntrack/netfilter"
)

// A NAT says what a new flow's packets are translated into, in the original
// direction; the kernel turns it round for the replies. The zero NATRange leaves
// the source or the destination as it is.
type NAT struct {
	Source      NATRange // CTA_NAT_SRC
	Destination NATRange // CTA_NAT_DST
}

// A NATRange is the addresses and ports from which the kernel chooses one that
// no other flow uses. They are of the flow's family.
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

// complete returns r with its ends filled in, or an error if it is no range in
// the given family.
func (r NATRange) complete(family netfilter.ProtoFamily) (NATRange, error) {
	if !r.MaxAddr.IsValid() {
		r.MaxAddr = r.MinAddr
	}
	if r.MaxPort == 0 {
		r.MaxPort = r.MinPort
	}
	addrs := IPTuple{r.MinAddr, r.MaxAddr}
	if addrs != (IPTuple{}) {
		f, err := addrs.family()
		if err != nil || f != family {
			return r, fmt.Errorf("%w: the addresses %s to %s are not of the flow's family", ErrBadNAT, r.MinAddr, r.MaxAddr)
		}
	}
	if r.MaxAddr.Less(r.MinAddr) || r.MaxPort < r.MinPort || r.MaxPort != 0 && r.MinPort == 0 {
		return r, fmt.Errorf("%w: %s:%d to %s:%d is no range", ErrBadNAT, r.MinAddr, r.MinPort, r.MaxAddr, r.MaxPort)
	}
	return r, nil
}

// marshal appends r, which is complete.
func (r *NATRange) marshal(e *netfilter.Encoder, typ uint16) {
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
