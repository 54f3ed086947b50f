package conntracktest

import (
	"encoding/binary"
	"io/fs"
	"math/bits"
	"os"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"

	"github.com/ti-mo/conntrack/internal/nfnl"
)

// A socket is the Kernel's end of a netlink socket. The Kernel's mutex guards all of
// it.
type socket struct {
	k   *Kernel
	pid uint32

	queue   []datagram
	used    int // bytes of the receive buffer
	rcvbuf  int
	sndbuf  int
	arrived *sync.Cond

	overrun   bool // is to be reported
	congested bool // takes no more until the queue was empty

	groups    uint32 // a bit for each
	program   program
	noENOBUFS bool
	reliable  bool // NETLINK_BROADCAST_ERROR

	dump    *dump
	offered bool // a buffer to receive into, so that the next part of a dump may be longer

	closed  bool
	expired bool // the deadline has passed
	timer   *time.Timer
}

// A datagram is one in a receive queue.
type datagram struct {
	b     []byte
	event bool
}

// defaultBuffer is the kernel's default size of a socket's buffers (net.core.rmem_default).
const defaultBuffer = 212992

func (k *Kernel) newSocket() *socket {
	k.pids++
	s := &socket{k: k, pid: k.pids, rcvbuf: defaultBuffer, sndbuf: defaultBuffer}
	s.arrived = sync.NewCond(&k.mu)
	k.sockets = append(k.sockets, s)
	return s
}

// size returns how much of a receive buffer n bytes take: with what the kernel needs
// besides (SKB_TRUESIZE).
func size(n int) int {
	const small, info, skb = 384, 320, 256
	if n <= small {
		return small + info + skb
	}
	return 1<<bits.Len(uint(n+info-1)) + skb
}

// put queues a datagram, and reports whether there was room for it.
func (s *socket) put(d datagram) bool {
	if s.congested || s.used > s.rcvbuf {
		s.lose()
		return false
	}
	s.queue = append(s.queue, d)
	s.used += size(len(d.b))
	s.arrived.Broadcast()
	return true
}

// lose notes that a datagram found no room.
func (s *socket) lose() {
	if s.noENOBUFS {
		return
	}
	if !s.congested {
		s.congested, s.overrun = true, true
		s.arrived.Broadcast()
	}
}

// next takes the next datagram from the queue.
func (s *socket) next() ([]byte, bool) {
	if len(s.queue) == 0 || s.queue[0].event && s.k.held {
		return nil, false
	}
	d := s.queue[0]
	s.queue = s.queue[1:]
	s.used -= size(len(d.b))
	if len(s.queue) == 0 {
		s.congested = false
	}
	return d.b, true
}

// Send implements [nfnl.Link].
func (s *socket) Send(b []byte) error {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	switch {
	case s.closed:
		return fs.ErrClosed
	case s.expired:
		return os.ErrDeadlineExceeded
	case len(b) > s.sndbuf-32:
		return emsgsize.error()
	}
	s.k.datagram(s, b)
	return nil
}

// Receive implements [nfnl.Link].
func (s *socket) Receive(wait bool) ([]byte, error) {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	for {
		switch {
		case s.closed:
			return nil, fs.ErrClosed
		case s.expired:
			return nil, os.ErrDeadlineExceeded
		case s.overrun:
			s.overrun = false
			return nil, enobufs.error()
		}
		if b, ok := s.next(); ok {
			s.offered = true
			s.continueDump()
			s.k.retryDestroys()
			return b, nil
		}
		if !wait {
			return nil, nfnl.ErrWouldBlock
		}
		s.arrived.Wait()
	}
}

// Sibling implements [nfnl.Link].
func (s *socket) Sibling() (nfnl.Link, error) {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	return s.k.newSocket(), nil
}

// Close implements [nfnl.Link].
func (s *socket) Close() error {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.stopTimer()
	s.k.forget(s)
	s.arrived.Broadcast()
	return nil
}

// PID implements [nfnl.Link].
func (s *socket) PID() uint32 { return s.pid }

// SetDeadline implements [nfnl.Link].
func (s *socket) SetDeadline(t time.Time) error {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	s.stopTimer()
	left := time.Until(t)
	s.expired = !t.IsZero() && left <= 0
	if s.expired {
		s.arrived.Broadcast()
	} else if !t.IsZero() {
		s.timer = time.AfterFunc(left, func() { _ = s.SetDeadline(t) })
	}
	return nil
}

func (s *socket) stopTimer() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

// JoinGroup implements [nfnl.Link].
func (s *socket) JoinGroup(group uint32) error {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	switch {
	case group == 0 || group > groupMax:
		return einval.error()
	case s.k.opts.Unprivileged:
		return eperm.error()
	}
	s.groups |= 1 << group
	return nil
}

// SetBPF implements [nfnl.Link].
func (s *socket) SetBPF(raw []bpf.RawInstruction) error {
	p, ok := newProgram(raw)
	if !ok {
		return einval.error()
	}
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	s.program = p
	return nil
}

// SetOption implements [nfnl.Link]. Options that make no difference here are
// accepted.
func (s *socket) SetOption(option netlink.ConnOption, enable bool) error {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	switch option {
	case netlink.NoENOBUFS:
		s.noENOBUFS = enable
	case netlink.BroadcastError:
		s.reliable = enable
	}
	return nil
}

// SetReadBuffer implements [nfnl.Link].
func (s *socket) SetReadBuffer(bytes int) error { return s.set(&s.rcvbuf, max(2*bytes, 2304)) }

