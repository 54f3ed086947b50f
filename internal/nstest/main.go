//go:build linux

// Package nstest gives tests a real kernel to track connections with: network
// namespaces, packets sent in them, and rules for these packets.
//
// A package that uses it calls [Main] from its TestMain. Then [New] creates a
// namespace for one test, and Examples can use the process's own namespace.
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

// unavailable says why tests on the kernel are impossible. It is nil if they
// are possible.
var unavailable = errNoMain

// Main runs the tests and exits. Call it at the start of TestMain.
//
// The tests run in a network namespace of their own, which tracks connections
// with counters and timestamps. So an Example can do what a user would do.
// Tests may change that namespace; a test that needs an undisturbed one calls
// [New].
//
// If the system does not allow this, or with -short, Main skips all Examples,
// and [New] and [Require] skip their tests.
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

// prepare isolates the process and sets up its namespace.
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

// skipExamples adds all Examples to those that the user skips. They cannot skip
// themselves, and would use the machine's own table.
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
		panic(err) // a string flag accepts any string
	}
}

// Require skips the test if tests on the kernel are impossible. If the
// environment variable CI is set and -short is not, it fails the test instead.
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
