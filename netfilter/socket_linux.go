package netfilter

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

func dialNetlink(config *netlink.Config) (*netlink.Conn, error) {
	return netlink.Dial(unix.NETLINK_NETFILTER, config)
}

func errno(code int32) error { return syscall.Errno(code) }

// errNoBufferSpace is what the kernel reports an overrun as.
const errNoBufferSpace = unix.ENOBUFS

// A socketIO sends datagrams, and receives several with one system call into
// buffers that it keeps. It is for one goroutine at a time.
//
// The system calls are made through the RawConn, so that deadlines and Close
// work, and are made bare, since x/sys has no recvmmsg and allocates the sender's
// address for each recvmsg.
type socketIO struct {
	raw syscall.RawConn

	headers  []mmsghdr
	iovs     []unix.Iovec
	senders  []unix.RawSockaddrNetlink
	controls [][controlLen]byte
	buffers  [][]byte

	received int
	wait     bool
	sending  []byte
	err      syscall.Errno

	// Made once: a func value made for each call would be allocated.
	receiveFunc, sendFunc func(fd uintptr) bool
}

// mmsghdr is struct mmsghdr.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// controlLen is room for the control messages that netlink sends: the namespace
// id, and the packet info.
const controlLen = 64

// newSocketIO returns a socketIO that receives up to n datagrams at a time, of
// up to size bytes.
func newSocketIO(raw syscall.RawConn, n, size int) *socketIO {
	s := &socketIO{
		raw:      raw,
		headers:  make([]mmsghdr, n),
		iovs:     make([]unix.Iovec, n),
		senders:  make([]unix.RawSockaddrNetlink, n),
		controls: make([][controlLen]byte, n),
		buffers:  make([][]byte, n),
	}
	s.receiveFunc, s.sendFunc = s.recvmmsg, s.write
	memory := make([]byte, n*size)
	for i := range n {
		s.setBuffer(i, memory[i*size:(i+1)*size:(i+1)*size])
		h := &s.headers[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&s.senders[i]))
		h.Iov = &s.iovs[i]
		h.SetIovlen(1)
		h.Control = &s.controls[i][0]
	}
	return s
}

func (s *socketIO) setBuffer(i int, b []byte) {
	s.buffers[i] = b
	s.iovs[i].Base = &b[0]
	s.iovs[i].SetLen(len(b))
}

// receive returns how many datagrams it received. If wait is set, it waits for
// the first.
func (s *socketIO) receive(wait bool) (int, error) {
	s.wait = wait
	if err := s.raw.Read(s.receiveFunc); err != nil {
		return 0, &netlink.OpError{Op: "receive", Err: err}
	}
	switch s.err {
	case 0:
		return s.received, nil
	case unix.EAGAIN:
		return 0, nil
	}
	return 0, &netlink.OpError{Op: "receive", Err: os.NewSyscallError("recvmmsg", s.err)}
}

// recvmmsg reports whether it is done, for syscall.RawConn.
func (s *socketIO) recvmmsg(fd uintptr) bool {
	for i := range s.headers {
		h := &s.headers[i].hdr
		h.Namelen = unix.SizeofSockaddrNetlink
		h.SetControllen(controlLen)
	}
	for {
		n, _, err := unix.Syscall6(unix.SYS_RECVMMSG, fd,
			uintptr(unsafe.Pointer(&s.headers[0])), uintptr(len(s.headers)), unix.MSG_DONTWAIT, 0, 0)
		if err == unix.EINTR {
			continue
		}
		s.received, s.err = int(n), err
		return err != unix.EAGAIN || !s.wait
	}
}

// datagram returns the i'th datagram that was received, if it is whole and the
// kernel's.
func (s *socketIO) datagram(i int) ([]byte, error) {
	h := &s.headers[i]
	if pid := s.senders[i].Pid; pid != 0 {
		return nil, fmt.Errorf("%w: port %d", ErrForeignSender, pid)
	}
	if h.hdr.Flags&unix.MSG_TRUNC != 0 {
		size := len(s.buffers[i])
		s.setBuffer(i, make([]byte, 2*size))
		return nil, fmt.Errorf("%w: %d bytes", ErrTruncated, size)
	}
	return s.buffers[i][:h.len], nil
}

// nsid returns the id of the network namespace that the i'th datagram came
// from, or -1 if the kernel did not say.
func (s *socketIO) nsid(i int) int {
	h := &s.headers[i].hdr
	control := s.controls[i][:h.Controllen]
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

func (s *socketIO) send(b []byte) error {
	s.sending = b
	err := s.raw.Write(s.sendFunc)
	s.sending = nil
	if err != nil {
		return &netlink.OpError{Op: "send", Err: err}
	}
	if s.err != 0 {
		return &netlink.OpError{Op: "send", Err: os.NewSyscallError("write", s.err)}
	}
	return nil
}

// write reports whether it is done, for syscall.RawConn. A netlink socket that
// is not connected sends to the kernel.
func (s *socketIO) write(fd uintptr) bool {
	for {
		_, _, err := unix.Syscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&s.sending[0])), uintptr(len(s.sending)))
		if err == unix.EINTR {
			continue
		}
		s.err = err
		return err != unix.EAGAIN
	}
}

// namespace returns a descriptor of the socket's network namespace (Linux 4.9).
func (c *Conn) namespace() (*os.File, error) {
	raw, err := c.nl.SyscallConn()
	if err != nil {
		return nil, c.fault(err)
	}
	var ns uintptr
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) {
		ns, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, unix.SIOCGSKNS, 0)
	})
	if err != nil {
		return nil, c.fault(err)
	}
	if errno != 0 {
		return nil, os.NewSyscallError("ioctl(SIOCGSKNS)", errno)
	}
	return os.NewFile(ns, "netns"), nil
}

func sameFile(a, b *os.File) bool {
	ai, aerr := a.Stat()
	bi, berr := b.Stat()
	return aerr == nil && berr == nil && os.SameFile(ai, bi)
}
