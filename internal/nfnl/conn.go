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
// from several goroutines.
//
// Errors of the kernel are of type [*netlink.OpError] and wrap the errno, with
// the kernel's text where it gave one. After Close, errors satisfy
// errors.Is(err, ErrClosed); past a deadline, errors.Is(err,
// os.ErrDeadlineExceeded).
//
// Messages that other programs send to the socket are ignored, and counted: see
// [Conn.Foreign].
type Conn struct {
	nl     netlinkSocket
	raw    syscall.RawConn // of nl; nil if link is set
	link   Link            // nil for a socket of the kernel's
	config netlink.Config
	closed atomic.Bool
	home   *home // nil if any thread can open siblings
	owner  bool  // of home

	mu  sync.Mutex // held for one exchange: a request and its replies
	seq uint32
	io  exchanger

	queue eventQueue
	setup settings
}

// settings are what a Sibling takes over: what was set on a Conn, and the count
// that they share.
type settings struct {
	foreign *atomic.Uint64

	mu          sync.Mutex
	options     map[netlink.ConnOption]bool
	readBuffer  int
	writeBuffer int
}

// replyBufferSize holds the longest datagram that the kernel sends in a dump
// (32 KiB, see netlink_dump in af_netlink.c), and then some.
const replyBufferSize = 64 << 10

// Dial opens a socket. A nil config is the zero config. Errors come with the
// kernel's extended text, and without a copy of the request, where the kernel
// has these options.
//
// Dial itself takes no privilege, but with config.NetNS, where it takes
// CAP_SYS_ADMIN. A Conn in another network namespace than the process keeps a
// thread there until it is closed, so that Sibling takes no privilege.
//
// Where there is no netlink, the error satisfies errors.Is(err,
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
	// Older kernels than 4.3 and 4.12 do not have them, and we work without.
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

// Sibling opens a socket like c: in the same network namespace, wherever the
// calling thread is, and with the options and buffer sizes that were set on c.
// It takes CAP_SYS_ADMIN only if the calling thread is in another network
// namespace than c, and c in that of the process.
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

// bring returns s if it is in the network namespace of c, or else closes it and
// returns another one that is.
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

// apply makes c take over s, the settings of another Conn.
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

// Close closes the socket. What other goroutines do with it returns an error
// at once; what a request has asked for may have happened all the same. Closing
// twice is no error.
func (c *Conn) Close() error {
	c.closed.Store(true)
	if c.home != nil && c.owner {
		c.home.close()
	}
	return c.nl.Close()
}

// SetOption switches an option of the socket on or off.
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

// SetReadBuffer sets the size of the kernel's receive buffer for the socket, in
// bytes, from 1 to maxBuffer: others are refused with an error that satisfies
// errors.Is(err, fs.ErrInvalid). With CAP_NET_ADMIN in the initial user namespace
// it may exceed the sysctl net.core.rmem_max (SO_RCVBUFFORCE), which limits it
// otherwise. The kernel doubles the value, to make room for its bookkeeping.
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

// SetWriteBuffer sets the size of the kernel's send buffer for the socket, in
// bytes, in the manner of SetReadBuffer.
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

// maxBuffer is the largest size of a buffer: doubled, it is an int of the
// kernel's.
const maxBuffer = math.MaxInt32 / 2

// checkBuffer returns an error for a size of which the kernel would make another
// one without a word.
func checkBuffer(bytes int) error {
	if bytes < 1 || bytes > maxBuffer {
		return fmt.Errorf("%w: a buffer of %d bytes, it may have 1 to %d", fs.ErrInvalid, bytes, maxBuffer)
	}
	return nil
}

// HasReadBuffer reports whether SetReadBuffer was called on c, or on the Conn
// that it is a Sibling of.
func (c *Conn) HasReadBuffer() bool {
	c.setup.mu.Lock()
	defer c.setup.mu.Unlock()
	return c.setup.readBuffer > 0
}

// SetDeadline sets the time after which sending and receiving fail with an
// error that satisfies errors.Is(err, os.ErrDeadlineExceeded). The zero time
// means never. A deadline in the past ends what a Receiver waits for at this
// moment; requests do not wait.
func (c *Conn) SetDeadline(t time.Time) error { return c.fault(c.nl.SetDeadline(t)) }

// SetBPF attaches a classic BPF program to the socket. It sees each datagram
// that is to be put into the receive buffer, from the netlink header on, and
// returns 0 to drop it.
func (c *Conn) SetBPF(program []bpf.RawInstruction) error {
	return c.fault(c.nl.SetBPF(program))
}

