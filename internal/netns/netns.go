//go:build linux

// Package netns creates network namespaces for tests and examples, so that they
// do not touch the machine's own connection tracking tables.
package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// threadNetNS is the network namespace of the calling thread. /proc/self/ns/net
// would be that of the main thread.
const threadNetNS = "/proc/thread-self/ns/net"

// An NS is a handle to a network namespace. The namespace exists at least until
// the handle is closed. The methods of NS may be called by multiple goroutines
// at once.
type NS struct {
	file *os.File
}

// New creates a network namespace that has only a loopback interface, which is
// up. It needs CAP_SYS_ADMIN: if that may be missing, call [Isolate] first.
func New() (*NS, error) {
	var ns *NS
	err := onLockedThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("netns: unshare: %w", explain(err))
		}
		if err := loopbackUp(); err != nil {
			return err
		}
		var err error
		ns, err = Current()
		return err
	})
	return ns, err
}

// Current returns a handle to the network namespace of the calling goroutine:
// the process's own, except within [NS.Do].
func Current() (*NS, error) {
	file, err := os.Open(threadNetNS)
	if err != nil {
		return nil, fmt.Errorf("netns: %w", err)
	}
	return &NS{file: file}, nil
}

// FD returns the file descriptor of the namespace, for netlink.Config.NetNS. It
// is valid until [NS.Close].
func (ns *NS) FD() int {
	return int(ns.file.Fd())
}

// Close closes the handle. The namespace disappears with the last handle,
// socket or process in it.
func (ns *NS) Close() error {
	return ns.file.Close()
}

// Do calls f inside the namespace, on the calling goroutine, and returns its
// error. Sockets that f opens stay in the namespace, and processes that f
// starts run there. Goroutines that f starts do not.
func (ns *NS) Do(f func() error) error {
	return onLockedThread(func() error {
		if err := unix.Setns(ns.FD(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("netns: setns: %w", err)
		}
		return f()
	})
}

// Sysctl sets a kernel parameter. The name has dots, as in
// "net.netfilter.nf_conntrack_acct".
func (ns *NS) Sysctl(name, value string) error {
	return ns.Do(func() error {
		return os.WriteFile(sysctlPath(name), []byte(value), 0)
	})
}

// ReadSysctl returns the value of a kernel parameter, without the final
// newline.
func (ns *NS) ReadSysctl(name string) (string, error) {
	var value []byte
	err := ns.Do(func() (err error) {
		value, err = os.ReadFile(sysctlPath(name))
		return err
	})
	return strings.TrimSpace(string(value)), err
}

func sysctlPath(name string) string {
	return filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
}

// onLockedThread calls f, which may change the network namespace of its thread.
// Then it restores the namespace.
func onLockedThread(f func() error) (err error) {
	runtime.LockOSThread()
	home, err := os.Open(threadNetNS)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("netns: %w", err)
	}
	defer func() {
		back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET)
		home.Close()
		if back != nil {
			// No other goroutine may run on this thread: it stays locked, and
			// ends with its goroutine.
			err = errors.Join(err, fmt.Errorf("netns: returning from namespace: %w", back))
			return
		}
		runtime.UnlockOSThread()
	}()
	return f()
}
