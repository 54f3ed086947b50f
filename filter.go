package conntrack

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/ti-mo/conntrack/netfilter"
)

// A Filter selects the flows that agree with all of its fields. A zero field
// selects any flow, so the zero Filter selects all flows.
//
// [Conn.Flows], [Conn.DumpFilter], [Conn.FlushFilter], [Conn.DeleteFunc],
// [Conn.UpdateFunc] and [Conn.Events] take the same Filter. The kernel does
// what it is known to do right, and this package does the rest: the selection
// is the same on every kernel, only the time differs. See [Conn.KernelFilters],
// and for events [EventOptions].
//
// An IPv4-mapped IPv6 address or prefix stands for the IPv4 one.
type Filter struct {
	// Mark and Mask select flows with mark & Mask == Mark. To select a single
	// mark, set Mask to ^uint32(0). A Mark with bits outside Mask, such as any
	// Mark without a Mask, is an error: [ErrFilterSelectsNothing].
	Mark, Mask uint32

	// Family selects flows of netfilter.ProtoIPv4 or netfilter.ProtoIPv6.
	Family netfilter.ProtoFamily

	// Status and StatusMask select flows with status & StatusMask == Status. If
	// StatusMask is 0, Status is the mask too: all of its flags must be set.
	Status, StatusMask StatusFlag

	// Zone selects flows in this zone in both directions or in one of them.
	Zone *uint16

	// Orig and Reply select flows by those fields of their tuples that are not
	// zero here. Ports select no ICMP flow; an ICMP type, code or id selects
	// only ICMP flows. Zone is the zone of that direction, even if it is that
	// of both.
	Orig, Reply Tuple

	// OrigZero and ReplyZero name the fields of Orig and Reply that must be
	// zero, such as ICMPType for echo replies.
	OrigZero, ReplyZero TupleFields

	// Prefixes that contain the addresses of a flow's original and reply
	// tuples.
	OrigSource, OrigDestination, ReplySource, ReplyDestination netip.Prefix

	// Either selects the flows of a host or network on either side: those with
	// a source or destination in this prefix, in the original or in the reply
	// direction. So addresses count both before and after translation.
	Either netip.Prefix

	// TCPState selects TCP connections in this state. TCPStateNone, which is 0,
	// selects any flow.
	TCPState TCPState
}

// TupleFields names fields of a [Tuple] that a [Filter] compares even if they
// are zero.
type TupleFields struct {
	Protocol, SourcePort, DestinationPort, ICMPType, ICMPCode, ICMPID, Zone bool
}

// Match reports whether f selects flow.
func (f Filter) Match(flow *Flow) bool { return f.match(flow, false) }

// match is Match without copying f. If stateless is set, TCPState also selects
// flows without a TCP state.
func (f *Filter) match(flow *Flow, stateless bool) bool {
	status, mask := f.status()
	orig, reply := &flow.TupleOrig, &flow.TupleReply
	return flow.Mark&f.Mask == f.Mark &&
		flow.Status.Value&mask == status &&
		(f.Family == netfilter.ProtoUnspec || orig.isFamily(f.Family)) &&
		(f.Zone == nil || flow.zone() == *f.Zone) &&
		matchTuple(&f.Orig, &f.OrigZero, orig, flow.Zone) &&
		matchTuple(&f.Reply, &f.ReplyZero, reply, flow.Zone) &&
		matchPrefix(f.OrigSource, orig.IP.SourceAddress) &&
		matchPrefix(f.OrigDestination, orig.IP.DestinationAddress) &&
		matchPrefix(f.ReplySource, reply.IP.SourceAddress) &&
		matchPrefix(f.ReplyDestination, reply.IP.DestinationAddress) &&
		(f.Either == netip.Prefix{} || matchEither(f.Either, &orig.IP, &reply.IP)) &&
		(f.TCPState == 0 || matchState(f.TCPState, flow.ProtoInfo.TCP, stateless))
}

// checkFilters returns an error if one of o's filters contradicts itself.
func (o *EventOptions) checkFilters() error {
	for _, filters := range [][]Filter{o.Filters, o.Except} {
		for i := range filters {
			if _, err := filters[i].check(); err != nil {
				return err
			}
		}
	}
	return nil
}

// selects reports whether o's filters let ev pass.
func (o *EventOptions) selects(ev *Event) bool {
	return ev.Flow == nil ||
		(len(o.Filters) == 0 || anyMatches(o.Filters, ev.Flow, true)) && !anyMatches(o.Except, ev.Flow, false)
}

