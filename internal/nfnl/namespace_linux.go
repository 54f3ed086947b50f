package nfnl

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A home is a thread that stays in a network namespace, to open sockets and read
// files there.
// Entering a namespace needs CAP_SYS_ADMIN, which the process may drop before
// it needs another socket. Opening a socket needs no privilege.
//
// It occupies a thread for as long as the Conn is open.
type home struct {
	jobs   chan func()
	closed chan struct{}
	close  func() // may be called more than once
}

const threadNetNS = "/proc/thread-self/ns/net" // Linux 3.17

// newHome returns the home for a Conn with the given netlink.Config.NetNS. It
// returns nil for the process's own namespace, where any thread can open
// sockets.
func newHome(netNS int) (*home, error) {
	if netNS != 0 {
		return enter(netNS)
	}
	// The caller may have moved its thread to a namespace other than the
	// process's.
	thread, err := os.Open(threadNetNS)
	if err != nil {
		return nil, nil
	}
	defer thread.Close()
	ordinary := make(chan os.FileInfo)
	go func() {
		info, _ := os.Stat(threadNetNS)
		ordinary <- info
	}()
	if info := <-ordinary; info == nil || isFile(thread, info) {
		return nil, nil
	}
	h, err := enter(int(thread.Fd()))
	if err != nil {
		return nil, nil // later sockets may find a way
	}
	return h, nil
}

// enter returns a home in the namespace with the descriptor fd.
func enter(fd int) (*home, error) {
	closed := make(chan struct{})
	h := &home{
		jobs:   make(chan func()),
		closed: closed,
		close:  sync.OnceFunc(func() { close(closed) }),
	}
	entered := make(chan error)
	go onOwnThread(func() {
		err := os.NewSyscallError("setns", unix.Setns(fd, unix.CLONE_NEWNET))
		entered <- err
		if err == nil {
			h.serve()
		}
	})
	if err := <-entered; err != nil {
		return nil, &netlink.OpError{Op: "dial", Err: err}
	}
	return h, nil
}

// onOwnThread calls f on a thread that ends with f. It avoids the process's
// first thread, which never ends and shows other programs which namespace the
// process is in.
func onOwnThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f() // locked for good: the runtime ends the thread with the goroutine
		return
	}
	locked := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		close(locked)
		f()
	}()
	<-locked // not this thread, which was taken until here
	runtime.UnlockOSThread()
}

func (h *home) serve() {
	for {
		select {
		case job := <-h.jobs:
			job()
		case <-h.closed:
			return
		}
	}
}

// dial opens a socket in the namespace of h. If h is nil, it uses that of the
// calling thread.
func (h *home) dial(config *netlink.Config) (nl *netlink.Conn, err error) {
	if h == nil {
		return dialNetlink(config)
	}
	err = h.do(func() (err error) {
		nl, err = dialNetlink(config)
		return err
	})
	return nl, err
}

// do calls f on the home's thread.
func (h *home) do(f func() error) error {
	result := make(chan error, 1)
	select {
	case h.jobs <- func() { result <- f() }:
		return <-result
	case <-h.closed:
		return ErrClosed
	}
}

// InNamespace calls f on a thread in c's network namespace, and returns its error.
// It takes CAP_SYS_ADMIN only where [Conn.Sibling] does.
func (c *Conn) InNamespace(f func() error) error {
	if c.home != nil {
		return c.home.do(f)
	}
	ns, err := c.namespace()
	if err != nil {
		return err
	}
	defer ns.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := os.Stat(threadNetNS)
	if err != nil {
		return err
	}
	if isFile(ns, here) {
		return f()
	}
	h, err := enter(int(ns.Fd()))
	if err != nil {
		return err
	}
	defer h.close()
	return h.do(f)
}

// sameNamespace reports whether c and s are in the same network namespace.
func (c *Conn) sameNamespace(s *Conn) (bool, error) {
	a, errA := c.namespaceCookie()
	b, errB := s.namespaceCookie()
	if errA == nil && errB == nil {
		return a == b, nil
	}
	ns, err := c.namespace()
	if err != nil {
		return false, err
	}
	defer ns.Close()
	other, err := s.namespace()
	if err != nil {
		return false, err
	}
	defer other.Close()
	info, err := other.Stat()
	return err == nil && isFile(ns, info), err
}

// namespaceCookie returns a number that is unique to c's network namespace
// (Linux 5.14).
func (c *Conn) namespaceCookie() (cookie uint64, err error) {
	controlErr := c.control(func(fd uintptr) {
		cookie, err = unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	})
	return cookie, errors.Join(controlErr, err)
}

// namespace returns a descriptor of c's network namespace (Linux 4.9).
func (c *Conn) namespace() (*os.File, error) {
	var ns uintptr
	var errno syscall.Errno
	err := c.control(func(fd uintptr) {
		ns, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, unix.SIOCGSKNS, 0)
	})
	if err != nil {
		return nil, err
	}
	if errno != 0 {
		return nil, &netlink.OpError{Op: "dial", Err: os.NewSyscallError("ioctl(SIOCGSKNS)", errno)}
	}
	return os.NewFile(ns, "netns"), nil
}

func (c *Conn) control(f func(fd uintptr)) error {
	return c.fault(c.raw.Control(f))
}

func isFile(f *os.File, info os.FileInfo) bool {
	own, err := f.Stat()
	return err == nil && os.SameFile(own, info)
}
