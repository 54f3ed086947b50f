//go:build linux

// Package netns makes network namespaces to try connection tracking in, so
// that neither tests nor examples touch the tables of the machine they run on.
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

// threadNetNS names the network namespace of the calling thread.
// /proc/self/ns/net would be that of the main thread.
const threadNetNS = "/proc/thread-self/ns/net"

// NS is a handle to a network namespace, which lives at least as long as the
// handle is open. Its methods may be called by several goroutines at once.
type NS struct {
	file *os.File
}

// New makes a network namespace with nothing in it but a loopback interface
// that is up. It needs CAP_SYS_ADMIN: where that may be missing, call
// [Isolate] first.
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

// Current returns a handle to the network namespace that the calling goroutine
// is in: the process's own, unless called from within [NS.Do].
func Current() (*NS, error) {
	file, err := os.Open(threadNetNS)
	if err != nil {
		return nil, fmt.Errorf("netns: %w", err)
	}
	return &NS{file: file}, nil
}

// FD returns the namespace's file descriptor, as netlink.Config.NetNS takes it.
// It is valid until Close.
func (ns *NS) FD() int {
	return int(ns.file.Fd())
}

// Close gives up the handle. The namespace goes with the last handle, socket
// or process in it.
func (ns *NS) Close() error {
	return ns.file.Close()
}

// Do calls f inside the namespace, on the calling goroutine, and returns its
// error. Sockets that f opens stay in the namespace wherever they are used
// later, and processes that it starts live there; goroutines that it starts do
// not.
func (ns *NS) Do(f func() error) error {
	return onLockedThread(func() error {
		if err := unix.Setns(ns.FD(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("netns: setns: %w", err)
		}
		return f()
	})
}

// Sysctl writes value to the kernel parameter name, which is given with dots,
// as in "net.netfilter.nf_conntrack_acct".
func (ns *NS) Sysctl(name, value string) error {
	return ns.Do(func() error {
		return os.WriteFile(sysctlPath(name), []byte(value), 0)
	})
}

// ReadSysctl returns the value of the kernel parameter name, without the
// newline at its end.
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

// onLockedThread calls f, which may change the network namespace of its thread,
// and puts the thread back into the namespace that it came from.
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
			// Nobody else may run on this thread any more: it stays
			// locked, and ends with its goroutine.
			err = errors.Join(err, fmt.Errorf("netns: returning from namespace: %w", back))
			return
		}
		runtime.UnlockOSThread()
	}()
	return f()
}
