//go:build linux

package comparison_test

import (
	"bytes"
	"io"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
)

// TestConntrackListsTraffic asserts that conntrack(8) lists the flows of real
// packets like a dump.
func TestConntrackListsTraffic(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	const (
		tcp, udp, sctp = unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP
		label          = 0x80
	)
	at := netip.AddrPortFrom
	other6 := at(nstest.IPv6, 9090)
	tests := []struct {
		name string
		send func(t *testing.T, ns *nstest.NS)
		want func(f *conntrack.Flow) bool // selects the flow under test
	}{
		{
			"TCP SYN_SENT", func(t *testing.T, ns *nstest.NS) {
				ns.DropIncoming()
				ns.SYN(client4, server4)
			}, tcpState(conntrack.TCPStateSynSent),
		},
		{
			"TCP SYN_SENT2", func(t *testing.T, ns *nstest.NS) {
				ns.DropIncoming()
				ns.SYN(client4, server4)
				ns.SYN(server4, client4)
			}, tcpState(conntrack.TCPStateSynSent2),
		},
		{
			"TCP SYN_RECV", func(t *testing.T, ns *nstest.NS) {
				// The SYN arrives, but its answer is dropped.
				ns.Drop(tcp, client4.Port())
				listenTCP(t, ns, server4)
				ns.SYN(client4, server4)
			}, tcpState(conntrack.TCPStateSynRecv),
		},
		{
			"TCP ESTABLISHED", func(_ *testing.T, ns *nstest.NS) { ns.TCP(client4, server4) },
			tcpState(conntrack.TCPStateEstablished),
		},
		{
			"TCP ESTABLISHED IPv6", func(_ *testing.T, ns *nstest.NS) { ns.TCP(client6, server6).Send(make([]byte, 1<<16)) },
			tcpState(conntrack.TCPStateEstablished),
		},
		{
			"TCP FIN_WAIT", func(t *testing.T, ns *nstest.NS) {
				p := ns.TCP(client4, server4)
				ns.Drop(tcp, server4.Port())
				require.NoError(t, p.Client.CloseWrite())
			}, tcpState(conntrack.TCPStateFinWait),
		},
		{
			"TCP CLOSE_WAIT", func(t *testing.T, ns *nstest.NS) {
				p := ns.TCP(client4, server4)
				require.NoError(t, p.Client.CloseWrite())
				_, err := io.Copy(io.Discard, p.Server)
				require.NoError(t, err)
			}, tcpState(conntrack.TCPStateCloseWait),
		},
		{
			"TCP LAST_ACK", func(t *testing.T, ns *nstest.NS) {
				p := ns.TCP(client4, server4)
				require.NoError(t, p.Client.CloseWrite())
				_, err := io.Copy(io.Discard, p.Server)
				require.NoError(t, err)
				ns.Drop(tcp, client4.Port())
				require.NoError(t, p.Server.CloseWrite())
			}, tcpState(conntrack.TCPStateLastAck),
		},
		{
			"TCP TIME_WAIT", func(_ *testing.T, ns *nstest.NS) { ns.TCP(client6, server6).Close() },
			tcpState(conntrack.TCPStateTimeWait),
		},
		{
			"TCP CLOSE", func(_ *testing.T, ns *nstest.NS) { ns.TCP(client4, server4).Abort() },
			tcpState(conntrack.TCPStateClose),
		},
		{
			"UDP", func(_ *testing.T, ns *nstest.NS) { ns.UDP(client4, server4, true) },
			func(f *conntrack.Flow) bool { return f.Status.SeenReply() },
		},
		{
			"UDP IPv6", func(_ *testing.T, ns *nstest.NS) { ns.UDP(client6, server6, true) },
			func(f *conntrack.Flow) bool { return f.TupleOrig.IP.IsIPv6() },
		},
		{
			"UDP without reply", func(_ *testing.T, ns *nstest.NS) { ns.UDP(client4, server4, false) },
			func(f *conntrack.Flow) bool { return !f.Status.SeenReply() },
		},
		{
			"ICMP", func(_ *testing.T, ns *nstest.NS) { ns.ICMPEcho(server4.Addr(), 0xfffe) },
			func(f *conntrack.Flow) bool { return f.TupleOrig.Proto.ICMPv4 },
		},
		{
			"ICMPv6", func(_ *testing.T, ns *nstest.NS) { ns.ICMPEcho(server6.Addr(), 0xfffe) },
			func(f *conntrack.Flow) bool { return f.TupleOrig.Proto.ICMPv6 },
		},
		{
			"SCTP", func(_ *testing.T, ns *nstest.NS) { ns.SCTP(client4, server4) },
			sctpState(conntrack.SCTPStateEstablished),
		},
		{
			"SCTP IPv6", func(_ *testing.T, ns *nstest.NS) { ns.SCTP(client6, server6) },
			sctpState(conntrack.SCTPStateEstablished),
		},
		{
			"GRE", func(_ *testing.T, ns *nstest.NS) { ns.GRE(client4.Addr(), server4.Addr(), 0xbeef) },
			func(f *conntrack.Flow) bool { return f.TupleOrig.Proto.DestinationPort == 0xbeef },
		},
		{
			"UDP-Lite", func(_ *testing.T, ns *nstest.NS) {
				ns.Raw(unix.IPPROTO_UDPLITE, client4.Addr(), server4.Addr(), []byte{0, 1, 0, 2, 0, 8, 0, 1})
			}, func(f *conntrack.Flow) bool { return f.TupleOrig.Proto.Protocol == conntrack.ProtocolUDPLite },
		},
		{
			"unknown protocol", func(_ *testing.T, ns *nstest.NS) { ns.Raw(253, client6.Addr(), server6.Addr(), []byte("hello")) },
			func(f *conntrack.Flow) bool { return f.TupleOrig.Proto.Protocol == 253 },
		},
		{
			"SNAT", func(_ *testing.T, ns *nstest.NS) {
				ns.SNAT(udp, server4, other4)
				ns.UDP(client4, server4, true)
			}, translatedTo(conntrack.StatusSrcNAT),
		},
		{
			"DNAT", func(_ *testing.T, ns *nstest.NS) {
				ns.DNAT(tcp, server4, other4)
				ns.TCPThrough(client4, server4, other4)
			}, translatedTo(conntrack.StatusDstNAT),
		},
		{
			"SNAT and DNAT", func(_ *testing.T, ns *nstest.NS) {
				ns.DNAT(udp, server4, other4)
				ns.SNAT(udp, other4, at(server4.Addr(), 0))
				ns.UDPThrough(client4, server4, other4, true)
			}, translatedTo(conntrack.StatusNATMask),
		},
		{
			"IPv6 SNAT and DNAT", func(_ *testing.T, ns *nstest.NS) {
				ns.DNAT(tcp, server6, other6)
				ns.SNAT(tcp, other6, at(server6.Addr(), 7))
				ns.TCPThrough(client6, server6, other6)
			}, translatedTo(conntrack.StatusNATMask),
		},
		{
			"mark", func(_ *testing.T, ns *nstest.NS) {
				ns.Mark(udp, server4.Port(), 0xf00dbeef)
				ns.UDP(client4, server4, true)
			}, func(f *conntrack.Flow) bool { return f.Mark == 0xf00dbeef },
		},
		{
			"labels", func(_ *testing.T, ns *nstest.NS) {
				ns.Label(udp, server4.Port(), [16]byte{1, 2, 4, 8, 4: 1, 8: 2, 15: label})
				ns.UDP(client4, server4, true)
			}, func(f *conntrack.Flow) bool { return len(f.Labels) == 16 && f.Labels[15] == label },
		},
		{
			"zone", func(_ *testing.T, ns *nstest.NS) {
				ns.Zone(tcp, server6.Port(), 0xffff)
				ns.TCP(client6, server6)
			}, func(f *conntrack.Flow) bool { return f.Zone == 0xffff },
		},
		{
			"zone of the original direction", func(t *testing.T, ns *nstest.NS) {
				nft(t, ns, "udp dport 8080 ct original zone set 5")
				ns.UDP(client4, server4, true)
			}, func(f *conntrack.Flow) bool { return f.TupleOrig.Zone == 5 },
		},
		{
			"zone of the reply direction", func(t *testing.T, ns *nstest.NS) {
				nft(t, ns, "udp dport 8080 ct reply zone set 6")
				ns.UDP(client6, server6, false)
			}, func(f *conntrack.Flow) bool { return f.TupleReply.Zone == 6 },
		},
		{
			"helper", func(_ *testing.T, ns *nstest.NS) {
				ns.Helper("ftp", tcp, server4.Port())
				ns.Zone(tcp, server4.Port(), 3)
				ns.TCP(client4, server4)
			}, func(f *conntrack.Flow) bool { return f.Helper.Name == "ftp" },
		},
		{
			"expected by a helper", func(_ *testing.T, ns *nstest.NS) {
				ns.Helper("ftp", tcp, server4.Port())
				p := ns.TCP(client4, server4)
				p.Send([]byte("USER anonymous\r\n"))
				p.Send([]byte("PORT 127,0,0,2,200,10\r\n"))
				ns.TCP(at(server4.Addr(), 20), at(client4.Addr(), 51210))
			}, func(f *conntrack.Flow) bool { return f.Status.Expected() },
		},
		{
			"many", func(_ *testing.T, ns *nstest.NS) {
				for i := range uint16(20) {
					ns.UDP(at(client4.Addr(), 1000+i), at(server4.Addr(), 2000+i), i%2 == 0)
					ns.UDP(at(client6.Addr(), 1000+i), at(server6.Addr(), 2000+i), i%3 == 0)
				}
			}, func(f *conntrack.Flow) bool { return f.TupleOrig.Proto.SourcePort == 1019 },
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.name == "many" {
				needSteadyUse(t)
			}
			ns := nstest.New(t, nstest.Accounting(), nstest.Timestamps())
			c := dial(t, ns)
			tt.send(t, ns)
			awaitFlow(t, c, tt.want)
			requireShown(t, ns, c)
		})
	}
}

