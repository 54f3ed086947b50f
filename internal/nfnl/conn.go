package nfnl

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack/netfilter"
	"golang.org/x/net/bpf"
)

// A Conn is a netlink socket that speaks nfnetlink. Its methods may be called
// by multiple goroutines at once.
//
// Errors from the kernel are of type [*netlink.OpError]. They wrap the errno
// and carry the kernel's text, if it sent one. After [Conn.Close], errors
// satisfy errors.Is(err, ErrClosed). After a deadline, they satisfy
// errors.Is(err, os.ErrDeadlineExceeded).
//
// Messages from other programs are ignored, but counted by [Conn.Foreign].
type Conn struct {
	nl     netlinkSocket
	raw    syscall.RawConn // of nl; nil if link is set
	link   Link            // nil for a socket of the kernel's
	config netlink.Config
	closed atomic.Bool
	home   *home // nil if any thread can open siblings
	owner  bool  // whether Close closes home

	mu  sync.Mutex // held during one exchange: a request and its replies
	seq uint32
	io  exchanger

	queue eventQueue
	setup settings
}

// settings are what a sibling inherits: the options set on a Conn, and the
// counter they share.
type settings struct {
	foreign *atomic.Uint64

	mu          sync.Mutex
	options     map[netlink.ConnOption]bool
	readBuffer  int
	writeBuffer int
}

// replyBufferSize exceeds the longest datagram of a dump, which is 32 KiB
// (netlink_dump in af_netlink.c).
const replyBufferSize = 64 << 10

// Dial opens a socket. A nil config means the zero config. On kernels that
// support it, errors carry an extended text and no copy of the request.
//
// Dial needs no privilege, except CAP_SYS_ADMIN if config.NetNS is set. A Conn
// in a network namespace other than the process's keeps a thread there until it
// is closed, so that [Conn.Sibling] needs no privilege.
//
// On systems without netlink, the error satisfies errors.Is(err,
// errors.ErrUnsupported).
func Dial(config *netlink.Config) (*Conn, error) {
	if config == nil {
		config = &netlink.Config{}
	}
	h, err := newHome(config.NetNS)
	if err != nil {
		return nil, err
	}
	inside := *config
	inside.NetNS = 0
	c, err := open(h, &inside)
	if err != nil {
		if h != nil {
			h.close()
		}
		return nil, err
	}
	c.owner = true
	return c, nil
}

// open opens a socket in the namespace of h.
func open(h *home, config *netlink.Config) (*Conn, error) {
	nl, err := h.dial(config)
	if err != nil {
		return nil, err
	}
	c, err := newConn(nl, config)
	if err != nil {
		_ = nl.Close()
		return nil, err
	}
	c.home = h
	// These fail on kernels before 4.3 and 4.12, and are not required.
	_ = nl.SetOption(netlink.CapAcknowledge, true)
	_ = nl.SetOption(netlink.ExtendedAcknowledge, true)
	return c, nil
}

func newConn(nl *netlink.Conn, config *netlink.Config) (*Conn, error) {
	raw, err := nl.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &Conn{nl: nl, raw: raw, config: *config, io: newRequestIO(raw)}
	c.setup.foreign = new(atomic.Uint64)
	return c, nil
}

