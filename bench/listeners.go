package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/netfilter"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A listener is a contender in the jobs about events. vishvananda/netlink does
// not support events of this table, but its socket type can receive them
// without decoding.
type listener struct {
	name, contender, title string
	listen                 func(*listening) error // nil for the command
	limits                 eventLimits
}

// The eventLimits are what this library must achieve, as set by issue 4.
type eventLimits struct {
	lossless bool
	cpu      float64 // multiple of the floor's
	allocs   float64 // per event
}

// floorListener is the listener that others are compared with.
const floorListener = "recvmmsg"

var listeners = []listener{
	{name: floorListener, contender: floor, title: "recvmmsg of 64", listen: floorRecvmmsg},
	{name: "recvmsg", contender: floor, title: "recvmsg", listen: floorRecvmsg},
	{
		name: "events", contender: library, title: "**Events**", listen: libraryEvents,
		limits: eventLimits{lossless: true, cpu: 1.25, allocs: 2},
	},
	{
		name: "listen1", contender: library, title: "**Listen, 1 worker**", listen: libraryListen(1),
		limits: eventLimits{lossless: true, cpu: 1.5, allocs: 2},
	},
	{
		name: "listen4", contender: library, title: "**Listen, 4 workers**", listen: libraryListen(4),
		limits: eventLimits{cpu: 1.5, allocs: 2},
	},
	{name: "nl", contender: vishvananda, title: "vishvananda/netlink, nl.Subscribe, undecoded", listen: vishvanandaSubscribe},
	{name: "conntrack", contender: command, title: "`conntrack -E`"},
}

// A listening is a run of a listener, in the process that listens. It counts
// the events of new flows. It ends when it has received all that the kernel
// queued.
//
// The two processes talk over the standard files. "ready" means that events are
// received from now on. "end SENT DROPPED" means that no more will follow.
type listening struct {
	run      *run
	received atomic.Int64
	overruns atomic.Int64
	ended    atomic.Bool
}

// idle is how long a listener waits for events that must arrive.
const idle = 3 * time.Second

// ready starts the measurement. It calls stop when all events have been
// received.
func (l *listening) ready(stop func()) {
	l.run.meter.start()
	fmt.Println("ready")
	go func() {
		l.wait(os.Stdin)
		l.ended.Store(true)
		stop()
	}()
}

// wait returns when all events that were sent and not dropped have been
// received, or when no more arrive.
func (l *listening) wait(parent io.Reader) {
	var sent, dropped int64
	if _, err := fmt.Fscanf(bufio.NewReader(parent), "end %d %d\n", &sent, &dropped); err != nil {
		return // the parent has exited
	}
	received, since := l.received.Load(), time.Now()
	for received+dropped < sent && time.Since(since) < idle {
		time.Sleep(2 * time.Millisecond)
		if now := l.received.Load(); now != received {
			received, since = now, time.Now()
		}
	}
}

func (l *listening) overrun() { l.overruns.Add(1) }

// listenOne does the run in the process that listens.
func (r *run) listenOne() error {
	for i := range listeners {
		if listeners[i].name == r.Contender && listeners[i].listen != nil {
			l := listening{run: r}
			err := listeners[i].listen(&l)
			r.meter.Flows = int(l.received.Load())
			r.meter.Overruns = int(l.overruns.Load())
			return err
		}
	}
	return fmt.Errorf("no listener %q", r.Contender)
}

// newListener returns a socket that has joined the group of new flows. It wakes
// up at intervals to see whether the run is over.
func newListener(buffer int) (*socket, error) {
	s, err := newSocket()
	if err != nil {
		return nil, err
	}
	timeout := unix.NsecToTimeval((10 * time.Millisecond).Nanoseconds())
	err = errors.Join(
		setReadBuffer(s.fd, buffer),
		unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_CONNTRACK_NEW),
	)
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func setReadBuffer(fd, bytes int) error {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes) == nil {
		return nil
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes))
}

// loop calls receive, which returns how many events it received, until the run
// is over.
func (l *listening) loop(receive func() (int, error)) error {
	l.ready(func() {})
	defer l.run.meter.stop()
	for {
		n, err := receive()
		l.received.Add(int64(n))
		switch {
		case err == nil, errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			if l.ended.Load() {
				return nil
			}
		case errors.Is(err, unix.ENOBUFS):
			l.overrun()
		default:
			return err
		}
	}
}