// awaitFlow waits until there is a flow that want accepts. The acknowledgement
// of a packet may arrive later than its data.
func awaitFlow(t *testing.T, c *conntrack.Conn, want func(*conntrack.Flow) bool) {
	t.Helper()
	var flows []conntrack.Flow
	require.Eventually(t, func() (there bool) {
		var err error
		flows, err = c.Dump(nil)
		return err == nil && slices.ContainsFunc(flows, func(f conntrack.Flow) bool { return want(&f) })
	}, patience, time.Millisecond, "%+v", &flows)
}

func tcpState(state uint8) func(*conntrack.Flow) bool {
	return func(f *conntrack.Flow) bool { return f.ProtoInfo.TCP != nil && f.ProtoInfo.TCP.State == state }
}

func sctpState(state uint8) func(*conntrack.Flow) bool {
	return func(f *conntrack.Flow) bool { return f.ProtoInfo.SCTP != nil && f.ProtoInfo.SCTP.State == state }
}

func translatedTo(flags conntrack.StatusFlag) func(*conntrack.Flow) bool {
	return func(f *conntrack.Flow) bool { return f.Status.Value&conntrack.StatusNATMask == flags }
}

// listenTCP listens without accepting connections.
func listenTCP(t *testing.T, ns *nstest.NS, addr netip.AddrPort) {
	t.Helper()
	ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}); err != nil {
			return err
		}
		return unix.Listen(fd, 1)
	})
}

