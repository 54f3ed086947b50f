package nfnl

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
)

// The upper bits of an attribute type are flags (linux/netlink.h).
const (
	attrNested   = 0x8000 // NLA_F_NESTED
	attrTypeMask = 0x3fff // NLA_TYPE_MASK
)

const attrHeaderLen = 4 // NLA_HDRLEN

// align rounds n up to the alignment of messages and attributes (NLMSG_ALIGN,
// NLA_ALIGN).
func align(n int) int { return (n + 3) &^ 3 }

// An Encoder builds the messages of a request. [Encoder.Message] starts a
// message; the other methods append attributes to it. The zero value is ready
// to use. After [Encoder.Reset] it reuses its buffer, so it stops allocating
// once the buffer has grown.
//
// Integers are written in network byte order, except by [Encoder.NativeUint32].
type Encoder struct {
	buf    []byte
	start  int // of the current message
	before int // start of the previous message
	count  int // of messages
	err    error
}

// Reset empties e but keeps its buffer.
func (e *Encoder) Reset() { *e = Encoder{buf: e.buf[:0]} }

// Count returns the number of messages in e.
func (e *Encoder) Count() int { return e.count }

// Len returns the number of bytes in e.
func (e *Encoder) Len() int { return len(e.buf) }

// Message starts a message. Its sequence number is set when it is sent.
func (e *Encoder) Message(h Header) {
	e.finish()
	e.before, e.start = e.start, len(e.buf)
	e.count++

	b := e.extend(nlmsgHeaderLen + nfgenmsgLen)
	clear(b) // nlmsg_len is set in finish, nlmsg_seq in seal; nlmsg_pid is 0
	binary.NativeEndian.PutUint16(b[4:], uint16(h.SubsystemID)<<8|uint16(h.MessageType))
	binary.NativeEndian.PutUint16(b[6:], uint16(h.Flags|netlink.Request))
	b[16], b[17] = byte(h.Family), h.Version
	binary.BigEndian.PutUint16(b[18:], h.ResourceID)
}

// Cancel removes the current message and its error. It must not be called again
// before the next Message.
func (e *Encoder) Cancel() {
	e.buf = e.buf[:e.start]
	e.start = e.before
	e.count--
	e.err = nil
}

// finish writes the length of the current message into its header.
func (e *Encoder) finish() {
	if e.count > 0 {
		binary.NativeEndian.PutUint32(e.buf[e.start:], uint32(len(e.buf)-e.start))
	}
}

// Err returns the first error of what was appended since the last Reset.
func (e *Encoder) Err() error { return e.err }

// extend appends n bytes and returns them. They hold anything.
func (e *Encoder) extend(n int) []byte {
	start := len(e.buf)
	if cap(e.buf)-start < n {
		e.buf = slices.Grow(e.buf, n)
	}
	e.buf = e.buf[:start+n]
	return e.buf[start:]
}

// attrHeader writes the header of an attribute with a value of n bytes.
func attrHeader(b []byte, typ uint16, n int) {
	binary.NativeEndian.PutUint16(b, uint16(n+attrHeaderLen))
	binary.NativeEndian.PutUint16(b[2:], typ)
}

// variable appends an attribute with a value of n bytes, its padding zeroed, and
// returns the place for the value.
func (e *Encoder) variable(typ uint16, n int) []byte {
	if n > math.MaxUint16-attrHeaderLen {
		e.fail(fmt.Errorf("attribute %d: %d bytes, it can hold %d", typ, n, math.MaxUint16-attrHeaderLen))
		n = 0
	}
	b := e.extend(attrHeaderLen + align(n))
	attrHeader(b, typ, n)
	clear(b[attrHeaderLen+n:])
	return b[attrHeaderLen : attrHeaderLen+n]
}

func (e *Encoder) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}

