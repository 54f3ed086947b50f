package conntrack

import (
	"fmt"
	"net/netip"

	"github.com/ti-mo/conntrack/netfilter"
)

// A Filter selects the flows for which Match returns true: those that agree with
// all of its fields. A field that is zero selects nothing out, so that the zero
// Filter selects all flows.
//
// What the running kernel is known to filter by itself is left to it, the rest
// is done here: the result is the same on every kernel, the time it takes is
// not. See Feature.
type Filter struct {
	// Mark and Mask select flows with mark & Mask == Mark.
	Mark, Mask uint32

	// Family is netfilter.ProtoIPv4 or netfilter.ProtoIPv6.
	Family netfilter.ProtoFamily

	// Status and StatusMask select flows with status & StatusMask == Status. A
	// zero StatusMask stands for Status: all these flags are set.
	Status, StatusMask StatusFlag

	// Zone is the flow's zone, or that of one of its directions.
	Zone *uint16

	// Orig and Reply select flows by the fields of their tuples that are not
	// zero here. Ports select no ICMP flow, and an ICMP type, code or id no other
	// one. Zone is the zone in that direction, also where it holds for both.
	Orig, Reply Tuple

	// OrigZero and ReplyZero name fields of Orig and Reply that select flows
	// though they are zero, such as ZeroICMPType for echo replies.
	OrigZero, ReplyZero TupleFields

	// Prefixes of the addresses in Orig and Reply.
	OrigSource, OrigDestination, ReplySource, ReplyDestination netip.Prefix
}

// TupleFields is a set of fields of a Tuple.
type TupleFields uint8

// The fields of a Tuple for which zero is a value.
const (
	ZeroProtocol TupleFields = 1 << iota
	ZeroSourcePort
	ZeroDestinationPort
	ZeroICMPType
	ZeroICMPCode
	ZeroICMPID
	ZeroZone
	zeroEnd
)

// Match reports whether f selects flow.
func (f *Filter) Match(flow *Flow) bool {
	status, mask := f.status()
	return flow.Mark&f.Mask == f.Mark &&
		flow.Status.Value&mask == status &&
		(f.Family == netfilter.ProtoUnspec || flow.TupleOrig.isFamily(f.Family)) &&
		(f.Zone == nil || flow.zone() == *f.Zone) &&
		matchTuple(&f.Orig, f.OrigZero, &flow.TupleOrig, flow.Zone) &&
		matchTuple(&f.Reply, f.ReplyZero, &flow.TupleReply, flow.Zone) &&
		matchPrefix(f.OrigSource, flow.TupleOrig.IP.SourceAddress) &&
		matchPrefix(f.OrigDestination, flow.TupleOrig.IP.DestinationAddress) &&
		matchPrefix(f.ReplySource, flow.TupleReply.IP.SourceAddress) &&
		matchPrefix(f.ReplyDestination, flow.TupleReply.IP.DestinationAddress)
}

// status returns the status and its mask, after the rule for a zero mask.
func (f *Filter) status() (status, mask StatusFlag) {
	if f.StatusMask == 0 {
		return f.Status, f.Status
	}
	return f.Status, f.StatusMask
}

// zone returns the zone of f in whatever direction it holds.
func (f *Flow) zone() uint16 { return max(f.Zone, f.TupleOrig.Zone, f.TupleReply.Zone) }

func (t *Tuple) isFamily(family netfilter.ProtoFamily) bool {
	f, err := t.IP.family()
	return err == nil && f == family
}

