package conntrack

import (
	"net/netip"
	"slices"

	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/netfilter"
	"golang.org/x/net/bpf"
)

// The kernel runs a classic BPF program on each event before it queues the
// event. Such a program cannot loop, but it can ask the kernel to find an
// attribute among its siblings (SKF_AD_NLATTR and SKF_AD_NLATTR_NEST in
// linux/filter.h). It sees the datagram from the netlink header on, and loads
// values in network byte order.

const (
	bpfFamily        = 16 // offset of nfgen_family, after struct nlmsghdr
	bpfAttributes    = 20 // offset, after struct nfgenmsg
	bpfAttrHeader    = 4
	bpfAccept        = 0xffffffff
	bpfMaxProgramLen = 4096 // BPF_MAXINSNS
	bpfScratchWords  = 16   // BPF_MEMWORDS
)

// A bpfPath leads to an attribute: the types of the attributes that contain it,
// and then its own, padded with zeros.
type bpfPath [3]uint32

// A bpfField is a number in an event, or 32 bits of an address.
type bpfField struct {
	paths  [3]bpfPath // of the attributes that may hold it; the first one present does
	offset uint32     // in the attribute's value
	size   int
	absent uint32 // its value if none of the attributes is present
}

var (
	bpfMark   = bpfField{size: 4, paths: [3]bpfPath{{ctaMark}}}
	bpfStatus = bpfField{size: 4, paths: [3]bpfPath{{ctaStatus}}}
	bpfZone   = bpfField{size: 2, paths: [3]bpfPath{
		{ctaZone}, {ctaTupleOrig, ctaTupleZone}, {ctaTupleReply, ctaTupleZone},
	}}
	bpfTCPState = bpfField{size: 1, absent: bpfNoTCPState, paths: [3]bpfPath{
		{ctaProtoInfo, ctaProtoInfoTCP, ctaProtoInfoTCPState},
	}}
)

// bpfNoTCPState is not a TCPState.
const bpfNoTCPState = 0x100

// bpfProto returns a field of a direction's ProtoTuple.
func bpfProto(direction uint16, size int, attrs ...uint32) bpfField {
	f := bpfField{size: size}
	for i, attr := range attrs {
		f.paths[i] = bpfPath{uint32(direction), ctaTupleProto, attr}
	}
	return f
}

// program returns a program of at most limit instructions that drops only
// events that o does not select, or nil if it would drop none. If Filters do
// not all fit, the program has none of them; it leaves out each Except that
// does not fit.
func (o *EventOptions) program(limit int) ([]bpf.RawInstruction, error) {
	var draft bpfProgram
	draft.filters(o.Filters)
	for i := range o.Except {
		draft.exclusion(&o.Except[i])
	}

	p := bpfProgram{scratch: draft.repeated()}
	p.acceptOtherSubsystems()
	for n, field := range p.scratch {
		p.find(field)
		p.emit(bpf.StoreScratch{Src: bpf.RegA, N: n})
	}
	empty := len(p.code)
	p.within(limit, func() { p.filters(o.Filters) })
	for i := range o.Except {
		p.within(limit, func() { p.exclusion(&o.Except[i]) })
	}
	if len(p.code) == empty {
		return nil, nil
	}
	p.emit(bpf.RetConstant{Val: bpfAccept})
	return bpf.Assemble(p.code)
}

// A bpfProgram is a program under construction.
type bpfProgram struct {
	code    []bpf.Instruction
	scratch []bpfField // kept in the words of the scratch memory
	found   []bpfField // loaded from the event
}

// repeated returns the fields that were loaded more than once, as many as fit
// the scratch memory.
func (p *bpfProgram) repeated() []bpfField {
	var fields []bpfField
	seen := make(map[bpfField]int)
	for _, field := range p.found {
		if seen[field]++; seen[field] == 2 && len(fields) < bpfScratchWords {
			fields = append(fields, field)
		}
	}
	return fields
}

// within adds what emit emits, unless the program would exceed limit.
func (p *bpfProgram) within(limit int, emit func()) {
	before := len(p.code)
	emit()
	if len(p.code) >= limit {
		p.code = p.code[:before]
	}
}

// acceptOtherSubsystems lets the events of expectations pass.
func (p *bpfProgram) acceptOtherSubsystems() {
	p.emit(
		bpf.LoadAbsolute{Off: nfnl.SubsystemOffset(), Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(nfnl.NFSubsysCTNetlink), SkipTrue: 1},
		bpf.RetConstant{Val: bpfAccept},
	)
}