// Uint8 appends an attribute of one byte.
func (e *Encoder) Uint8(typ uint16, v uint8) {
	b := e.extend(8)
	attrHeader(b, typ, 1)
	binary.BigEndian.PutUint32(b[4:], uint32(v)<<24)
}

// Uint16 appends a two-byte attribute in network byte order.
func (e *Encoder) Uint16(typ uint16, v uint16) {
	b := e.extend(8)
	attrHeader(b, typ, 2)
	binary.BigEndian.PutUint32(b[4:], uint32(v)<<16)
}

// Uint32 appends a four-byte attribute in network byte order.
func (e *Encoder) Uint32(typ uint16, v uint32) {
	b := e.extend(8)
	attrHeader(b, typ, 4)
	binary.BigEndian.PutUint32(b[4:], v)
}

// NativeUint32 appends a four-byte attribute in native byte order.
func (e *Encoder) NativeUint32(typ uint16, v uint32) {
	b := e.extend(8)
	attrHeader(b, typ, 4)
	binary.NativeEndian.PutUint32(b[4:], v)
}

// Uint64 appends an eight-byte attribute in network byte order.
func (e *Encoder) Uint64(typ uint16, v uint64) {
	b := e.extend(12)
	attrHeader(b, typ, 8)
	binary.BigEndian.PutUint64(b[4:], v)
}

// Addr appends an address attribute, of type v4 or v6 depending on the family
// of addr.
func (e *Encoder) Addr(v4, v6 uint16, addr netip.Addr) {
	if addr.Is4() {
		b := e.extend(8)
		attrHeader(b, v4, 4)
		*(*[4]byte)(b[4:]) = addr.As4()
		return
	}
	b := e.extend(20)
	attrHeader(b, v6, 16)
	*(*[16]byte)(b[4:]) = addr.As16()
}

// Bytes appends an attribute with a copy of v.
func (e *Encoder) Bytes(typ uint16, v []byte) {
	copy(e.variable(typ, len(v)), v)
}

// String appends an attribute with s and a final NUL byte, which the kernel
// requires (NLA_NUL_STRING). The kernel would end the string at a NUL byte
// within s.
func (e *Encoder) String(typ uint16, s string) {
	if strings.IndexByte(s, 0) >= 0 {
		e.fail(fmt.Errorf("attribute %d: there is a NUL byte in %q", typ, s))
	}
	v := e.variable(typ, len(s)+1)
	clear(v[copy(v, s):])
}

// Nest starts an attribute that contains attributes: those appended before
// [Encoder.End] is called with the returned mark.
func (e *Encoder) Nest(typ uint16) (mark int) {
	mark = len(e.buf)
	attrHeader(e.extend(attrHeaderLen), typ|attrNested, 0)
	return mark
}

// End ends the attribute that [Encoder.Nest] started.
func (e *Encoder) End(mark int) {
	n := len(e.buf) - mark
	if n > math.MaxUint16 {
		e.fail(fmt.Errorf("nested attribute: %d bytes, it can hold %d", n-attrHeaderLen, math.MaxUint16-attrHeaderLen))
	}
	binary.NativeEndian.PutUint16(e.buf[mark:], uint16(n))
}

// seal prepares the messages for sending and numbers them from seq on. If
// ackLast is set, it asks the kernel to acknowledge the last one.
func (e *Encoder) seal(seq uint32, ackLast bool) error {
	if e.err != nil {
		return e.err
	}
	if e.count == 0 {
		return errEmptyRequest
	}
	e.finish()
	if ackLast {
		flags := e.buf[e.start+6:]
		binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|uint16(netlink.Acknowledge))
	}
	for b := e.buf; len(b) > 0; b = b[binary.NativeEndian.Uint32(b):] {
		binary.NativeEndian.PutUint32(b[8:], seq)
		seq++
	}
	return nil
}

// flags returns the flags of the current message.
func (e *Encoder) flags() netlink.HeaderFlags {
	return netlink.HeaderFlags(binary.NativeEndian.Uint16(e.buf[e.start+6:]))
}
