package conntrack

import (
	"net/netip"

	"github.com/ti-mo/conntrack/internal/nfnl"
	"golang.org/x/net/bpf"
)

// The kernel runs a classic BPF program on each event before it queues it. Such
// a program cannot loop, but it can ask the kernel to find an attribute among
// its siblings (SKF_AD_NLATTR and SKF_AD_NLATTR_NEST in linux/filter.h), which
// is how each list of an EventFilter finds its field. The program sees the
// datagram from the netlink header on and loads values in network byte order.

const (
	bpfAttributes    = 20 // offset, behind struct nlmsghdr and struct nfgenmsg
	bpfAttrHeader    = 4
	bpfAccept        = 0xffffffff
	bpfMaxProgramLen = 4096 // BPF_MAXINSNS
)

// program returns a program of at most limit instructions that drops only events
// that f does not select, or nil if there is nothing for it to drop. Lists that
// take it beyond the limit are left out.
func (f *EventFilter) program(limit int) ([]bpf.RawInstruction, error) {
	var p bpfProgram
	p.acceptOtherSubsystems()
	empty := len(p.code)

	p.criterion(limit, func() { bpfValues(&p, &f.Protocol, 1, ctaTupleOrig, ctaTupleProto, ctaProtoNum) })
	f.Orig.program(&p, limit, ctaTupleOrig)
	f.Reply.program(&p, limit, ctaTupleReply)
	p.criterion(limit, func() { p.marks(&f.Mark) })
	p.criterion(limit, func() { p.zones(&f.Zone) })
	p.criterion(limit, func() { p.tcpStates(&f.TCPState) })

	if len(p.code) == empty {
		return nil, nil
	}
	p.emit(bpf.RetConstant{Val: bpfAccept})
	return bpf.Assemble(p.code)
}

func (f *TupleFilter) program(p *bpfProgram, limit int, tuple uint32) {
	p.criterion(limit, func() { p.prefixes(&f.Source, tuple, ctaIPv4Src, ctaIPv6Src) })
	p.criterion(limit, func() { p.prefixes(&f.Destination, tuple, ctaIPv4Dst, ctaIPv6Dst) })
	p.criterion(limit, func() { bpfValues(p, &f.SourcePort, 2, tuple, ctaTupleProto, ctaProtoSrcPort) })
	p.criterion(limit, func() { bpfValues(p, &f.DestinationPort, 2, tuple, ctaTupleProto, ctaProtoDstPort) })
}

// A bpfProgram is a program under construction. Each criterion's code goes on
// behind itself if the event passes, and else returns 0.
type bpfProgram struct {
	code []bpf.Instruction
}

// A bpfLabel is a place that is jumped to, known by the jumps.
type bpfLabel struct{ jumps []int }

func (p *bpfProgram) emit(code ...bpf.Instruction) { p.code = append(p.code, code...) }

// jump jumps to a label that is to be bound further on.
func (p *bpfProgram) jump(to *bpfLabel) {
	to.jumps = append(to.jumps, len(p.code))
	p.emit(bpf.Jump{})
}

// jumpIf jumps if the comparison of A with val holds. Conditional jumps do not
// reach far, so that one jumps over an unconditional one.
func (p *bpfProgram) jumpIf(cond bpf.JumpTest, val uint32, to *bpfLabel) {
	p.emit(bpf.JumpIf{Cond: cond, Val: val, SkipFalse: 1})
	p.jump(to)
}

// bind makes to the place of the next instruction.
func (p *bpfProgram) bind(to *bpfLabel) {
	for _, at := range to.jumps {
		p.code[at] = bpf.Jump{Skip: uint32(len(p.code) - at - 1)}
	}
}