// filters drops events that none of filters selects, if there are filters.
func (p *bpfProgram) filters(filters []Filter) {
	if len(filters) == 0 {
		return
	}
	var selected bpfLabel
	for i := range filters {
		var next bpfLabel
		p.filter(&filters[i], true, &next)
		p.jump(&selected)
		p.bind(&next)
	}
	p.emit(bpf.RetConstant{Val: 0})
	p.bind(&selected)
}

// exclusion drops events that f selects.
func (p *bpfProgram) exclusion(f *Filter) {
	var next bpfLabel
	p.filter(f, false, &next)
	p.emit(bpf.RetConstant{Val: 0})
	p.bind(&next)
}

// filter jumps to miss if Filter.match would return false.
func (p *bpfProgram) filter(f *Filter, stateless bool, miss *bpfLabel) {
	family, _ := f.family()
	status, statusMask := f.status()
	p.family(family, miss)
	p.masked(bpfMark, f.Mask, f.Mark, miss)
	p.masked(bpfStatus, uint32(statusMask), uint32(status), miss)
	if f.Zone != nil {
		p.equal(bpfZone, uint32(*f.Zone), miss)
	}
	for _, d := range f.directions() {
		p.direction(&d, miss)
	}
	p.either(plainPrefix(f.Either), miss)
	if f.TCPState != 0 {
		p.tcpState(f.TCPState, stateless, miss)
	}
}

func (p *bpfProgram) family(family netfilter.ProtoFamily, miss *bpfLabel) {
	if family == netfilter.ProtoUnspec {
		return
	}
	p.emit(bpf.LoadAbsolute{Off: bpfFamily, Size: 1})
	p.jumpIf(bpf.JumpNotEqual, uint32(family), miss)
}

// direction does what matchTuple and matchPrefix do.
func (p *bpfProgram) direction(d *filterDirection, miss *bpfLabel) {
	proto, zero := &d.proto, &d.zero
	protocol := bpfProto(d.attr, 1, ctaProtoNum)
	switch {
	case proto.Protocol != 0 || zero.Protocol:
		p.equal(protocol, uint32(proto.Protocol), miss)
	case proto.selectsPorts(zero):
		p.load(protocol)
		p.jumpIf(bpf.JumpEqual, ProtocolICMP, miss)
		p.jumpIf(bpf.JumpEqual, ProtocolICMPv6, miss)
	case proto.selectsICMP(zero):
		var icmp bpfLabel
		p.load(protocol)
		p.jumpIf(bpf.JumpEqual, ProtocolICMP, &icmp)
		p.jumpIf(bpf.JumpNotEqual, ProtocolICMPv6, miss)
		p.bind(&icmp)
	}
	number := func(want uint16, zero bool, field bpfField) {
		if want != 0 || zero {
			p.equal(field, uint32(want), miss)
		}
	}
	number(proto.SourcePort, zero.SourcePort, bpfProto(d.attr, 2, ctaProtoSrcPort))
	number(proto.DestinationPort, zero.DestinationPort, bpfProto(d.attr, 2, ctaProtoDstPort))
	number(uint16(proto.ICMPType), zero.ICMPType, bpfProto(d.attr, 1, ctaProtoICMPType, ctaProtoICMPv6Type))
	number(uint16(proto.ICMPCode), zero.ICMPCode, bpfProto(d.attr, 1, ctaProtoICMPCode, ctaProtoICMPv6Code))
	number(proto.ICMPID, zero.ICMPID, bpfProto(d.attr, 2, ctaProtoICMPID, ctaProtoICMPv6ID))
	number(d.zone, zero.Zone, bpfField{size: 2, paths: [3]bpfPath{{uint32(d.attr), ctaTupleZone}, {ctaZone}}})
	p.prefix(d.source, d.attr, ctaIPv4Src, ctaIPv6Src, miss)
	p.prefix(d.dest, d.attr, ctaIPv4Dst, ctaIPv6Dst, miss)
}

// prefix jumps to miss if an address of a direction's tuple is not in prefix.
// The address is attribute v4 or v6. The event must be of the prefix's family.
func (p *bpfProgram) prefix(prefix netip.Prefix, direction uint16, v4, v6 uint32, miss *bpfLabel) {
	if !prefix.IsValid() {
		return
	}
	attr := v6
	if prefix.Addr().Is4() {
		attr = v4
	}
	field := bpfField{size: 4, paths: [3]bpfPath{{uint32(direction), ctaTupleIP, attr}}}
	addr := prefix.Masked().Addr().AsSlice()
	for n := 0; 32*n < prefix.Bits(); n++ {
		field.offset = uint32(4 * n)
		mask := ^uint32(0) << max(0, 32*(n+1)-prefix.Bits())
		p.masked(field, mask, nfnl.Uint32(addr[4*n:]), miss)
	}
}

