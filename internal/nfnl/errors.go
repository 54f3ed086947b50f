package nfnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"github.com/mdlayher/netlink"
)

var (
	// ErrDumpInterrupted says that the kernel marked a dump as inconsistent
	// (NLM_F_DUMP_INTR): the table changed underneath it in a way that may have
	// left entries out, or shown them twice.
	ErrDumpInterrupted = errors.New("the kernel marked the dump as inconsistent, entries may be missing or doubled")

	// ErrTruncated says that a message was longer than the buffer for it and is
	// lost. The buffer has been enlarged for the next.
	ErrTruncated = errors.New("message longer than the receive buffer, the rest of it is lost")

	// ErrOverrun says that the kernel dropped events, since the socket's receive
	// buffer was full. On Linux it wraps unix.ENOBUFS.
	ErrOverrun = fmt.Errorf("the kernel dropped events, the receive buffer was full: %w", errNoBufferSpace)

	// ErrNoReply says that the kernel's answer to a request is lost, mostly since
	// the socket's receive buffer was full. What was asked for may have happened.
	// On Linux it wraps unix.ENOBUFS.
	ErrNoReply = fmt.Errorf("the kernel's answer is lost: %w", errNoBufferSpace)

	// ErrNoSpace is what the kernel answers where an entry has no room for what is
	// to be put into it: unix.ENOSPC on Linux.
	ErrNoSpace error = errNoSpace

	// ErrClosed says that the Conn was closed. It satisfies errors.Is(err,
	// fs.ErrClosed) and, on Linux, errors.Is(err, unix.EBADF).
	ErrClosed = fmt.Errorf("%w: %w", fs.ErrClosed, errBadFile)

	// ErrNotFound, ErrBusy and ErrNoMemory are unix.ENOENT, EBUSY and ENOMEM.
	ErrNotFound error = errNotFound
	ErrBusy     error = errBusy
	ErrNoMemory error = errNoMemory

	errForeignSender = errors.New("message from another sender than the kernel")
	errEmptyRequest  = errors.New("a request without a message")
)

// Attributes of an extended acknowledgement (enum nlmsgerr_attrs).
const (
	extAckMessage = 1 // NLMSGERR_ATTR_MSG
	extAckOffset  = 2 // NLMSGERR_ATTR_OFFS
)

// errorResult returns what an NLMSG_ERROR message (struct nlmsgerr) says: nil if
// it is an acknowledgement, else a *netlink.OpError.
func errorResult(m rawMessage) error {
	body := m.body()
	if len(body) < 4 {
		return fmt.Errorf("%w: an error message of %d bytes, the error number has 4", ErrMalformed, len(body))
	}
	return kernelError(m, refusedMessageLen(m.flags(), body[4:]))
}

// doneResult returns what an NLMSG_DONE message says: nil or the error that ended
// the dump.
func doneResult(m rawMessage) error {
	if len(m.body()) < 4 {
		return nil
	}
	return kernelError(m, 0)
}

// refusedMessageLen returns how much of the refused message stands at the
// beginning of b.
func refusedMessageLen(flags netlink.HeaderFlags, b []byte) int {
	if flags&netlink.Capped != 0 || len(b) < 4 {
		return nlmsgHeaderLen
	}
	return align(int(binary.NativeEndian.Uint32(b)))
}

// kernelError returns the error that m's body begins with. The extended
// acknowledgement stands skip bytes behind it, if there is one.
func kernelError(m rawMessage, skip int) error {
	body := m.body()
	code := int32(binary.NativeEndian.Uint32(body))
	if code == 0 {
		return nil
	}
	e := &netlink.OpError{Op: "receive", Err: errno(-code), Sequence: m.sequence()}
	rest := body[4:]
	if m.flags()&netlink.AcknowledgeTLVs != 0 && 0 <= skip && skip <= len(rest) {
		e.Message, e.Offset = extendedAck(rest[skip:])
	}
	return e
}

// extendedAck returns the text and the offset of an extended acknowledgement.
// The kernel's error stands without them too: what is wrong here is left out.
func extendedAck(b []byte) (text string, offset int) {
	var d Decoder
	for typ, v := range d.Attributes(b) {
		switch typ {
		case extAckMessage:
			text = string(TrimNUL(v))
		case extAckOffset:
			if len(v) == 4 {
				offset = int(binary.NativeEndian.Uint32(v))
			}
		}
	}
	return text, offset
}
