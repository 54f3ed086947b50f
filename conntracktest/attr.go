package conntracktest

import (
	"bytes"
	"encoding/binary"
)

func align(n int) int { return (n + 3) &^ 3 }

// An attr is an attribute of a request. A zero attr stands for one that is not there.
type attr struct {
	present bool
	nested  bool // has the flag
	v       []byte
}

// These are for attributes whose length a policy has checked.

func (a attr) u8() uint8   { return a.v[0] }
func (a attr) u16() uint16 { return binary.BigEndian.Uint16(a.v) }
func (a attr) u32() uint32 { return binary.BigEndian.Uint32(a.v) }

// str returns the text up to the NUL byte that it has.
func (a attr) str() string { return string(a.v[:bytes.IndexByte(a.v, 0)]) }

// attrs are attributes by type.
type attrs []attr

func (a attrs) get(typ int) attr {
	if typ < len(a) {
		return a[typ]
	}
	return attr{}
}

func (a attrs) has(typ int) bool { return a.get(typ).present }

// A rule says what the kernel accepts as the value of an attribute.
type rule struct {
	kind ruleKind
	n    int // the length that kind asks for
}

type ruleKind uint8

const (
	anything ruleKind = iota
	atLeast           // n bytes
	atMost            // n bytes
	nest              // attributes
	text              // n bytes and a NUL byte, or any number of bytes if n is 0
	upTo              // a byte of the value n at most
	reject            // nothing
)

var (
	ruleU8   = rule{atLeast, 1}
	ruleU16  = rule{atLeast, 2}
	ruleU32  = rule{atLeast, 4}
	ruleNest = rule{kind: nest}
)

// A policy is the rules for attributes by type. Types that it has no place for are
// ignored.
type policy []rule

// parse splits b into attributes. If one type comes twice, the last one counts.
func (p policy) parse(b []byte) (attrs, errno) {
	list := make(attrs, len(p))
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			break // as the kernel, which ignores what is left
		}
		typ := binary.NativeEndian.Uint16(b[2:])
		a := attr{present: true, nested: typ&attrNested != 0, v: b[4:n]}
		if typ &= attrTypeMask; typ != 0 && int(typ) < len(p) {
			if err := p[typ].check(a.v); err != 0 {
				return nil, err
			}
			list[typ] = a
		}
		b = b[min(align(n), len(b)):]
	}
	return list, 0
}

func (r rule) check(v []byte) errno {
	ok := true
	switch r.kind {
	case atLeast:
		ok = len(v) >= r.n
	case atMost:
		ok = len(v) <= r.n
	case nest:
		ok = len(v) == 0 || len(v) >= 4
	case text:
		head := v
		if r.n > 0 {
			head = v[:min(len(v), r.n+1)]
		}
		if bytes.IndexByte(head, 0) < 0 {
			return einval
		}
		ok = r.n == 0 || len(bytes.TrimSuffix(v, []byte{0})) <= r.n
	case upTo:
		ok = len(v) >= 1 && int(v[0]) <= r.n
	case reject:
		return einval
	}
	if !ok {
		return erange
	}
	return 0
}

// parseStrictly is parse for those of the kernel's parsers that look closer: at the
// flag of the attribute, unknown types, lengths and what is left.
func (p policy) parseStrictly(a attr) (attrs, errno) {
	if !a.nested {
		return nil, einval
	}
	for b := a.v; len(b) > 0; {
		if len(b) < 4 {
			return nil, einval
		}
		n := int(binary.NativeEndian.Uint16(b))
		typ := binary.NativeEndian.Uint16(b[2:])
		number := int(typ & attrTypeMask)
		if n < 4 || n > len(b) || number == 0 || number >= len(p) ||
			typ&attrNested != 0 || p[number].kind == atLeast && n-4 != p[number].n {
			return nil, einval
		}
		b = b[min(align(n), len(b)):]
	}
	return p.parse(a.v)
}

// A writer holds messages from the kernel.
type writer struct {
	b     []byte
	start int // of the last message
}

// message begins a message of nfnetlink.
func (w *writer) message(typ, flags uint16, seq, pid uint32, family uint8, resource uint16) {
	w.header(typ, flags, seq, pid)
	w.b = append(w.b, family, 0)
	w.b = binary.BigEndian.AppendUint16(w.b, resource)
}

// header begins a message.
func (w *writer) header(typ, flags uint16, seq, pid uint32) {
	w.start = len(w.b)
	w.b = append(w.b, 0, 0, 0, 0)
	w.b = binary.NativeEndian.AppendUint16(w.b, typ)
	w.b = binary.NativeEndian.AppendUint16(w.b, flags)
	w.b = binary.NativeEndian.AppendUint32(w.b, seq)
	w.b = binary.NativeEndian.AppendUint32(w.b, pid)
}

// end ends the last message.
func (w *writer) end() {
	w.pad()
	binary.NativeEndian.PutUint32(w.b[w.start:], uint32(len(w.b)-w.start))
}

func (w *writer) pad() {
	for len(w.b)%4 != 0 {
		w.b = append(w.b, 0)
	}
}

func (w *writer) attr(typ uint16, v ...byte) {
	w.b = binary.NativeEndian.AppendUint16(w.b, uint16(4+len(v)))
	w.b = binary.NativeEndian.AppendUint16(w.b, typ)
	w.b = append(w.b, v...)
	w.pad()
}

func (w *writer) u8(typ uint16, v uint8) { w.attr(typ, v) }

func (w *writer) u16(typ uint16, v uint16) {
	w.attr(typ, binary.BigEndian.AppendUint16(nil, v)...)
}

func (w *writer) u32(typ uint16, v uint32) {
	w.attr(typ, binary.BigEndian.AppendUint32(nil, v)...)
}

func (w *writer) u64(typ uint16, v uint64) {
	w.attr(typ, binary.BigEndian.AppendUint64(nil, v)...)
}

func (w *writer) text(typ uint16, s string) { w.attr(typ, append([]byte(s), 0)...) }

// nest writes an attribute that holds what f writes.
func (w *writer) nest(typ uint16, f func()) {
	start := len(w.b)
	w.attr(typ | attrNested)
	f()
	binary.NativeEndian.PutUint16(w.b[start:], uint16(len(w.b)-start))
}