func anyMatches(filters []Filter, flow *Flow, stateless bool) bool {
	for i := range filters {
		if filters[i].match(flow, stateless) {
			return true
		}
	}
	return false
}

// status returns the status to match and its mask.
func (f *Filter) status() (status, mask StatusFlag) {
	if f.StatusMask == 0 {
		return f.Status, f.Status
	}
	return f.Status, f.StatusMask
}

// zone returns the zone of f, in whatever direction.
func (f *Flow) zone() uint16 { return max(f.Zone, f.TupleOrig.Zone, f.TupleReply.Zone) }

func (t *Tuple) isFamily(family netfilter.ProtoFamily) bool {
	f, err := t.IP.family()
	return err == nil && f == family
}

// matchTuple reports whether t agrees with the fields of want that are not zero
// or are named in zero. The zone of t is defaultZone if it has none of its own.
func matchTuple(want *Tuple, zero *TupleFields, t *Tuple, defaultZone uint16) bool {
	zone := t.Zone
	if zone == 0 {
		zone = defaultZone
	}
	return matchAddr(want.IP.SourceAddress, t.IP.SourceAddress) &&
		matchAddr(want.IP.DestinationAddress, t.IP.DestinationAddress) &&
		matchProto(&want.Proto, zero, &t.Proto) &&
		matchField(want.Zone, zone, zero.Zone)
}

func matchProto(want *ProtoTuple, zero *TupleFields, p *ProtoTuple) bool {
	if !matchField(want.protocol(), p.Protocol, zero.Protocol) {
		return false
	}
	if p.isICMP() {
		return !want.selectsPorts(zero) &&
			matchField(want.ICMPType, p.ICMPType, zero.ICMPType) &&
			matchField(want.ICMPCode, p.ICMPCode, zero.ICMPCode) &&
			matchField(want.ICMPID, p.ICMPID, zero.ICMPID)
	}
	return !want.selectsICMP(zero) &&
		matchField(want.SourcePort, p.SourcePort, zero.SourcePort) &&
		matchField(want.DestinationPort, p.DestinationPort, zero.DestinationPort)
}

func (pt *ProtoTuple) isICMP() bool {
	return pt.Protocol == ProtocolICMP || pt.Protocol == ProtocolICMPv6
}

// protocol returns the protocol that pt selects as part of a Filter. ICMPv4 and
// ICMPv6 stand for their protocols.
func (pt *ProtoTuple) protocol() uint8 {
	switch {
	case pt.Protocol == 0 && pt.ICMPv4:
		return ProtocolICMP
	case pt.Protocol == 0 && pt.ICMPv6:
		return ProtocolICMPv6
	}
	return pt.Protocol
}

// selectsPorts reports whether pt selects by ports as part of a Filter.
func (pt *ProtoTuple) selectsPorts(zero *TupleFields) bool {
	return pt.SourcePort|pt.DestinationPort != 0 || zero.SourcePort || zero.DestinationPort
}

// selectsICMP reports whether pt selects by ICMP fields as part of a Filter.
func (pt *ProtoTuple) selectsICMP(zero *TupleFields) bool {
	return pt.ICMPType|pt.ICMPCode != 0 || pt.ICMPID != 0 || zero.ICMPType || zero.ICMPCode || zero.ICMPID
}

func matchAddr(want, addr netip.Addr) bool {
	return !want.IsValid() || want == addr || want.Is6() && plainAddr(want) == addr
}

// matchField reports whether v agrees with want: a want of 0 agrees with all v
// unless zero is set.
func matchField[T uint8 | uint16](want, v T, zero bool) bool {
	return want == v || want == 0 && !zero
}

func matchPrefix(want netip.Prefix, addr netip.Addr) bool {
	return want == netip.Prefix{} || contains(want, addr)
}

// contains is a function of its own so that the compiler inlines matchPrefix.
func contains(p netip.Prefix, addr netip.Addr) bool { return plainPrefix(p).Contains(addr) }

func matchEither(want netip.Prefix, orig, reply *IPTuple) bool {
	want = plainPrefix(want)
	return want.Contains(orig.SourceAddress) || want.Contains(orig.DestinationAddress) ||
		want.Contains(reply.SourceAddress) || want.Contains(reply.DestinationAddress)
}

func matchState(want TCPState, tcp *ProtoInfoTCP, stateless bool) bool {
	if tcp == nil {
		return stateless
	}
	return TCPState(tcp.State) == want
}