// nft adds a rule that applies before tracking. It is for rules that the Go
// package for nftables does not support.
func nft(t *testing.T, ns *nstest.NS, rule string) {
	t.Helper()
	cmd := exec.Command(nstest.Command(t, "nft"), "-f", "-")
	cmd.Stdin = strings.NewReader("table inet zones { chain out { type filter hook output priority raw; " + rule + "; }; }")
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	ns.Do(cmd.Run)
	require.Empty(t, output.String())
}

// TestConntrackListsCreated asserts that conntrack(8) lists flows that this
// package creates, with each attribute and protocol.
func TestConntrackListsCreated(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	const tcp, udp, sctp, gre = unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP, unix.IPPROTO_GRE
	base := flowBetween(udp, client4, server4)
	base6 := flowBetween(udp, client6, server6)
	withTCP := func(p conntrack.ProtoInfoTCP) conntrack.Flow {
		return with(flowBetween(tcp, client4, server4), func(f *conntrack.Flow) { f.ProtoInfo.TCP = &p })
	}
	withSCTP := func(state uint8) conntrack.Flow {
		return with(flowBetween(sctp, client4, server4), func(f *conntrack.Flow) {
			f.ProtoInfo.SCTP = &conntrack.ProtoInfoSCTP{State: state, VTagOriginal: 0x01020304, VTagReply: 0xfffefdfc}
		})
	}
	status := func(s conntrack.StatusFlag) conntrack.Flow {
		return with(base, func(f *conntrack.Flow) { f.Status.Value = s })
	}
	nat := func(f conntrack.Flow, source, destination string) conntrack.Flow {
		f.NAT = &conntrack.NAT{Source: natTo(source), Destination: natTo(destination)}
		return f
	}

	tests := map[string][]conntrack.Flow{
		"both families": {base, base6},
		"timeouts": {
			with(newFlow(1), func(f *conntrack.Flow) { f.Timeout = 10 }),
			with(newFlow(2), func(f *conntrack.Flow) { f.Timeout = 1 << 20 }),
		},
		"marks": {
			with(newFlow(1), func(f *conntrack.Flow) { f.Mark = 1 }),
			with(newFlow6(2), func(f *conntrack.Flow) { f.Mark = 0xffffffff }),
		},
		"labels": {
			with(newFlow(1), func(f *conntrack.Flow) { f.Labels = []byte{0x81, 1, 2, 4, 8, 15: 0x80} }),
			with(newFlow(2), func(f *conntrack.Flow) { f.Labels = bytes.Repeat([]byte{0xff}, 16) }),
		},
		"zones": {
			with(base, func(f *conntrack.Flow) { f.Zone = 1 }),
			with(base, func(f *conntrack.Flow) { f.Zone = 0xffff }),
			with(base, func(f *conntrack.Flow) { f.TupleOrig.Zone = 2 }),
			with(base6, func(f *conntrack.Flow) { f.TupleReply.Zone = 0xffff }),
		},
		"no status":                 {status(0)},
		"status SEEN_REPLY":         {status(conntrack.StatusSeenReply)},
		"status ASSURED":            {status(conntrack.StatusAssured)},
		"status FIXED_TIMEOUT":      {status(conntrack.StatusFixedTimeout)},
		"all status flags":          {status(conntrack.StatusSeenReply | conntrack.StatusAssured | conntrack.StatusFixedTimeout)},
		"helper":                    {newMaster("ftp", tcp, client4, server4), newMaster("tftp", udp, client6, server6)},
		"master":                    {newFlow(1), with(newFlow(2), func(f *conntrack.Flow) { f.TupleMaster = newFlow(1).TupleOrig })},
		"GRE keys":                  {flowBetween(gre, client4, server4), flowBetween(gre, client6, server6)},
		"ICMP":                      icmpFlows(),
		"UDP-Lite":                  {flowBetween(unix.IPPROTO_UDPLITE, client4, server4), flowBetween(unix.IPPROTO_UDPLITE, client6, server6)},
		"reply from somewhere else": {with(base, func(f *conntrack.Flow) { f.TupleReply = tuple(udp, other4, client4) })},
		"TCP windows, sequence adjustment and SYN proxy": {with(withTCP(conntrack.ProtoInfoTCP{
			State: 3, OriginalWindowScale: 7, ReplyWindowScale: 9, OriginalFlags: 0x0101, ReplyFlags: 0x0101,
		}), func(f *conntrack.Flow) {
			f.SeqAdjOrig = conntrack.SequenceAdjust{Position: 1, OffsetBefore: 2, OffsetAfter: 3}
			f.SynProxy = conntrack.SynProxy{ISN: 1, ITS: 2, TSOff: 3}
		})},
		"SNAT":               {nat(newFlow(1), "192.0.2.1:0", ""), nat(newFlow(2), "192.0.2.1:77", "")},
		"DNAT":               {nat(newFlow(1), "", "192.0.2.1:0"), nat(newFlow(2), "", "192.0.2.1:77")},
		"SNAT and DNAT":      {nat(newFlow(1), "192.0.2.1:5", "192.0.2.2:6")},
		"IPv6 SNAT and DNAT": {nat(newFlow6(1), "[2001:db8::a]:5", "[2001:db8::b]:6"), nat(newFlow6(2), "[2001:db8::a]:0", "")},
		"NAT to ranges": {with(newFlow(1), func(f *conntrack.Flow) {
			f.NAT = &conntrack.NAT{
				Source:      conntrack.NATRange{MinAddr: netip.MustParseAddr("192.0.2.1"), MaxAddr: netip.MustParseAddr("192.0.2.9"), MinPort: 100, MaxPort: 200},
				Destination: conntrack.NATRange{MinAddr: netip.MustParseAddr("192.0.2.11"), MaxAddr: netip.MustParseAddr("192.0.2.19"), MinPort: 100, MaxPort: 200},
			}
		})},
		"every protocol": everyProtocol(),
		"DCCP":           {with(flowBetween(unix.IPPROTO_DCCP, client4, server4), setDCCP), with(flowBetween(unix.IPPROTO_DCCP, client6, server6), setDCCP)},
	}
	for state := range uint8(conntrack.TCPStateSynSent2 + 1) {
		tests["TCP "+conntrack.TCPState(state).String()] = []conntrack.Flow{withTCP(conntrack.ProtoInfoTCP{State: state})}
	}
	for state := range uint8(conntrack.SCTPStateHeartbeatSent + 1) {
		tests["SCTP "+conntrack.SCTPState(state).String()] = []conntrack.Flow{withSCTP(state)}
	}
	for name, flows := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "every protocol" {
				needSteadyUse(t)
			}
			ns := nstest.New(t, nstest.Timestamps())
			ns.Labels()
			c := dial(t, ns)
			create(t, c, flows...)
			requireShown(t, ns, c)
			for _, f := range flows {
				if f.NAT != nil {
					requireTranslated(t, f.NAT, get(t, c, f))
				}
				require.NoError(t, c.Delete(f))
			}
			require.Empty(t, run(t, ns, "-L"))
		})
	}
}

