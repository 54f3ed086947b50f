package conntracktest

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// A tuple is a direction of a flow. For ICMP the id is srcPort, and type and code are
// dstPort.
type tuple struct {
	src, dst         netip.Addr
	proto            uint8
	srcPort, dstPort uint16
}

func (t *tuple) family() uint8 {
	if t.src.Is4() {
		return afInet
	}
	return afInet6
}

// A zone is a zone and the directions that it holds for.
type zone struct {
	id  uint16
	dir zoneDir
}

type zoneDir uint8

const (
	zoneOrig zoneDir = 1 << iota
	zoneReply
	zoneBoth = zoneOrig | zoneReply
)

// in returns the zone in one direction, 0 for the default zone.
func (z zone) in(reply bool) uint16 {
	dir := zoneOrig
	if reply {
		dir = zoneReply
	}
	if z.dir&dir == 0 {
		return 0
	}
	return z.id
}

// parseZone returns the zone that an attribute names, the default zone if there is
// none.
func parseZone(a attr) zone {
	if a.present {
		return zone{a.u16(), zoneBoth}
	}
	return zone{0, zoneBoth}
}

// The fields of a tuple that a filter may select by (CTA_FILTER_F_*).
const (
	fieldSrc = 1 << iota
	fieldDst
	fieldZone
	fieldProto
	fieldSrcPort
	fieldDstPort
	fieldICMPType
	fieldICMPCode
	fieldICMPID
	fieldICMPv6Type
	fieldICMPv6Code
	fieldICMPv6ID
	allFields = 1<<iota - 1

	fieldsOfProto = allFields &^ (fieldSrc | fieldDst | fieldZone | fieldProto)
)

var (
	tuplePolicy = policy{ctaTupleIP: ruleNest, ctaTupleProto: ruleNest, ctaTupleZone: ruleU16}
	ipPolicy    = policy{ctaIPv4Src: ruleU32, ctaIPv4Dst: ruleU32, ctaIPv6Src: {atLeast, 16}, ctaIPv6Dst: {atLeast, 16}}
	protoPolicy = policy{
		ctaProtoNum:        ruleU8,
		ctaProtoSrcPort:    {},
		ctaProtoDstPort:    {},
		ctaProtoICMPID:     {},
		ctaProtoICMPType:   {},
		ctaProtoICMPCode:   {},
		ctaProtoICMPv6ID:   {},
		ctaProtoICMPv6Type: {},
		ctaProtoICMPv6Code: {},
	}
	portPolicy = policy{ctaProtoSrcPort: ruleU16, ctaProtoDstPort: ruleU16}
	icmpPolicy = policy{ctaProtoICMPID: ruleU16, ctaProtoICMPType: ruleU8, ctaProtoICMPCode: ruleU8}
	icmp6      = policy{ctaProtoICMPv6ID: ruleU16, ctaProtoICMPv6Type: ruleU8, ctaProtoICMPv6Code: ruleU8}
)

// parseTuple parses a whole tuple. Its zone, if it has one of its own, is put into
// z; a nil z says that it may have none.
func parseTuple(a attr, family uint8, z *zone, dir zoneDir) (tuple, errno) {
	return parseFields(a, family, z, dir, allFields)
}

// parseFields parses those fields of a tuple that a filter selects by.
func parseFields(a attr, family uint8, z *zone, dir zoneDir, fields uint32) (t tuple, err errno) {
	parts, err := tuplePolicy.parse(a.v)
	if err != 0 {
		return t, err
	}
	if family != afInet && family != afInet6 {
		return t, eopnotsupp
	}
	if fields&(fieldSrc|fieldDst) != 0 {
		if !parts.has(ctaTupleIP) {
			return t, einval
		}
		if err := t.parseIP(parts[ctaTupleIP], family, fields); err != 0 {
			return t, err
		}
	}
	switch {
	case fields&fieldProto != 0:
		if !parts.has(ctaTupleProto) {
			return t, einval
		}
		if err := t.parseProto(parts[ctaTupleProto], fields); err != 0 {
			return t, err
		}
	case fields&fieldsOfProto != 0:
		return t, einval
	}
	if fields&fieldZone != 0 && parts.has(ctaTupleZone) {
		if z == nil || z.id != 0 {
			return t, einval
		}
		*z = zone{parts[ctaTupleZone].u16(), dir}
	}
	return t, 0
}

