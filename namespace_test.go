//go:build linux

package conntrack_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/netfilter"
)

// TestDroppedCapabilities asserts that all of a Conn that was dialled for another
// namespace works once the process has given up the right to enter it. That
// cannot be taken back, so a process of its own does it.
func TestDroppedCapabilities(t *testing.T) {
	const child = "CONNTRACK_TEST_DROP_CAPABILITIES"
	ns := nstest.New(t)
	if os.Getenv(child) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestDroppedCapabilities$", "-test.count=1")
		cmd.Env = append(os.Environ(), child+"=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return
	}
	c, err := conntrack.Dial(ns.Config())
	require.NoError(t, err)
	keepNetAdmin(t)
	require.ErrorIs(t, unix.Setns(ns.FD(), unix.CLONE_NEWNET), unix.EPERM)

	events := listen(t, c, netfilter.GroupsCT)
	for n := range 3 {
		create(t, c, newFlow(n))
		require.Equal(t, conntrack.EventNew, receive(t, events).Type)
	}
	for range 20 { // more than there are spare sockets, each closed at the break
		for _, err := range c.Flows(context.Background(), conntrack.Filter{}, nil) {
			require.NoError(t, err)
			break
		}
	}
	flows, err := c.Dump(nil)
	require.NoError(t, err)
	require.Len(t, flows, 3)
	n, err := c.DeleteFunc(context.Background(), conntrack.Filter{}, nil)
	require.NoError(t, err)
	require.Equal(t, 3, n)
	ctx, cancel := context.WithCancel(context.Background())
	for _, err := range c.Events(ctx, netfilter.GroupsCT, &conntrack.EventOptions{Joined: cancel}) {
		require.ErrorIs(t, err, context.Canceled)
	}
	require.NoError(t, c.Close())
}

// keepNetAdmin gives up all capabilities but CAP_NET_ADMIN. Where Go is linked
// with C, which keeps it from changing them for all threads, it makes setns fail
// as if CAP_SYS_ADMIN had gone.
func keepNetAdmin(t *testing.T) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: 1 << unix.CAP_NET_ADMIN, Permitted: 1 << unix.CAP_NET_ADMIN}}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET,
		uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0)
	if errors.Is(errno, syscall.ENOTSUP) {
		denySetns(t)
		return
	}
	require.Zero(t, errno)
}

// denySetns makes setns fail with EPERM, in all threads.
func denySetns(t *testing.T) {
	const number = 0 // offset in struct seccomp_data
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_SETNS, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	require.Zero(t, errno)
}
