package nfnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// System calls go through the RawConn, so that deadlines and Close work. They
// are made directly because x/sys has no recvmmsg, and allocates the sender's
// address for each datagram.

func dialNetlink(config *netlink.Config) (*netlink.Conn, error) {
	return netlink.Dial(unix.NETLINK_NETFILTER, config)
}

func errno(code int32) error { return syscall.Errno(code) }

// ErrorNumber returns Linux's number for an error of this system.
func ErrorNumber(err error) (code int32, ok bool) {
	var number syscall.Errno
	ok = errors.As(err, &number)
	return int32(number), ok
}

const (
	// errNoBufferSpace is how the kernel reports an overrun.
	errNoBufferSpace = unix.ENOBUFS
	errNoSpace       = unix.ENOSPC
	errBadFile       = unix.EBADF
	errNotFound      = unix.ENOENT
	errBusy          = unix.EBUSY
	errNoMemory      = unix.ENOMEM
)

// IsInvalid reports whether the kernel refused a request as malformed (EINVAL,
// or ERANGE for the length of an attribute).
func IsInvalid(err error) bool { return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ERANGE) }

// A requestIO sends a datagram and receives the answers one at a time into one
// buffer. Only one goroutine may use it at a time.
type requestIO struct {
	raw syscall.RawConn

	buffer    []byte
	sender    unix.RawSockaddrNetlink
	senderLen uint32
	n         int // length of the datagram, which may exceed that of buffer
	err       syscall.Errno
	pending   bool // n and err were set by send and not yet returned by receive

	sending []byte
	sendErr syscall.Errno

	// These are kept because creating a func value for each call would
	// allocate.
	sendFunc, receiveFunc func(fd uintptr) bool
}

func newRequestIO(raw syscall.RawConn) *requestIO {
	r := &requestIO{raw: raw, buffer: make([]byte, replyBufferSize)}
	r.sendFunc, r.receiveFunc = r.sendto, r.recvfrom
	return r
}

// send sends b to the kernel and receives the first datagram of the answer.
func (r *requestIO) send(b []byte) error {
	r.sending, r.pending = b, false
	err := r.raw.Write(r.sendFunc)
	r.sending = nil
	return ioError("send", "sendto", err, r.sendErr)
}

// receive returns the next datagram if it is complete and from the kernel. It
// does not wait: the kernel answers a request before send returns, and prepares
// the next part of a dump when the previous one is received. So if the queue is
// empty, no answer will come, and the error is ErrNoReply.
func (r *requestIO) receive() ([]byte, error) {
	var err error
	if !r.pending {
		err = r.raw.Read(r.receiveFunc)
	}
	r.pending = false
	if err == nil && r.err == unix.EAGAIN {
		return nil, ErrNoReply
	}
	if err := ioError("receive", "recvfrom", err, r.err); err != nil {
		return nil, err
	}
	if r.sender.Pid != 0 {
		return nil, errForeignSender
	}
	if size := len(r.buffer); r.n > size {
		r.buffer = make([]byte, 2*r.n)
		return nil, fmt.Errorf("%w: %d bytes of %d", ErrTruncated, size, r.n)
	}
	return r.buffer[:r.n], nil
}

// sendto is the function for RawConn.Write. It reports whether it is done.
func (r *requestIO) sendto(fd uintptr) bool {
	for {
		// Without an address, the datagram goes to the kernel.
		_, _, r.sendErr = unix.Syscall6(unix.SYS_SENDTO, fd,
			uintptr(unsafe.Pointer(&r.sending[0])), uintptr(len(r.sending)), 0, 0, 0)
		switch r.sendErr {
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		case 0:
			r.recvfrom(fd)
			r.pending = true
			return true
		default:
			return true
		}
	}
}

// recvfrom is the function for RawConn.Read. It is always done.
func (r *requestIO) recvfrom(fd uintptr) bool {
	for {
		r.senderLen = unix.SizeofSockaddrNetlink
		n, _, err := unix.Syscall6(unix.SYS_RECVFROM, fd,
			uintptr(unsafe.Pointer(&r.buffer[0])), uintptr(len(r.buffer)), unix.MSG_DONTWAIT|unix.MSG_TRUNC,
			uintptr(unsafe.Pointer(&r.sender)), uintptr(unsafe.Pointer(&r.senderLen)))
		if err == unix.EINTR {
			continue
		}
		r.n, r.err = int(n), err
		return true
	}
}