func (t *tuple) parseIP(a attr, family uint8, fields uint32) errno {
	ip, err := ipPolicy.parse(a.v)
	if err != 0 {
		return err
	}
	src, dst, size := ctaIPv4Src, ctaIPv4Dst, 4
	if family == afInet6 {
		src, dst, size = ctaIPv6Src, ctaIPv6Dst, 16
	}
	for _, f := range []struct {
		field uint32
		typ   int
		addr  *netip.Addr
	}{{fieldSrc, src, &t.src}, {fieldDst, dst, &t.dst}} {
		if fields&f.field == 0 {
			continue
		}
		if !ip.has(f.typ) {
			return einval
		}
		*f.addr, _ = netip.AddrFromSlice(ip[f.typ].v[:size])
	}
	return 0
}

func (t *tuple) parseProto(a attr, fields uint32) errno {
	parts, err := protoPolicy.parse(a.v)
	if err != 0 {
		return err
	}
	if !parts.has(ctaProtoNum) {
		return einval
	}
	t.proto = parts[ctaProtoNum].u8()
	switch {
	case hasPorts(t.proto):
		return t.parsePorts(a, fields)
	case t.proto == protoICMP:
		return t.parseICMP(a, icmpPolicy, ctaProtoICMPID, fields>>6&7)
	case t.proto == protoICMPv6:
		return t.parseICMP(a, icmp6, ctaProtoICMPv6ID, fields>>9&7)
	}
	return 0
}

func hasPorts(proto uint8) bool {
	return slices.Contains([]uint8{protoTCP, protoUDP, protoGRE, protoSCTP, protoUDPLite}, proto)
}

func (t *tuple) parsePorts(a attr, fields uint32) errno {
	parts, err := portPolicy.parse(a.v)
	if err != 0 {
		return err
	}
	if fields&fieldSrcPort != 0 {
		if !parts.has(ctaProtoSrcPort) {
			return einval
		}
		t.srcPort = parts[ctaProtoSrcPort].u16()
	}
	if fields&fieldDstPort != 0 {
		if !parts.has(ctaProtoDstPort) {
			return einval
		}
		t.dstPort = parts[ctaProtoDstPort].u16()
	}
	return 0
}

// parseICMP parses type, code and id, whose fields are the bits 0 to 2. The
// attributes stand in the order id, type, code.
func (t *tuple) parseICMP(a attr, p policy, id int, fields uint32) errno {
	parts, err := p.parse(a.v)
	if err != 0 {
		return err
	}
	if fields&1 != 0 {
		if !parts.has(id + 1) {
			return einval
		}
		typ := parts[id+1].u8()
		if _, known := icmpAnswer(t.proto, typ); !known {
			return einval
		}
		t.dstPort |= uint16(typ) << 8
	}
	if fields&2 != 0 {
		if !parts.has(id + 2) {
			return einval
		}
		t.dstPort |= uint16(parts[id+2].u8())
	}
	if fields&4 != 0 {
		if !parts.has(id) {
			return einval
		}
		t.srcPort = parts[id].u16()
	}
	return 0
}

// icmpAnswer returns the type that answers one, and whether it is known.
func icmpAnswer(proto, typ uint8) (uint8, bool) {
	pairs := []uint8{8, 0, 13, 14, 15, 16, 17, 18}
	if proto == protoICMPv6 {
		pairs = []uint8{128, 129, 139, 140}
	}
	i := slices.Index(pairs, typ)
	if i < 0 {
		return 0, false
	}
	return pairs[i^1], true
}

// inverse returns the direction of the packets that answer those of t.
func (t tuple) inverse() tuple {
	t.src, t.dst = t.dst, t.src
	if t.proto == protoICMP || t.proto == protoICMPv6 {
		if answer, ok := icmpAnswer(t.proto, uint8(t.dstPort>>8)); ok {
			t.dstPort = uint16(answer)<<8 | t.dstPort&0xff
		}
		return t
	}
	t.srcPort, t.dstPort = t.dstPort, t.srcPort
	return t
}

// tuple writes t, with what f adds to it.
func (w *writer) tuple(typ uint16, t *tuple, f func()) {
	w.nest(typ, func() {
		w.nest(ctaTupleIP, func() {
			src, dst := uint16(ctaIPv4Src), uint16(ctaIPv4Dst)
			if t.src.Is6() {
				src, dst = ctaIPv6Src, ctaIPv6Dst
			}
			w.attr(src, t.src.AsSlice()...)
			w.attr(dst, t.dst.AsSlice()...)
		})
		w.nest(ctaTupleProto, func() {
			w.u8(ctaProtoNum, t.proto)
			switch {
			case hasPorts(t.proto):
				w.u16(ctaProtoSrcPort, t.srcPort)
				w.u16(ctaProtoDstPort, t.dstPort)
			case t.proto == protoICMP:
				w.icmp(ctaProtoICMPID, t)
			case t.proto == protoICMPv6:
				w.icmp(ctaProtoICMPv6ID, t)
			}
		})
		f()
	})
}

