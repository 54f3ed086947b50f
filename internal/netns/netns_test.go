//go:build linux

package netns_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack/internal/netns"
	"github.com/ti-mo/conntrack/internal/nstest"
)

// role is an environment variable that makes the test binary run one of the
// programs below.
const role = "NETNS_TEST_ROLE"

const self = "/proc/thread-self/ns/net"

var programs = map[string]func(){
	"look":       look,
	"grandchild": grandchild,
	"killed":     func() { _ = unix.Kill(os.Getpid(), unix.SIGKILL) },
	"terminated": terminated,
	"waiting":    waiting,
}

func TestMain(m *testing.M) {
	program := programs[os.Getenv(role)]
	if program == nil {
		nstest.Main(m)
	}
	if err := netns.Isolate(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	program()
}

// look prints what an isolated process sees, and exits with a distinct status.
func look() {
	ns, err := os.Readlink(self)
	if err != nil {
		panic(err)
	}
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		panic(err)
	}
	fmt.Println(ns, lo.Flags&net.FlagUp != 0, os.Args[1:])
	os.Exit(7)
}

// grandchild prints its namespace and runs look.
func grandchild() {
	ns, err := os.Readlink(self)
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), role+"=look")
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
		panic(err)
	}
	fmt.Println(ns, strings.HasPrefix(string(out), ns))
}

// terminated prints that it is ready, and exits with a distinct status on
// SIGTERM.
func terminated() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM)
	fmt.Println("ready")
	<-signals
	os.Exit(3)
}

// waiting prints that it is ready and waits to be killed.
func waiting() {
	fmt.Println("ready")
	select {}
}

// command returns a command that runs the test binary as one of the programs,
// without being isolated.
func command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool {
		return strings.HasPrefix(s, "CONNTRACK_ISOLATED_FROM=")
	})
	cmd.Env = append(cmd.Env, role+"="+program)
	cmd.Stderr = os.Stderr
	return cmd
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	return exit.ExitCode()
}

func TestIsolate(t *testing.T) {
	t.Parallel()
	nstest.Require(t)
	here, err := os.Readlink(self)
	require.NoError(t, err)

	out, err := command("look", "an", "argument").Output()
	assert.Equal(t, 7, exitCode(t, err))
	assert.Contains(t, string(out), "true [an argument]")
	assert.NotContains(t, string(out), here)
}

func TestIsolateGrandchild(t *testing.T) {
	t.Parallel()
	nstest.Require(t)
	out, err := command("grandchild").Output()
	require.NoError(t, err)
	assert.Contains(t, string(out), "true")
}

func TestIsolateKilled(t *testing.T) {
	t.Parallel()
	nstest.Require(t)
	assert.Equal(t, 128+int(unix.SIGKILL), exitCode(t, command("killed").Run()))
}

func TestIsolateSignal(t *testing.T) {
	t.Parallel()
	nstest.Require(t)
	cmd := command("terminated")
	awaitReady(t, cmd)
	require.NoError(t, cmd.Process.Signal(unix.SIGTERM))
	assert.Equal(t, 3, exitCode(t, cmd.Wait()))
}

// TestIsolateOrphan asserts that the isolated process does not outlive the
// first process.
func TestIsolateOrphan(t *testing.T) {
	t.Parallel()
	nstest.Require(t)
	cmd := command("waiting")
	stdout := awaitReady(t, cmd)
	require.NoError(t, cmd.Process.Kill())
	_, err := stdout.ReadByte() // the isolated process keeps it open too
	assert.Error(t, err)
	assert.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	assert.Error(t, cmd.Wait())
}

// awaitReady starts a program and waits until it prints that it is ready.
func awaitReady(t *testing.T, cmd *exec.Cmd) *bufio.Reader {
	t.Helper()
	pipe, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, pipe.(*os.File).SetReadDeadline(time.Now().Add(10*time.Second)))
	require.NoError(t, cmd.Start())
	stdout := bufio.NewReader(pipe)
	line, err := stdout.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	return stdout
}

func TestNS(t *testing.T) {
	t.Parallel()
	nstest.Require(t)
	ns, err := netns.New()
	require.NoError(t, err)

	// A parameter that the namespace lacks is not read from the machine.
	require.NoError(t, ns.Track())
	before, err := ns.ReadSysctl("net.netfilter.nf_conntrack_acct")
	require.NoError(t, err)
	assert.Equal(t, "0", before)
	require.NoError(t, ns.Sysctl("net.netfilter.nf_conntrack_acct", "1"))
	after, err := ns.ReadSysctl("net.netfilter.nf_conntrack_acct")
	require.NoError(t, err)
	assert.Equal(t, "1", after)
	_, err = ns.ReadSysctl("net.no.such")
	assert.ErrorIs(t, err, os.ErrNotExist)

	require.NoError(t, ns.Close())
	assert.Error(t, ns.Do(func() error { return nil }))
}

// TestDo asserts that the goroutine returns to its namespace, however f ends.
func TestDo(t *testing.T) {
	t.Parallel()
	nstest.Require(t)
	ns, err := netns.New()
	require.NoError(t, err)
	defer ns.Close()
	here, err := os.Readlink(self)
	require.NoError(t, err)

	failure := errors.New("failure")
	var inside string
	assert.ErrorIs(t, ns.Do(func() error {
		inside, _ = os.Readlink(self)
		return failure
	}), failure)
	assert.Panics(t, func() { _ = ns.Do(func() error { panic(failure) }) })

	back, err := os.Readlink(self)
	require.NoError(t, err)
	assert.Equal(t, here, back)
	assert.NotEqual(t, here, inside)
}

func TestCurrent(t *testing.T) {
	t.Parallel()
	nstest.Require(t)
	ns, err := netns.New()
	require.NoError(t, err)
	defer ns.Close()
	var outer, inner unix.Stat_t
	require.NoError(t, unix.Fstat(ns.FD(), &outer))
	require.NoError(t, ns.Do(func() error {
		current, err := netns.Current()
		if err != nil {
			return err
		}
		defer current.Close()
		return unix.Fstat(current.FD(), &inner)
	}))
	assert.Equal(t, outer.Ino, inner.Ino)
}