// criterion adds what emit emits, if it is not too long.
func (p *bpfProgram) criterion(limit int, emit func()) {
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

// find loads the value of the attribute that stands at path, of size bytes, into
// A and its place into X, or jumps.
func (p *bpfProgram) find(absent *bpfLabel, size int, path ...uint32) {
	p.emit(bpf.LoadConstant{Dst: bpf.RegA, Val: bpfAttributes})
	extension := bpf.ExtNetlinkAttr
	for _, typ := range path {
		p.emit(bpf.LoadConstant{Dst: bpf.RegX, Val: typ}, bpf.LoadExtension{Num: extension})
		p.jumpIf(bpf.JumpEqual, 0, absent)
		extension = bpf.ExtNetlinkAttrNested
	}
	p.emit(bpf.TAX{}, bpf.LoadIndirect{Off: bpfAttrHeader, Size: size})
}

// findOrZero is find, but loads 0 if there is no such attribute.
func (p *bpfProgram) findOrZero(size int, path ...uint32) {
	var absent, done bpfLabel
	p.find(&absent, size, path...)
	p.jump(&done)
	p.bind(&absent)
	p.emit(bpf.LoadConstant{Dst: bpf.RegA, Val: 0})
	p.bind(&done)
}

// decide ends a list. The code before it jumps to hit if the value is in the
// list, and goes on here if not.
func (p *bpfProgram) decide(hit *bpfLabel, exclude bool) {
	if !exclude {
		p.emit(bpf.RetConstant{Val: 0})
		p.bind(hit)
		return
	}
	var pass bpfLabel
	p.jump(&pass)
	p.bind(hit)
	p.emit(bpf.RetConstant{Val: 0})
	p.bind(&pass)
}

// bpfValues is the code for a list of integers of size bytes.
func bpfValues[T uint8 | uint16](p *bpfProgram, l *List[T], size int, path ...uint32) {
	if len(l.values) == 0 {
		return
	}
	p.findOrZero(size, path...)
	bpfCompare(p, l)
}

// bpfCompare is the code that looks for A in a list.
func bpfCompare[T uint8 | uint16](p *bpfProgram, l *List[T]) {
	var hit bpfLabel
	for _, v := range l.values {
		p.jumpIf(bpf.JumpEqual, uint32(v), &hit)
	}
	p.decide(&hit, l.exclude)
}

func (p *bpfProgram) tcpStates(l *List[uint8]) {
	if len(l.values) == 0 {
		return
	}
	var absent bpfLabel
	p.find(&absent, 1, ctaProtoInfo, ctaProtoInfoTCP, ctaProtoInfoTCPState)
	bpfCompare(p, l)
	p.bind(&absent)
}

func (p *bpfProgram) zones(l *List[uint16]) {
	if len(l.values) == 0 {
		return
	}
	var found bpfLabel
	p.findOrZero(2, ctaZone)
	p.jumpIf(bpf.JumpNotEqual, 0, &found)
	p.findOrZero(2, ctaTupleOrig, ctaTupleZone)
	p.bind(&found)
	bpfCompare(p, l)
}

func (p *bpfProgram) marks(l *List[MarkMask]) {
	if len(l.values) == 0 {
		return
	}
	p.findOrZero(4, ctaMark)
	p.emit(bpf.StoreScratch{Src: bpf.RegA, N: 0})
	var hit bpfLabel
	for _, m := range l.values {
		p.masked(0, m.Mask)
		p.jumpIf(bpf.JumpEqual, m.Mark, &hit)
	}
	p.decide(&hit, l.exclude)
}

// masked loads the n'th scratch word and masks it.
func (p *bpfProgram) masked(n int, mask uint32) {
	p.emit(
		bpf.LoadScratch{Dst: bpf.RegA, N: n},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask},
	)
}

// prefixes is the code for a list of prefixes of an address that is in the
// attribute v4 or v6 of a tuple.
func (p *bpfProgram) prefixes(l *List[netip.Prefix], tuple, v4, v6 uint32) {
	if len(l.values) == 0 {
		return
	}
	var hit, miss, not4 bpfLabel
	p.find(&not4, 4, tuple, ctaTupleIP, v4)
	p.emit(bpf.StoreScratch{Src: bpf.RegA, N: 0})
	for _, prefix := range l.values {
		if prefix.IsValid() && prefix.Addr().Is4() {
			p.prefix(prefix, &hit)
		}
	}
	p.jump(&miss)

	p.bind(&not4)
	p.find(&miss, 4, tuple, ctaTupleIP, v6)
	p.emit(bpf.StoreScratch{Src: bpf.RegA, N: 0})
	for n := 1; n < 4; n++ {
		p.emit(
			bpf.LoadIndirect{Off: bpfAttrHeader + uint32(4*n), Size: 4},
			bpf.StoreScratch{Src: bpf.RegA, N: n},
		)
	}
	for _, prefix := range l.values {
		if prefix.IsValid() && prefix.Addr().Is6() {
			p.prefix(prefix, &hit)
		}
	}

	p.bind(&miss)
	p.decide(&hit, l.exclude)
}

// prefix jumps to hit if the address in the scratch words is in the prefix.
func (p *bpfProgram) prefix(prefix netip.Prefix, hit *bpfLabel) {
	var next bpfLabel
	addr := prefix.Masked().Addr().AsSlice()
	for n := 0; 32*n < prefix.Bits(); n++ {
		p.masked(n, ^uint32(0)<<max(0, 32*(n+1)-prefix.Bits()))
		p.jumpIf(bpf.JumpNotEqual, nfnl.Uint32(addr[4*n:]), &next)
	}
	p.jump(hit)
	p.bind(&next)
}
