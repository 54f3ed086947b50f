//go:build linux

package nstest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// lookPath returns the path of an administrator's command. Not every user has
// these in PATH.
func lookPath(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return exec.LookPath("/usr/sbin/" + name)
}

// Command returns the path of an administrator's command. If it is missing,
// Command skips the test. With the environment variable CI set, the test fails
// instead, except in the virtual machines of other kernels, which have no
// commands.
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

// ConntrackVariable is an environment variable with the path of the conntrack
// command to test with, in place of the system's.
const ConntrackVariable = "CONNTRACK_COMMAND"

// knownConntracks are the versions of conntrack(8) whose output and defects the
// tests know.
var knownConntracks = []string{"v1.4.7", "v1.4.9"}

// conntrackVersion returns the version of the conntrack command, such as
// v1.4.7.
var conntrackVersion = sync.OnceValues(func() (string, error) {
	path, err := conntrackPath()
	if err != nil {
		return "", err
	}
	out, err := exec.Command(path, "--version").CombinedOutput()
	if fields := strings.Fields(string(out)); err == nil && len(fields) > 1 {
		return fields[1], nil
	}
	return "", fmt.Errorf("%s --version: %w\n%s", path, err, out)
})

func conntrackPath() (string, error) {
	if path := os.Getenv(ConntrackVariable); path != "" {
		return path, nil
	}
	return lookPath("conntrack")
}

// NeedConntrack returns the path of the conntrack command. If it is missing,
// NeedConntrack does what [Command] does. If its version is unknown to the
// tests, it skips the test, or fails it with CI set.
func NeedConntrack(t testing.TB) string {
	t.Helper()
	Require(t)
	path, err := conntrackPath()
	if err != nil {
		return Command(t, "conntrack")
	}
	version, err := conntrackVersion()
	check(t, err)
	if !slices.Contains(knownConntracks, version) {
		if ci, _ := strconv.ParseBool(os.Getenv("CI")); ci {
			t.Fatalf("the tests know %s, this is %s", knownConntracks, version)
		}
		t.Skipf("the tests know %s, this is %s", knownConntracks, version)
	}
	return path
}

// OldConntrack reports whether the conntrack command is version 1.4.7 rather
// than 1.4.9. It skips the test like [NeedConntrack].
func OldConntrack(t testing.TB) bool {
	t.Helper()
	NeedConntrack(t)
	version, err := conntrackVersion()
	check(t, err)
	return version == knownConntracks[0]
}

// Conntrack runs the conntrack command inside the namespace and returns its
// standard output. It skips the test like [NeedConntrack].
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

// labelsVariable holds the names of labels. It makes this program run the
// conntrack command.
const labelsVariable = "CONNTRACK_NSTEST_LABELS"

// ConntrackWithLabels returns the conntrack command with args, to be started
// within [NS.Do]. It reads the given names as its connlabel.conf, and the
// machine's own file does not change. It skips the test like [NeedConntrack].
func ConntrackWithLabels(t testing.TB, names string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", append([]string{NeedConntrack(t)}, args...)...)
	cmd.Env = append(os.Environ(), labelsVariable+"="+names)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	return cmd
}

// becomeConntrack runs the command of ConntrackWithLabels in a mount namespace
// of its own.
func becomeConntrack(names string) error {
	const etc, dir = "/etc", "/etc/xtables"
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	// The directory is missing on machines that only run tests.
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
