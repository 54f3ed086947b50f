package nfnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"github.com/mdlayher/netlink"
)

var (
	// ErrDumpInterrupted means that the kernel marked a dump as inconsistent
	// (NLM_F_DUMP_INTR). The table changed during the dump, so entries may be
	// missing or appear twice.
	ErrDumpInterrupted = errors.New("the kernel marked the dump as inconsistent, entries may be missing or doubled")

	// ErrTruncated means that a message was longer than the receive buffer and
	// is lost. The buffer has been enlarged for the next one.
	ErrTruncated = errors.New("message longer than the receive buffer, the rest of it is lost")

	// ErrOverrun means that the kernel dropped events because the socket's
	// receive buffer was full. On Linux it wraps unix.ENOBUFS.
	ErrOverrun = fmt.Errorf("the kernel dropped events, the receive buffer was full: %w", errNoBufferSpace)

	// ErrNoReply means that the kernel's answer to a request is lost, usually
	// because the socket's receive buffer was full. The request may have
	// succeeded. On Linux it wraps unix.ENOBUFS.
	ErrNoReply = fmt.Errorf("the kernel's answer is lost: %w", errNoBufferSpace)

	// ErrNoSpace means that an entry has no room for what the request adds to
	// it. It is unix.ENOSPC on Linux.
	ErrNoSpace error = errNoSpace

	// ErrClosed means that the Conn was closed. It satisfies errors.Is(err,
	// fs.ErrClosed) and, on Linux, errors.Is(err, unix.EBADF).
	ErrClosed error = closedError{}

	// ErrNotFound, ErrBusy and ErrNoMemory are unix.ENOENT, EBUSY and ENOMEM on
	// Linux.
	ErrNotFound error = errNotFound
	ErrBusy     error = errBusy
	ErrNoMemory error = errNoMemory

	errForeignSender = errors.New("message from another sender than the kernel")
	errEmptyRequest  = errors.New("a request without a message")
)

type closedError struct{}

func (closedError) Error() string { return "the Conn is closed" }

func (closedError) Unwrap() []error { return []error{fs.ErrClosed, errBadFile} }

// Attributes of an extended acknowledgement (enum nlmsgerr_attrs).
const (
	extAckMessage = 1 // NLMSGERR_ATTR_MSG
	extAckOffset  = 2 // NLMSGERR_ATTR_OFFS
)

// errorResult returns the error in an NLMSG_ERROR message (struct nlmsgerr):
// nil for an acknowledgement, otherwise a *netlink.OpError.
func errorResult(m rawMessage) error {
	body := m.body()
	if len(body) < 4 {
		return fmt.Errorf("%w: an error message of %d bytes, the error number has 4", ErrMalformed, len(body))
	}
	return kernelError(m, refusedMessageLen(m.flags(), body[4:]))
}

// doneResult returns the result in an NLMSG_DONE message: nil, or the error
// that ended the dump.
func doneResult(m rawMessage) error {
	if len(m.body()) < 4 {
		return nil
	}
	return kernelError(m, 0)
}

// refusedMessageLen returns how many bytes of b are a copy of the refused
// message.
func refusedMessageLen(flags netlink.HeaderFlags, b []byte) int {
	if flags&netlink.Capped != 0 || len(b) < 4 {
		return nlmsgHeaderLen
	}
	return align(int(binary.NativeEndian.Uint32(b)))
}

// kernelError returns the error at the start of m's body. The extended
// acknowledgement, if there is one, follows skip bytes after it.
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
// It ignores faults in b: the kernel's error is valid without it.
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
