//go:build linux

package nstest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// programVariable is an environment variable that makes a test binary run the
// program that it tests.
const programVariable = "CONNTRACK_TEST_PROGRAM"

// MainOf runs the tests of a command, like [Main]. [Program] can then run the
// command's main function in a process of its own.
func MainOf(m *testing.M, main func()) {
	if os.Getenv(programVariable) != "" {
		main()
		os.Exit(0)
	}
	Main(m)
}

// Program returns a command that runs the main function passed to [MainOf].
func Program(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), programVariable+"=1")
	return cmd
}

// Unprivileged removes the privileges that a command has in the namespaces of
// tests.
func Unprivileged(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
	return cmd
}

// A Process is a program that runs in a namespace. It is killed if it still
// runs when the test ends.
type Process struct {
	t              testing.TB
	cmd            *exec.Cmd
	stdout, stderr printed
	ended          chan struct{} // closed when the process ends
}

// Start starts a command in the namespace.
func (n *NS) Start(cmd *exec.Cmd) *Process {
	n.t.Helper()
	p := &Process{t: n.t, cmd: cmd, ended: make(chan struct{})}
	p.stdout.changed = make(chan struct{}, 1)
	p.stderr.changed = make(chan struct{}, 1)
	cmd.Stdout, cmd.Stderr = &p.stdout, &p.stderr
	n.Do(cmd.Start)
	go func() {
		defer close(p.ended)
		_ = cmd.Wait() // Exit returns the exit code
	}()
	n.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.ended
	})
	return p
}

// AwaitStdout waits until the standard output of the process matches pattern.
func (p *Process) AwaitStdout(pattern string) {
	p.t.Helper()
	p.await(&p.stdout, pattern)
}

// AwaitStderr waits until the standard error of the process matches pattern.
func (p *Process) AwaitStderr(pattern string) {
	p.t.Helper()
	p.await(&p.stderr, pattern)
}

func (p *Process) await(o *printed, pattern string) {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	timeout := time.After(patience)
	for !re.MatchString(o.String()) {
		select {
		case <-o.changed:
		case <-p.ended:
			if !re.MatchString(o.String()) {
				p.fail("the process ended without printing " + pattern)
			}
		case <-timeout:
			p.fail("the process does not print " + pattern)
		}
	}
}

// Interrupt sends the process the signal of Ctrl-C.
func (p *Process) Interrupt() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); !errors.Is(err, os.ErrProcessDone) {
		check(p.t, err)
	}
}

// Exit waits for the process to end. It returns the exit code, or -1 if a
// signal ended the process.
func (p *Process) Exit() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.fail("the process does not end")
	}
	return p.cmd.ProcessState.ExitCode()
}

// Stdout returns the standard output of the process so far.
func (p *Process) Stdout() string { return p.stdout.String() }

// Stderr returns the standard error of the process so far.
func (p *Process) Stderr() string { return p.stderr.String() }

func (p *Process) fail(reason string) {
	p.t.Helper()
	p.t.Fatalf("%s: %s\nstdout:\n%s\nstderr:\n%s", strings.Join(p.cmd.Args, " "), reason, p.Stdout(), p.Stderr())
}

// printed keeps what is written to it.
type printed struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // holds one element if there is new output
}

func (o *printed) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	select {
	case o.changed <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (o *printed) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
