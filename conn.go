package conntrack

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/internal/release"
	"github.com/ti-mo/conntrack/internal/testkit"
	"github.com/ti-mo/conntrack/netfilter"
)

// A Conn is a connection to the kernel's connection tracking in one network
// namespace. Its methods may be called from several goroutines, and loops over
// its iterators may be nested.
//
// [Dial] opens one socket, for requests. Each dump and each listener uses a
// socket of its own, which the Conn opens when it needs one, in the same
// network namespace and with the same options.
type Conn struct {
	sockets sockets
	kernel  *kernel

	mu        sync.Mutex // held by Listen and Close while they change the fields below
	listening bool
	workers   sync.WaitGroup // of Listen
	closed    bool
	done      chan struct{} // closed by Close

	overruns atomic.Uint64
}

// Dial opens a connection to the network namespace of the calling thread or, if
// config.NetNS is set, to that of this file descriptor, which may be closed
// afterwards. A nil config is the zero config. Dial ignores config.Groups:
// [Conn.Listen] and [Conn.Events] join groups. config.PID is the netlink
// address of the socket for requests alone.
//
// Dial with config.NetNS needs CAP_SYS_ADMIN. If the descriptor is not of the
// process's own namespace, the [Conn] keeps a thread in the other one until it
// is closed, and opens further sockets from there: once Dial has returned, the
// process may drop all capabilities but CAP_NET_ADMIN.
//
// Without config.NetNS, Dial needs no privilege, but every later request needs
// CAP_NET_ADMIN. On systems other than Linux, the error satisfies
// errors.Is(err, errors.ErrUnsupported).
func Dial(config *netlink.Config) (*Conn, error) {
	if config != nil {
		own := *config
		own.Groups = 0
		config = &own
	}
	request, err := nfnl.Dial(config)
	if err != nil {
		return nil, opError("dial", err)
	}
	return newConn(request, &running), nil
}

func newConn(request *nfnl.Conn, k *kernel) *Conn {
	return &Conn{
		sockets: sockets{request: request},
		kernel:  k,
		done:    make(chan struct{}),
	}
}

func init() {
	testkit.NewKernel = func(r release.Release, sysctl func(string) (uint32, error)) func(*nfnl.Conn) any {
		k := &kernel{release: func() (release.Release, error) { return r, nil }, sysctl: sysctl}
		return func(request *nfnl.Conn) any { return newConn(request, k) }
	}
}

// Close closes the sockets of the Conn and ends whatever it is doing in other
// goroutines. Operations that are under way, and later ones, return an error
// that satisfies errors.Is(err, fs.ErrClosed).
//
// Close waits until the workers of [Conn.Listen] have ended. They end even if
// nobody reads their channels, and the caller may close these afterwards.
// Closing a Conn twice is no error.
func (c *Conn) Close() error {
	err := c.closeOnce()
	c.workers.Wait()
	return opError("close", err)
}

func (c *Conn) closeOnce() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	close(c.done)
	return c.sockets.close()
}

// PortID returns the netlink address of the socket for requests. It is the
// PortID of each [Event] that a request of this Conn caused.
func (c *Conn) PortID() uint32 { return c.sockets.request.PortID() }

// SetOption switches an option on or off for all sockets of the Conn, including
// those that it opens later. No program needs netlink.NoENOBUFS: with it the
// kernel drops events without [ErrOverrun].
func (c *Conn) SetOption(option netlink.ConnOption, enable bool) error {
	return opError("set option", c.sockets.each(func(s *nfnl.Conn) error {
		return s.SetOption(option, enable)
	}))
}

// SetReadBuffer sets the size of the kernel's receive buffer, in bytes, for all
// sockets of the Conn, including those that it opens later. The kernel doubles
// the size, to make room for its bookkeeping.
//
// The sysctl net.core.rmem_max limits the size, unless the process has
// CAP_NET_ADMIN in the initial user namespace. A size below 1, or one that
// cannot be doubled (1<<30 and more), is an error that satisfies errors.Is(err,
// fs.ErrInvalid).
func (c *Conn) SetReadBuffer(bytes int) error {
	return opError("set read buffer", c.sockets.each(func(s *nfnl.Conn) error {
		return s.SetReadBuffer(bytes)
	}))
}

// SetWriteBuffer sets the size of the kernel's send buffer, in bytes, for all
// sockets of the Conn. Otherwise it is like [Conn.SetReadBuffer], with the
// sysctl net.core.wmem_max.
func (c *Conn) SetWriteBuffer(bytes int) error {
	return opError("set write buffer", c.sockets.each(func(s *nfnl.Conn) error {
		return s.SetWriteBuffer(bytes)
	}))
}

// Flush removes all flows, IPv4 and IPv6, in all zones.
func (c *Conn) Flush() error {
	var all kernelFilter
	return c.flush("flush", &all)
}

// FlushFilter removes the flows that f selects. The zero [Filter] selects all
// flows. A filter that contradicts itself is an error:
// [ErrFilterSelectsNothing].
//
// If the kernel is known to honour all of f, FlushFilter is one request:
// [Conn.KernelFilters] tells. Otherwise it dumps the flows and removes them as
// [Conn.DeleteFunc] does, so flows may change or be replaced between the two,
// as described there.
func (c *Conn) FlushFilter(f Filter) error {
	const name = "flush with filter"
	k, err := f.plan(true, c.has)
	if err != nil {
		return opError(name, err)
	}
	if k.exact {
		return c.flush(name, &k)
	}
	_, err = c.deleteFunc(context.Background(), &f, func(*Flow) bool { return true })
	return opError(name, err)
}

func (c *Conn) flush(name string, k *kernelFilter) error {
	return tableError(name, flushFamilies(k.family, func(family netfilter.ProtoFamily) error {
		r := k.flushRequest(family)
		defer r.free()
		return c.sockets.request.Do(&r.enc, nil)
	}))
}

// flushFamilies calls flush with the family. Linux 4.4 refuses to flush all
// families at once, so flushFamilies then calls flush once for each.
func flushFamilies(family netfilter.ProtoFamily, flush func(netfilter.ProtoFamily) error) error {
	err := flush(family)
	if family != netfilter.ProtoUnspec || !nfnl.IsInvalid(err) {
		return err
	}
	if flush(netfilter.ProtoIPv4) != nil {
		return err
	}
	return flush(netfilter.ProtoIPv6)
}
