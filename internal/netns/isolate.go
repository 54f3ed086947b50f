//go:build linux

package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// marker is the environment variable in which a process that isolates itself
// leaves the name of the namespace that it comes from. Whoever finds itself in
// another one is isolated: the child, and all processes that it starts.
const marker = "CONNTRACK_ISOLATED_FROM"

// Isolate makes the process live in a network namespace of its own, whose
// loopback interface is up. It does so by running the program again, with the
// same arguments, environment and standard files, in a new network namespace,
// and inside a new user namespace where the process lacks the privileges for
// one. That second process returns from Isolate and goes on; the first one
// hands it its signals, and exits when it does and as it does: Isolate does not
// return there. So it belongs at the start of a program.
//
// In a process that is isolated, or was started by one that is, Isolate
// returns nil at once.
//
// An error says why the system does not allow it. The caller may then go on,
// but must not believe that it is isolated.
func Isolate() error {
	here, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return fmt.Errorf("netns: %w", err)
	}
	if from := os.Getenv(marker); from != "" && from != here {
		return loopbackUp()
	}
	return runIsolated(here)
}

// runIsolated runs the program again in a new namespace, and exits as it does.
func runIsolated(here string) error {
	// The child is killed when the thread that started it ends, so this one
	// must not, for as long as the process lives.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	cmd := exec.Command("/proc/self/exe")
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), marker+"="+here)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = isolation()

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT)
	if err := cmd.Start(); err != nil {
		signal.Stop(signals)
		if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) {
			err = pathErr.Err // of the path there is nothing to say
		}
		return fmt.Errorf("netns: new namespace: %w", explain(err))
	}
	go forward(signals, cmd.Process)
	os.Exit(wait(cmd))
	return nil // not reached
}

// forward hands signals to the process for as long as it lives.
func forward(signals <-chan os.Signal, process *os.Process) {
	for s := range signals {
		// A failure means that the process has ended, and so will we.
		_ = process.Signal(s)
	}
}

// wait waits for the command's end, and returns what a shell would report of
// a process that ended like it.
func wait(cmd *exec.Cmd) int {
	if err := cmd.Wait(); cmd.ProcessState == nil {
		fmt.Fprintf(os.Stderr, "netns: waiting for the isolated process: %v\n", err)
		return 1
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// isolation tells how to start the isolated process.
func isolation() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET,
		Pdeathsig:  unix.SIGKILL,
	}
	if !privileged() {
		attr.Cloneflags |= unix.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return attr
}

// privileged tells whether the process may make a network namespace and do all
// that a test does in it without a user namespace around it.
func privileged() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil || os.Geteuid() != 0 {
		return false
	}
	const needed = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW
	return data[0].Effective&needed == needed
}

// explain adds to an error of the kernel the setting that may be behind it.
func explain(err error) error {
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.ENOSPC) {
		return err
	}
	var found []string
	for name, forbidden := range forbidding {
		value, readErr := os.ReadFile(sysctlPath(name))
		if readErr == nil && strings.TrimSpace(string(value)) == forbidden {
			found = append(found, name+"="+forbidden)
		}
	}
	if len(found) == 0 {
		return fmt.Errorf("%w (run as root with CAP_SYS_ADMIN, or where user namespaces are allowed)", err)
	}
	slices.Sort(found)
	return fmt.Errorf("%w (the system has %s)", err, strings.Join(found, ", "))
}

// forbidding lists the kernel parameters that forbid namespaces, with the
// value that does.
var forbidding = map[string]string{
	"kernel.apparmor_restrict_unprivileged_userns": "1",
	"kernel.unprivileged_userns_clone":             "0",
	"user.max_user_namespaces":                     "0",
	"user.max_net_namespaces":                      "0",
}
