package conntrack

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func tcpTuple(src, dst string) Tuple {
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	return Tuple{
		IP:    IPTuple{SourceAddress: s.Addr(), DestinationAddress: d.Addr()},
		Proto: ProtoTuple{Protocol: ProtocolTCP, SourcePort: s.Port(), DestinationPort: d.Port()},
	}
}

func icmpTuple(protocol uint8, src, dst string, typ uint8, id uint16) Tuple {
	t := Tuple{IP: IPTuple{SourceAddress: netip.MustParseAddr(src), DestinationAddress: netip.MustParseAddr(dst)}}
	t.Proto.setProtocol(protocol)
	t.Proto.ICMPType, t.Proto.ICMPID = typ, id
	return t
}

func TestTupleReverse(t *testing.T) {
	t.Parallel()
	tuple := tcpTuple("192.0.2.1:40000", "192.0.2.2:80")
	tuple.Zone = 7
	want := tcpTuple("192.0.2.2:80", "192.0.2.1:40000")
	want.Zone = 7
	require.Equal(t, want, tuple.Reverse())
	require.Equal(t, tuple, tuple.Reverse().Reverse())

	for _, test := range []struct{ protocol, query, reply uint8 }{
		{ProtocolICMP, 8, 0}, {ProtocolICMP, 13, 14}, {ProtocolICMP, 15, 16}, {ProtocolICMP, 17, 18},
		{ProtocolICMPv6, 128, 129}, {ProtocolICMPv6, 139, 140},
		{ProtocolICMP, 3, 3}, {ProtocolICMP, 128, 128}, {ProtocolICMPv6, 8, 8}, {ProtocolICMPv6, 1, 1},
		{ProtocolTCP, 8, 8},
	} {
		query := icmpTuple(test.protocol, "fd00::1", "fd00::2", test.query, 42)
		query.Proto.ICMPCode = 1
		reply := icmpTuple(test.protocol, "fd00::2", "fd00::1", test.reply, 42)
		reply.Proto.ICMPCode = 1
		require.Equal(t, reply, query.Reverse())
		require.Equal(t, query, reply.Reverse())
	}

	bare := Tuple{Proto: ProtoTuple{Protocol: ProtocolICMP, ICMPType: 8}}
	require.Zero(t, bare.Reverse().Proto.ICMPType)
	bare = Tuple{Proto: ProtoTuple{ICMPv6: true, ICMPType: 128}}
	require.EqualValues(t, 129, bare.Reverse().Proto.ICMPType)
}

func TestFiveTuple(t *testing.T) {
	t.Parallel()
	tcp := tcpTuple("192.0.2.1:40000", "192.0.2.2:443")
	for _, test := range []struct {
		tuple Tuple
		want  FiveTuple
		text  string
	}{
		{tcp, FiveTuple{ProtocolTCP, netip.MustParseAddrPort("192.0.2.1:40000"), netip.MustParseAddrPort("192.0.2.2:443")},
			"tcp 192.0.2.1:40000 > 192.0.2.2:443"},
		{icmpTuple(ProtocolICMP, "192.0.2.1", "192.0.2.2", 8, 4660),
			FiveTuple{ProtocolICMP, netip.MustParseAddrPort("192.0.2.1:4660"), netip.MustParseAddrPort("192.0.2.2:2048")},
			"icmp 192.0.2.1 > 192.0.2.2 type 8 code 0 id 4660"},
		{icmpTuple(ProtocolICMPv6, "fd00::1", "fd00::2", 129, 1),
			FiveTuple{ProtocolICMPv6, netip.MustParseAddrPort("[fd00::1]:1"), netip.MustParseAddrPort("[fd00::2]:33024")},
			"ipv6-icmp fd00::1 > fd00::2 type 129 code 0 id 1"},
		{Tuple{}, FiveTuple{}, "0 invalid IP:0 > invalid IP:0"},
	} {
		require.Equal(t, test.want, test.tuple.FiveTuple())
		require.Equal(t, test.text, test.want.String())
	}

	zoned := tcp
	zoned.Zone = 1
	seen := map[FiveTuple]int{tcp.FiveTuple(): 1}
	seen[zoned.FiveTuple()]++
	seen[tcp.Reverse().FiveTuple()]++
	require.Equal(t, map[FiveTuple]int{tcp.FiveTuple(): 2, tcp.Reverse().FiveTuple(): 1}, seen)
}