func floorRecvmsg(l *listening) error {
	s, err := newListener(l.run.Buffer)
	if err != nil {
		return err
	}
	defer s.close()
	return l.loop(func() (int, error) {
		_, err := s.receive()
		if err != nil {
			return 0, err
		}
		return 1, nil
	})
}

// listenBatch is how many events the floor and this library receive with one
// system call.
const listenBatch = 64

func floorRecvmmsg(l *listening) error {
	s, err := newListener(l.run.Buffer)
	if err != nil {
		return err
	}
	defer s.close()
	type mmsghdr struct {
		hdr unix.Msghdr
		len uint32
	}
	const size = 4 << 10
	var (
		headers = make([]mmsghdr, listenBatch)
		iovecs  = make([]unix.Iovec, listenBatch)
		memory  = make([]byte, listenBatch*size)
	)
	for i := range headers {
		iovecs[i].Base = &memory[i*size]
		iovecs[i].SetLen(size)
		headers[i].hdr.Iov = &iovecs[i]
		headers[i].hdr.SetIovlen(1)
	}
	defer runtime.KeepAlive(memory)
	return l.loop(func() (int, error) {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(s.fd),
			uintptr(unsafe.Pointer(&headers[0])), listenBatch, unix.MSG_WAITFORONE, 0, 0)
		if errno != 0 {
			return 0, errno
		}
		return int(n), nil
	})
}

var newFlows = []netfilter.NetlinkGroup{netfilter.GroupCTNew}

func (l *listening) dial() (*conntrack.Conn, error) {
	c, err := conntrack.Dial(nil)
	if err != nil {
		return nil, err
	}
	if err := c.SetReadBuffer(l.run.Buffer); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func libraryEvents(l *listening) error {
	c, err := l.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	opts := conntrack.EventOptions{Joined: func() { l.ready(cancel) }}
	for ev, err := range c.Events(ctx, newFlows, &opts) {
		switch {
		case err == nil:
			if ev.Type == conntrack.EventNew {
				l.received.Add(1)
			}
		case errors.Is(err, conntrack.ErrOverrun):
			l.overrun()
		case !errors.Is(err, context.Canceled):
			return err
		}
	}
	l.run.meter.stop()
	return nil
}

// libraryListen returns a function that measures Listen with a channel of 1024
// events and a reader that counts them.
func libraryListen(workers uint8) func(*listening) error {
	return func(l *listening) error {
		c, err := l.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		events := make(chan conntrack.Event, 1024)
		// A goroutine inherits the profile labels of the goroutine that starts
		// it.
		l.run.meter.profile.on()
		errs, err := c.Listen(events, workers, newFlows)
		if err != nil {
			return err
		}
		failed := make(chan error, 1)
		go func() {
			defer close(failed)
			for err := range errs {
				if !errors.Is(err, conntrack.ErrOverrun) {
					failed <- err
					return
				}
				l.overrun()
			}
		}()
		closed := make(chan error, 1)
		l.ready(func() {
			closed <- c.Close()
			close(events)
			close(errs)
		})
		for ev := range events {
			if ev.Type == conntrack.EventNew {
				l.received.Add(1)
			}
		}
		l.run.meter.stop()
		return errors.Join(<-closed, <-failed)
	}
}

func vishvanandaSubscribe(l *listening) error {
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_CONNTRACK_NEW)
	if err != nil {
		return err
	}
	defer s.Close()
	if s.SetReceiveBufferSize(l.run.Buffer, true) != nil {
		if err := s.SetReceiveBufferSize(l.run.Buffer, false); err != nil {
			return err
		}
	}
	l.ready(s.Close)
	defer l.run.meter.stop()
	for {
		messages, _, err := s.Receive()
		switch {
		case err == nil:
			l.received.Add(int64(len(messages)))
		case errors.Is(err, unix.ENOBUFS):
			l.overrun()
		case l.ended.Load():
			return nil
		default:
			return err
		}
	}
}
