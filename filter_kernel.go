package conntrack

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/netfilter"
)

// This file is about what the kernel filters itself in a dump or a flush: see
// ctnetlink_alloc_filter and ctnetlink_filter_match in
// net/netfilter/nf_conntrack_netlink.c.

// The flags in CTA_FILTER_ORIG_FLAGS and CTA_FILTER_REPLY_FLAGS, in native byte
// order (CTA_FILTER_F_* in net/netfilter/nf_internals.h).
const (
	filterIPSrc = 1 << iota
	filterIPDst
	filterZone
	filterProtoNum
	filterSrcPort
	filterDstPort
	filterICMPType
	filterICMPCode
	filterICMPID
	filterICMPv6Type
	filterICMPv6Code
	filterICMPv6ID
)

// A kernelFilter is the part of a Filter that the kernel carries out.
type kernelFilter struct {
	filter *Filter
	family netfilter.ProtoFamily

	mark, status, zone bool
	flags              [2]uint32 // for each direction

	// exact is set if the kernel carries out the whole filter.
	exact bool
}

// plan returns what the kernel can be trusted to carry out of f, in a dump or
// in a flush. has tells which features the kernel has.
func (f *Filter) plan(flush bool, has func(feature) bool) (kernelFilter, error) {
	family, err := f.check()
	k := kernelFilter{filter: f, family: family}
	if err != nil {
		return k, err
	}
	k.exact = f.Either == netip.Prefix{} && f.TCPState == 0
	use := func(needed bool, features ...feature) bool {
		if !needed {
			return false
		}
		for _, feature := range features {
			if !has(feature) {
				k.exact = false
				return false
			}
		}
		return true
	}
	ifFlush := func(f feature) []feature {
		if flush {
			return []feature{f}
		}
		return nil
	}

	_, statusMask := f.status()
	k.mark = use(f.Mask != 0, ifFlush(featureFlushMark)...)
	k.status = use(statusMask != 0, featureFilterStatus)
	k.zone = use(f.Zone != nil, featureFilterZone)
	if !use(family != netfilter.ProtoUnspec, ifFlush(featureFlushFamily)...) {
		k.family = netfilter.ProtoUnspec
	}
	for i, d := range f.directions() {
		flags, exact := d.flags(family)
		k.exact = k.exact && exact
		addresses := flags & (filterIPSrc | filterIPDst)
		if family == netfilter.ProtoIPv6 && !use(addresses != 0, featureFilterIPv6Address) {
			flags &^= addresses
		}
		if use(flags != 0, append(ifFlush(featureFlushTuple), featureFilterTuple)...) {
			k.flags[i] = flags
		}
	}
	return k, nil
}

// KernelFilters reports whether the running kernel itself selects exactly the
// flows that f selects, in a dump and in a flush. If so, a dump carries no
// other flows over the socket, and [Conn.FlushFilter] is a single request.
//
// No kernel filters by prefixes, by the zone of one direction, by the fields
// [Filter.Either] and [Filter.TCPState], or by the ports of protocols other
// than TCP and UDP. For a filter with IPv6 addresses, both results are false
// until the table holds an IPv6 flow to try the kernel on.
func (c *Conn) KernelFilters(f Filter) (dump, flush bool, err error) {
	has := func(feature feature) bool {
		found, findErr := c.findFeature(feature)
		err = errors.Join(err, findErr)
		return found
	}
	d, checkErr := f.plan(false, has)
	if checkErr != nil {
		return false, false, opError("check filter", checkErr)
	}
	fl, _ := f.plan(true, has)
	return d.exact, fl.exact, opError("check filter", err)
}