// SetWriteBuffer implements [nfnl.Link].
func (s *socket) SetWriteBuffer(bytes int) error { return s.set(&s.sndbuf, max(2*bytes, 4608)) }

func (s *socket) set(size *int, bytes int) error {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	*size = bytes
	return nil
}

// ReadBuffer implements [nfnl.Link].
func (s *socket) ReadBuffer() (int, error) { return s.get(&s.rcvbuf) }

// WriteBuffer implements [nfnl.Link].
func (s *socket) WriteBuffer() (int, error) { return s.get(&s.sndbuf) }

func (s *socket) get(size *int) (int, error) {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	return *size, nil
}

func (e errno) error() error { return nfnl.Error(int32(e)) }

// broadcast sends an event to the members of a group, but for the socket with the
// port id except if that is not 0. It reports whether it reached all that want to be
// sure.
func (k *Kernel) broadcast(group uint32, b []byte, except uint32) bool {
	lost, hit := k.overruns > 0, false
	reached := true
	for _, s := range k.sockets {
		switch {
		case s.groups&(1<<group) == 0 || except != 0 && s.pid == except || !s.wants(b):
			continue
		case lost:
			hit = true
			s.lose()
		case s.put(datagram{b, true}):
			continue
		}
		reached = reached && !s.reliable
	}
	if hit {
		k.overruns--
	}
	return reached
}

// wants reports whether the socket's program lets b pass.
func (s *socket) wants(b []byte) bool { return s.program == nil || s.program.run(b) }

// unicast sends an answer.
func (s *socket) unicast(b []byte) { s.put(datagram{b: b}) }

// A header is the headers of a request.
type header struct {
	typ, flags uint16
	seq        uint32
	family     uint8
	version    uint8
}

// datagram carries out the requests in b.
func (k *Kernel) datagram(s *socket, b []byte) {
	if len(b) < nlmsgHeaderLen || messageLen(b) > len(b) || messageLen(b) < nlmsgHeaderLen {
		return
	}
	if k.opts.Unprivileged && s.pid != 0 {
		s.ack(b, eperm)
		return
	}
	if binary.NativeEndian.Uint16(b[4:]) == batchBegin {
		s.ack(b, eopnotsupp) // conntrack has no transactions
		return
	}
	for len(b) >= nlmsgHeaderLen {
		n := messageLen(b)
		if n < nlmsgHeaderLen || n > len(b) {
			return
		}
		k.message(s, b[:n])
		b = b[min(align(n), len(b)):]
	}
}

func messageLen(b []byte) int { return int(binary.NativeEndian.Uint32(b)) }

// message carries out one request and acknowledges it.
func (k *Kernel) message(s *socket, b []byte) {
	flags := binary.NativeEndian.Uint16(b[6:])
	typ := binary.NativeEndian.Uint16(b[4:])
	var err errno
	if flags&flagRequest != 0 && typ >= nlmsgMin && len(b) >= nlmsgHeaderLen+nfgenmsgLen {
		var acknowledged bool
		if acknowledged, err = k.request(s, b); acknowledged {
			return
		}
	}
	if flags&flagAck != 0 || err != 0 {
		s.ack(b, err)
	}
}

// ack sends an acknowledgement, or an error if err is not 0.
func (s *socket) ack(request []byte, err errno) {
	var w writer
	w.header(nlmsgError, flagCapped, binary.NativeEndian.Uint32(request[8:]), s.pid)
	w.b = binary.NativeEndian.AppendUint32(w.b, uint32(-int32(err)))
	w.b = append(w.b, request[:nlmsgHeaderLen]...)
	w.end()
	s.unicast(w.b)
}

// A dump is the answer to a request, in parts.
type dump struct {
	header
	interrupted bool
	flows       bool
	step        int
	next        func(room int) []byte // the messages of the next part, none if there is none
}

// The kernel's sizes of a part of a dump.
const (
	firstPart = 3776
	laterPart = 32 << 10
)

// startDump begins to answer with d.
func (s *socket) startDump(d *dump) errno {
	if s.dump != nil {
		return ebusy
	}
	s.dump = d
	d.interrupted = s.k.interrupted && d.flows
	if d.flows {
		s.k.interrupted = false
	}
	s.fillDump()
	return 0
}

// continueDump queues the next part of a dump, if there is room.
func (s *socket) continueDump() {
	d := s.dump
	if d == nil || s.used > s.rcvbuf/2 {
		return
	}
	if hook := s.k.onDump; hook != nil && d.flows {
		s.k.mu.Unlock()
		hook(d.step)
		s.k.mu.Lock()
		if s.dump != d || s.closed {
			return
		}
	}
	s.fillDump()
}

func (s *socket) fillDump() {
	d := s.dump
	d.step++
	room := firstPart
	if s.offered {
		room = laterPart
	}
	b := d.next(room)
	if len(b) == 0 {
		s.dump = nil
		var w writer
		w.header(nlmsgDone, flagMulti, d.seq, s.pid)
		w.b = binary.NativeEndian.AppendUint32(w.b, 0)
		w.end()
		b = w.b
	}
	if d.interrupted {
		for m := b; len(m) > 0; m = m[messageLen(m):] {
			binary.NativeEndian.PutUint16(m[6:], binary.NativeEndian.Uint16(m[6:])|flagDumpIntr)
		}
	}
	s.unicast(b)
}