// TestTupleText asserts that the texts of a Tuple and of its FiveTuple can be
// parsed back.
func TestTupleText(t *testing.T) {
	t.Parallel()
	zoned := tcpTuple("[fe80::1]:1", "[::ffff:192.0.2.2]:65535")
	zoned.Zone = 65535
	ping := icmpTuple(ProtocolICMPv6, "fd00::1", "fd00::2", 128, 4660)
	ping.Proto.ICMPv6, ping.Proto.ICMPCode, ping.Zone = true, 255, 7
	for _, test := range []struct {
		tuple Tuple
		text  string
	}{
		{tcpTuple("192.0.2.1:40000", "192.0.2.2:443"), "tcp 192.0.2.1:40000 > 192.0.2.2:443"},
		{zoned, "tcp [fe80::1]:1 > [::ffff:192.0.2.2]:65535 zone 65535"},
		{ping, "ipv6-icmp fd00::1 > fd00::2 type 128 code 255 id 4660 zone 7"},
		{Tuple{}, "0 invalid IP:0 > invalid IP:0"},
		{Tuple{Proto: ProtoTuple{Protocol: 253, DestinationPort: 9}}, "253 invalid IP:0 > invalid IP:9"},
		{Tuple{Proto: ProtoTuple{Protocol: ProtocolICMP, ICMPv4: true, ICMPID: 1}}, "icmp invalid IP > invalid IP type 0 code 0 id 1"},
	} {
		text, err := test.tuple.MarshalText()
		require.NoError(t, err)
		require.Equal(t, test.text, string(text))
		var tuple Tuple
		require.NoError(t, tuple.UnmarshalText(text))
		require.Equal(t, test.tuple, tuple)

		key := test.tuple.FiveTuple()
		text, err = key.MarshalText()
		require.NoError(t, err)
		require.Equal(t, key.String(), string(text))
		var again FiveTuple
		require.NoError(t, again.UnmarshalText(text))
		require.Equal(t, key, again)
	}

	for _, bad := range []string{
		"", "tcp", "tcp 192.0.2.1:1", "tcp 192.0.2.1:1 192.0.2.2:2", "tcp 192.0.2.1 > 192.0.2.2:2", "tcp 192.0.2.1:1 > 192.0.2.2",
		"tcp 192.0.2.1:1 > 192.0.2.2:65536", "tpc 192.0.2.1:1 > 192.0.2.2:2", "icmp 192.0.2.1:1 > 192.0.2.2:2",
		"icmp 192.0.2.1 > 192.0.2.2 type 8 code 0", "icmp 192.0.2.1 > 192.0.2.2 type 256 code 0 id 1",
		"icmp 192.0.2.1 > 192.0.2.2 type 8 code 0 id 1 ", "tcp 192.0.2.1:1 > 192.0.2.2:2 zone", "tcp invalid IP:x > 192.0.2.2:2",
		"tcp 192.0.2.1:1 > 192.0.2.2:2 zone 65536", "tcp 192.0.2.1:1 > 192.0.2.2:2 zone 1 zone 2",
	} {
		tuple := zoned
		require.Error(t, tuple.UnmarshalText([]byte(bad)), "%q", bad)
		require.Equal(t, zoned, tuple)
	}
	key := zoned.FiveTuple()
	require.Less(t, len(key.UnmarshalText([]byte("tcp "+strings.Repeat("1", 1<<20)+" > x")).Error()), 400)
	require.ErrorContains(t, key.UnmarshalText([]byte("tcp 192.0.2.1 > x")), `"tcp 192.0.2.1 > x" is no five-tuple`)
	require.Equal(t, zoned.FiveTuple(), key)
}

// FuzzTupleText asserts that any text that can be parsed is the same after it
// was printed and parsed again.
func FuzzTupleText(f *testing.F) {
	for _, text := range []string{
		"tcp 192.0.2.1:40000 > [fd00::1%eth0]:443 zone 7", "icmp 192.0.2.1 > 192.0.2.2 type 8 code 0 id 4660",
		"0x2f invalid IP:0 > invalid IP:1",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var read, again Tuple
		if read.UnmarshalText(text) != nil {
			return
		}
		text, err := read.MarshalText()
		require.NoError(t, err)
		require.NoError(t, again.UnmarshalText(text), "%s", text)
		require.Equal(t, read, again, "%s", text)
	})
}