// ioError returns the error of a RawConn method, or that of the system call
// made within it.
func ioError(op, call string, err error, errno syscall.Errno) error {
	switch {
	case err != nil:
		return &netlink.OpError{Op: op, Err: err}
	case errno != 0:
		return &netlink.OpError{Op: op, Err: os.NewSyscallError(call, errno)}
	}
	return nil
}

// An eventIO receives many datagrams with one system call into buffers that it
// keeps. Only one goroutine may use it at a time.
type eventIO struct {
	raw syscall.RawConn

	headers  []mmsghdr
	iovs     []unix.Iovec
	senders  []unix.RawSockaddrNetlink
	controls [][controlLen]byte
	buffers  [][]byte

	n    int // datagrams received
	wait bool
	err  syscall.Errno

	receiveFunc func(fd uintptr) bool
}

// sleep sleeps for d, which may be shorter than the runtime's timers can
// measure: they wait in epoll, with a resolution of milliseconds.
func sleep(d time.Duration) {
	t := unix.NsecToTimespec(d.Nanoseconds())
	_ = unix.Nanosleep(&t, nil)
}

// mmsghdr is struct mmsghdr.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// controlLen has room for the control messages that netlink sends: the
// namespace id and the packet info.
const controlLen = 64

func newEventIO(raw syscall.RawConn) *eventIO {
	const n, size = eventBatch, eventBufferSize
	e := &eventIO{
		raw:      raw,
		headers:  make([]mmsghdr, n),
		iovs:     make([]unix.Iovec, n),
		senders:  make([]unix.RawSockaddrNetlink, n),
		controls: make([][controlLen]byte, n),
		buffers:  make([][]byte, n),
	}
	e.receiveFunc = e.recvmmsg
	memory := make([]byte, n*size)
	for i := range n {
		e.setBuffer(i, memory[i*size:(i+1)*size:(i+1)*size])
		h := &e.headers[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&e.senders[i]))
		h.Iov = &e.iovs[i]
		h.SetIovlen(1)
		h.Control = &e.controls[i][0]
	}
	return e
}

func (e *eventIO) setBuffer(i int, b []byte) {
	e.buffers[i] = b
	e.iovs[i].Base = &b[0]
	e.iovs[i].SetLen(len(b))
}

// receive returns how many datagrams it received. If wait is set, it waits for
// the first one.
func (e *eventIO) receive(wait bool) (int, error) {
	e.wait = wait
	err := e.raw.Read(e.receiveFunc)
	if err == nil && e.err == unix.EAGAIN {
		return 0, nil
	}
	return e.n, ioError("receive", "recvmmsg", err, e.err)
}

// recvmmsg is the function for RawConn.Read. It reports whether it is done.
func (e *eventIO) recvmmsg(fd uintptr) bool {
	for i := range e.headers {
		h := &e.headers[i].hdr
		h.Namelen = unix.SizeofSockaddrNetlink
		h.SetControllen(controlLen)
	}
	for {
		n, _, err := unix.Syscall6(unix.SYS_RECVMMSG, fd,
			uintptr(unsafe.Pointer(&e.headers[0])), uintptr(len(e.headers)), unix.MSG_DONTWAIT, 0, 0)
		if err == unix.EINTR {
			continue
		}
		e.n, e.err = int(n), err
		return err != unix.EAGAIN || !e.wait
	}
}

// foreign reports whether the i'th received datagram is not from the kernel.
func (e *eventIO) foreign(i int) bool { return e.senders[i].Pid != 0 }

// datagram returns the i'th received datagram if it is complete.
func (e *eventIO) datagram(i int) ([]byte, error) {
	h := &e.headers[i]
	if h.hdr.Flags&unix.MSG_TRUNC != 0 {
		size := len(e.buffers[i])
		e.setBuffer(i, make([]byte, 2*size))
		return nil, fmt.Errorf("%w: %d bytes", ErrTruncated, size)
	}
	return e.buffers[i][:h.len], nil
}

// nsid returns the id of the network namespace that the i'th datagram came
// from, or -1 if the kernel did not send one.
func (e *eventIO) nsid(i int) int {
	h := &e.headers[i].hdr
	control := e.controls[i][:h.Controllen]
	for len(control) >= unix.SizeofCmsghdr {
		c := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		n := uint64(c.Len)
		if n < unix.SizeofCmsghdr || n > uint64(len(control)) {
			break
		}
		value := control[unix.CmsgLen(0):n]
		if c.Level == unix.SOL_NETLINK && c.Type == unix.NETLINK_LISTEN_ALL_NSID && len(value) >= 4 {
			return int(int32(binary.NativeEndian.Uint32(value)))
		}
		control = control[min(unix.CmsgSpace(len(value)), len(control)):]
	}
	return -1
}