// matchTuple compares the fields of want that are not zero, or in zero, with
// those of t, whose zone is defaultZone if it has none of its own.
func matchTuple(want *Tuple, zero TupleFields, t *Tuple, defaultZone uint16) bool {
	zone := t.Zone
	if zone == 0 {
		zone = defaultZone
	}
	w, p := want.Proto, &t.Proto
	w.Protocol = w.protocol()
	if p.isICMP() && w.selectsPorts(zero) || !p.isICMP() && w.selectsICMP(zero) {
		return false
	}
	return matchAddr(want.IP.SourceAddress, t.IP.SourceAddress) &&
		matchAddr(want.IP.DestinationAddress, t.IP.DestinationAddress) &&
		matchField(w.Protocol, p.Protocol, zero&ZeroProtocol) &&
		matchField(w.SourcePort, p.SourcePort, zero&ZeroSourcePort) &&
		matchField(w.DestinationPort, p.DestinationPort, zero&ZeroDestinationPort) &&
		matchField(w.ICMPType, p.ICMPType, zero&ZeroICMPType) &&
		matchField(w.ICMPCode, p.ICMPCode, zero&ZeroICMPCode) &&
		matchField(w.ICMPID, p.ICMPID, zero&ZeroICMPID) &&
		matchField(want.Zone, zone, zero&ZeroZone)
}

func (pt *ProtoTuple) isICMP() bool {
	return pt.Protocol == ProtocolICMP || pt.Protocol == ProtocolICMPv6
}

// protocol returns the protocol that pt, as part of a Filter, selects by: ICMPv4
// and ICMPv6 stand for theirs.
func (pt *ProtoTuple) protocol() uint8 {
	switch {
	case pt.Protocol == 0 && pt.ICMPv4:
		return ProtocolICMP
	case pt.Protocol == 0 && pt.ICMPv6:
		return ProtocolICMPv6
	}
	return pt.Protocol
}

// selectsPorts reports whether pt, as part of a Filter, selects flows by ports.
func (pt *ProtoTuple) selectsPorts(zero TupleFields) bool {
	return pt.SourcePort|pt.DestinationPort != 0 || zero&(ZeroSourcePort|ZeroDestinationPort) != 0
}

// selectsICMP reports whether pt, as part of a Filter, selects flows by what only
// ICMP has.
func (pt *ProtoTuple) selectsICMP(zero TupleFields) bool {
	return pt.ICMPType|pt.ICMPCode != 0 || pt.ICMPID != 0 || zero&(ZeroICMPType|ZeroICMPCode|ZeroICMPID) != 0
}

func matchAddr(want, addr netip.Addr) bool {
	return !want.IsValid() || want.WithZone("") == addr
}

// matchField compares a field, unless it is zero and zero stands for nothing.
func matchField[T uint8 | uint16](want, v T, zero TupleFields) bool {
	return want == v || want == 0 && zero == 0
}

func matchPrefix(want netip.Prefix, addr netip.Addr) bool {
	return want == netip.Prefix{} || want.Contains(addr)
}

// check returns an error if no flow can agree with f, and else the family that
// f selects, which may be none.
func (f *Filter) check() (netfilter.ProtoFamily, error) {
	family, err := f.family()
	if err != nil {
		return 0, err
	}
	if _, mask := f.status(); f.Status&^mask != 0 {
		return 0, fmt.Errorf("%w: Status has flags that are not in StatusMask", ErrFilterSelectsNothing)
	}
	for _, d := range f.directions() {
		if err := d.check(); err != nil {
			return 0, err
		}
	}
	if a, b := f.Orig.Proto.protocol(), f.Reply.Proto.protocol(); a != b && a != 0 && b != 0 {
		return 0, fmt.Errorf("%w: Orig has protocol %d and Reply %d", ErrFilterSelectsNothing, a, b)
	}
	if a, b := f.Orig.Zone, f.Reply.Zone; a != b && a != 0 && b != 0 {
		return 0, fmt.Errorf("%w: Orig has zone %d and Reply %d", ErrFilterSelectsNothing, a, b)
	}
	if zone := max(f.Orig.Zone, f.Reply.Zone); f.Zone != nil && zone != 0 && *f.Zone != zone {
		return 0, fmt.Errorf("%w: Zone is %d, and that of a direction %d", ErrFilterSelectsNothing, *f.Zone, zone)
	}
	return family, nil
}