func setDCCP(f *conntrack.Flow) {
	f.ProtoInfo.DCCP = &conntrack.ProtoInfoDCCP{State: 4 /* OPEN */, Role: 1 /* server */, HandshakeSeq: 5}
}

func natTo(s string) conntrack.NATRange {
	if s == "" {
		return conntrack.NATRange{}
	}
	return conntrack.NATTo(netip.MustParseAddrPort(s))
}

// requireTranslated asserts that f is translated as nat says.
func requireTranslated(t *testing.T, nat *conntrack.NAT, f conntrack.Flow) {
	t.Helper()
	reply := f.TupleReply
	require.Equal(t, nat.Source.MinAddr.IsValid(), f.Status.SrcNAT())
	require.Equal(t, nat.Destination.MinAddr.IsValid(), f.Status.DstNAT())
	requireWithin(t, nat.Source, reply.IP.DestinationAddress, reply.Proto.DestinationPort)
	requireWithin(t, nat.Destination, reply.IP.SourceAddress, reply.Proto.SourcePort)
}

func requireWithin(t *testing.T, r conntrack.NATRange, addr netip.Addr, port uint16) {
	t.Helper()
	if r.MinAddr.IsValid() {
		last := r.MaxAddr
		if !last.IsValid() {
			last = r.MinAddr
		}
		require.False(t, addr.Less(r.MinAddr) || last.Less(addr), addr)
	}
	if r.MinPort != 0 {
		require.GreaterOrEqual(t, port, r.MinPort)
		require.LessOrEqual(t, port, max(r.MinPort, r.MaxPort))
	}
}

