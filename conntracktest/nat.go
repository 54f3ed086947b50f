package conntracktest

import "net/netip"

// A natRange is the addresses and ports to choose from.
type natRange struct {
	min, max         netip.Addr
	minPort, maxPort uint16
	addrs, ports     bool // are given
}

var (
	natPolicy      = policy{ctaNATv4MinIP: ruleU32, ctaNATv4MaxIP: ruleU32, ctaNATProto: ruleNest, ctaNATv6MinIP: {atLeast, 16}, ctaNATv6MaxIP: {atLeast, 16}}
	protoNATPolicy = policy{ctaProtoNATPortMin: ruleU16, ctaProtoNATPortMax: ruleU16}
)

func parseNAT(a attr, family uint8) (r natRange, err errno) {
	values, err := natPolicy.parse(a.v)
	if err != 0 {
		return r, err
	}
	first, last, size := ctaNATv4MinIP, ctaNATv4MaxIP, 4
	if family == afInet6 {
		first, last, size = ctaNATv6MinIP, ctaNATv6MaxIP, 16
	}
	if values.has(first) {
		r.addrs = true
		r.min, _ = netip.AddrFromSlice(values[first].v[:size])
	}
	r.max = r.min
	if values.has(last) {
		r.max, _ = netip.AddrFromSlice(values[last].v[:size])
	}
	if !values.has(ctaNATProto) {
		return r, 0
	}
	ports, err := protoNATPolicy.parse(values[ctaNATProto].v)
	if err != 0 {
		return r, err
	}
	if ports.has(ctaProtoNATPortMin) {
		r.ports = true
		r.minPort = ports[ctaProtoNATPortMin].u16()
		r.maxPort = r.minPort
	}
	if ports.has(ctaProtoNATPortMax) {
		r.ports = true
		r.maxPort = ports[ctaProtoNATPortMax].u16()
	}
	return r, 0
}

// setupNAT decides what a new entry is translated into, the destination first.
func (k *Kernel) setupNAT(e *entry, a attrs) errno {
	if !a.has(ctaNATDst) && !a.has(ctaNATSrc) {
		return 0
	}
	for _, source := range []bool{false, true} {
		typ := ctaNATDst
		// Without a range, what there is is kept if it can be.
		r := natRange{addrs: true, min: e.tuples[1].src, max: e.tuples[1].src}
		if source {
			typ = ctaNATSrc
			r.min, r.max = e.tuples[1].dst, e.tuples[1].dst
		}
		if a.has(typ) {
			var err errno
			if r, err = parseNAT(a[typ], e.tuples[0].family()); err != 0 {
				return err
			}
		}
		k.translate(e, &r, source)
	}
	return 0
}

// translate chooses what is in the range and belongs to no other entry, if there is
// something (nf_nat_setup_info).
func (k *Kernel) translate(e *entry, r *natRange, source bool) {
	now := e.tuples[1].inverse()
	to := k.uniqueTuple(e, now, r, source)
	done, changed := uint32(statusDstNATDone), uint32(statusDstNAT)
	if source {
		done, changed = statusSrcNATDone, statusSrcNAT
	}
	if to != now {
		e.tuples[1] = to.inverse()
		e.status |= changed
	}
	e.status |= done
}

func (k *Kernel) uniqueTuple(e *entry, now tuple, r *natRange, source bool) tuple {
	used := func(t tuple) bool {
		reply := t.inverse()
		return k.taken(e, &reply, true)
	}
	if source {
		if r.inRange(&now) {
			if !used(now) {
				return now
			}
		} else if t, ok := k.sourceMapping(e, &now, r); ok && !used(t) {
			return t
		}
	}
	to := now
	if r.addrs {
		if source {
			to.src = r.min
		} else {
			to.dst = r.min
		}
	}
	if !r.ports && !used(to) || r.ports && r.portInRange(&to, source) && (r.minPort == r.maxPort || !used(to)) {
		return to
	}
	return uniquePort(to, r, source, used)
}

// uniquePort returns to with the first port of those that it may have that no other
// entry has. The kernel begins at a random one.
func uniquePort(to tuple, r *natRange, source bool, used func(tuple) bool) tuple {
	isICMP := to.proto == protoICMP || to.proto == protoICMPv6
	if !hasPorts(to.proto) && !isICMP || to.proto == protoGRE || !r.ports && !source && !isICMP {
		return to
	}
	port := &to.dstPort
	if source || isICMP {
		port = &to.srcPort
	}
	first, last := int(min(r.minPort, r.maxPort)), int(max(r.minPort, r.maxPort))
	if !r.ports {
		switch {
		case isICMP:
			first, last = 0, 65535
		case *port < 512:
			first, last = 1, 511
		case *port < 1024:
			first, last = 600, 1023
		default:
			first, last = 1024, 65535
		}
	}
	for p := first; p <= last; p++ {
		if *port = uint16(p); !used(to) {
			break
		}
	}
	return to
}

// inRange reports whether the source of t is one that r may map it to.
func (r *natRange) inRange(t *tuple) bool {
	if r.addrs && (t.src.Less(r.min) || r.max.Less(t.src)) {
		return false
	}
	return !r.ports || r.portInRange(t, true)
}

func (r *natRange) portInRange(t *tuple, source bool) bool {
	port := t.dstPort
	switch {
	case t.proto == protoICMP || t.proto == protoICMPv6 || hasPorts(t.proto) && source:
		port = t.srcPort
	case !hasPorts(t.proto):
		return true
	}
	return r.minPort <= port && port <= r.maxPort
}

// sourceMapping returns what another entry with the same source is mapped to, if it is
// in the range.
func (k *Kernel) sourceMapping(e *entry, now *tuple, r *natRange) (tuple, bool) {
	for i := len(k.entries) - 1; i >= 0; i-- {
		other := k.entries[i]
		t := &other.tuples[0]
		if other.gone || other.status&statusSrcNATDone == 0 || t.proto != now.proto || t.src != now.src ||
			t.srcPort != now.srcPort || other.zone.in(false) != e.zone.in(false) {
			continue
		}
		mapped := other.tuples[1].inverse()
		mapped.dst, mapped.dstPort = now.dst, now.dstPort
		if r.inRange(&mapped) {
			return mapped, true
		}
	}
	return tuple{}, false
}
