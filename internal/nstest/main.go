//go:build linux

// Package nstest gives tests a kernel of their own to try connection tracking
// on: network namespaces, real packets in them, and rules for these packets.
//
// A package that uses it calls [Main] from its TestMain. After that [New] makes
// a namespace for one test, and Examples may use the process's own.
package nstest

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/ti-mo/conntrack/internal/netns"
)

var (
	errNoMain = errors.New("TestMain does not call nstest.Main")
	errShort  = errors.New("-short")
)

// unavailable tells why there can be no tests on the kernel, or is nil.
var unavailable = errNoMain

// Main runs the tests and exits. TestMain calls it first thing.
//
// The tests run in a network namespace of their own, where connections are
// tracked with counters and timestamps, so an Example can do what a user would
// do. It is the tests' to change; a test that must not be disturbed by others
// makes its own with [New].
//
// Where the system does not allow this, and with -short, tests that call
// [New] or [Require] are skipped, and so are all Examples.
func Main(m *testing.M) {
	if names, ok := os.LookupEnv(labelsVariable); ok {
		fmt.Fprintln(os.Stderr, becomeConntrack(names))
		os.Exit(2)
	}
	flag.Parse()
	if unavailable = prepare(); unavailable != nil {
		skipExamples()
	}
	os.Exit(m.Run())
}

// prepare isolates the process and sets its namespace up.
func prepare() error {
	if testing.Short() {
		return errShort
	}
	if err := netns.Isolate(); err != nil {
		return err
	}
	ns, err := netns.Current()
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := ns.Track(); err != nil {
		return err
	}
	if err := ns.Sysctl(accounting, "1"); err != nil {
		return err
	}
	return ns.Sysctl(timestamps, "1")
}

// skipExamples adds the Examples to what the user skips: they have no way to
// skip themselves, and would use the machine's own tables.
func skipExamples() {
	const examples = "^Example"
	if !errors.Is(unavailable, errShort) {
		fmt.Fprintf(os.Stderr, "nstest: no tests on the kernel, no examples: %v\n", unavailable)
	}
	skip := flag.Lookup("test.skip").Value
	pattern := examples
	if skip.String() != "" {
		pattern = skip.String() + "|" + examples
	}
	if err := skip.Set(pattern); err != nil {
		panic(err) // a string flag takes any string
	}
}

// Require skips the test where there can be no tests on the kernel. In CI,
// which the environment variable CI tells, that is a failure unless -short was
// asked for.
func Require(t testing.TB) {
	t.Helper()
	ci, _ := strconv.ParseBool(os.Getenv("CI"))
	switch {
	case unavailable == nil:
	case errors.Is(unavailable, errNoMain), ci && !errors.Is(unavailable, errShort):
		t.Fatalf("no tests on the kernel: %v", unavailable)
	default:
		t.Skipf("no tests on the kernel: %v", unavailable)
	}
}