// icmpFlows returns a flow for each kind of query that the kernel tracks.
func icmpFlows() (flows []conntrack.Flow) {
	add := func(proto uint8, src, dst netip.Addr, query uint8) {
		f := conntrack.Flow{TupleOrig: echoTuple(proto, src, dst, query, 0xfffe), Timeout: 60}
		f.TupleReply = f.TupleOrig.Reverse()
		flows = append(flows, f)
	}
	for _, query := range []uint8{0, 8, 13, 14, 15, 16, 17, 18} {
		add(unix.IPPROTO_ICMP, client4.Addr(), server4.Addr(), query)
	}
	for _, query := range []uint8{128, 129, 139, 140} {
		add(unix.IPPROTO_ICMPV6, client6.Addr(), server6.Addr(), query)
	}
	return flows
}

// everyProtocol returns flows of all protocols except ICMP and DCCP,
// alternating between IPv4 and IPv6.
func everyProtocol() (flows []conntrack.Flow) {
	for proto := 1; proto < 256; proto++ {
		src, dst := client4, server4
		if proto%2 == 0 {
			src, dst = client6, server6
		}
		switch proto {
		case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6, unix.IPPROTO_DCCP:
			continue
		}
		f := flowBetween(uint8(proto), src, dst)
		if !hasPorts(&f.TupleOrig) && !hasKeys(&f.TupleOrig) {
			f = flowBetween(uint8(proto), netip.AddrPortFrom(src.Addr(), 0), netip.AddrPortFrom(dst.Addr(), 0))
		}
		flows = append(flows, f)
	}
	return flows
}
