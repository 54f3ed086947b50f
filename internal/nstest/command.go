//go:build linux

package nstest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// lookPath returns the path of an administrator's command. Not everybody has
// these in the search path.
func lookPath(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return exec.LookPath("/usr/sbin/" + name)
}

// Command returns the path of an administrator's command. Where there is none it
// skips the test, or lets it fail if the environment variable CI is set on a
// system that can have it: other kernels' virtual machines have no commands.
func Command(t testing.TB, name string) string {
	t.Helper()
	path, err := lookPath(name)
	if err == nil {
		return path
	}
	_, noDebian := exec.LookPath("dpkg")
	if ci, _ := strconv.ParseBool(os.Getenv("CI")); ci && noDebian == nil {
		t.Fatalf("no %s command: %v", name, err)
	}
	t.Skipf("no %s command: %v", name, err)
	return ""
}

// wantConntrack is how the version of conntrack(8) begins whose words, and
// shortcomings, the tests know.
const wantConntrack = "conntrack v1.4.7 "

var conntrackVersion = sync.OnceValue(func() string {
	path, err := lookPath("conntrack")
	if err != nil {
		return err.Error()
	}
	out, err := exec.Command(path, "--version").CombinedOutput()
	if err != nil {
		return err.Error()
	}
	return string(out)
})

// NeedConntrack returns the path of the conntrack command. It skips the test where
// there is none, in the manner of Command, or where it is of another version than
// that which the tests know.
func NeedConntrack(t testing.TB) string {
	t.Helper()
	Require(t)
	path := Command(t, "conntrack")
	if version := conntrackVersion(); !strings.HasPrefix(version, wantConntrack) {
		t.Skipf("the tests know %s, this is %s", wantConntrack, version)
	}
	return path
}

// Conntrack runs the conntrack command inside the namespace, and returns what
// it prints on standard output. It skips the test as NeedConntrack does.
func (n *NS) Conntrack(args ...string) string {
	n.t.Helper()
	cmd := exec.Command(NeedConntrack(n.t), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := n.ns.Do(cmd.Run); err != nil {
		n.t.Fatalf("conntrack %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String()
}

// labelsVariable holds the names of labels where this program is started to
// become the conntrack command.
const labelsVariable = "CONNTRACK_NSTEST_LABELS"

// ConntrackWithLabels returns the conntrack command with args, to be started
// within Do, for which the file connlabel.conf has the given text. The machine's
// own file stays as it is. It skips the test as NeedConntrack does.
func ConntrackWithLabels(t testing.TB, names string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", append([]string{NeedConntrack(t)}, args...)...)
	cmd.Env = append(os.Environ(), labelsVariable+"="+names)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	return cmd
}

// becomeConntrack does what ConntrackWithLabels has started this program for, in
// a mount namespace of its own.
func becomeConntrack(names string) error {
	const etc, dir = "/etc", "/etc/xtables"
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	// A machine that is there for tests alone has none.
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", etc, "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mounting %s: %w", etc, err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "connlabel.conf"), []byte(names), 0o600); err != nil {
		return err
	}
	return unix.Exec(os.Args[1], os.Args[1:], os.Environ())
}