// Sibling opens another socket like c: in the same network namespace, whichever
// one the calling thread is in, and with the same options and buffer sizes. It
// needs CAP_SYS_ADMIN only if c is in the process's network namespace and the
// calling thread is in another.
func (c *Conn) Sibling() (*Conn, error) {
	if c.link != nil {
		return c.linkSibling()
	}
	config := c.config
	config.PID, config.Groups = 0, 0
	s, err := open(c.home, &config)
	if err != nil {
		return nil, err
	}
	if c.home == nil {
		if s, err = c.bring(s, config); err != nil {
			return nil, err
		}
	}
	if err := s.apply(&c.setup); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// bring returns s if it is in the network namespace of c. Otherwise it closes s
// and returns a new socket that is.
func (c *Conn) bring(s *Conn, config netlink.Config) (*Conn, error) {
	same, err := c.sameNamespace(s)
	if same {
		return s, nil
	}
	_ = s.Close()
	if err != nil {
		return nil, err
	}
	ns, err := c.namespace()
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	config.NetNS = int(ns.Fd())
	s, err = open(nil, &config)
	if err != nil {
		return nil, fmt.Errorf("entering the socket's network namespace: %w", err)
	}
	return s, nil
}

// apply copies the settings of another Conn to c.
func (c *Conn) apply(s *settings) error {
	c.setup.foreign = s.foreign
	s.mu.Lock()
	defer s.mu.Unlock()
	for option, enable := range s.options {
		if err := c.SetOption(option, enable); err != nil {
			return err
		}
	}
	if s.readBuffer > 0 {
		if err := c.SetReadBuffer(s.readBuffer); err != nil {
			return err
		}
	}
	if s.writeBuffer > 0 {
		return c.SetWriteBuffer(s.writeBuffer)
	}
	return nil
}

// Close closes the socket. Calls in other goroutines return an error at once,
// but the kernel may have carried out their requests. Closing twice is not an
// error.
func (c *Conn) Close() error {
	c.closed.Store(true)
	if c.home != nil && c.owner {
		c.home.close()
	}
	return c.nl.Close()
}

// SetOption turns an option of the socket on or off.
func (c *Conn) SetOption(option netlink.ConnOption, enable bool) error {
	if err := c.nl.SetOption(option, enable); err != nil {
		return c.fault(err)
	}
	c.setup.mu.Lock()
	defer c.setup.mu.Unlock()
	if c.setup.options == nil {
		c.setup.options = make(map[netlink.ConnOption]bool)
	}
	c.setup.options[option] = enable
	return nil
}

// SetReadBuffer sets the size in bytes of the socket's receive buffer. The size
// must be from 1 to maxBuffer; for others, the error satisfies errors.Is(err,
// fs.ErrInvalid). The sysctl net.core.rmem_max limits it, unless the caller has
// CAP_NET_ADMIN in the initial user namespace (SO_RCVBUFFORCE). The kernel
// doubles the value to make room for its bookkeeping.
func (c *Conn) SetReadBuffer(bytes int) error {
	if err := checkBuffer(bytes); err != nil {
		return err
	}
	if err := c.nl.SetReadBuffer(bytes); err != nil {
		return c.fault(err)
	}
	c.setup.mu.Lock()
	defer c.setup.mu.Unlock()
	c.setup.readBuffer = bytes
	return nil
}

// SetWriteBuffer sets the size in bytes of the socket's send buffer. It works
// like [Conn.SetReadBuffer].
func (c *Conn) SetWriteBuffer(bytes int) error {
	if err := checkBuffer(bytes); err != nil {
		return err
	}
	if err := c.nl.SetWriteBuffer(bytes); err != nil {
		return c.fault(err)
	}
	c.setup.mu.Lock()
	defer c.setup.mu.Unlock()
	c.setup.writeBuffer = bytes
	return nil
}

// maxBuffer is the largest buffer size whose double fits the kernel's int.
const maxBuffer = math.MaxInt32 / 2

// checkBuffer rejects the sizes that the kernel would silently change.
func checkBuffer(bytes int) error {
	if bytes < 1 || bytes > maxBuffer {
		return fmt.Errorf("%w: a buffer of %d bytes, it may have 1 to %d", fs.ErrInvalid, bytes, maxBuffer)
	}
	return nil
}

// HasReadBuffer reports whether SetReadBuffer was called on c, or on the Conn
// that c is a sibling of.
func (c *Conn) HasReadBuffer() bool {
	c.setup.mu.Lock()
	defer c.setup.mu.Unlock()
	return c.setup.readBuffer > 0
}

// SetDeadline sets the time after which sending and receiving fail with an
// error that satisfies errors.Is(err, os.ErrDeadlineExceeded). The zero time
// means no deadline. A deadline in the past interrupts a [Receiver] that is
// waiting. Requests do not wait.
func (c *Conn) SetDeadline(t time.Time) error { return c.fault(c.nl.SetDeadline(t)) }

// SetBPF attaches a classic BPF program to the socket. The program sees each
// datagram before it enters the receive buffer, starting at the netlink header.
// It returns 0 to drop the datagram.
func (c *Conn) SetBPF(program []bpf.RawInstruction) error {
	return c.fault(c.nl.SetBPF(program))
}

// PortID returns the netlink address of the socket (nl_pid).
func (c *Conn) PortID() uint32 { return c.nl.PID() }

// JoinGroup subscribes the socket to a multicast group. It needs CAP_NET_ADMIN
// in the user namespace that owns the socket's network namespace.
func (c *Conn) JoinGroup(g netfilter.NetlinkGroup) error { return c.fault(c.nl.JoinGroup(uint32(g))) }

// Foreign returns how many messages from other programs c and its siblings have
// ignored.
func (c *Conn) Foreign() uint64 { return c.setup.foreign.Load() }

// fault returns err, or an error that wraps ErrClosed if c was closed.
func (c *Conn) fault(err error) error {
	if err != nil && c.closed.Load() {
		return &netlink.OpError{Op: "use", Err: ErrClosed}
	}
	return err
}

// Do sends the one message in e and passes each reply to fn. A nil fn ignores
// the replies. The flags of the message decide when Do is done: a dump ends
// with the kernel's DONE; a request with netlink.Acknowledge ends with the
// acknowledgement; any other request ends with its first reply. A request that
// has no reply must therefore ask for an acknowledgement. An error from the
// kernel ends any request.
//
// If fn returns an error, Do returns it. Later exchanges skip the replies that
// were not read. But after a dump that was not read to its end, the kernel
// refuses the next one with EBUSY: close the Conn.
func (c *Conn) Do(e *Encoder, fn func(Message) error) error {
	x := exchange{fn: fn, count: 1}
	return c.exchange(e, &x)
}

// DoBatch sends all messages in e at once. It calls failed with the index and
// the error of each message that the kernel refused. The messages are carried
// out in order, and each succeeds or fails on its own. DoBatch returns an error
// if the outcome of some of them is unknown. By then it has called failed for
// those known to have failed.
//
// The kernel's error messages must fit into the receive buffer: see
// [Conn.MaxBatch].
func (c *Conn) DoBatch(e *Encoder, failed func(i int, err error)) error {
	x := exchange{failed: failed, count: uint32(e.count)}
	return c.exchange(e, &x)
}

// DoReplies is like [Conn.DoBatch] for requests that are each answered by a
// message. It calls reply with the index and the answer of each request that
// succeeded. If reply returns an error, DoReplies returns it.
//
// The answers must fit into the receive buffer: see [Conn.MaxReplies].
func (c *Conn) DoReplies(e *Encoder, reply func(i int, m Message) error, failed func(i int, err error)) error {
	x := exchange{failed: failed, count: uint32(e.count)}
	x.fn = func(m Message) error { return reply(int(m.Sequence-x.first), m) }
	return c.exchange(e, &x)
}

// An exchange is the state of one request or batch.
type exchange struct {
	first, count uint32 // sequence numbers
	fn           func(Message) error
	failed       func(i int, err error) // nil unless this is a batch

	single      bool // ends with the first reply
	done        bool
	interrupted bool  // NLM_F_DUMP_INTR was seen
	denied      error // the first message of a batch was refused for lack of privilege
}

func (c *Conn) exchange(e *Encoder, x *exchange) error {
	c.mu.Lock()
	defer c.mu.Unlock()

	// Events have the sequence number 0.
	if c.seq+x.count < c.seq {
		c.seq = 0
	}
	x.first = c.seq + 1
	if err := e.seal(x.first, x.failed != nil); err != nil {
		return err
	}
	c.seq += x.count

	flags := e.flags()
	x.single = flags&netlink.Acknowledge == 0 && flags&netlink.Dump != netlink.Dump

	if err := c.io.send(e.buf); err != nil {
		return c.fault(err)
	}
	return c.replies(x)
}

// replies receives until x is done.
func (c *Conn) replies(x *exchange) error {
	for !x.done {
		b, err := c.io.receive()
		switch {
		case errors.Is(err, errForeignSender):
			c.setup.foreign.Add(1)
			continue
		case errors.Is(err, ErrNoReply) && x.denied != nil:
			x.denyRest()
			return nil
		case err != nil:
			return c.fault(err)
		}
		if err := x.datagram(b); err != nil {
			return err
		}
	}
	if x.interrupted {
		return ErrDumpInterrupted
	}
	return nil
}

// datagram handles the messages in b.
func (x *exchange) datagram(b []byte) error {
	for len(b) > 0 && !x.done {
		m, rest, err := nextMessage(b)
		if err != nil {
			return err
		}
		b = rest
		// Replies to an exchange that was abandoned may still arrive.
		if m.sequence()-x.first >= x.count {
			continue
		}
		if err := x.message(m, len(rest) == 0); err != nil {
			return err
		}
	}
	return nil
}

func (x *exchange) message(m rawMessage, last bool) error {
	x.interrupted = x.interrupted || m.flags()&netlink.DumpInterrupted != 0
	switch m.typ() {
	case netlink.Error:
		return x.result(m)
	case netlink.Done:
		x.done = true
		return doneResult(m)
	case netlink.Noop:
		return nil
	}
	x.done = x.single
	if x.fn == nil {
		return nil
	}
	if len(m) < nlmsgHeaderLen+nfgenmsgLen {
		return m.tooShort()
	}
	reply := m.message()
	reply.Last = last
	return x.fn(reply)
}

// result handles an acknowledgement or an error.
func (x *exchange) result(m rawMessage) error {
	i := m.sequence() - x.first
	x.done = i == x.count-1
	err := errorResult(m)
	if err == nil && x.single {
		return fmt.Errorf("%w: an acknowledgement in place of an answer", ErrMalformed)
	}
	if err == nil || x.failed == nil || errors.Is(err, ErrMalformed) {
		return err
	}
	x.denied = nil
	if i == 0 && errors.Is(err, fs.ErrPermission) {
		x.denied = err
	}
	x.failed(int(i), err)
	return nil
}

// denyRest reports the same error for all messages after the first. The kernel
// checks the privilege at the first message of a datagram and skips the others.
func (x *exchange) denyRest() {
	for i := 1; i < int(x.count); i++ {
		x.failed(i, x.denied)
	}
}

// The kernel puts each error and each reply into a buffer of its own, and
// charges its whole size. These are more than the largest seen on 6.18: an
// error with extended text, and a flow with every attribute.
const (
	errorFootprint = 1536
	replyFootprint = 2304
)

// MaxBatch returns the limits of a batch: how many messages, so that all their
// errors fit into the receive buffer; and how many bytes, so that it fits into
// the send buffer.
func (c *Conn) MaxBatch() (messages, bytes int) { return c.maxBatch(errorFootprint) }

// MaxReplies is like [Conn.MaxBatch] for requests that are each answered by a
// message.
func (c *Conn) MaxReplies() (messages, bytes int) { return c.maxBatch(replyFootprint) }

func (c *Conn) maxBatch(footprint int) (messages, bytes int) {
	const (
		most      = 128
		mostBytes = 64 << 10
		reserve   = 32 // see netlink_sendmsg in af_netlink.c
	)
	messages, bytes = 1, 1
	if size, err := c.nl.ReadBuffer(); err == nil {
		messages = max(messages, min(most, size/footprint))
	}
	if size, err := c.nl.WriteBuffer(); err == nil {
		bytes = max(bytes, min(mostBytes, size-reserve))
	}
	return messages, bytes
}
