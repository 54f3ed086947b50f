package cttimeout

import (
	"github.com/mdlayher/netlink"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/netfilter"
)

// A Conn manages the timeout policies of one network namespace over one socket.
// Its methods may be called by multiple goroutines at once.
type Conn struct {
	socket *nfnl.Conn
}

// Dial opens a [Conn] for the network namespace of the calling thread, or for
// that of config.NetNS, a descriptor of a network namespace. The descriptor may
// be closed afterwards. A nil config means the zero config. Dial ignores
// config.Groups: the kernel sends no events about policies.
//
// Dial needs CAP_SYS_ADMIN for config.NetNS, and otherwise no privilege. The
// requests of a [Conn] need CAP_NET_ADMIN. On systems without netlink, the error
// satisfies errors.Is(err, errors.ErrUnsupported).
func Dial(config *netlink.Config) (*Conn, error) {
	if config != nil {
		own := *config
		own.Groups = 0
		config = &own
	}
	socket, err := nfnl.Dial(config)
	if err != nil {
		return nil, opError(opDial, "", err)
	}
	return &Conn{socket: socket}, nil
}

// Close closes the socket. Running and later calls return an error that
// satisfies errors.Is(err, fs.ErrClosed), but the kernel may have carried out
// the requests of running ones. Closing twice is not an error.
func (c *Conn) Close() error { return opError(opClose, "", c.socket.Close()) }

// message starts the only message of e.
func message(e *nfnl.Encoder, typ nfnl.MessageType, flags netlink.HeaderFlags) {
	e.Message(nfnl.Header{
		SubsystemID: nfnl.NFSubsysCTNetlinkTimeout,
		MessageType: typ,
		Flags:       flags,
	})
}

// Create adds a policy. Timeouts that are not in p get the current defaults of
// the namespace. p.Use is ignored.
//
// The error wraps unix.EEXIST if a policy with that name exists, and
// unix.EOPNOTSUPP if the kernel does not track the protocol.
func (c *Conn) Create(p Policy) error {
	return opError(opCreate, p.Name, c.put(&p, netlink.Create|netlink.Excl))
}

// Set replaces all timeouts of a policy. Timeouts that are not in p get the
// current defaults of the namespace. p.Use is ignored. If there is no policy
// with that name, Set creates it: the kernel has no request that only replaces.
//
// Rules and flows keep the policy. A flow gets its new timeout with its next
// packet. A packet that arrives while the kernel writes the timeouts may get a
// default instead.
//
// The family and the protocol of a policy cannot change. If they differ, the
// error wraps unix.EINVAL.
func (c *Conn) Set(p Policy) error {
	return opError(opSet, p.Name, c.put(&p, netlink.Create|netlink.Replace))
}

func (c *Conn) put(p *Policy, flags netlink.HeaderFlags) error {
	var e nfnl.Encoder
	message(&e, msgNew, netlink.Acknowledge|flags)
	if err := p.marshal(&e); err != nil {
		return err
	}
	return c.socket.Do(&e, nil)
}

// inPolicy are the attributes that the kernel always sends of a policy.
var inPolicy = []uint16{ctaTimeoutName, ctaTimeoutL3Proto, ctaTimeoutL4Proto, ctaTimeoutData}

// Get returns the policy with the given name. If there is none, the error
// satisfies errors.Is(err, unix.ENOENT).
func (c *Conn) Get(name string) (Policy, error) {
	p, err := c.get(name)
	if err != nil {
		return Policy{}, opError(opGet, name, err)
	}
	return p, nil
}

func (c *Conn) get(name string) (p Policy, err error) {
	if err := checkName(name); err != nil {
		return p, err
	}
	var e nfnl.Encoder
	message(&e, msgGet, 0)
	e.String(ctaTimeoutName, name)
	err = c.socket.Do(&e, func(m nfnl.Message) error {
		return p.unmarshal(m.Attributes, inPolicy...)
	})
	return p, err
}

