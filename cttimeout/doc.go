// Package cttimeout manages the Linux kernel's timeout policies for connection
// tracking: sets of timeouts with a name, which rules give to flows. Without one, a
// flow ends by the defaults of its network namespace, the sysctls
// net.netfilter.nf_conntrack_*_timeout*.
//
// A [Conn], made by [Dial], does three things:
//
//   - it changes policies: [Conn.Create], [Conn.Set], [Conn.Delete],
//     [Conn.Flush];
//   - it shows them: [Conn.Get], [Conn.Dump];
//   - it shows and changes the defaults: [Conn.Defaults], [Conn.SetDefaults].
//
// A [Policy] is for one family and one protocol, and has a timeout for each
// [State] of it: "TCP, established: one hour" is
//
//	cttimeout.Timeouts{cttimeout.TCPEstablished: time.Hour}
//
// # Attaching a policy
//
// Flows get a policy from rules, and from nothing else: there is no attribute for
// it in ctnetlink, so that package conntrack can neither set nor show it. The
// rules are those of iptables and ip6tables, in the table raw:
//
//	iptables -t raw -A PREROUTING -p tcp --dport 443 -j CT --timeout web
//	iptables -t raw -A OUTPUT -p tcp --dport 443 -j CT --timeout web
//
// The first is for what comes in or is forwarded, the second for what the machine
// itself sends. The kernel refuses such a rule if the policy is not there (ENOENT),
// or is for another family or protocol than the rule (EINVAL), or if the rule has
// no -p, or ! -p (EINVAL). A rule for a protocol that the kernel has no tracker for
// takes a policy for [ProtocolGeneric].
//
// A flow gets the policy with its first packet: flows that were there before the
// rule go on without. What [Conn.Set] changes in a policy reaches the flows that
// have it.
//
// The "ct timeout" objects of nftables are something else. They live in nftables'
// tables, have names of their own there, and are not seen here; a rule written with
// nft(8) cannot refer to a policy.
//
// # Units
//
// Timeouts are of type time.Duration. The kernel has whole seconds, and this package
// refuses what it would have to round: see [Timeouts] and [MaxTimeout].
//
// # Privileges
//
// The kernel serves no request, not even one to read, to a process without
// CAP_NET_ADMIN in the user namespace that owns the network namespace. Errors for
// lack of it satisfy errors.Is(err, fs.ErrPermission). Policies and defaults belong
// to one network namespace, and end with it.
//
// # Errors
//
// Errors are of type [*OpError]. What the kernel refuses wraps the errno:
// errors.Is(err, unix.ENOENT) or errors.Is(err, fs.ErrNotExist) for a policy that is
// not there, errors.Is(err, unix.EEXIST) or errors.Is(err, fs.ErrExist) for one that
// is there already, errors.Is(err, unix.EOPNOTSUPP) or errors.Is(err,
// errors.ErrUnsupported) for a protocol that the kernel does not track. A malformed
// message from the kernel is an error too; what a message holds
// beyond what this package knows is skipped.
//
// # Kernels
//
// Policies are in Linux since 3.4, the requests about defaults since 3.13, where
// the kernel is built with CONFIG_NF_CT_NETLINK_TIMEOUT. The module
// nfnetlink_cttimeout is loaded by the first request, on hosts that allow it. A
// kernel that has neither answers EINVAL to all requests.
package cttimeout
