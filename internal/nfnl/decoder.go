package nfnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
)

// ErrMalformed is wrapped by the errors about bytes that are not what
// nfnetlink's rules or the attribute's type allow.
var ErrMalformed = errors.New("malformed message")

// An AttributeError says in which attribute a message is malformed.
type AttributeError struct {
	// Name is the kernel's name of the attribute, or its number where the
	// kernel's name is not known.
	Name string
	// Err says what is wrong with it. It is an *AttributeError itself if the
	// fault is in an attribute that is nested in this one.
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
// The methods that take a value check its length. After the first fault the loop
// ends and Err returns the error, so that there is one place to look.
type Decoder struct {
	typ uint16 // of the current attribute
	err error
}

// Attributes returns an iterator over the attributes in b: their types, without
// the flags, and their values, which are parts of b.
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
			// The padding of the last attribute may be missing.
			b = b[min(align(n), len(b)):]
		}
		if len(b) > 0 {
			d.badRest(len(b))
		}
	}
}

// Holds reports whether there is an attribute of the given type with a value of
// n bytes at the given place in b, and no flags. It is for a quick way through
// attributes that the kernel always lays out alike; b must be long enough.
func Holds(b []byte, at int, typ, n uint16) bool {
	return binary.NativeEndian.Uint16(b[at:]) == attrHeaderLen+n && binary.NativeEndian.Uint16(b[at+2:]) == typ
}

// Uint16 returns the first two bytes of v, which are in network byte order.
func Uint16(v []byte) uint16 { return binary.BigEndian.Uint16(v) }

// Uint32 returns the first four bytes of v, which are in network byte order.
func Uint32(v []byte) uint32 { return binary.BigEndian.Uint32(v) }

// Uint64 returns the first eight bytes of v, which are in network byte order.
func Uint64(v []byte) uint64 { return binary.BigEndian.Uint64(v) }

func (d *Decoder) badLength(n, left int) {
	d.Fail(fmt.Errorf("%w: attribute of %d bytes where its header has %d and there are %d",
		ErrMalformed, n, attrHeaderLen, left))
}

func (d *Decoder) badRest(n int) {
	d.typ = 0
	d.Fail(fmt.Errorf("%w: %d bytes after the last attribute", ErrMalformed, n))
}

// Uint8 returns the value of an attribute of one byte.
func (d *Decoder) Uint8(v []byte) uint8 {
	if len(v) != 1 {
		d.wrongLength(v, 1)
		return 0
	}
	return v[0]
}

// Uint16 returns the value of an attribute of two bytes, in network byte order.
func (d *Decoder) Uint16(v []byte) uint16 {
	if len(v) != 2 {
		d.wrongLength(v, 2)
		return 0
	}
	return Uint16(v)
}

// Uint32 returns the value of an attribute of four bytes, in network byte order.
func (d *Decoder) Uint32(v []byte) uint32 {
	if len(v) != 4 {
		d.wrongLength(v, 4)
		return 0
	}
	return Uint32(v)
}

// Uint64 returns the value of an attribute of eight bytes, in network byte
// order.
func (d *Decoder) Uint64(v []byte) uint64 {
	if len(v) != 8 {
		d.wrongLength(v, 8)
		return 0
	}
	return Uint64(v)
}

// Addr4 returns the value of an attribute that holds an IPv4 address.
func (d *Decoder) Addr4(v []byte) netip.Addr {
	if len(v) != 4 {
		d.wrongLength(v, 4)
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(v))
}

// Addr6 returns the value of an attribute that holds an IPv6 address.
func (d *Decoder) Addr6(v []byte) netip.Addr {
	if len(v) != 16 {
		d.wrongLength(v, 16)
		return netip.Addr{}
	}
	return netip.AddrFrom16([16]byte(v))
}

// TrimNUL returns the value of an attribute that holds a string, without the NUL
// byte at its end if there is one.
func TrimNUL(v []byte) []byte {
	if n := len(v); n > 0 && v[n-1] == 0 {
		return v[:n-1]
	}
	return v
}

func (d *Decoder) wrongLength(v []byte, want int) {
	d.Fail(fmt.Errorf("%w: %d bytes, want %d", ErrMalformed, len(v), want))
}

// Fail makes err the error of the current attribute, if it is not nil and the
// first. It is for attributes that hold attributes.
func (d *Decoder) Fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

// Err returns the first error, as an [*AttributeError], or nil. The names are
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