// plainAddr returns a in the form that flows have: without an IPv6 zone, and as
// IPv4 if it is IPv4-mapped.
func plainAddr(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// plainPrefix returns p as IPv4 if all its addresses are IPv4-mapped.
func plainPrefix(p netip.Prefix) netip.Prefix {
	const mapped = 96 // bits before the IPv4 address
	if p.Addr().Is4In6() && p.Bits() >= mapped {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
	}
	return p
}

// String returns the fields that are set, such as
//
//	mark=0x1/0xff zone=3 orig-proto=udp orig-dport=53 orig-dst=10.0.0.0/8
//
// or all for the zero Filter.
func (f Filter) String() string {
	var w filterWords
	w.add(f.Mark|f.Mask != 0, "mark=%#x/%#x", f.Mark, f.Mask)
	w.add(f.Family == netfilter.ProtoIPv4, "family=ipv4")
	w.add(f.Family == netfilter.ProtoIPv6, "family=ipv6")
	w.add(f.Family != netfilter.ProtoUnspec && !isIP(f.Family), "family=%d", uint8(f.Family))
	status, mask := f.status()
	w.add(status|mask != 0, "status=%v/%v", Status{status}, Status{mask})
	if f.Zone != nil {
		w.add(true, "zone=%d", *f.Zone)
	}
	for i, d := range f.directions() {
		d.describe(&w, [2]string{"orig", "reply"}[i])
	}
	w.add(f.Either != netip.Prefix{}, "either=%v", plainPrefix(f.Either))
	w.add(f.TCPState != 0, "tcp-state=%v", f.TCPState)
	if len(w) == 0 {
		return "all"
	}
	return strings.Join(w, " ")
}

func isIP(family netfilter.ProtoFamily) bool {
	return family == netfilter.ProtoIPv4 || family == netfilter.ProtoIPv6
}

// filterWords are the words of Filter.String.
type filterWords []string

func (w *filterWords) add(set bool, format string, args ...any) {
	if set {
		*w = append(*w, fmt.Sprintf(format, args...))
	}
}

// A filterDirection is the part of a Filter that is about one direction.
type filterDirection struct {
	attr         uint16 // the tuple's attribute type
	proto        ProtoTuple
	zone         uint16
	zero         TupleFields
	source, dest netip.Prefix // of all bits for a single address
}

func (f *Filter) directions() [2]filterDirection {
	return [2]filterDirection{
		newFilterDirection(ctaTupleOrig, &f.Orig, f.OrigZero, f.OrigSource, f.OrigDestination),
		newFilterDirection(ctaTupleReply, &f.Reply, f.ReplyZero, f.ReplySource, f.ReplyDestination),
	}
}

func newFilterDirection(attr uint16, t *Tuple, zero TupleFields, source, dest netip.Prefix) filterDirection {
	d := filterDirection{
		attr: attr, proto: t.Proto, zone: t.Zone, zero: zero,
		source: narrow(t.IP.SourceAddress, source),
		dest:   narrow(t.IP.DestinationAddress, dest),
	}
	d.proto.Protocol = d.proto.protocol()
	return d
}

// narrow returns the prefix of addr alone, or p if addr is not valid.
func narrow(addr netip.Addr, p netip.Prefix) netip.Prefix {
	if !addr.IsValid() {
		return plainPrefix(p)
	}
	addr = plainAddr(addr)
	return netip.PrefixFrom(addr, addr.BitLen())
}

func (d *filterDirection) describe(w *filterWords, name string) {
	p, zero := &d.proto, &d.zero
	w.add(p.Protocol != 0 || zero.Protocol, "%s-proto=%v", name, Protocol(p.Protocol))
	w.add(d.source != netip.Prefix{}, "%s-src=%v", name, d.source)
	w.add(d.dest != netip.Prefix{}, "%s-dst=%v", name, d.dest)
	w.add(p.SourcePort != 0 || zero.SourcePort, "%s-sport=%d", name, p.SourcePort)
	w.add(p.DestinationPort != 0 || zero.DestinationPort, "%s-dport=%d", name, p.DestinationPort)
	w.add(p.ICMPType != 0 || zero.ICMPType, "%s-icmp-type=%d", name, p.ICMPType)
	w.add(p.ICMPCode != 0 || zero.ICMPCode, "%s-icmp-code=%d", name, p.ICMPCode)
	w.add(p.ICMPID != 0 || zero.ICMPID, "%s-icmp-id=%d", name, p.ICMPID)
	w.add(d.zone != 0 || zero.Zone, "%s-zone=%d", name, d.zone)
}

// check returns the address family that f selects, which may be unspecified, or
// an error if f contradicts itself.
func (f *Filter) check() (netfilter.ProtoFamily, error) {
	family, reason := f.family()
	if reason == "" {
		reason = f.contradiction()
	}
	if reason != "" {
		return 0, fmt.Errorf("%w (%v): %s", ErrFilterSelectsNothing, f, reason)
	}
	return family, nil
}

// family returns the address family of all addresses and prefixes and of
// Family, or the reason why there is no such family.
func (f *Filter) family() (family netfilter.ProtoFamily, reason string) {
	family = f.Family
	if family != netfilter.ProtoUnspec && !isIP(family) {
		return 0, fmt.Sprintf("flows are of the family ProtoIPv4 or ProtoIPv6, not %d", family)
	}
	for _, addr := range []netip.Addr{
		plainAddr(f.Orig.IP.SourceAddress), plainAddr(f.Orig.IP.DestinationAddress),
		plainAddr(f.Reply.IP.SourceAddress), plainAddr(f.Reply.IP.DestinationAddress),
		plainPrefix(f.OrigSource).Addr(), plainPrefix(f.OrigDestination).Addr(),
		plainPrefix(f.ReplySource).Addr(), plainPrefix(f.ReplyDestination).Addr(),
		plainPrefix(f.Either).Addr(),
	} {
		if !addr.IsValid() {
			continue
		}
		of := netfilter.ProtoIPv6
		if addr.Is4() {
			of = netfilter.ProtoIPv4
		}
		if family != netfilter.ProtoUnspec && family != of {
			return 0, fmt.Sprintf("%v is of another address family", addr)
		}
		family = of
	}
	return family, ""
}

// contradiction returns the reason why no flow can agree with f, or "".
func (f *Filter) contradiction() string {
	for _, prefix := range []netip.Prefix{f.OrigSource, f.OrigDestination, f.ReplySource, f.ReplyDestination, f.Either} {
		if prefix != (netip.Prefix{}) && !prefix.IsValid() {
			return "a prefix has more or fewer bits than its address can have"
		}
	}
	for _, p := range []struct {
		addr   netip.Addr
		prefix netip.Prefix
	}{
		{f.Orig.IP.SourceAddress, f.OrigSource}, {f.Orig.IP.DestinationAddress, f.OrigDestination},
		{f.Reply.IP.SourceAddress, f.ReplySource}, {f.Reply.IP.DestinationAddress, f.ReplyDestination},
	} {
		if p.addr.IsValid() && !matchPrefix(p.prefix, plainAddr(p.addr)) {
			return fmt.Sprintf("%v is not in %v", p.addr, p.prefix)
		}
	}
	directions := f.directions()
	for _, d := range directions {
		if reason := d.contradiction(f.TCPState); reason != "" {
			return reason
		}
	}
	orig, reply := &directions[0], &directions[1]
	zone := max(orig.zone, reply.zone)
	_, statusMask := f.status()
	switch {
	case f.Mark&^f.Mask != 0:
		return "Mark has bits that are not in Mask, which is ^uint32(0) for one mark"
	case f.Status&^statusMask != 0:
		return "Status has flags that are not in StatusMask"
	case differ(orig.proto.Protocol, reply.proto.Protocol):
		return "Orig and Reply have different protocols"
	case differ(orig.zone, reply.zone):
		return "Orig and Reply have different zones"
	case f.Zone != nil && zone != 0 && *f.Zone != zone:
		return "Zone is not that of Orig or Reply"
	}
	return ""
}

// differ reports whether a and b are set and differ.
func differ[T uint8 | uint16](a, b T) bool { return a != b && a != 0 && b != 0 }

// contradiction returns the reason why no flow can agree with d and state, or
// "".
func (d *filterDirection) contradiction(state TCPState) string {
	p := &d.proto
	ports, icmp := p.selectsPorts(&d.zero), p.selectsICMP(&d.zero)
	protocol := p.Protocol != 0 || d.zero.Protocol
	switch {
	case p.ICMPv4 && p.Protocol != ProtocolICMP, p.ICMPv6 && p.Protocol != ProtocolICMPv6:
		return fmt.Sprintf("protocol %d is not that of ICMPv4 or ICMPv6", p.Protocol)
	case ports && icmp:
		return "no flow has both ports and an ICMP type, code or id"
	case ports && p.isICMP():
		return "ICMP has no ports"
	case icmp && !p.isICMP() && protocol:
		return fmt.Sprintf("protocol %d has no ICMP type, code and id", p.Protocol)
	case state != 0 && (icmp || protocol && p.Protocol != ProtocolTCP):
		return "only TCP has a TCPState"
	}
	return ""
}
