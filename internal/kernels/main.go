//go:build linux

// Command kernels runs the tests of this module on other kernels than the
// running one. It boots Debian's cloud kernels of several releases in virtual
// machines, which need no privileges and no hardware support.
//
//	go run ./internal/kernels [-kernel 6.1,7@sid] [-run pattern] [-v] [-- test flags]
//
// For each kernel, it uses the newest point release in the system's own package
// sources, or in the suite after an @. With a final ?, a kernel that the
// archive no longer has is skipped. Kernels are kept in the user's cache
// directory. The command needs Debian on amd64 with qemu-system-x86 and
// xz-utils. The commands conntrack and nft, if installed, are copied into the
// machine.
//
// All tests of a package run as with "go test", with CI set, so tests that need
// more than the machine has fail. Tests that need a newer kernel skip, and are
// reported with their reasons. The exit status is 0 only if every kernel ran
// every package and no test failed.
//
// The tests receive the environment variables that start with CONNTRACK_TEST_.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// options says what to run and how.
type options struct {
	kernels string
	timeout time.Duration
	cpus    int
	verbose bool
	args    []string // for the test binaries
}

func main() {
	if inGuest() {
		guest()
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := host(ctx, parseOptions()); err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		os.Exit(1)
	}
}

func parseOptions() options {
	var o options
	flag.StringVar(&o.kernels, "kernel", "5.10@bullseye?,6.1,6.12,7@sid", "`releases` of the kernels to run on")
	run := flag.String("run", "", "run only tests that match the `pattern`")
	flag.DurationVar(&o.timeout, "timeout", 10*time.Minute, "how long one kernel may take")
	flag.IntVar(&o.cpus, "cpus", 2, "processors of the virtual machine")
	flag.BoolVar(&o.verbose, "v", false, "show all output of all tests")
	flag.Parse()
	// A test that hangs must time out and print its stack before the machine is
	// stopped.
	o.args = append(o.args, "-test.timeout="+(o.timeout/2).String())
	if *run != "" {
		o.args = append(o.args, "-test.run="+*run)
	}
	for _, arg := range flag.Args() {
		o.args = append(o.args, testFlag(arg))
	}
	return o
}

// testFlag converts a flag of "go test" to that of a test binary.
func testFlag(arg string) string {
	name := strings.TrimLeft(arg, "-")
	if name == arg || strings.HasPrefix(name, "test.") {
		return arg
	}
	return "-test." + name
}

// host builds the tests and runs them on each kernel.
func host(ctx context.Context, o options) error {
	tmp, err := os.MkdirTemp("", "kernels")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	b, err := build(tmp)
	if err != nil {
		return err
	}
	var failed []string
	for name := range strings.SplitSeq(o.kernels, ",") {
		from := parseSource(name)
		k, err := findKernel(from)
		switch {
		case err != nil && from.mayBeGone:
			fmt.Printf("none Linux %s: %v\n", from.release, err)
			continue
		case err == nil:
			err = runKernel(ctx, o, tmp, k, b)
		}
		if err != nil {
			fmt.Printf("FAIL Linux %s: %v\n", from.release, err)
			failed = append(failed, from.release)
		}
	}
	if failed != nil {
		return fmt.Errorf("failed on Linux %s", strings.Join(failed, ", "))
	}
	return nil
}

// runKernel runs the tests on a kernel and prints the failures. The error says
// why the run as a whole failed.
func runKernel(ctx context.Context, o options, tmp string, k kernel, b binaries) error {
	fmt.Printf("=== Linux %s\n", k.version)
	start := time.Now()
	initramfs, err := makeInitramfs(o, k, b)
	if err != nil {
		return err
	}
	r := report{out: os.Stdout, verbose: o.verbose}
	if err := boot(ctx, o, tmp, k, initramfs, r.read); err != nil {
		return err
	}
	verdict, err := r.verdict()
	if err != nil {
		return err
	}
	fmt.Printf("--- Linux %s: %s in %.0f s\n", k.version, verdict, time.Since(start).Seconds())
	return nil
}
