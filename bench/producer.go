package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A producer makes events for a listener: new TCP flows in an empty table. It
// sends prepared messages, either as fast as the kernel takes them or at a
// given rate.
type producer struct {
	t                *table
	creates, deletes []requests
	pins             *pins
}

func newProducer(t *table, flows int, pin bool) (*producer, error) {
	p := &producer{t: t}
	if pin {
		var err error
		if p.pins, err = newPins(); err != nil {
			return nil, err
		}
	}
	for lo := 0; lo < flows; lo += batchSize {
		var create, remove requests
		for i := lo; i < min(lo+batchSize, flows); i++ {
			f := burstFlow(i)
			create.create(&f, false, 0)
			remove.delete(&f, 0)
		}
		create.acknowledgeLast()
		remove.acknowledgeLast()
		p.creates = append(p.creates, create)
		p.deletes = append(p.deletes, remove)
	}
	return p, nil
}

// pins are the processors that the producer and the listeners may use. The
// kernel tends to wake a listener on the producer's processor, where it must
// wait while the producer runs. The receive buffer overflows in that time,
// however fast the listener is. The methods of nil pins do nothing.
type pins struct{ all, producer, listener unix.CPUSet }

// newPins reserves a processor for the producer. It returns nil if there is
// only one processor.
func newPins() (*pins, error) {
	var p pins
	if err := unix.SchedGetaffinity(0, &p.all); err != nil {
		return nil, os.NewSyscallError("sched_getaffinity", err)
	}
	if p.all.Count() < 2 {
		return nil, nil
	}
	first := 0
	for !p.all.IsSet(first) {
		first++
	}
	p.listener = p.all
	p.listener.Clear(first)
	p.producer.Set(first)
	return &p, nil
}

// These methods apply to the calling thread and to processes that it starts
// later.
func (p *pins) asListener() error { return p.set(func() *unix.CPUSet { return &p.listener }) }
func (p *pins) asProducer() error { return p.set(func() *unix.CPUSet { return &p.producer }) }
func (p *pins) free() error       { return p.set(func() *unix.CPUSet { return &p.all }) }

func (p *pins) set(cpus func() *unix.CPUSet) error {
	if p == nil {
		return nil
	}
	return os.NewSyscallError("sched_setaffinity", unix.SchedSetaffinity(0, cpus()))
}

// burstFlow returns the i'th flow to create for its event.
func burstFlow(i int) flow {
	const ports = 50000 // per client
	f := flowAt(0)      // TCP over IPv4, without NAT
	f.source = netip.AddrPortFrom(ipv4(10, i/ports), uint16(10000+i%ports))
	f.translated = f.source
	return f
}

func (p *producer) send(r *requests) error {
	failed, first, err := p.t.s.batch(r.buf, r.count)
	if err == nil && failed > 0 {
		err = first
	}
	return err
}

// burst creates all flows at once and returns their number.
func (p *producer) burst() (sent int, err error) {
	for i := range p.creates {
		if err := p.send(&p.creates[i]); err != nil {
			return sent, err
		}
		sent += p.creates[i].count
	}
	return sent, nil
}

// pace creates flows for a time and deletes them at once. perSecond is the
// rate; 0 means as fast as possible. Nobody listens for the events of
// deletions.
func (p *producer) pace(perSecond float64, d time.Duration) (sent int, err error) {
	start := time.Now()
	for i := 0; ; i = (i + 1) % len(p.creates) {
		for perSecond > 0 && float64(sent) > perSecond*time.Since(start).Seconds() && time.Since(start) < d {
			time.Sleep(200 * time.Microsecond)
		}
		if time.Since(start) >= d {
			return sent, nil
		}
		if err := p.send(&p.creates[i]); err != nil {
			return sent, err
		}
		sent += p.creates[i].count
		if err := p.send(&p.deletes[i]); err != nil {
			return sent, err
		}
	}
}

// An eventSample is the cost of one run of a listener.
type eventSample struct {
	sample
	Sent int `json:"sent"`
	// Dropped is how many events the kernel could not queue.
	Dropped int `json:"dropped"`
	// Took is how long the producer ran.
	Took int64 `json:"producer_ns"`
}

func (s *eventSample) lossless() bool {
	return s.Flows == s.Sent && s.Dropped == 0 && s.Overruns == 0
}

// maxDrain is how long a listener may take to read what the kernel has queued.
const maxDrain = 20 * time.Second

// listen runs a listener in its own process while produce makes events. It
// measures only the listener's process.
func (p *producer) listen(r *run, l *listener, produce func() (int, error)) (eventSample, error) {
	// The listener is killed when the thread that started it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s, err := p.listenTo(r, l, produce)
	if err = errors.Join(err, p.pins.free()); err != nil {
		err = fmt.Errorf("%s, %s: %w", r.Job, l.name, err)
	}
	return s, err
}

func (p *producer) listenTo(r *run, l *listener, produce func() (int, error)) (s eventSample, err error) {
	if err := p.pins.asListener(); err != nil {
		return s, err
	}
	process, err := r.startListener(l)
	if err != nil {
		return s, err
	}
	defer process.kill()
	if err := p.pins.asProducer(); err != nil {
		return s, err
	}
	start := time.Now()
	if s.Sent, err = produce(); err != nil {
		return s, err
	}
	s.Took = time.Since(start).Nanoseconds()
	if s.Dropped, err = drain(); err != nil {
		return s, err
	}
	err = process.end(&s)
	return s, err
}