// flags returns the fields of the tuple that the kernel can compare, and
// whether they are all that d selects by. The kernel takes no field without a
// family, compares ports only for TCP and UDP, and refuses ICMP types that
// neither begin nor answer a query.
func (d *filterDirection) flags(family netfilter.ProtoFamily) (flags uint32, exact bool) {
	p, zero := &d.proto, &d.zero
	exact = isAddrOrNone(d.source) && isAddrOrNone(d.dest) && d.zone == 0 && !zero.Zone
	add := func(selected bool, flag uint32) {
		if selected {
			flags |= flag
		}
	}
	add(d.source.IsSingleIP(), filterIPSrc)
	add(d.dest.IsSingleIP(), filterIPDst)
	add(p.Protocol != 0 || zero.Protocol, filterProtoNum)
	switch p.Protocol {
	case ProtocolTCP, ProtocolUDP:
		add(p.SourcePort != 0 || zero.SourcePort, filterSrcPort)
		add(p.DestinationPort != 0 || zero.DestinationPort, filterDstPort)
	case ProtocolICMP:
		trackedType := slices.Contains(trackedICMPTypes, p.ICMPType)
		exact = exact && trackedType
		add((p.ICMPType != 0 || zero.ICMPType) && trackedType, filterICMPType)
		add(p.ICMPCode != 0 || zero.ICMPCode, filterICMPCode)
		add(p.ICMPID != 0 || zero.ICMPID, filterICMPID)
	case ProtocolICMPv6:
		trackedType := slices.Contains(trackedICMPv6Types, p.ICMPType)
		exact = exact && (trackedType || p.ICMPType == 0 && !zero.ICMPType)
		add(trackedType, filterICMPv6Type)
		add(p.ICMPCode != 0 || zero.ICMPCode, filterICMPv6Code)
		add(p.ICMPID != 0 || zero.ICMPID, filterICMPv6ID)
	default:
		exact = exact && !p.selectsPorts(zero) && !p.selectsICMP(zero)
	}
	if family == netfilter.ProtoUnspec && flags != 0 {
		return 0, false
	}
	return flags, exact
}

// isAddrOrNone reports whether p is a single address, or zero.
func isAddrOrNone(p netip.Prefix) bool { return p.IsSingleIP() || p == netip.Prefix{} }

// The ICMP types of queries and their replies (invmap in
// net/netfilter/nf_conntrack_proto_icmp.c and _icmpv6.c). Type 0 is ICMP's echo
// reply.
var (
	trackedICMPTypes   = []uint8{0, 8, 13, 14, 15, 16, 17, 18}
	trackedICMPv6Types = []uint8{128, 129, 139, 140}
)

// dumpRequest returns the request for a dump, by a message of the given type.
func (k *kernelFilter) dumpRequest(typ nfnl.MessageType) *request {
	r := dumpRequest(nfnl.Header{
		SubsystemID: nfnl.NFSubsysCTNetlink,
		MessageType: typ,
		Family:      k.family,
	})
	k.marshal(&r.enc)
	return r
}

// flushRequest returns the request to flush a family.
func (k *kernelFilter) flushRequest(family netfilter.ProtoFamily) *request {
	r := newRequest()
	h := nfnl.Header{
		SubsystemID: nfnl.NFSubsysCTNetlink,
		MessageType: ctDelete,
		Flags:       netlink.Acknowledge,
		Family:      family,
	}
	if family != netfilter.ProtoUnspec {
		h.Version = 1 // with 0 the kernel ignores the family
	}
	r.enc.Message(h)
	k.marshal(&r.enc)
	return r
}

// marshal appends the attributes of k.
func (k *kernelFilter) marshal(e *nfnl.Encoder) {
	if k.mark {
		e.Uint32(ctaMark, k.filter.Mark)
		e.Uint32(ctaMarkMask, k.filter.Mask)
	}
	if k.status {
		status, mask := k.filter.status()
		e.Uint32(ctaStatus, uint32(status))
		e.Uint32(ctaStatusMask, uint32(mask))
	}
	if k.zone {
		e.Uint16(ctaZone, *k.filter.Zone)
	}
	if k.flags == [2]uint32{} {
		return
	}
	filter := e.Nest(ctaFilter)
	e.NativeUint32(ctaFilterOrigFlags, k.flags[0])
	e.NativeUint32(ctaFilterReplyFlags, k.flags[1])
	e.End(filter)
	for i, d := range k.filter.directions() {
		if k.flags[i] != 0 {
			d.marshal(e, k.flags[i])
		}
	}
}

// marshal appends the fields of the tuple that flags select, and no others.
func (d *filterDirection) marshal(e *nfnl.Encoder, flags uint32) {
	tuple := e.Nest(d.attr)
	if flags&(filterIPSrc|filterIPDst) != 0 {
		ip := e.Nest(ctaTupleIP)
		if flags&filterIPSrc != 0 {
			e.Addr(ctaIPv4Src, ctaIPv6Src, d.source.Addr())
		}
		if flags&filterIPDst != 0 {
			e.Addr(ctaIPv4Dst, ctaIPv6Dst, d.dest.Addr())
		}
		e.End(ip)
	}
	if flags&filterProtoNum != 0 {
		d.proto.marshal(e)
	}
	e.End(tuple)
}