// either does what matchEither does.
func (p *bpfProgram) either(prefix netip.Prefix, miss *bpfLabel) {
	if !prefix.IsValid() {
		return
	}
	var hit bpfLabel
	for _, direction := range []uint16{ctaTupleOrig, ctaTupleReply} {
		for _, attr := range [][2]uint32{{ctaIPv4Src, ctaIPv6Src}, {ctaIPv4Dst, ctaIPv6Dst}} {
			var next bpfLabel
			p.prefix(prefix, direction, attr[0], attr[1], &next)
			p.jump(&hit)
			p.bind(&next)
		}
	}
	p.jump(miss)
	p.bind(&hit)
}

// tcpState does what matchState does.
func (p *bpfProgram) tcpState(want TCPState, stateless bool, miss *bpfLabel) {
	var pass bpfLabel
	p.load(bpfTCPState)
	if stateless {
		p.jumpIf(bpf.JumpEqual, bpfNoTCPState, &pass)
	}
	p.jumpIf(bpf.JumpNotEqual, uint32(want), miss)
	p.bind(&pass)
}

// masked jumps to miss if the bits of field that are in mask differ from want.
func (p *bpfProgram) masked(field bpfField, mask, want uint32, miss *bpfLabel) {
	switch mask {
	case 0:
	case ^uint32(0):
		p.equal(field, want, miss)
	default:
		p.load(field)
		p.emit(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask})
		p.jumpIf(bpf.JumpNotEqual, want, miss)
	}
}

// equal jumps to miss if field differs from want.
func (p *bpfProgram) equal(field bpfField, want uint32, miss *bpfLabel) {
	p.load(field)
	p.jumpIf(bpf.JumpNotEqual, want, miss)
}

// load loads field into A.
func (p *bpfProgram) load(field bpfField) {
	if n := slices.Index(p.scratch, field); n >= 0 {
		p.emit(bpf.LoadScratch{Dst: bpf.RegA, N: n})
		return
	}
	p.found = append(p.found, field)
	p.find(field)
}

// find loads field into A from the event.
func (p *bpfProgram) find(field bpfField) {
	var done bpfLabel
	for _, path := range field.paths {
		if path == (bpfPath{}) {
			break
		}
		var absent bpfLabel
		p.findAttribute(path, &absent)
		p.emit(bpf.TAX{}, bpf.LoadIndirect{Off: bpfAttrHeader + field.offset, Size: field.size})
		p.jump(&done)
		p.bind(&absent)
	}
	p.emit(bpf.LoadConstant{Dst: bpf.RegA, Val: field.absent})
	p.bind(&done)
}

// findAttribute loads the offset of the attribute at path into A, or jumps to
// absent.
func (p *bpfProgram) findAttribute(path bpfPath, absent *bpfLabel) {
	p.emit(bpf.LoadConstant{Dst: bpf.RegA, Val: bpfAttributes})
	extension := bpf.ExtNetlinkAttr
	for _, typ := range path {
		if typ == 0 {
			break
		}
		p.emit(bpf.LoadConstant{Dst: bpf.RegX, Val: typ}, bpf.LoadExtension{Num: extension})
		p.jumpIf(bpf.JumpEqual, 0, absent)
		extension = bpf.ExtNetlinkAttrNested
	}
}

func (p *bpfProgram) emit(code ...bpf.Instruction) { p.code = append(p.code, code...) }

// A bpfLabel is the target of jumps, known by these.
type bpfLabel struct{ jumps []int }

// jump jumps to a label that is bound later.
func (p *bpfProgram) jump(to *bpfLabel) {
	to.jumps = append(to.jumps, len(p.code))
	p.emit(bpf.Jump{})
}

// jumpIf jumps if A compares to val as cond says. Conditional jumps do not
// reach far, so this one skips an unconditional jump.
func (p *bpfProgram) jumpIf(cond bpf.JumpTest, val uint32, to *bpfLabel) {
	p.emit(bpf.JumpIf{Cond: cond, Val: val, SkipFalse: 1})
	p.jump(to)
}

// bind makes the next instruction the target of the label's jumps.
func (p *bpfProgram) bind(to *bpfLabel) {
	for _, at := range to.jumps {
		p.code[at] = bpf.Jump{Skip: uint32(len(p.code) - at - 1)}
	}
}
