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

// marker is an environment variable that holds the name of the namespace from
// which a process isolated itself. A process that is in another namespace than
// that is isolated: the child, and all processes that it starts.
const marker = "CONNTRACK_ISOLATED_FROM"

// Isolate moves the program into a network namespace of its own, whose loopback
// interface is up. To do so, it runs the program again in a new namespace, with
// the same arguments, environment and standard files. If the process lacks the
// privileges, it also creates a user namespace. Isolate returns only in the
// second process. The first process forwards its signals to the second one and
// exits with its status. Call Isolate at the start of a program.
//
// In an isolated process, and in processes started by one, Isolate returns nil
// at once.
//
// An error says why the system does not allow it. The caller may continue, but
// is not isolated.
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

// runIsolated runs the program again in a new namespace and exits with its
// status.
func runIsolated(here string) error {
	// The child is killed when the thread that started it ends, so this thread
	// must live as long as the process.
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
			err = pathErr.Err // the path is irrelevant
		}
		return fmt.Errorf("netns: new namespace: %w", explain(err))
	}
	go forward(signals, cmd.Process)
	os.Exit(wait(cmd))
	return nil // not reached
}

// forward sends signals on to the process for as long as it lives.
func forward(signals <-chan os.Signal, process *os.Process) {
	for s := range signals {
		// An error means that the process has ended, so this one will exit too.
		_ = process.Signal(s)
	}
}

// wait waits for the command to end. It returns the exit status that a shell
// would report.
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

// isolation returns the attributes to start the isolated process with.
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

// privileged reports whether the process can create a network namespace, and do
// in it all that a test does, without a user namespace.
func privileged() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil || os.Geteuid() != 0 {
		return false
	}
	const needed = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW
	return data[0].Effective&needed == needed
}

// explain adds to an error the kernel parameter that may be its cause.
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

// forbidding lists the kernel parameters that can forbid namespaces, with the
// value that does.
var forbidding = map[string]string{
	"kernel.apparmor_restrict_unprivileged_userns": "1",
	"kernel.unprivileged_userns_clone":             "0",
	"user.max_user_namespaces":                     "0",
	"user.max_net_namespaces":                      "0",
}