// family returns the family that Family and all addresses and prefixes have.
func (f *Filter) family() (netfilter.ProtoFamily, error) {
	family := f.Family
	if family != netfilter.ProtoUnspec && family != netfilter.ProtoIPv4 && family != netfilter.ProtoIPv6 {
		return 0, fmt.Errorf("%w: flows are of the family ProtoIPv4 or ProtoIPv6, not %d", ErrFilterSelectsNothing, family)
	}
	for _, addr := range []netip.Addr{
		f.Orig.IP.SourceAddress, f.Orig.IP.DestinationAddress,
		f.Reply.IP.SourceAddress, f.Reply.IP.DestinationAddress,
		f.OrigSource.Addr(), f.OrigDestination.Addr(), f.ReplySource.Addr(), f.ReplyDestination.Addr(),
	} {
		if !addr.IsValid() {
			continue
		}
		of := netfilter.ProtoIPv6
		if addr.Is4() {
			of = netfilter.ProtoIPv4
		}
		if family != netfilter.ProtoUnspec && family != of {
			return 0, fmt.Errorf("%w: %v is of another address family", ErrFilterSelectsNothing, addr)
		}
		family = of
	}
	return family, nil
}

// A filterDirection is the part of a Filter about one direction.
type filterDirection struct {
	attr   uint16 // of the tuple
	tuple  Tuple
	zero   TupleFields
	source netip.Prefix
	dest   netip.Prefix
}

func (f *Filter) directions() [2]filterDirection {
	d := [2]filterDirection{
		{ctaTupleOrig, f.Orig, f.OrigZero, f.OrigSource, f.OrigDestination},
		{ctaTupleReply, f.Reply, f.ReplyZero, f.ReplySource, f.ReplyDestination},
	}
	for i := range d {
		d[i].tuple.Proto.Protocol = d[i].tuple.Proto.protocol()
	}
	return d
}

func (d *filterDirection) check() error {
	p := &d.tuple.Proto
	ports, icmp := p.selectsPorts(d.zero), p.selectsICMP(d.zero)
	for _, prefix := range []netip.Prefix{d.source, d.dest} {
		if prefix != (netip.Prefix{}) && !prefix.IsValid() {
			return fmt.Errorf("%w: a prefix with more or fewer bits than its address can have", ErrFilterSelectsNothing)
		}
	}
	switch {
	case d.zero >= zeroEnd:
		return fmt.Errorf("%w: unknown fields among those that are to be zero: %#x", ErrFilterSelectsNothing, d.zero)
	case p.ICMPv4 && p.Protocol != ProtocolICMP, p.ICMPv6 && p.Protocol != ProtocolICMPv6:
		return fmt.Errorf("%w: protocol %d is not that of ICMPv4 or ICMPv6", ErrFilterSelectsNothing, p.Protocol)
	case ports && icmp:
		return fmt.Errorf("%w: no flow has both ports and an ICMP type, code or id", ErrFilterSelectsNothing)
	case ports && p.isICMP():
		return fmt.Errorf("%w: ICMP has no ports", ErrFilterSelectsNothing)
	case icmp && !p.isICMP() && (p.Protocol != 0 || d.zero&ZeroProtocol != 0):
		return fmt.Errorf("%w: protocol %d has no ICMP type, code and id", ErrFilterSelectsNothing, p.Protocol)
	case !matchAddrInPrefix(d.tuple.IP.SourceAddress, d.source):
		return fmt.Errorf("%w: %v is not in %v", ErrFilterSelectsNothing, d.tuple.IP.SourceAddress, d.source)
	case !matchAddrInPrefix(d.tuple.IP.DestinationAddress, d.dest):
		return fmt.Errorf("%w: %v is not in %v", ErrFilterSelectsNothing, d.tuple.IP.DestinationAddress, d.dest)
	}
	return nil
}

func matchAddrInPrefix(addr netip.Addr, p netip.Prefix) bool {
	return !addr.IsValid() || matchPrefix(p, addr.WithZone(""))
}