func TestFlowTranslated(t *testing.T) {
	t.Parallel()
	const client, dialed, server, mapped = "10.0.0.1:40000", "192.0.2.1:80", "10.0.9.9:8080", "192.0.2.9:1024"
	ping := func(reply Tuple) Flow {
		return Flow{TupleOrig: icmpTuple(ProtocolICMP, "10.0.0.1", "192.0.2.1", 8, 42), TupleReply: reply}
	}
	tcp := func(replySrc, replyDst string) Flow {
		return Flow{TupleOrig: tcpTuple(client, dialed), TupleReply: tcpTuple(replySrc, replyDst)}
	}
	for _, test := range []struct {
		name        string
		flow        Flow
		source, dst bool
	}{
		{"none", tcp(dialed, client), false, false},
		{"source", tcp(dialed, mapped), true, false},
		{"source port", tcp(dialed, "10.0.0.1:40001"), true, false},
		{"source address", tcp(dialed, "192.0.2.9:40000"), true, false},
		{"destination", tcp(server, client), false, true},
		{"destination port", tcp("192.0.2.1:8080", client), false, true},
		{"destination address", tcp("10.0.9.9:80", client), false, true},
		{"both", tcp(server, mapped), true, true},
		{"ICMP", ping(icmpTuple(ProtocolICMP, "192.0.2.1", "10.0.0.1", 0, 42)), false, false},
		{"ICMP source", ping(icmpTuple(ProtocolICMP, "192.0.2.1", "192.0.2.9", 0, 42)), true, false},
		{"ICMP id", ping(icmpTuple(ProtocolICMP, "192.0.2.1", "10.0.0.1", 0, 43)), true, false},
		{"ICMP destination", ping(icmpTuple(ProtocolICMP, "10.0.9.9", "10.0.0.1", 0, 42)), false, true},
		{"no reply tuple", Flow{TupleOrig: tcpTuple(client, dialed)}, false, false},
		{"no original tuple", Flow{TupleReply: tcpTuple(client, dialed)}, false, false},
		{"nothing", Flow{Status: Status{StatusNATMask}}, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.source, test.flow.SourceTranslated())
			require.Equal(t, test.dst, test.flow.DestinationTranslated())
			require.Equal(t, test.source || test.dst, test.flow.Translated())
		})
	}

	f := tcp(server, mapped)
	require.Equal(t, netip.MustParseAddrPort(client), f.Client())
	require.Equal(t, netip.MustParseAddrPort(dialed), f.Dialed())
	require.Equal(t, netip.MustParseAddrPort(server), f.Server())
	require.Equal(t, netip.MustParseAddrPort(mapped), f.MappedClient())
	var none Flow
	require.False(t, none.Client().IsValid())
	require.False(t, none.Server().IsValid())
}

func TestFlowState(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		protocol Protocol
		info     ProtoInfo
		state    string
	}{
		{ProtocolTCP, ProtoInfo{TCP: &ProtoInfoTCP{State: uint8(TCPStateEstablished)}}, "ESTABLISHED"},
		{ProtocolSCTP, ProtoInfo{SCTP: &ProtoInfoSCTP{State: 1}}, "CLOSED"},
		{ProtocolDCCP, ProtoInfo{DCCP: &ProtoInfoDCCP{State: 1}}, "REQUEST"},
		{ProtocolUDP, ProtoInfo{}, ""},
	} {
		f := Flow{TupleOrig: Tuple{Proto: ProtoTuple{Protocol: uint8(tt.protocol)}}, ProtoInfo: tt.info}
		require.Equal(t, tt.protocol, f.Protocol())
		require.Equal(t, tt.state, f.State())
	}
}

