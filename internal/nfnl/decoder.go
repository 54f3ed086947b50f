package nfnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
)

// ErrMalformed is wrapped by errors about bytes that break the rules of
// nfnetlink or of the attribute's type.
var ErrMalformed = errors.New("malformed message")

// An AttributeError says which attribute of a message is malformed.
type AttributeError struct {
	// Name is the kernel's name of the attribute, or its number if the name is
	// not known.
	Name string
	// Err says what is wrong with it. It is an *AttributeError if the fault is
	// in a nested attribute.
	Err error
}

func (e *AttributeError) Error() string { return e.Name + ": " + e.Err.Error() }

// Unwrap returns e.Err.
func (e *AttributeError) Unwrap() error { return e.Err }

// A Decoder walks over a sequence of attributes in place:
//
//	var d nfnl.Decoder
//	for typ, v := range d.Attributes(b) {
//		switch typ {
//		case 1:
//			port = d.Uint16(v)
//		}
//	}
//	return d.Err(names)
//
// The methods that take a value check its length. The first fault ends the
// loop, and [Decoder.Err] returns it. Callers check for errors only there.
type Decoder struct {
	typ uint16 // of the current attribute
	err error
}

// Attributes returns an iterator over the types and values of the attributes in
// b. The types are without flags. The values are slices of b.
func (d *Decoder) Attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= attrHeaderLen {
			n := int(binary.NativeEndian.Uint16(b))
			d.typ = binary.NativeEndian.Uint16(b[2:]) & attrTypeMask
			if n < attrHeaderLen || n > len(b) {
				d.badLength(n, len(b))
				return
			}
			if !yield(d.typ, b[attrHeaderLen:n:n]) || d.err != nil {
				return
			}
			// The last attribute may come without padding.
			b = b[min(align(n), len(b)):]
		}
		if len(b) > 0 {
			d.badRest(len(b))
		}
	}
}

// Holds reports whether an attribute with the given type, no flags and a value
// of n bytes starts at offset at of b. It is a fast path for attributes that
// the kernel always lays out the same way. It panics if b is too short.
func Holds(b []byte, at int, typ, n uint16) bool {
	return binary.NativeEndian.Uint16(b[at:]) == attrHeaderLen+n && binary.NativeEndian.Uint16(b[at+2:]) == typ
}

// Uint16 returns the big-endian value of the first two bytes of v.
func Uint16(v []byte) uint16 { return binary.BigEndian.Uint16(v) }

// Uint32 returns the big-endian value of the first four bytes of v.
func Uint32(v []byte) uint32 { return binary.BigEndian.Uint32(v) }

// Uint64 returns the big-endian value of the first eight bytes of v.
func Uint64(v []byte) uint64 { return binary.BigEndian.Uint64(v) }

func (d *Decoder) badLength(n, left int) {
	d.Fail(fmt.Errorf("%w: attribute of %d bytes where its header has %d and there are %d",
		ErrMalformed, n, attrHeaderLen, left))
}

func (d *Decoder) badRest(n int) {
	d.typ = 0
	d.Fail(fmt.Errorf("%w: %d bytes after the last attribute", ErrMalformed, n))
}

// Uint8 returns the value of a one-byte attribute.
func (d *Decoder) Uint8(v []byte) uint8 {
	if len(v) != 1 {
		d.wrongLength(v, 1)
		return 0
	}
	return v[0]
}

// Uint16 returns the value of a two-byte attribute in network byte order.
func (d *Decoder) Uint16(v []byte) uint16 {
	if len(v) != 2 {
		d.wrongLength(v, 2)
		return 0
	}
	return Uint16(v)
}

// Uint32 returns the value of a four-byte attribute in network byte order.
func (d *Decoder) Uint32(v []byte) uint32 {
	if len(v) != 4 {
		d.wrongLength(v, 4)
		return 0
	}
	return Uint32(v)
}

// Uint64 returns the value of an eight-byte attribute in network byte order.
func (d *Decoder) Uint64(v []byte) uint64 {
	if len(v) != 8 {
		d.wrongLength(v, 8)
		return 0
	}
	return Uint64(v)
}

// Addr4 returns the value of an IPv4 address attribute.
func (d *Decoder) Addr4(v []byte) netip.Addr {
	if len(v) != 4 {
		d.wrongLength(v, 4)
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(v))
}

// Addr6 returns the value of an IPv6 address attribute.
func (d *Decoder) Addr6(v []byte) netip.Addr {
	if len(v) != 16 {
		d.wrongLength(v, 16)
		return netip.Addr{}
	}
	return netip.AddrFrom16([16]byte(v))
}

// TrimNUL returns the value of a string attribute without its final NUL byte,
// if it has one.
func TrimNUL(v []byte) []byte {
	if n := len(v); n > 0 && v[n-1] == 0 {
		return v[:n-1]
	}
	return v
}

func (d *Decoder) wrongLength(v []byte, want int) {
	d.Fail(fmt.Errorf("%w: %d bytes, want %d", ErrMalformed, len(v), want))
}

// Fail records err as the error of the current attribute. It does nothing if
// err is nil or an error was recorded before. It is for nested attributes.
func (d *Decoder) Fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

// Err returns the first error as an [*AttributeError], or nil. The names are
// the kernel's, indexed by attribute type.
func (d *Decoder) Err(names []string) error {
	if d.err == nil {
		return nil
	}
	name := fmt.Sprintf("attribute %d", d.typ)
	if int(d.typ) < len(names) && names[d.typ] != "" {
		name = names[d.typ]
	}
	return &AttributeError{Name: name, Err: d.err}
}