// drain waits until the kernel has no queued events. It returns how many events
// were dropped.
func drain() (dropped int, err error) {
	for start := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		sockets, err := listeningSockets()
		if err != nil {
			return 0, err
		}
		if len(sockets) != 1 {
			return 0, fmt.Errorf("%d sockets listen instead of one", len(sockets))
		}
		// What was not read in this time will not be read later.
		if sockets[0].queued == 0 || time.Since(start) > maxDrain {
			return sockets[0].drops, nil
		}
	}
}

// A netlinkSocket is a line of /proc/net/netlink.
type netlinkSocket struct {
	queued int // bytes of memory
	drops  int
}

// listeningSockets returns the sockets in this namespace that have joined the
// group of new flows.
func listeningSockets() ([]netlinkSocket, error) {
	b, err := os.ReadFile("/proc/thread-self/net/netlink")
	if err != nil {
		return nil, err
	}
	var sockets []netlinkSocket
	for line := range strings.Lines(string(b)) {
		// sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
		f := strings.Fields(line)
		if len(f) < 10 || f[1] != strconv.Itoa(unix.NETLINK_NETFILTER) {
			continue
		}
		groups, err := strconv.ParseUint(f[3], 16, 32)
		queued, err2 := strconv.Atoi(f[4])
		drops, err3 := strconv.Atoi(f[8])
		if err := errors.Join(err, err2, err3); err != nil {
			return nil, err
		}
		if groups&(1<<(unix.NFNLGRP_CONNTRACK_NEW-1)) != 0 {
			sockets = append(sockets, netlinkSocket{queued, drops})
		}
	}
	return sockets, nil
}

// A listenerProcess is a process that listens.
type listenerProcess interface {
	// end tells the process that all events were sent, waits for it to end and
	// completes the sample.
	end(s *eventSample) error
	// kill kills the process if it is still running.
	kill()
}

func (r *run) startListener(l *listener) (listenerProcess, error) {
	if l.listen == nil {
		return startConntrack(r.Buffer)
	}
	return r.startSelf()
}

// selfProcess is this program, running listenOne.
type selfProcess struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (r *run) startSelf() (*selfProcess, error) {
	arg, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	p := &selfProcess{cmd: exec.Command("/proc/self/exe", runCommand, string(arg))}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err := start(p.cmd); err != nil {
		return nil, err
	}
	defer killLater(p.cmd)()
	if line, err := p.out.ReadString('\n'); err != nil || line != "ready\n" {
		p.kill()
		return nil, fmt.Errorf("it did not begin to listen: %q, %v", line, err)
	}
	return p, nil
}

func (p *selfProcess) end(s *eventSample) error {
	if _, err := fmt.Fprintf(p.in, "end %d %d\n", s.Sent, s.Dropped); err != nil {
		return err
	}
	defer killLater(p.cmd)()
	err := json.NewDecoder(p.out).Decode(&s.sample)
	return errors.Join(err, p.cmd.Wait())
}

func (p *selfProcess) kill() { kill(p.cmd) }

// start starts a process that is killed when the calling thread ends.
func start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd.Start()
}

// killLater kills a process that is still running after a while, unless stop is
// called.
func killLater(cmd *exec.Cmd) (stop func() bool) {
	return time.AfterFunc(2*maxDrain, func() { _ = cmd.Process.Kill() }).Stop
}

func kill(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// conntrackProcess is conntrack -E. Its CPU time includes what it does before
// it listens, which is little.
type conntrackProcess struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
	ended  chan struct{}
	peak   chan int64
}

func startConntrack(buffer int) (*conntrackProcess, error) {
	p := &conntrackProcess{
		cmd:   exec.Command("conntrack", "-E", "-e", "NEW", "-b", strconv.Itoa(buffer)),
		ended: make(chan struct{}),
		peak:  make(chan int64, 1),
	}
	p.cmd.Stderr = &p.stderr
	if err := start(p.cmd); err != nil {
		return nil, err
	}
	go func() { p.peak <- watchPeak(strconv.Itoa(p.cmd.Process.Pid), p.ended) }()
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		sockets, err := listeningSockets()
		if err == nil && len(sockets) == 0 && time.Since(begin) > idle {
			err = errors.New("conntrack -E does not listen")
		}
		if err != nil {
			p.kill()
			return nil, err
		}
		if len(sockets) > 0 {
			// It sets the size of its buffer next.
			time.Sleep(20 * time.Millisecond)
			return p, nil
		}
	}
}

func (p *conntrackProcess) end(s *eventSample) error {
	// It has read all events but may not have counted them yet.
	time.Sleep(20 * time.Millisecond)
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		return err
	}
	defer killLater(p.cmd)()
	err := p.cmd.Wait()
	close(p.ended)
	p.ended = nil
	if err != nil {
		return fmt.Errorf("conntrack -E: %w\n%s", err, tail(p.stderr.Bytes()))
	}
	s.Foreign = true
	s.Peak = <-p.peak
	s.CPU = (p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()).Nanoseconds()
	// "conntrack v1.4.7 (conntrack-tools): 42 flow events have been shown."
	out := p.stderr.Bytes()
	s.Overruns = bytes.Count(out, []byte("hit ENOBUFS"))
	_, shown, ok := bytes.Cut(out, []byte("(conntrack-tools): "))
	if _, err := fmt.Sscanf(string(shown), "%d flow events", &s.Flows); !ok || err != nil {
		return fmt.Errorf("conntrack -E: %s", tail(out))
	}
	return nil
}

func (p *conntrackProcess) kill() {
	kill(p.cmd)
	if p.ended != nil {
		close(p.ended)
		p.ended = nil
	}
}
