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

// programVariable is set in the environment of a test binary that is to be the
// program that it tests.
const programVariable = "CONNTRACK_TEST_PROGRAM"

// MainOf runs the tests of the command whose main function is given, as [Main]
// does. It lets [Program] run that function in a process of its own.
func MainOf(m *testing.M, main func()) {
	if os.Getenv(programVariable) != "" {
		main()
		os.Exit(0)
	}
	Main(m)
}

// Program returns a command that runs the main function given to [MainOf].
func Program(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), programVariable+"=1")
	return cmd
}

// Unprivileged takes a command's privileges in all namespaces of tests away.
func Unprivileged(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
	return cmd
}

// A Process is a program that runs in a namespace. It is killed when the test
// ends, if it runs until then.
type Process struct {
	t              testing.TB
	cmd            *exec.Cmd
	stdout, stderr printed
	ended          chan struct{} // closed when the process has ended
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
		_ = cmd.Wait() // Exit tells how it ended
	}()
	n.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.ended
	})
	return p
}

// AwaitStdout waits until what the process has printed matches pattern.
func (p *Process) AwaitStdout(pattern string) {
	p.t.Helper()
	p.await(&p.stdout, pattern)
}

// AwaitStderr is AwaitStdout for the standard error.
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

// Interrupt sends the process what Ctrl-C sends.
func (p *Process) Interrupt() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); !errors.Is(err, os.ErrProcessDone) {
		check(p.t, err)
	}
}

// Exit waits for the end of the process, and returns its exit code, which is -1
// if a signal ended it.
func (p *Process) Exit() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.fail("the process does not end")
	}
	return p.cmd.ProcessState.ExitCode()
}

// Stdout returns what the process has printed.
func (p *Process) Stdout() string { return p.stdout.String() }

// Stderr returns what the process has printed to its standard error.
func (p *Process) Stderr() string { return p.stderr.String() }

func (p *Process) fail(reason string) {
	p.t.Helper()
	p.t.Fatalf("%s: %s\nstdout:\n%s\nstderr:\n%s", strings.Join(p.cmd.Args, " "), reason, p.Stdout(), p.Stderr())
}

// printed keeps what is written to it.
type printed struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // holds one element if there is something new
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
