//go:build linux

package conntrack

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/internal/release"
	"golang.org/x/sys/unix"
)

// A golden is a message to capture.
type golden struct {
	name  string // of its file
	about string
	kind  *kind
	until release.Release // which has no such messages any more, or zero

	// traffic makes the kernel have, or send, the message in a namespace that
	// was made with opts.
	opts    []nstest.Option
	traffic func(t *testing.T, n *nstest.NS)
	// pick tells the message from others. Without it there must be no others,
	// or the first of the events is meant.
	pick func(v any) bool

	// check knows what must come out, independently of the value that was
	// written by what it tests.
	check func(t *testing.T, v any)
}

var acct = []nstest.Option{nstest.Accounting(), nstest.Timestamps()}

// The port in "PORT 127,0,0,2,200,10" and "EPRT |2|fd00::1|51210|".
const ftpDataPort = 200<<8 | 10

var (
	ftpData4 = netip.AddrPortFrom(client4.Addr(), ftpDataPort)
	ftpData6 = netip.AddrPortFrom(client6.Addr(), ftpDataPort)
)

var goldens = []golden{
	{
		name:    "flow-tcp-ipv4",
		about:   "an established TCP connection over IPv4, neither counters nor timestamps",
		kind:    flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) { n.TCP(client4, server4) },
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_TCP, client4, server4)
			require.Equal(t, replied|StatusAssured, f.Status.Value)
			require.EqualValues(t, tcpEstablished, f.ProtoInfo.TCP.State)
			require.Greater(t, f.Timeout, uint32(400_000))
			require.NotZero(t, f.ID)
			require.NotZero(t, f.Use)
			require.Zero(t, f.CountersOrig)
			require.Zero(t, f.CountersReply)
			require.Zero(t, f.Timestamp)
		}),
	},
	{
		name:  "flow-tcp-ipv6",
		about: "an established TCP connection over IPv6 that sent 1000 bytes and got 100, with counters and timestamp",
		kind:  flowKind,
		opts:  acct,
		traffic: func(_ *testing.T, n *nstest.NS) {
			p := n.TCP(client6, server6)
			p.Send(make([]byte, 1000))
			p.Reply(make([]byte, 100))
		},
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_TCP, client6, server6)
			require.Equal(t, replied|StatusAssured, f.Status.Value)
			require.EqualValues(t, tcpEstablished, f.ProtoInfo.TCP.State)
			requireAcct(t, f)
			require.Greater(t, f.CountersOrig.Bytes, uint64(1000))
			require.Less(t, f.CountersReply.Bytes, uint64(1000))
			require.Zero(t, f.Timestamp.Stop)
		}),
	},
	{
		name:    "flow-tcp-time-wait",
		about:   "a TCP connection over IPv4 that was closed",
		kind:    flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) { n.TCP(client4, server4).Close() },
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_TCP, client4, server4)
			require.EqualValues(t, tcpTimeWait, f.ProtoInfo.TCP.State)
			require.LessOrEqual(t, f.Timeout, uint32(120))
		}),
	},
	{
		name:    "flow-udp-ipv4",
		about:   "a UDP datagram of 4 bytes and a reply of 4 bytes over IPv4, with counters and timestamp",
		kind:    flowKind,
		opts:    acct,
		traffic: func(_ *testing.T, n *nstest.NS) { n.UDP(client4, server4, true) },
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_UDP, client4, server4)
			require.Equal(t, replied, f.Status.Value)
			require.Equal(t, Counter{Packets: 1, Bytes: 32}, f.CountersOrig)
			require.Equal(t, Counter{Direction: true, Packets: 1, Bytes: 32}, f.CountersReply)
			requireAcct(t, f)
			require.Zero(t, f.ProtoInfo)
		}),
	},
	{
		name:    "flow-udp-ipv6-unreplied",
		about:   "a UDP datagram over IPv6 without a reply, neither counters nor timestamps",
		kind:    flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) { n.UDP(client6, server6, false) },
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_UDP, client6, server6)
			require.Equal(t, StatusConfirmed, f.Status.Value)
			require.NotZero(t, f.Timeout)
			require.LessOrEqual(t, f.Timeout, uint32(30))
			require.Zero(t, f.CountersOrig)
		}),
	},
	{
		name:    "flow-icmp",
		about:   "an ICMP echo request with id 4660 from 127.0.0.1 to itself and its reply, with counters and timestamp",
		kind:    flowKind,
		opts:    acct,
		traffic: func(_ *testing.T, n *nstest.NS) { n.ICMPEcho(server4.Addr(), 0x1234) },
		check: checkFlow(func(t *testing.T, f *Flow) {
			ip := IPTuple{SourceAddress: server4.Addr(), DestinationAddress: server4.Addr()}
			require.Equal(t, Tuple{IP: ip, Proto: ProtoTuple{
				Protocol: unix.IPPROTO_ICMP, ICMPv4: true, ICMPType: 8, ICMPID: 0x1234,
			}}, f.TupleOrig)
			require.Equal(t, Tuple{IP: ip, Proto: ProtoTuple{
				Protocol: unix.IPPROTO_ICMP, ICMPv4: true, ICMPType: 0, ICMPID: 0x1234,
			}}, f.TupleReply)
			require.Equal(t, replied, f.Status.Value)
			require.Equal(t, Counter{Packets: 1, Bytes: 28}, f.CountersOrig)
			requireAcct(t, f)
		}),
	},
	{
		name:    "flow-icmpv6",
		about:   "an ICMPv6 echo request with id 4660 from ::1 to itself and its reply",
		kind:    flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) { n.ICMPEcho(server6.Addr(), 0x1234) },
		check: checkFlow(func(t *testing.T, f *Flow) {
			ip := IPTuple{SourceAddress: server6.Addr(), DestinationAddress: server6.Addr()}
			require.Equal(t, Tuple{IP: ip, Proto: ProtoTuple{
				Protocol: unix.IPPROTO_ICMPV6, ICMPv6: true, ICMPType: 128, ICMPID: 0x1234,
			}}, f.TupleOrig)
			require.Equal(t, Tuple{IP: ip, Proto: ProtoTuple{
				Protocol: unix.IPPROTO_ICMPV6, ICMPv6: true, ICMPType: 129, ICMPID: 0x1234,
			}}, f.TupleReply)
			require.Equal(t, replied, f.Status.Value)
		}),
	},
	{
		name:    "flow-sctp-ipv4",
		about:   "an established SCTP association over IPv4",
		kind:    flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) { n.SCTP(client4, server4) },
		check:   checkFlow(func(t *testing.T, f *Flow) { requireSCTP(t, f, client4, server4) }),
	},
	{
		name:    "flow-sctp-ipv6",
		about:   "an established SCTP association over IPv6, with counters and timestamp",
		kind:    flowKind,
		opts:    acct,
		traffic: func(_ *testing.T, n *nstest.NS) { n.SCTP(client6, server6) },
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireSCTP(t, f, client6, server6)
			requireAcct(t, f)
			require.EqualValues(t, 2, f.CountersOrig.Packets)
			require.EqualValues(t, 2, f.CountersReply.Packets)
		}),
	},
	{
		name:    "flow-gre-ipv4",
		about:   "a packet of PPTP's GRE with call ID 48879 over IPv4; the keys are in the ports' attributes",
		kind:    flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) { n.GRE(client4.Addr(), server4.Addr(), 0xbeef) },
		check:   checkFlow(func(t *testing.T, f *Flow) { requireGRE(t, f, client4.Addr(), server4.Addr()) }),
	},
	{
		name:    "flow-gre-ipv6",
		about:   "a packet of PPTP's GRE with call ID 48879 over IPv6, with counters and timestamp",
		kind:    flowKind,
		opts:    acct,
		traffic: func(_ *testing.T, n *nstest.NS) { n.GRE(client6.Addr(), server6.Addr(), 0xbeef) },
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireGRE(t, f, client6.Addr(), server6.Addr())
			require.Equal(t, Counter{Packets: 1, Bytes: 48}, f.CountersOrig)
			require.Equal(t, Counter{Direction: true}, f.CountersReply)
		}),
	},
	{
		name:  "flow-dccp",
		about: "a DCCP flow over IPv4 that was created in state 3 (PARTOPEN), role 1 (server), sequence number 0x010203040506",
		kind:  flowKind,
		until: release.Release{Major: 6, Minor: 17},
		opts:  []nstest.Option{nstest.NoTracking()},
		traffic: func(t *testing.T, n *nstest.NS) {
			f := newGoldenFlow(unix.IPPROTO_DCCP)
			f.ProtoInfo.DCCP = &goldenDCCP
			createFlow(t, n, f)
		},
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_DCCP, client4, server4)
			require.Equal(t, ProtoInfo{DCCP: &goldenDCCP}, f.ProtoInfo)
		}),
	},
	{
		name:    "flow-other-protocol",
		about:   "a packet of IP protocol 253 over IPv4: the tuples have no ports",
		kind:    flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) { n.Raw(253, client4.Addr(), server4.Addr(), []byte("hello")) },
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, 253, netip.AddrPortFrom(client4.Addr(), 0), netip.AddrPortFrom(server4.Addr(), 0))
			require.Equal(t, StatusConfirmed, f.Status.Value)
		}),
	},
	{
		name:  "flow-dnat-ipv4",
		about: "a TCP connection over IPv4 whose destination is translated from 127.0.0.1:8080 to 127.0.0.100:9090",
		kind:  flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) {
			n.DNAT(unix.IPPROTO_TCP, server4, other4)
			n.TCPThrough(client4, server4, other4)
		},
		check: checkFlow(func(t *testing.T, f *Flow) {
			require.Equal(t, ends(unix.IPPROTO_TCP, client4, server4), f.TupleOrig)
			require.Equal(t, ends(unix.IPPROTO_TCP, other4, client4), f.TupleReply)
			require.True(t, f.Status.DstNAT())
			require.True(t, f.Status.DstNATDone())
			require.False(t, f.Status.SrcNAT())
		}),
	},
	{
		name:  "flow-snat-ipv6",
		about: "a UDP exchange over IPv6 whose source is translated from [fd00::1]:40000 to [::1]:9090",
		kind:  flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) {
			n.SNAT(unix.IPPROTO_UDP, server6, other6)
			n.UDP(client6, server6, true)
		},
		check: checkFlow(func(t *testing.T, f *Flow) {
			require.Equal(t, ends(unix.IPPROTO_UDP, client6, server6), f.TupleOrig)
			require.Equal(t, ends(unix.IPPROTO_UDP, server6, other6), f.TupleReply)
			require.True(t, f.Status.SrcNAT())
			require.True(t, f.Status.SrcNATDone())
			require.False(t, f.Status.DstNAT())
		}),
	},
	{
		name:  "flow-mark",
		about: "a TCP connection that a rule marked with 0xdeadbeef",
		kind:  flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) {
			n.Mark(unix.IPPROTO_TCP, server4.Port(), 0xdeadbeef)
			n.TCP(client4, server4)
		},
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_TCP, client4, server4)
			require.Equal(t, uint32(0xdeadbeef), f.Mark)
		}),
	},
	{
		name:  "flow-labels",
		about: "a UDP exchange that a rule gave the labels 0102030405060708090a0b0c0d0e0f10",
		kind:  flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) {
			n.Label(unix.IPPROTO_UDP, server4.Port(), [16]byte(goldenLabels))
			n.UDP(client4, server4, true)
		},
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_UDP, client4, server4)
			require.Equal(t, goldenLabels, f.Labels)
			require.Empty(t, f.LabelsMask)
		}),
	},
	{
		name:  "flow-helper",
		about: "a TCP connection that a rule put under the care of the helper ftp",
		kind:  flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) {
			n.Helper("ftp", unix.IPPROTO_TCP, server4.Port())
			n.TCP(client4, server4)
		},
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_TCP, client4, server4)
			require.Equal(t, "ftp", f.Helper.Name)
			require.Empty(t, f.Helper.Info)
			require.True(t, f.Status.Helper())
		}),
	},
	{
		name:  "flow-zone",
		about: "a TCP connection over IPv6 that is tracked in zone 258 in both directions",
		kind:  flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) {
			n.Zone(unix.IPPROTO_TCP, server6.Port(), 258)
			n.TCP(client6, server6)
		},
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_TCP, client6, server6)
			require.EqualValues(t, 258, f.Zone)
		}),
	},
	{
		name:  "flow-zone-original",
		about: "a UDP flow that was created in zone 258 in the original direction alone",
		kind:  flowKind,
		opts:  []nstest.Option{nstest.NoTracking()},
		traffic: func(t *testing.T, n *nstest.NS) {
			f := newGoldenFlow(unix.IPPROTO_UDP)
			f.TupleOrig.Zone = 258
			createFlow(t, n, f)
		},
		check: checkFlow(func(t *testing.T, f *Flow) {
			orig := ends(unix.IPPROTO_UDP, client4, server4)
			orig.Zone = 258
			require.Equal(t, orig, f.TupleOrig)
			require.Equal(t, ends(unix.IPPROTO_UDP, server4, client4), f.TupleReply)
			require.Zero(t, f.Zone)
		}),
	},
	{
		name:  "flow-synproxy",
		about: "a TCP flow that was created with the data of a SYN proxy",
		kind:  flowKind,
		opts:  []nstest.Option{nstest.NoTracking()},
		traffic: func(t *testing.T, n *nstest.NS) {
			f := newGoldenFlow(unix.IPPROTO_TCP)
			f.ProtoInfo.TCP = &ProtoInfoTCP{State: tcpEstablished}
			f.SynProxy = goldenSynProxy
			createFlow(t, n, f)
		},
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_TCP, client4, server4)
			require.Equal(t, goldenSynProxy, f.SynProxy)
			require.EqualValues(t, tcpEstablished, f.ProtoInfo.TCP.State)
		}),
	},
	{
		name: "flow-seqadj",
		about: "an FTP control connection whose source is translated to 127.0.0.100: " +
			"the helper made its PORT command 2 bytes longer",
		kind:    flowKind,
		traffic: natFTP,
		check: checkFlow(func(t *testing.T, f *Flow) {
			require.Equal(t, ends(unix.IPPROTO_TCP, client4, server4), f.TupleOrig)
			require.Equal(t, ends(unix.IPPROTO_TCP, server4, other4), f.TupleReply)
			require.True(t, f.Status.SeqAdjust())
			require.False(t, f.SeqAdjOrig.Direction)
			require.NotZero(t, f.SeqAdjOrig.Position)
			require.EqualValues(t, 0, f.SeqAdjOrig.OffsetBefore)
			require.EqualValues(t, 2, f.SeqAdjOrig.OffsetAfter)
			require.Equal(t, SequenceAdjust{Direction: true}, f.SeqAdjReply)
		}),
	},
	{
		name:  "flow-expected",
		about: "the data connection of an active FTP session, from the server to 127.0.0.2:51210",
		kind:  flowKind,
		traffic: func(t *testing.T, n *nstest.NS) {
			ftpPort(t, n)
			n.TCP(ftpServerData4, ftpData4)
		},
		pick: func(v any) bool { return v.(*Flow).TupleMaster.filled() },
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_TCP, ftpServerData4, ftpData4)
			require.Equal(t, ends(unix.IPPROTO_TCP, client4, server4), f.TupleMaster)
			require.Equal(t, replied|StatusAssured|StatusExpected, f.Status.Value)
		}),
	},
	{
		name:    "event-new-tcp",
		about:   "the event of a new TCP connection over IPv4: the SYN",
		kind:    eventKind,
		opts:    acct,
		traffic: func(_ *testing.T, n *nstest.NS) { n.TCP(client4, server4) },
		check: checkEvent(EventNew, func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_TCP, client4, server4)
			require.Equal(t, StatusConfirmed, f.Status.Value)
			require.EqualValues(t, tcpSynSent, f.ProtoInfo.TCP.State)
			require.NotZero(t, f.ID)
		}),
	},
	{
		name:    "event-update-tcp",
		about:   "the event of a TCP connection over IPv6 that was answered and established",
		kind:    eventKind,
		opts:    acct,
		traffic: func(_ *testing.T, n *nstest.NS) { n.TCP(client6, server6) },
		pick:    func(v any) bool { return v.(*Event).Flow.ProtoInfo.TCP.State == tcpEstablished },
		check: checkEvent(EventUpdate, func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_TCP, client6, server6)
			require.Equal(t, replied|StatusAssured, f.Status.Value)
		}),
	},
	{
		name: "event-destroy-tcp",
		about: "the event of the end of a TCP connection over IPv4 that was reset and timed out, " +
			"with counters and timestamps",
		kind: eventKind,
		opts: acct,
		traffic: func(t *testing.T, n *nstest.NS) {
			n.Sysctl("net.netfilter.nf_conntrack_tcp_timeout_close", "0")
			n.TCP(client4, server4).Abort()
			// A dump removes what has timed out.
			require.Empty(t, dumpFlows(t, n))
		},
		pick: func(v any) bool { return v.(*Event).Type == EventDestroy },
		check: checkEvent(EventDestroy, func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_TCP, client4, server4)
			require.True(t, f.Status.Dying())
			require.EqualValues(t, tcpClose, f.ProtoInfo.TCP.State)
			requireAcct(t, f)
			// The kernel dates it back to when the timeout passed, in jiffies.
			require.WithinDuration(t, f.Timestamp.Start, f.Timestamp.Stop, time.Second)
			require.Zero(t, f.Timeout)
		}),
	},
	{
		name:  "event-new-udp-ipv6",
		about: "the event of a new UDP flow over IPv6 that a rule gave labels, neither counters nor timestamps",
		kind:  eventKind,
		traffic: func(_ *testing.T, n *nstest.NS) {
			n.Label(unix.IPPROTO_UDP, server6.Port(), [16]byte(goldenLabels))
			n.UDP(client6, server6, false)
		},
		check: checkEvent(EventNew, func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_UDP, client6, server6)
			require.Equal(t, StatusConfirmed, f.Status.Value)
			require.Zero(t, f.Timestamp)
			require.Equal(t, goldenLabels, f.Labels)
		}),
	},
	{
		name:  "event-destroy-udp",
		about: "the event of a UDP flow with a mark that was deleted through netlink, with counters and timestamps",
		kind:  eventKind,
		opts:  acct,
		traffic: func(t *testing.T, n *nstest.NS) {
			n.Mark(unix.IPPROTO_UDP, server4.Port(), 0xdeadbeef)
			n.UDP(client4, server4, true)
			dialIn(t, n, func(c *Conn) error { return c.Flush() })
		},
		pick: func(v any) bool { return v.(*Event).Type == EventDestroy },
		check: checkEvent(EventDestroy, func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_UDP, client4, server4)
			requireAcct(t, f)
			require.Equal(t, Counter{Packets: 1, Bytes: 32}, f.CountersOrig)
			require.True(t, f.Timestamp.Stop.After(f.Timestamp.Start))
			require.Equal(t, uint32(0xdeadbeef), f.Mark)
		}),
	},
	{
		name:    "event-expect-new",
		about:   "the event of an expectation by the helper ftp, after PORT 127,0,0,2,200,10",
		kind:    eventKind,
		traffic: func(t *testing.T, n *nstest.NS) { ftpPort(t, n) },
		pick:    func(v any) bool { return v.(*Event).Expect != nil },
		check: checkEvent(EventExpNew, func(t *testing.T, ex *Expect) {
			requireExpect(t, ex, unix.IPPROTO_TCP, server4, ftpData4)
			require.Equal(t, ends(unix.IPPROTO_TCP, client4, server4), ex.TupleMaster)
			require.NotZero(t, ex.Timeout)
		}),
	},
	{
		name:  "event-expect-destroy",
		about: "the event of an expectation that a connection fulfilled",
		kind:  eventKind,
		traffic: func(t *testing.T, n *nstest.NS) {
			ftpPort(t, n)
			n.TCP(ftpServerData4, ftpData4)
		},
		pick: func(v any) bool { return v.(*Event).Type == EventExpDestroy },
		check: checkEvent(EventExpDestroy, func(t *testing.T, ex *Expect) {
			requireExpect(t, ex, unix.IPPROTO_TCP, server4, ftpData4)
			require.Equal(t, ends(unix.IPPROTO_TCP, client4, server4), ex.TupleMaster)
		}),
	},
	{
		name:    "expect-ftp-ipv4",
		about:   "the expectation by the helper ftp after PORT 127,0,0,2,200,10",
		kind:    expectKind,
		traffic: func(t *testing.T, n *nstest.NS) { ftpPort(t, n) },
		check: checkExpect(func(t *testing.T, ex *Expect) {
			requireExpect(t, ex, unix.IPPROTO_TCP, server4, ftpData4)
			require.Equal(t, ends(unix.IPPROTO_TCP, client4, server4), ex.TupleMaster)
			require.Equal(t, "ftp", ex.HelpName)
			require.Zero(t, ex.NAT)
			require.NotZero(t, ex.ID)
			require.NotZero(t, ex.Timeout)
			require.LessOrEqual(t, ex.Timeout, uint32(300))
		}),
	},
	{
		name:  "expect-ftp-ipv6",
		about: "the expectation by the helper ftp after EPRT |2|fd00::1|51210|",
		kind:  expectKind,
		traffic: func(t *testing.T, n *nstest.NS) {
			n.Helper("ftp", unix.IPPROTO_TCP, server6.Port())
			ftpCommand(t, n.TCP(client6, server6), "EPRT |2|fd00::1|51210|")
		},
		check: checkExpect(func(t *testing.T, ex *Expect) {
			requireExpect(t, ex, unix.IPPROTO_TCP, server6, ftpData6)
			require.Equal(t, ends(unix.IPPROTO_TCP, client6, server6), ex.TupleMaster)
			require.Equal(t, "ftp", ex.HelpName)
		}),
	},
	{
		name:    "expect-nat",
		about:   "the expectation by the helper ftp after PORT 127,0,0,2,200,10, translated to 127.0.0.100",
		kind:    expectKind,
		traffic: natFTP,
		check: checkExpect(func(t *testing.T, ex *Expect) {
			requireExpect(t, ex, unix.IPPROTO_TCP, server4, netip.AddrPortFrom(other4.Addr(), ftpDataPort))
			require.Equal(t, ends(unix.IPPROTO_TCP, client4, server4), ex.TupleMaster)
			require.Equal(t, "nat-follow-master", ex.Function)
			require.True(t, ex.NAT.Direction)
			none := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
			port := netip.AddrPortFrom(netip.IPv4Unspecified(), ftpDataPort)
			require.Equal(t, ends(unix.IPPROTO_TCP, port, none), ex.NAT.Tuple)
		}),
	},
	{
		name: "stats",
		about: "the counters of CPU 1: two packets with a short TCP header, each seen twice; a flow that was dropped, " +
			"since the tuple it was to be translated to was taken; a flow that was created",
		kind:    statsKind,
		traffic: onCPU1(busy),
		pick:    func(v any) bool { return v.(*Stats).CPUID == 1 },
		check: func(t *testing.T, v any) {
			require.Equal(t, &Stats{CPUID: 1, Found: 1, Invalid: 4, Insert: 1, InsertFailed: 1, Drop: 1}, v)
		},
	},
	{
		name: "stats-expect",
		about: "the counters of CPU 1 for expectations: two FTP commands, each seen twice by the helper; " +
			"the last of the four expectations was fulfilled, the others were replaced",
		kind: statsExpectKind,
		traffic: onCPU1(func(t *testing.T, n *nstest.NS) {
			ftpCommand(t, ftpPort(t, n), "PORT 127,0,0,2,200,11")
			n.TCP(ftpServerData4, netip.AddrPortFrom(client4.Addr(), ftpDataPort+1))
		}),
		pick: func(v any) bool { return v.(*StatsExpect).CPUID == 1 },
		check: func(t *testing.T, v any) {
			require.Equal(t, &StatsExpect{CPUID: 1, New: 1, Create: 4, Delete: 4}, v)
		},
	},
	{
		name:  "stats-global",
		about: "a table with two flows",
		kind:  statsGlobalKind,
		traffic: func(_ *testing.T, n *nstest.NS) {
			n.UDP(client4, server4, true)
			n.UDP(client6, server6, true)
		},
		check: func(t *testing.T, v any) {
			s := v.(*StatsGlobal)
			require.EqualValues(t, 2, s.Entries)
			require.Greater(t, s.MaxEntries, uint32(1000))
		},
	},
}