// PortID returns the socket's own netlink address (nl_pid).
func (c *Conn) PortID() uint32 { return c.nl.PID() }

// JoinGroup makes the socket receive what the kernel sends to a multicast
// group. It takes CAP_NET_ADMIN in the user namespace that owns the socket's
// network namespace.
func (c *Conn) JoinGroup(g netfilter.NetlinkGroup) error { return c.fault(c.nl.JoinGroup(uint32(g))) }

// Foreign returns how many messages c and its siblings have ignored, since other
// programs had sent them.
func (c *Conn) Foreign() uint64 { return c.setup.foreign.Load() }

// fault returns err, as an error that satisfies ErrClosed if c was closed.
func (c *Conn) fault(err error) error {
	if err != nil && c.closed.Load() {
		return &netlink.OpError{Op: "use", Err: ErrClosed}
	}
	return err
}

// Do sends the one message in e and passes each reply to fn, which may be nil
// if none is of interest. Its flags say what ends the replies: a dump ends with
// the kernel's DONE, another request with the acknowledgement if it asks for
// one (netlink.Acknowledge), and with the first reply if not, so that a request
// without a reply must ask for one. An error from the kernel ends any of them.
//
// An error of fn ends Do with that error. What of the reply was not read then is
// skipped by the exchanges that follow, but a dump that
// was not read to its end makes the kernel refuse the next one with EBUSY:
// close the Conn.
func (c *Conn) Do(e *Encoder, fn func(Message) error) error {
	x := exchange{fn: fn, count: 1}
	return c.exchange(e, &x)
}

// DoBatch sends all messages in e at once, and calls failed with the index and
// the error of each that the kernel refused. The messages are carried out in
// order, and each succeeds or fails alone. DoBatch itself returns an error if
// the outcome of some of them is not known; it then has called failed for
// those that are known to have failed.
//
// The kernel's answers to the failed ones must fit into the receive buffer: see
// MaxBatch.
func (c *Conn) DoBatch(e *Encoder, failed func(i int, err error)) error {
	x := exchange{failed: failed, count: uint32(e.count)}
	return c.exchange(e, &x)
}

// DoReplies is DoBatch for requests that are answered by a message each: it calls
// reply with the index and the answer of each that the kernel did not refuse. An
// error of reply ends DoReplies with that error.
//
// The answers must fit into the receive buffer: see MaxReplies.
func (c *Conn) DoReplies(e *Encoder, reply func(i int, m Message) error, failed func(i int, err error)) error {
	x := exchange{failed: failed, count: uint32(e.count)}
	x.fn = func(m Message) error { return reply(int(m.Sequence-x.first), m) }
	return c.exchange(e, &x)
}

// An exchange is a request on its way.
type exchange struct {
	first, count uint32 // sequence numbers
	fn           func(Message) error
	failed       func(i int, err error) // of a batch, else nil

	single      bool // ends with the first reply
	done        bool
	interrupted bool  // NLM_F_DUMP_INTR was seen
	denied      error // the first message of a batch was refused for lack of privilege
}

func (c *Conn) exchange(e *Encoder, x *exchange) error {
	c.mu.Lock()
	defer c.mu.Unlock()

	// 0 is the sequence number of events.
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

// replies receives until x has ended.
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
		// The replies to an exchange that was left early may still come.
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
	if i == 0 && errors.Is(err, fs.ErrPermission) {
		x.denied = err
	}
	x.failed(int(i), err)
	return nil
}

// denyRest reports that the messages behind the first one failed like that one.
// Without the privilege for them, the kernel refuses the first message of a
// datagram and does not look at the others.
func (x *exchange) denyRest() {
	for i := 1; i < int(x.count); i++ {
		x.failed(i, x.denied)
	}
}

// Each error and each reply takes a buffer of its own in the kernel, and counts
// with all of that buffer. This is more than the largest ones seen (6.18): of an
// error with the extended text, and of a flow that has all there is.
const (
	errorFootprint = 1536
	replyFootprint = 2304
)

// MaxBatch returns how many messages a batch may have so that the errors of all
// of them fit into the socket's receive buffer, and how many bytes so that it
// fits into the send buffer.
func (c *Conn) MaxBatch() (messages, bytes int) { return c.maxBatch(errorFootprint) }

// MaxReplies is MaxBatch for requests that are answered by a message each.
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
