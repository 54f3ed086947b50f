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

// A Conn is a connection to the kernel's connection tracking, in one network
// namespace. Its methods may be called from several goroutines, those that
// iterate also from within each other's loops.
//
// It opens one socket at Dial, for requests. Each dump and each listener has a
// socket of its own, opened when it is needed in the same network namespace and
// with the same options.
type Conn struct {
	sockets sockets
	kernel  *kernel

	mu        sync.Mutex // held by Listen and Close while they change what is below
	listening bool
	workers   sync.WaitGroup // of Listen
	closed    bool
	done      chan struct{} // closed by Close

	overruns atomic.Uint64
}

// Dial opens a connection to the network namespace of the calling thread or, if
// config.NetNS is set, of that descriptor, which may be closed afterwards. A nil
// config is the zero config. Dial ignores config.Groups, since [Conn.Listen] and
// [Conn.Events] join groups; config.PID is the address of the socket for requests
// alone.
//
// config.NetNS takes CAP_SYS_ADMIN. A Conn in another namespace than the process
// keeps a thread there until it is closed, for the sockets that it opens later: the
// process may drop all capabilities but CAP_NET_ADMIN.
//
// Otherwise Dial succeeds without privilege, but no operation of the Conn does. On
// other systems than Linux the error satisfies errors.Is(err,
// errors.ErrUnsupported).
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
	testkit.NewKernel = func(r release.Release) func(*nfnl.Conn) any {
		k := &kernel{release: func() (release.Release, error) { return r, nil }}
		return func(request *nfnl.Conn) any { return newConn(request, k) }
	}
}

// Close ends what the Conn does, in whatever goroutine, and closes its sockets.
// It returns when the workers of Listen have ended, which does not depend on
// anybody reading their channels; the caller may close these then. Operations
// that were under way, and later ones, return an error that satisfies
// errors.Is(err, fs.ErrClosed). Closing twice is no error.
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

// PortID returns the netlink address of the socket that all requests but dumps go
// through: Event.PortID of the events that they cause.
func (c *Conn) PortID() uint32 { return c.sockets.request.PortID() }

// SetOption switches an option of all sockets of the Conn on or off, including
// those that it opens later. With netlink.NoENOBUFS the kernel does not tell of
// overruns, so that events are lost without ErrOverrun; there is no need for it.
func (c *Conn) SetOption(option netlink.ConnOption, enable bool) error {
	return opError("set option", c.sockets.each(func(s *nfnl.Conn) error {
		return s.SetOption(option, enable)
	}))
}

// SetReadBuffer sets the size in bytes of the kernel's receive buffer for all
// sockets of the Conn, including those that it opens later. With CAP_NET_ADMIN in
// the initial user namespace it may exceed the sysctl net.core.rmem_max, which
// limits it otherwise. The kernel doubles the value, to make room for its
// bookkeeping. A size below 1, or too large to be doubled, from 1<<30 on, gives an
// error that satisfies errors.Is(err, fs.ErrInvalid).
func (c *Conn) SetReadBuffer(bytes int) error {
	return opError("set read buffer", c.sockets.each(func(s *nfnl.Conn) error {
		return s.SetReadBuffer(bytes)
	}))
}

// SetWriteBuffer sets the size in bytes of the kernel's send buffer for all
// sockets of the Conn, in the manner of SetReadBuffer (net.core.wmem_max).
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

// FlushFilter removes the flows that f selects. The zero Filter selects all of them. A
// filter that contradicts itself gives [ErrFilterSelectsNothing].
//
// If the kernel is known to honour all of f, this is one request. If not, it is
// [Conn.DeleteFunc], and what is said there holds here too.
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

// flushFamilies calls flush for a family. Linux 4.4 refuses to flush all families at
// once: then it calls flush for each.
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