func (w *writer) icmp(id uint16, t *tuple) {
	w.u16(id, t.srcPort)
	w.u8(id+1, uint8(t.dstPort>>8))
	w.u8(id+2, uint8(t.dstPort))
}

// A filter is what a dump or a flush selects entries by (struct ctnetlink_filter).
type filter struct {
	family         uint8
	zone           *uint16
	fields         [2]uint32
	tuples         [2]tuple
	mark, status   masked
	wrongIPv6Match bool
}

type masked struct{ value, mask uint32 }

func (m masked) match(v uint32) bool { return v&m.mask == m.value }

var filterPolicy = policy{ctaFilterOrigFlags: ruleU32, ctaFilterReplyFlags: ruleU32}

// parseFilter returns the filter of a request, nil if it has none.
func parseFilter(a attrs, family uint8) (*filter, errno) {
	if family == afUnspec && !a.has(ctaMark) && !a.has(ctaFilter) && !a.has(ctaStatus) && !a.has(ctaZone) {
		return nil, 0
	}
	f := &filter{family: family}
	switch {
	case a.has(ctaMark):
		f.mark = masked{a[ctaMark].u32(), ^uint32(0)}
		if a.has(ctaMarkMask) {
			f.mark.mask = a[ctaMarkMask].u32()
		}
	case a.has(ctaMarkMask):
		return nil, einval
	}
	switch {
	case a.has(ctaStatus):
		f.status = masked{a[ctaStatus].u32(), a[ctaStatus].u32()}
		if a.has(ctaStatusMask) {
			f.status.mask = a[ctaStatusMask].u32()
		}
		if f.status.mask == 0 {
			return nil, einval
		}
	case a.has(ctaStatusMask):
		return nil, einval
	}
	z := zone{0, zoneBoth}
	if a.has(ctaZone) {
		z = parseZone(a[ctaZone])
	}
	if a.has(ctaFilter) {
		if err := f.parseTuples(a, &z); err != 0 {
			return nil, err
		}
	}
	if a.has(ctaZone) {
		f.zone = &z.id
	}
	return f, 0
}

func (f *filter) parseTuples(a attrs, z *zone) errno {
	flags, err := filterPolicy.parseStrictly(a[ctaFilter])
	if err != 0 {
		return err
	}
	for i, typ := range []int{ctaFilterOrigFlags, ctaFilterReplyFlags} {
		if flags.has(typ) {
			f.fields[i] = binary.NativeEndian.Uint32(flags[typ].v)
			if f.fields[i]&^allFields != 0 {
				return eopnotsupp
			}
		}
	}
	for i, typ := range []int{ctaTupleOrig, ctaTupleReply} {
		if f.fields[i] == 0 {
			continue
		}
		if !a.has(typ) {
			return einval
		}
		if f.tuples[i], err = parseFields(a[typ], f.family, z, zoneOrig<<i, f.fields[i]); err != 0 {
			return err
		}
	}
	return 0
}

func (f *filter) match(e *entry) bool {
	if f == nil {
		return true
	}
	if f.family != afUnspec && f.family != e.tuples[0].family() || f.zone != nil && *f.zone != e.zone.id {
		return false
	}
	for i, fields := range f.fields {
		if !f.matchTuple(&f.tuples[i], &e.tuples[i], fields) {
			return false
		}
	}
	return f.mark.match(e.mark) && f.status.match(e.status)
}

func (f *filter) matchTuple(want, t *tuple, fields uint32) bool {
	equal := func(a, b netip.Addr) bool { return (a == b) != (f.wrongIPv6Match && a.Is6()) }
	if fields&fieldSrc != 0 && !equal(want.src, t.src) ||
		fields&fieldDst != 0 && !equal(want.dst, t.dst) ||
		fields&fieldProto != 0 && want.proto != t.proto {
		return false
	}
	switch t.proto {
	case protoTCP, protoUDP:
		return (fields&fieldSrcPort == 0 || want.srcPort == t.srcPort) &&
			(fields&fieldDstPort == 0 || want.dstPort == t.dstPort)
	case protoICMP:
		return matchICMP(want, t, fields>>6)
	case protoICMPv6:
		return matchICMP(want, t, fields>>9)
	}
	return true
}

func matchICMP(want, t *tuple, fields uint32) bool {
	return (fields&1 == 0 || want.dstPort>>8 == t.dstPort>>8) &&
		(fields&2 == 0 || uint8(want.dstPort) == uint8(t.dstPort)) &&
		(fields&4 == 0 || want.srcPort == t.srcPort)
}
