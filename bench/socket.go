package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A socket is a blocking netlink socket with minimal overhead. Its costs are
// the floor that others are compared with. It reads only enough of the replies
// to find their end and errors. It allocates nothing: message headers are
// reused, and system calls are made directly because unix.Recvmsg and
// unix.SendmsgN allocate addresses.
type socket struct {
	fd  int
	in  []byte
	out requests

	inHeader, outHeader unix.Msghdr
	inIovec, outIovec   unix.Iovec
}

func newSocket() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &socket{fd: fd, in: make([]byte, 64<<10)}
	s.inIovec.Base = &s.in[0]
	s.inIovec.SetLen(len(s.in))
	s.inHeader.Iov = &s.inIovec
	s.inHeader.SetIovlen(1)
	s.outHeader.Iov = &s.outIovec
	s.outHeader.SetIovlen(1)
	return s, nil
}

func (s *socket) close() { _ = unix.Close(s.fd) }

func (s *socket) send(b []byte) error {
	s.outIovec.Base = &b[0]
	s.outIovec.SetLen(len(b))
	_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.outHeader)), 0)
	if errno != 0 {
		return os.NewSyscallError("sendmsg", errno)
	}
	return nil
}

func (s *socket) receive() ([]byte, error) {
	n, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.inHeader)), 0)
	if errno != 0 {
		return nil, os.NewSyscallError("recvmsg", errno)
	}
	return s.in[:n], nil
}

var errReply = errors.New("unexpected reply of the kernel")

// result returns the sequence number and the errno of b, which is an
// acknowledgement or an error.
func result(b []byte) (seq uint32, err error) {
	if len(b) < nlmsgHeaderLen+4 || binary.NativeEndian.Uint16(b[4:]) != unix.NLMSG_ERROR {
		return 0, fmt.Errorf("%w: %x", errReply, b[:min(len(b), nlmsgHeaderLen)])
	}
	seq = binary.NativeEndian.Uint32(b[8:])
	if code := int32(binary.NativeEndian.Uint32(b[nlmsgHeaderLen:])); code != 0 {
		err = syscall.Errno(-code)
	}
	return seq, err
}

// do sends a request and waits for its acknowledgement.
func (s *socket) do(request []byte) error {
	if err := s.send(request); err != nil {
		return err
	}
	b, err := s.receive()
	if err != nil {
		return err
	}
	_, err = result(b)
	return err
}

// get sends a request for a flow and waits for it.
func (s *socket) get(request []byte) error {
	if err := s.send(request); err != nil {
		return err
	}
	b, err := s.receive()
	if err != nil {
		return err
	}
	if len(b) < nlmsgHeaderLen || binary.NativeEndian.Uint16(b[4:]) != msgNew {
		_, err := result(b)
		return errors.Join(errReply, err)
	}
	return nil
}

// dump dumps the whole table and discards it.
func (s *socket) dump() error {
	s.out.reset()
	s.out.dump()
	return s.dumpWith(s.out.buf)
}

// dumpWith sends a dump request and discards the replies. It detects the end by
// looking only at the end of each datagram, for an NLMSG_DONE with the sequence
// number of the request.
func (s *socket) dumpWith(request []byte) error {
	if err := s.send(request); err != nil {
		return err
	}
	for {
		b, err := s.receive()
		if err != nil {
			return err
		}
		if len(b) < nlmsgDoneLen {
			return errReply
		}
		last := b[len(b)-nlmsgDoneLen:]
		if binary.NativeEndian.Uint32(last) == nlmsgDoneLen &&
			binary.NativeEndian.Uint16(last[4:]) == unix.NLMSG_DONE &&
			binary.NativeEndian.Uint32(last[8:]) == 1 {
			if code := int32(binary.NativeEndian.Uint32(last[nlmsgHeaderLen:])); code != 0 {
				return syscall.Errno(-code)
			}
			return nil
		}
	}
}

// batch sends count messages at once and waits for the acknowledgement of the
// last one. It returns how many failed, and the first error.
func (s *socket) batch(messages []byte, count int) (failed int, first error, err error) {
	if err := s.send(messages); err != nil {
		return 0, nil, err
	}
	for {
		b, err := s.receive()
		if err != nil {
			return failed, first, err
		}
		seq, err := result(b)
		if err != nil {
			failed++
			if first == nil {
				first = err
			}
		}
		if errors.Is(err, errReply) || seq == uint32(count) {
			return failed, first, nil
		}
	}
}
