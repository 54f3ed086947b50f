package conntrack_test

import (
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
