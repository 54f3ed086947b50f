package conntracktest

import (
	"encoding/binary"

	"golang.org/x/net/bpf"
)

// A program is a classic BPF program on a socket, with the kernel's extensions for
// netlink. [bpf.VM] has none of them.
type program []bpf.Instruction

// newProgram returns the program, or false if it has an instruction that run does not
// know.
func newProgram(raw []bpf.RawInstruction) (program, bool) {
	p, _ := bpf.Disassemble(raw)
	for i, instruction := range p {
		last := i == len(p)-1
		switch in := instruction.(type) {
		case bpf.RetConstant, bpf.RetA:
			continue
		case bpf.LoadAbsolute, bpf.LoadIndirect, bpf.LoadConstant, bpf.LoadScratch, bpf.StoreScratch, bpf.TAX, bpf.TXA:
		case bpf.LoadExtension:
			if in.Num != bpf.ExtNetlinkAttr && in.Num != bpf.ExtNetlinkAttrNested {
				return nil, false
			}
		case bpf.ALUOpConstant:
			if in.Op != bpf.ALUOpAnd {
				return nil, false
			}
		case bpf.Jump:
			last = last || in.Skip >= uint32(len(p)-i-1)
		case bpf.JumpIf:
			last = last || int(max(in.SkipTrue, in.SkipFalse)) >= len(p)-i-1
		default:
			return nil, false
		}
		if last {
			return nil, false
		}
	}
	return p, len(p) > 0
}

// run reports whether the program lets b pass.
func (p program) run(b []byte) bool {
	var a, x uint32
	var scratch [16]uint32
	for pc := 0; ; pc++ {
		ok := true
		switch in := p[pc].(type) {
		case bpf.RetConstant:
			return in.Val > 0
		case bpf.RetA:
			return a > 0
		case bpf.LoadAbsolute:
			a, ok = load(b, uint64(in.Off), in.Size)
		case bpf.LoadIndirect:
			a, ok = load(b, uint64(in.Off)+uint64(x), in.Size)
		case bpf.LoadConstant:
			set(in.Dst, &a, &x, in.Val)
		case bpf.LoadScratch:
			set(in.Dst, &a, &x, scratch[in.N&15])
		case bpf.StoreScratch:
			scratch[in.N&15] = a
			if in.Src == bpf.RegX {
				scratch[in.N&15] = x
			}
		case bpf.TAX:
			x = a
		case bpf.TXA:
			a = x
		case bpf.ALUOpConstant:
			a &= in.Val
		case bpf.LoadExtension:
			a = findAttr(b, a, x, in.Num == bpf.ExtNetlinkAttrNested)
		case bpf.Jump:
			pc += int(in.Skip)
		case bpf.JumpIf:
			if jumps(in.Cond, a, in.Val) {
				pc += int(in.SkipTrue)
			} else {
				pc += int(in.SkipFalse)
			}
		}
		if !ok {
			return false
		}
	}
}

func set(dst bpf.Register, a, x *uint32, v uint32) {
	if dst == bpf.RegX {
		*x = v
		return
	}
	*a = v
}

// load returns size bytes at a place in b, in network byte order.
func load(b []byte, at uint64, size int) (uint32, bool) {
	if at+uint64(size) > uint64(len(b)) {
		return 0, false
	}
	var v uint32
	for _, c := range b[at : at+uint64(size)] {
		v = v<<8 | uint32(c)
	}
	return v, true
}

func jumps(cond bpf.JumpTest, a, v uint32) bool {
	switch cond {
	case bpf.JumpEqual:
		return a == v
	case bpf.JumpNotEqual:
		return a != v
	case bpf.JumpGreaterThan:
		return a > v
	case bpf.JumpLessThan:
		return a < v
	case bpf.JumpGreaterOrEqual:
		return a >= v
	case bpf.JumpLessOrEqual:
		return a <= v
	case bpf.JumpBitsSet:
		return a&v != 0
	}
	return a&v == 0
}

// findAttr returns where in b the first attribute of a type is, of those that stand
// from at on or, if nested, in the attribute at that place; 0 if there is none.
func findAttr(b []byte, at, typ uint32, nested bool) uint32 {
	if len(b) < 4 || at > uint32(len(b)-4) {
		return 0
	}
	i, end := int(at), len(b)
	if nested {
		end = i + int(binary.NativeEndian.Uint16(b[i:]))
		if end > len(b) {
			return 0
		}
		i += 4
	}
	for i+4 <= end {
		n := int(binary.NativeEndian.Uint16(b[i:]))
		if n < 4 || n > end-i {
			return 0
		}
		if uint32(binary.NativeEndian.Uint16(b[i+2:])&attrTypeMask) == typ {
			return uint32(i)
		}
		i += align(n)
	}
	return 0
}
