package conntrack_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
)

func TestTupleString(t *testing.T) {
	t.Parallel()
	ipv4 := conntrack.IPTuple{
		SourceAddress:      netip.MustParseAddr("10.0.0.1"),
		DestinationAddress: netip.MustParseAddr("10.0.0.2"),
	}
	ipv6 := conntrack.IPTuple{
		SourceAddress:      netip.MustParseAddr("fe80::1"),
		DestinationAddress: netip.MustParseAddr("::ffff:10.0.0.2"),
	}
	tests := []struct {
		tuple conntrack.Tuple
		want  string
	}{
		{
			conntrack.Tuple{IP: ipv4, Proto: conntrack.ProtoTuple{Protocol: 17, SourcePort: 1, DestinationPort: 65535}},
			"<udp, Src: 10.0.0.1:1, Dst: 10.0.0.2:65535>",
		},
		{
			conntrack.Tuple{IP: ipv6, Proto: conntrack.ProtoTuple{Protocol: 132, SourcePort: 1, DestinationPort: 2}},
			"<sctp, Src: [fe80::1]:1, Dst: [::ffff:10.0.0.2]:2>",
		},
		{
			conntrack.Tuple{IP: ipv4, Proto: conntrack.ProtoTuple{Protocol: 1, ICMPv4: true, ICMPType: 8, ICMPID: 77}},
			"<icmp, Src: 10.0.0.1:0, Dst: 10.0.0.2:0>",
		},
		{
			conntrack.Tuple{IP: ipv6, Proto: conntrack.ProtoTuple{Protocol: 58, ICMPv6: true, ICMPType: 128}},
			"<ipv6-icmp, Src: [fe80::1]:0, Dst: [::ffff:10.0.0.2]:0>",
		},
		{
			conntrack.Tuple{},
			"<0, Src: invalid IP:0, Dst: invalid IP:0>",
		},
	}
	for _, tt := range tests {
		require.Equal(t, tt.want, tt.tuple.String())
	}
}

func TestIsIPv6(t *testing.T) {
	t.Parallel()
	v4, v6, mapped := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("::1"), netip.MustParseAddr("::ffff:10.0.0.1")
	tests := []struct {
		src, dst netip.Addr
		want     bool
	}{
		{v4, v4, false},
		{v6, v6, true},
		{mapped, v6, true},
		{mapped, mapped, true},
		{v4, v6, false},
		{v6, v4, false},
		{netip.Addr{}, v6, false},
		{netip.Addr{}, netip.Addr{}, false},
	}
	for _, tt := range tests {
		got := conntrack.IPTuple{SourceAddress: tt.src, DestinationAddress: tt.dst}.IsIPv6()
		require.Equal(t, tt.want, got, "%s %s", tt.src, tt.dst)
	}
}

func TestNewFlow(t *testing.T) {
	t.Parallel()
	src, dst := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	want := conntrack.Flow{
		Status:  conntrack.Status{Value: conntrack.StatusAssured},
		Timeout: 120,
		Mark:    0xbeef,
		TupleOrig: conntrack.Tuple{
			IP:    conntrack.IPTuple{SourceAddress: src, DestinationAddress: dst},
			Proto: conntrack.ProtoTuple{Protocol: 17, SourcePort: 1, DestinationPort: 2},
		},
		TupleReply: conntrack.Tuple{
			IP:    conntrack.IPTuple{SourceAddress: dst, DestinationAddress: src},
			Proto: conntrack.ProtoTuple{Protocol: 17, SourcePort: 2, DestinationPort: 1},
		},
	}
	require.Equal(t, want, conntrack.NewFlow(17, conntrack.StatusAssured, src, dst, 1, 2, 120, 0xbeef))
}

// halfGiven returns copies of t, each of which lacks a different part.
func halfGiven(t conntrack.Tuple) map[string]conntrack.Tuple {
	noSource, noDestination, noProtocol := t, t, t
	noSource.IP.SourceAddress = netip.Addr{}
	noDestination.IP.DestinationAddress = netip.Addr{}
	noProtocol.Proto.Protocol = 0
	return map[string]conntrack.Tuple{
		"without source":      noSource,
		"without destination": noDestination,
		"without protocol":    noProtocol,
		"without addresses":   {Proto: t.Proto},
	}
}

func TestNewTuple(t *testing.T) {
	t.Parallel()
	ap := netip.MustParseAddrPort
	for name, tt := range map[string]struct {
		proto    conntrack.Protocol
		src, dst netip.AddrPort
		want     conntrack.Tuple
	}{
		"TCP": {conntrack.ProtocolTCP, ap("10.0.0.1:1"), ap("10.0.0.2:2"), conntrack.Tuple{
			IP:    conntrack.IPTuple{SourceAddress: netip.MustParseAddr("10.0.0.1"), DestinationAddress: netip.MustParseAddr("10.0.0.2")},
			Proto: conntrack.ProtoTuple{Protocol: 6, SourcePort: 1, DestinationPort: 2},
		}},
		"mapped": {conntrack.ProtocolUDP, ap("[::ffff:10.0.0.1]:1"), ap("10.0.0.2:2"), conntrack.Tuple{
			IP:    conntrack.IPTuple{SourceAddress: netip.MustParseAddr("10.0.0.1"), DestinationAddress: netip.MustParseAddr("10.0.0.2")},
			Proto: conntrack.ProtoTuple{Protocol: 17, SourcePort: 1, DestinationPort: 2},
		}},
		"IPv6 with a zone": {conntrack.ProtocolUDP, ap("[fe80::1%eth0]:1"), ap("[fe80::2%eth0]:2"), conntrack.Tuple{
			IP:    conntrack.IPTuple{SourceAddress: netip.MustParseAddr("fe80::1"), DestinationAddress: netip.MustParseAddr("fe80::2")},
			Proto: conntrack.ProtoTuple{Protocol: 17, SourcePort: 1, DestinationPort: 2},
		}},
		"ICMP": {conntrack.ProtocolICMP, ap("10.0.0.1:4660"), netip.AddrPortFrom(netip.MustParseAddr("10.0.0.2"), 8<<8|3), conntrack.Tuple{
			IP:    conntrack.IPTuple{SourceAddress: netip.MustParseAddr("10.0.0.1"), DestinationAddress: netip.MustParseAddr("10.0.0.2")},
			Proto: conntrack.ProtoTuple{Protocol: 1, ICMPv4: true, ICMPID: 4660, ICMPType: 8, ICMPCode: 3},
		}},
		"nothing": {0, netip.AddrPort{}, netip.AddrPort{}, conntrack.Tuple{}},
	} {
		t.Run(name, func(t *testing.T) {
			got := conntrack.NewTuple(tt.proto, tt.src, tt.dst)
			require.Equal(t, tt.want, got)
			require.Equal(t, got, got.FiveTuple().Tuple(), "there and back")
		})
	}
}

// A notIP is a connection whose addresses have no ports.
type notIP struct{ net.Conn }

func (notIP) LocalAddr() net.Addr  { return &net.IPAddr{IP: net.IPv6loopback} }
func (notIP) RemoteAddr() net.Addr { return &net.IPAddr{IP: net.IPv6loopback} }

func TestTupleOfNone(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	unconnected, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv6loopback})
	if err != nil {
		unconnected, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	}
	require.NoError(t, err)
	defer unconnected.Close()
	for name, c := range map[string]net.Conn{"pipe": a, "without ports": notIP{}, "unconnected": unconnected} {
		tuple, err := conntrack.TupleOf(c)
		require.ErrorContains(t, err, "no tuple", name)
		require.Zero(t, tuple, name)
	}
}
