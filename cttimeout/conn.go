package cttimeout

import (
	"github.com/mdlayher/netlink"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/netfilter"
)

// A Conn is a connection to the timeout policies of one network namespace. It is
// one socket. Its methods may be called from several goroutines.
type Conn struct {
	socket *nfnl.Conn
}

// Dial opens a connection. A nil config is the zero config: the network
// namespace of the calling thread. With config.NetNS, an open descriptor of a
// network namespace, Dial takes CAP_SYS_ADMIN; the descriptor may be closed
// afterwards. config.Groups is ignored: the kernel sends no events about policies.
//
// Dial takes no other privilege, but what is done with the Conn does. Where
// there is no netlink, the error satisfies errors.Is(err,
// errors.ErrUnsupported).
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

// Close closes the socket. Operations that were under way, and later ones,
// return an error that satisfies errors.Is(err, fs.ErrClosed); what they asked for
// may have happened all the same. Closing twice is no error.
func (c *Conn) Close() error { return opError(opClose, "", c.socket.Close()) }

// message begins the only message of e.
func message(e *nfnl.Encoder, typ nfnl.MessageType, flags netlink.HeaderFlags) {
	e.Message(nfnl.Header{
		SubsystemID: nfnl.NFSubsysCTNetlinkTimeout,
		MessageType: typ,
		Flags:       flags,
	})
}

// Create adds a policy. Timeouts that are left out get the namespace's defaults,
// as they are now. p.Use is ignored.
//
// A policy of that name that is there already gives unix.EEXIST, a protocol that
// the kernel does not track unix.EOPNOTSUPP.
func (c *Conn) Create(p Policy) error {
	return opError(opCreate, p.Name, c.put(&p, netlink.Create|netlink.Excl))
}

// Set replaces the timeouts of a policy, all of them: those that are left out get
// the namespace's defaults, as they are now. If there is no policy of that name,
// Set creates it: the kernel has no way to ask for the one without the other.
// p.Use is ignored.
//
// Rules and flows that have the policy keep it. A flow is given the new timeout by
// its next packet. A packet that comes while the kernel writes the timeouts may get
// a default instead.
//
// A policy keeps its family and protocol: others give unix.EINVAL.
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

// inPolicy are the attributes that the kernel sends of a policy in any case.
var inPolicy = []uint16{ctaTimeoutName, ctaTimeoutL3Proto, ctaTimeoutL4Proto, ctaTimeoutData}

// Get returns the policy of that name. If there is none, the error satisfies
// errors.Is(err, unix.ENOENT).
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

// Dump returns all policies, in the order in which they were created. It gives
// none at all if there is an error.
//
// The kernel sends them in portions of several kilobytes. A policy that is deleted
// in the meantime may hide those behind it, and the kernel does not tell.
func (c *Conn) Dump() ([]Policy, error) {
	var (
		e        nfnl.Encoder
		policies []Policy
		bad      error
	)
	message(&e, msgGet, netlink.Dump)
	err := c.socket.Do(&e, func(m nfnl.Message) error {
		// A dump must be read to its end, or there can be no other one.
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

// Delete removes the policy of that name. If there is none, the error satisfies
// errors.Is(err, unix.ENOENT).
//
// While rules refer to a policy, the kernel refuses with unix.EBUSY, and goes on to
// for a moment after they were removed. Kernels of late 2026, such as 6.12.117 and
// 6.1.192, remove the policy all the same: rules that refer to it go on giving its
// timeouts to new flows until they are removed too. Flows do not keep a policy from
// being removed: those that had it get the defaults from then on.
func (c *Conn) Delete(name string) error { return opError(opDelete, name, c.delete(name)) }

func (c *Conn) delete(name string) error {
	// Without a name, the kernel deletes all of them.
	if err := checkName(name); err != nil {
		return err
	}
	var e nfnl.Encoder
	message(&e, msgDelete, netlink.Acknowledge)
	e.String(ctaTimeoutName, name)
	return c.socket.Do(&e, nil)
}

// Flush removes all policies, but for those that Delete gets EBUSY for: the kernel
// leaves them where they are, and does not tell.
func (c *Conn) Flush() error {
	var e nfnl.Encoder
	message(&e, msgDelete, netlink.Acknowledge)
	return opError(opFlush, "", c.socket.Do(&e, nil))
}

// defaultsFamily is the family to name in a request about a protocol's defaults,
// which are the same for IPv4 and IPv6. Kernels before 4.19 look the protocol up
// by its family too, and know each of the two ICMPs under one alone.
func defaultsFamily(protocol uint8) netfilter.ProtoFamily {
	if protocol == conntrack.ProtocolICMPv6 {
		return netfilter.ProtoIPv6
	}
	return netfilter.ProtoIPv4
}

// Defaults returns the timeouts that the namespace uses for flows of a protocol
// that have no policy: those of the sysctls net.netfilter.nf_conntrack_*_timeout*.
// They are the same for IPv4 and IPv6. A protocol that the kernel does not track
// gives unix.EOPNOTSUPP.
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

// SetDefaults changes the timeouts that the namespace uses for flows of a protocol
// that have no policy, and with them the sysctls. Timeouts that are left out stay as
// they are. Policies do not change: they have copies. A protocol that the kernel
// does not track gives unix.EOPNOTSUPP.
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
