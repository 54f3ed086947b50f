// Package cttimeout manages the Linux kernel's timeout policies for connection
// tracking. A policy is a named set of timeouts that rules give to flows. A
// flow without a policy uses the defaults of its network namespace, which are
// the sysctls net.netfilter.nf_conntrack_*_timeout*.
//
// [Dial] opens a [Conn], which does three things:
//
//   - it changes policies: [Conn.Create], [Conn.Set], [Conn.Delete],
//     [Conn.Flush];
//   - it returns them: [Conn.Get], [Conn.Dump];
//   - it returns and changes the defaults: [Conn.Defaults], [Conn.SetDefaults].
//
// A [Policy] is for one address family and one protocol. It has a timeout for
// each [State] of the protocol. One hour for established TCP connections is
//
//	cttimeout.Timeouts{cttimeout.TCPEstablished: time.Hour}
//
// # Attaching a policy
//
// Only rules give policies to flows. Package conntrack can neither set nor show
// the policy of a flow, because ctnetlink has no attribute for it. The rules
// belong to iptables and ip6tables, in the table raw:
//
//	iptables -t raw -A PREROUTING -p tcp --dport 443 -j CT --timeout web
//	iptables -t raw -A OUTPUT -p tcp --dport 443 -j CT --timeout web
//
// The first rule is for packets that come in or are forwarded, the second for
// packets that the machine itself sends. The kernel refuses the rule with
// ENOENT if the policy does not exist. It refuses it with EINVAL if the policy
// is for another family or protocol than the rule, or if the rule has no -p or
// ! -p. For a protocol that the kernel has no tracker for, use a policy for
// [ProtocolGeneric].
//
// A flow gets the policy with its first packet. Flows older than the rule do
// not get it. When [Conn.Set] changes a policy, the change applies to the flows
// that have it.
//
// The "ct timeout" objects of nftables are different objects. They belong to
// nftables' tables and have their own names. This package does not see them,
// and a rule of nft(8) cannot refer to a policy.
//
// # Units
//
// Timeouts are of type time.Duration. The kernel stores whole seconds. This
// package refuses values that would have to be rounded: see [Timeouts] and
// [MaxTimeout].
//
// # Privileges
//
// All requests, even those that only read, need CAP_NET_ADMIN in the user
// namespace that owns the network namespace. Without it, errors satisfy
// errors.Is(err, fs.ErrPermission). Policies and defaults belong to one network
// namespace and disappear with it.
//
// # Errors
//
// Errors are of type [*OpError]. If the kernel refused the request, they wrap
// the errno:
//
//   - unix.ENOENT, also fs.ErrNotExist, if the policy does not exist;
//   - unix.EEXIST, also fs.ErrExist, if it exists already;
//   - unix.EOPNOTSUPP, also errors.ErrUnsupported, if the kernel does not track
//     the protocol.
//
// A malformed message from the kernel is an error. Attributes that this package
// does not know are skipped.
//
// # Kernels
//
// Policies need Linux 3.4, and requests about defaults Linux 3.13. Both need a
// kernel built with CONFIG_NF_CT_NETLINK_TIMEOUT. On hosts that allow it, the
// first request loads the module nfnetlink_cttimeout. A kernel without it
// answers all requests with EINVAL.
package cttimeout