var (
	goldenLabels   = []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	goldenDCCP     = ProtoInfoDCCP{State: 3, Role: 1, HandshakeSeq: 0x010203040506}
	goldenSynProxy = SynProxy{ISN: 0x01020304, ITS: 0x05060708, TSOff: 0x090a0b0c}

	// Where the FTP server's data connections come from.
	ftpServerData4 = netip.AddrPortFrom(server4.Addr(), server4.Port()-1)
)

func requireSCTP(t *testing.T, f *Flow, src, dst netip.AddrPort) {
	t.Helper()
	requireEnds(t, f, unix.IPPROTO_SCTP, src, dst)
	require.Equal(t, ProtoInfo{SCTP: &ProtoInfoSCTP{
		State:        sctpEstablished,
		VTagOriginal: nstest.SCTPServerTag,
		VTagReply:    nstest.SCTPClientTag,
	}}, f.ProtoInfo)
	require.Equal(t, replied|StatusAssured, f.Status.Value)
}

func requireGRE(t *testing.T, f *Flow, src, dst netip.Addr) {
	t.Helper()
	requireEnds(t, f, unix.IPPROTO_GRE, netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0xbeef))
	require.Equal(t, StatusConfirmed, f.Status.Value)
}

// requireExpect requires that ex is of a connection from any port of src's
// address to dst.
func requireExpect(t *testing.T, ex *Expect, proto uint8, src, dst netip.AddrPort) {
	t.Helper()
	require.Equal(t, ends(proto, netip.AddrPortFrom(src.Addr(), 0), dst), ex.Tuple)
	ones, _ := netip.AddrFromSlice([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")[:src.Addr().BitLen()/8])
	require.Equal(t, ends(proto, netip.AddrPortFrom(ones, 0), netip.AddrPortFrom(ones, 0xffff)), ex.Mask)
}