// Dump returns all policies in the order of their creation. If there is an
// error, it returns none.
//
// The kernel sends policies in parts of several kilobytes. If a policy is
// deleted during the dump, those after it may be missing. The kernel does not
// report this.
func (c *Conn) Dump() ([]Policy, error) {
	var (
		e        nfnl.Encoder
		policies []Policy
		bad      error
	)
	message(&e, msgGet, netlink.Dump)
	err := c.socket.Do(&e, func(m nfnl.Message) error {
		// The dump must be read to its end, or the next one fails.
		if bad != nil {
			return nil
		}
		var p Policy
		bad = p.unmarshal(m.Attributes, inPolicy...)
		policies = append(policies, p)
		return nil
	})
	if err == nil {
		err = bad
	}
	if err != nil {
		return nil, opError(opDump, "", err)
	}
	return policies, nil
}

// Delete removes the policy with the given name. If there is none, the error
// satisfies errors.Is(err, unix.ENOENT).
//
// While rules refer to the policy, and for a moment after they are removed, the
// error wraps unix.EBUSY. Kernels of late 2026, such as 6.12.117 and 6.1.192,
// remove the policy even then: rules that refer to it still give its timeouts
// to new flows until they are removed too. Flows do not prevent the removal. A
// flow that had the policy uses the defaults from then on.
func (c *Conn) Delete(name string) error { return opError(opDelete, name, c.delete(name)) }

func (c *Conn) delete(name string) error {
	// Without a name, the kernel would delete all policies.
	if err := checkName(name); err != nil {
		return err
	}
	var e nfnl.Encoder
	message(&e, msgDelete, netlink.Acknowledge)
	e.String(ctaTimeoutName, name)
	return c.socket.Do(&e, nil)
}

// Flush removes all policies, except those for which [Conn.Delete] would fail
// with EBUSY. The kernel does not report which ones remain.
func (c *Conn) Flush() error {
	var e nfnl.Encoder
	message(&e, msgDelete, netlink.Acknowledge)
	return opError(opFlush, "", c.socket.Do(&e, nil))
}

// defaultsFamily returns the family for requests about a protocol's defaults,
// which are the same for IPv4 and IPv6. Kernels before 4.19 also look up the
// protocol by its family, and know ICMP and ICMPv6 only under their own.
func defaultsFamily(protocol uint8) netfilter.ProtoFamily {
	if protocol == conntrack.ProtocolICMPv6 {
		return netfilter.ProtoIPv6
	}
	return netfilter.ProtoIPv4
}

// Defaults returns the timeouts of flows that have a given protocol and no
// policy. These are the sysctls net.netfilter.nf_conntrack_*_timeout* of the
// namespace. They are the same for IPv4 and IPv6. If the kernel does not track
// the protocol, the error wraps unix.EOPNOTSUPP.
func (c *Conn) Defaults(protocol uint8) (Timeouts, error) {
	var e nfnl.Encoder
	message(&e, msgDefaultGet, 0)
	marshalProtocol(&e, defaultsFamily(protocol), protocol)
	var p Policy
	err := c.socket.Do(&e, func(m nfnl.Message) error {
		return p.unmarshal(m.Attributes, ctaTimeoutL4Proto, ctaTimeoutData)
	})
	if err != nil {
		return nil, opError(opDefaults, "", err)
	}
	return p.Timeouts, nil
}

// SetDefaults changes the timeouts of flows that have a given protocol and no
// policy. It changes the sysctls, too. Timeouts that are not in t stay the
// same. So do policies, which have copies of the defaults. If the kernel does
// not track the protocol, the error wraps unix.EOPNOTSUPP.
func (c *Conn) SetDefaults(protocol uint8, t Timeouts) error {
	return opError(opSetDefaults, "", c.setDefaults(protocol, t))
}

func (c *Conn) setDefaults(protocol uint8, t Timeouts) error {
	var e nfnl.Encoder
	message(&e, msgDefaultSet, netlink.Acknowledge)
	marshalProtocol(&e, defaultsFamily(protocol), protocol)
	if err := t.marshal(&e, protocol); err != nil {
		return err
	}
	return c.socket.Do(&e, nil)
}