// TestFlowInMap asserts that the methods of a Flow work on a Flow that is not
// addressable.
func TestFlowInMap(t *testing.T) {
	t.Parallel()
	f := NewFlow(ProtocolTCP, 0, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 1000, 80, 60, 0)
	flows := map[uint32]Flow{1: f}
	require.Equal(t, "10.0.0.1:1000", flows[1].Client().String())
	require.Equal(t, "10.0.0.2:80", flows[1].Server().String())
	require.Equal(t, flows[1].Dialed(), flows[1].Server())
	require.Equal(t, flows[1].MappedClient(), flows[1].Client())
	require.False(t, flows[1].Translated() || flows[1].SourceTranslated() || flows[1].DestinationTranslated())
	require.False(t, flows[1].HasLabel(1) || flows[1].Counted())
	require.Equal(t, f.TupleOrig.FiveTuple(), flows[1].FiveTuple())
	_, ok := flows[1].Age(time.Now())
	require.False(t, ok)
}

func TestFlowTimes(t *testing.T) {
	t.Parallel()
	start := time.Unix(1000, 500)
	for _, test := range []struct {
		name           string
		timestamp      Timestamp
		now            time.Time
		age, duration  time.Duration
		aged, finished bool
	}{
		{"unknown", Timestamp{}, start, 0, 0, false, false},
		{"alive", Timestamp{Start: start}, start.Add(time.Minute), time.Minute, 0, true, false},
		{"ended", Timestamp{Start: start, Stop: start.Add(time.Second)}, start.Add(time.Minute), time.Minute, time.Second, true, true},
		{"ended before it began", Timestamp{Start: start, Stop: start.Add(-time.Second)}, start.Add(-time.Hour), 0, 0, true, true},
		{"beginning unknown", Timestamp{Stop: start}, start, 0, 0, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := Flow{Timestamp: test.timestamp}
			age, ok := f.Age(test.now)
			require.Equal(t, test.age, age)
			require.Equal(t, test.aged, ok)
			duration, ok := f.Duration()
			require.Equal(t, test.duration, duration)
			require.Equal(t, test.finished, ok)
		})
	}
	f := Flow{Timestamp: Timestamp{Start: time.Now().Add(-time.Hour)}}
	age, ok := f.Age(time.Now())
	require.True(t, ok)
	require.InDelta(t, time.Hour, age, float64(time.Minute))
}

func TestFlowBound(t *testing.T) {
	t.Parallel()
	local := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	const inside, inside2, outside, outside2 = "10.0.0.1:1", "10.0.0.2:2", "192.0.2.1:3", "192.0.2.2:4"
	for _, test := range []struct {
		name string
		flow Flow
		want Bound
	}{
		{"inbound", Flow{TupleOrig: tcpTuple(outside, inside), TupleReply: tcpTuple(inside, outside)}, Inbound},
		{"inbound by destination NAT", Flow{TupleOrig: tcpTuple(outside, outside2), TupleReply: tcpTuple(inside, outside)}, Inbound},
		{"outbound", Flow{TupleOrig: tcpTuple(inside, outside), TupleReply: tcpTuple(outside, inside)}, Outbound},
		{"outbound by source NAT", Flow{TupleOrig: tcpTuple(inside, outside), TupleReply: tcpTuple(outside, outside2)}, Outbound},
		{"internal", Flow{TupleOrig: tcpTuple(inside, inside2), TupleReply: tcpTuple(inside2, inside)}, Internal},
		{"internal by a public address", Flow{TupleOrig: tcpTuple(inside, outside), TupleReply: tcpTuple(inside2, outside)}, Internal},
		{"forwarded", Flow{TupleOrig: tcpTuple(outside, outside2), TupleReply: tcpTuple(outside2, outside)}, Forwarded},
		{"IPv6", Flow{TupleOrig: tcpTuple("[fd00::1]:1", "[2001:db8::1]:2"), TupleReply: tcpTuple("[2001:db8::1]:2", "[fd00::1]:1")}, Outbound},
		{"one tuple", Flow{TupleOrig: tcpTuple(inside, outside)}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, test.flow.Bound(local))
		})
	}
	f := Flow{TupleOrig: tcpTuple(inside, outside), TupleReply: tcpTuple(outside, inside)}
	require.Equal(t, Forwarded, f.Bound(nil))

	for d, name := range map[Bound]string{
		0: "unknown", Inbound: "inbound", Outbound: "outbound",
		Internal: "internal", Forwarded: "forwarded", 99: "99",
	} {
		require.Equal(t, name, d.String())
	}
}
