package netfilter

import (
	"encoding/binary"
	"errors"
	"fmt"
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
//	d := netfilter.NewDecoder(b)
//	for d.Next() {
//		switch d.Type() {
//		case 1:
//			port = d.Uint16()
//		}
//	}
//	return d.Err(names)
//
// The methods that return the current attribute's value check its length. After
// the first fault Next returns false and Err the error, so that there is one
// place to look.
type Decoder struct {
	rest []byte
	val  []byte
	typ  uint16
	err  error
}

// NewDecoder returns a Decoder of the attributes in b. It keeps b and hands out
// parts of it.
func NewDecoder(b []byte) Decoder { return Decoder{rest: b} }

// Next goes to the next attribute and reports whether there is one.
func (d *Decoder) Next() bool {
	b := d.rest
	if len(b) < attrHeaderLen || d.err != nil {
		return d.end()
	}
	n := int(binary.NativeEndian.Uint16(b))
	d.typ = binary.NativeEndian.Uint16(b[2:]) & attrTypeMask
	if n < attrHeaderLen || n > len(b) {
		return d.badLength(n)
	}
	d.val = b[attrHeaderLen:n:n]
	// The padding of the last attribute may be missing.
	d.rest = b[min(align(n), len(b)):]
	return true
}

func (d *Decoder) end() bool {
	if d.err == nil && len(d.rest) > 0 {
		d.typ = 0
		d.err = fmt.Errorf("%w: %d bytes after the last attribute", ErrMalformed, len(d.rest))
	}
	return false
}

func (d *Decoder) badLength(n int) bool {
	d.err = fmt.Errorf("%w: attribute of %d bytes where its header has %d and there are %d",
		ErrMalformed, n, attrHeaderLen, len(d.rest))
	return false
}

// Type returns the current attribute's type, without its flags.
func (d *Decoder) Type() uint16 { return d.typ }

// Bytes returns the current attribute's value. It is valid as long as the bytes
// that the Decoder was made from.
func (d *Decoder) Bytes() []byte { return d.val }

// Uint8 returns the value of an attribute of one byte.
func (d *Decoder) Uint8() uint8 {
	if len(d.val) != 1 {
		d.wrongLength(1)
		return 0
	}
	return d.val[0]
}

// Uint16 returns the value of an attribute of two bytes, in network byte order.
func (d *Decoder) Uint16() uint16 {
	if len(d.val) != 2 {
		d.wrongLength(2)
		return 0
	}
	return binary.BigEndian.Uint16(d.val)
}

// Uint32 returns the value of an attribute of four bytes, in network byte order.
func (d *Decoder) Uint32() uint32 {
	if len(d.val) != 4 {
		d.wrongLength(4)
		return 0
	}
	return binary.BigEndian.Uint32(d.val)
}

// Uint64 returns the value of an attribute of eight bytes, in network byte
// order.
func (d *Decoder) Uint64() uint64 {
	if len(d.val) != 8 {
		d.wrongLength(8)
		return 0
	}
	return binary.BigEndian.Uint64(d.val)
}

// Addr4 returns the value of an attribute that holds an IPv4 address.
func (d *Decoder) Addr4() netip.Addr {
	if len(d.val) != 4 {
		d.wrongLength(4)
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(d.val))
}

// Addr6 returns the value of an attribute that holds an IPv6 address.
func (d *Decoder) Addr6() netip.Addr {
	if len(d.val) != 16 {
		d.wrongLength(16)
		return netip.Addr{}
	}
	return netip.AddrFrom16([16]byte(d.val))
}

// StringBytes returns the value of an attribute that holds a string, without
// the NUL byte at its end if there is one. It is valid as long as the bytes that
// the Decoder was made from.
func (d *Decoder) StringBytes() []byte {
	if n := len(d.val); n > 0 && d.val[n-1] == 0 {
		return d.val[:n-1]
	}
	return d.val
}

func (d *Decoder) wrongLength(want int) {
	d.Fail(fmt.Errorf("%w: %d bytes, want %d", ErrMalformed, len(d.val), want))
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
