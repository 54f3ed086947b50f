package netfilter

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/mdlayher/netlink"
)

// Attribute types carry two flags in their upper bits (linux/netlink.h).
const (
	attrNested   = 0x8000 // NLA_F_NESTED
	attrTypeMask = 0x3fff // NLA_TYPE_MASK
)

const attrHeaderLen = 4 // NLA_HDRLEN

// align rounds n up to the boundary of messages and attributes (NLMSG_ALIGN,
// NLA_ALIGN).
func align(n int) int { return (n + 3) &^ 3 }

// An Encoder holds the messages of a request as they go over the wire. Message
// begins a message, the other methods append an attribute to it. It may be
// used again after Reset, and then does not allocate once its buffer has
// grown. Its zero value is empty and ready.
//
// Integers are written in network byte order, as all of nfnetlink's attributes
// want them but those that NativeUint32 is for.
type Encoder struct {
	buf    []byte
	start  int // of the current message
	before int // start of the message before it
	count  int // of messages
	err    error
}

// Reset empties e and keeps its buffer.
func (e *Encoder) Reset() { *e = Encoder{buf: e.buf[:0]} }

// Count returns the number of messages in e.
func (e *Encoder) Count() int { return e.count }

// Len returns the number of bytes in e.
func (e *Encoder) Len() int { return len(e.buf) }

// Message begins a message. Its sequence number is given to it when it is sent.
func (e *Encoder) Message(h Header) {
	e.finish()
	e.before, e.start = e.start, len(e.buf)
	e.count++

	b := append(e.buf, 0, 0, 0, 0) // nlmsg_len, known in finish
	b = binary.NativeEndian.AppendUint16(b, uint16(h.SubsystemID)<<8|uint16(h.MessageType))
	b = binary.NativeEndian.AppendUint16(b, uint16(h.Flags|netlink.Request))
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // nlmsg_seq; nlmsg_pid, 0 to the kernel
	b = append(b, byte(h.Family), h.Version)
	e.buf = binary.BigEndian.AppendUint16(b, h.ResourceID)
}

// Cancel takes the current message back, with its error. It may not be called
// again before the next Message.
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

func (e *Encoder) header(typ uint16, n int) {
	if n > math.MaxUint16-attrHeaderLen && e.err == nil {
		e.err = fmt.Errorf("attribute %d: %d bytes, it can hold %d", typ, n, math.MaxUint16-attrHeaderLen)
	}
	b := binary.NativeEndian.AppendUint16(e.buf, uint16(n+attrHeaderLen))
	e.buf = binary.NativeEndian.AppendUint16(b, typ)
}

// pad fills up the last n-byte value to the boundary of attributes.
func (e *Encoder) pad(n int) {
	var zero [3]byte
	e.buf = append(e.buf, zero[:align(n)-n]...)
}

// Uint8 appends an attribute of one byte.
func (e *Encoder) Uint8(typ uint16, v uint8) {
	e.header(typ, 1)
	e.buf = append(e.buf, v, 0, 0, 0)
}

// Uint16 appends an attribute of two bytes, in network byte order.
func (e *Encoder) Uint16(typ uint16, v uint16) {
	e.header(typ, 2)
	e.buf = append(e.buf, byte(v>>8), byte(v), 0, 0)
}

// Uint32 appends an attribute of four bytes, in network byte order.
func (e *Encoder) Uint32(typ uint16, v uint32) {
	e.header(typ, 4)
	e.buf = binary.BigEndian.AppendUint32(e.buf, v)
}

// NativeUint32 appends an attribute of four bytes, in the machine's byte order.
func (e *Encoder) NativeUint32(typ uint16, v uint32) {
	e.header(typ, 4)
	e.buf = binary.NativeEndian.AppendUint32(e.buf, v)
}

// Uint64 appends an attribute of eight bytes, in network byte order.
func (e *Encoder) Uint64(typ uint16, v uint64) {
	e.header(typ, 8)
	e.buf = binary.BigEndian.AppendUint64(e.buf, v)
}

// Bytes appends an attribute that holds a copy of b.
func (e *Encoder) Bytes(typ uint16, b []byte) {
	e.header(typ, len(b))
	e.buf = append(e.buf, b...)
	e.pad(len(b))
}

// String appends an attribute that holds s and the NUL byte without which the
// kernel refuses strings (NLA_NUL_STRING).
func (e *Encoder) String(typ uint16, s string) {
	e.header(typ, len(s)+1)
	e.buf = append(e.buf, s...)
	e.buf = append(e.buf, 0)
	e.pad(len(s) + 1)
}

// Nest begins an attribute that holds attributes: those appended until End is
// called with the value returned here.
func (e *Encoder) Nest(typ uint16) (mark int) {
	mark = len(e.buf)
	e.header(typ|attrNested, 0)
	return mark
}

// End ends the attribute that Nest began.
func (e *Encoder) End(mark int) {
	n := len(e.buf) - mark
	if n > math.MaxUint16 && e.err == nil {
		e.err = fmt.Errorf("nested attribute: %d bytes, it can hold %d", n, math.MaxUint16)
	}
	binary.NativeEndian.PutUint16(e.buf[mark:], uint16(n))
}

// seal makes the messages ready to be sent, numbered from seq on. If ackLast is
// set, the kernel is asked to acknowledge the last one.
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
