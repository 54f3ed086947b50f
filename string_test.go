package conntrack_test

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
)

func TestFlowString(t *testing.T) {
	t.Parallel()
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	flow := func(protocol uint8, change func(f *conntrack.Flow)) conntrack.Flow {
		f := conntrack.NewFlow(protocol, conntrack.StatusSeenReply|conntrack.StatusAssured, a, b, 40000, 443, 300, 0)
		change(&f)
		return f
	}
	for want, f := range map[string]conntrack.Flow{
		"udp 192.0.2.1:40000 > 192.0.2.2:443 SEEN_REPLY|ASSURED 300s": flow(17, func(*conntrack.Flow) {}),
		"tcp 192.0.2.1:40000 > 192.0.2.2:443 CLOSE_WAIT NONE 0s": flow(6, func(f *conntrack.Flow) {
			f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: conntrack.TCPStateCloseWait}
			f.Status.Value, f.Timeout = 0, 0
		}),
		"sctp 192.0.2.1:40000 > 192.0.2.2:443 COOKIE_WAIT SEEN_REPLY|ASSURED 300s": flow(132, func(f *conntrack.Flow) {
			f.ProtoInfo.SCTP = &conntrack.ProtoInfoSCTP{State: conntrack.SCTPStateCookieWait}
		}),
		"dccp 192.0.2.1:40000 > 192.0.2.2:443 OPEN SEEN_REPLY|ASSURED 300s": flow(33, func(f *conntrack.Flow) {
			f.ProtoInfo.DCCP = &conntrack.ProtoInfoDCCP{State: 4}
		}),
		"udp 192.0.2.1:40000 > 192.0.2.2:443 SEEN_REPLY|ASSURED 300s translated to 192.0.2.1:40000 > 198.51.100.7:8443": flow(17, func(f *conntrack.Flow) {
			f.TupleReply.IP.SourceAddress, f.TupleReply.Proto.SourcePort = netip.MustParseAddr("198.51.100.7"), 8443
		}),
		"udp 192.0.2.1:40000 > 192.0.2.2:443 SEEN_REPLY|ASSURED 300s 3+2 packets 180+0 bytes mark 0x10 zone 5": flow(17, func(f *conntrack.Flow) {
			f.CountersOrig, f.CountersReply.Packets = conntrack.Counter{Packets: 3, Bytes: 180}, 2
			f.Mark, f.TupleReply.Zone = 16, 5
		}),
		"udp 192.0.2.1:40000 > 192.0.2.2:443 SEEN_REPLY|ASSURED 300s 0+0 packets 0+0 bytes": flow(17, func(f *conntrack.Flow) { f.CountedZero = true }),
	} {
		require.Equal(t, want, f.String())
	}
	require.NotPanics(t, func() { _ = conntrack.Flow{}.String() })
}

func TestExpectString(t *testing.T) {
	t.Parallel()
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	master := conntrack.NewFlow(6, 0, a, b, 40000, 21, 0, 0).TupleOrig
	ex := conntrack.Expect{
		Timeout: 299, TupleMaster: master, Tuple: conntrack.NewFlow(6, 0, b, a, 0, 5000, 0, 0).TupleOrig, HelpName: "ftp",
	}
	require.Equal(t, "tcp 192.0.2.2:0 > 192.0.2.1:5000 ftp 299s by tcp 192.0.2.1:40000 > 192.0.2.2:21", ex.String())
	ex.Flags = conntrack.ExpectPermanent | conntrack.ExpectInactive
	require.Equal(t, "tcp 192.0.2.2:0 > 192.0.2.1:5000 ftp 299s PERMANENT|INACTIVE by tcp 192.0.2.1:40000 > 192.0.2.2:21", ex.String())
}

// naming is a type with named values, and a function that parses the names.
type naming struct {
	name  func(v uint32) string
	parse func(s string) (uint32, error)
	bits  uint
}

func namingOf[T interface {
	~uint8 | ~uint32
	encoding.TextMarshaler
}, P interface {
	*T
	encoding.TextUnmarshaler
}](bits uint) naming {
	return naming{
		name: func(v uint32) string {
			text, err := T(v).MarshalText()
			if err != nil {
				panic(err)
			}
			return string(text)
		},
		parse: func(s string) (uint32, error) {
			v := ^T(0)
			err := P(&v).UnmarshalText([]byte(s))
			if err != nil && v != ^T(0) {
				panic("changed in spite of an error")
			}
			return uint32(v), err
		},
		bits: bits,
	}
}

var namings = map[string]naming{
	"Protocol":    namingOf[conntrack.Protocol](8),
	"TCPState":    namingOf[conntrack.TCPState](8),
	"SCTPState":   namingOf[conntrack.SCTPState](8),
	"EventType":   namingOf[conntrack.EventType](8),
	"Bound":       namingOf[conntrack.Bound](8),
	"StatusFlag":  namingOf[conntrack.StatusFlag](32),
	"ExpectFlags": namingOf[conntrack.ExpectFlags](32),
}

// TestNames asserts that the name of every value or flag can be parsed, in
// upper and lower case.
func TestNames(t *testing.T) {
	t.Parallel()
	for name, n := range namings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			values := []uint32{0xffffffff, 0x8000_0009}
			for i := range 32 {
				values = append(values, 1<<i)
			}
			if n.bits == 8 {
				values = nil
				for v := range uint32(256) {
					values = append(values, v)
				}
			}
			seen := make(map[string]uint32)
			for _, v := range append(values, 0) {
				text := n.name(v)
				before, twice := seen[text]
				require.False(t, twice && before != v, "%s is %d and %d", text, before, v)
				seen[text] = v
				for _, text := range []string{text, strings.ToLower(text), strings.ToUpper(text)} {
					got, err := n.parse(text)
					require.NoError(t, err)
					require.Equal(t, v, got, text)
				}
			}
			for _, bad := range []string{"", " ", "nonesuch", "-1", "256x", "4294967296", "1.5", "TCP_", "1_0", "0b1", "0x", "ſctp", "ſYN_SENT", "ASſURED"} {
				_, err := n.parse(bad)
				require.Error(t, err, "%q", bad)
				require.ErrorContains(t, err, fmt.Sprintf("%q", bad))
			}
		})
	}
}

func TestNamesOf(t *testing.T) {
	t.Parallel()
	for want, got := range map[string]fmt.Stringer{
		"tcp":                   conntrack.Protocol(conntrack.ProtocolTCP),
		"ipv6-icmp":             conntrack.Protocol(conntrack.ProtocolICMPv6),
		"89":                    conntrack.Protocol(89),
		"ESTABLISHED":           conntrack.TCPState(conntrack.TCPStateEstablished),
		"SYN_SENT2":             conntrack.TCPState(conntrack.TCPStateSynSent2),
		"10":                    conntrack.TCPState(10),
		"HEARTBEAT_SENT":        conntrack.SCTPState(conntrack.SCTPStateHeartbeatSent),
		"SEEN_REPLY|ASSURED":    conntrack.Status{Value: conntrack.StatusSeenReply | conntrack.StatusAssured},
		"HW_OFFLOAD|0x10000":    conntrack.Status{Value: conntrack.StatusHWOffload | 1<<16},
		"NONE":                  conntrack.ExpectFlags(0),
		"PERMANENT|USERSPACE":   conntrack.ExpectFlags(conntrack.ExpectPermanent | conntrack.ExpectUserSpace),
		"INACTIVE|0x8|0x100000": conntrack.ExpectFlags(conntrack.ExpectInactive | 8 | 0x100000),
	} {
		require.Equal(t, want, got.String())
	}
}

// TestNamesRead asserts that names as people write them can be parsed.
func TestNamesRead(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		naming, text string
		want         uint32
	}{
		{"StatusFlag", "assured,seen_reply", 6},
		{"StatusFlag", "ASSURED | SEEN_REPLY", 6},
		{"StatusFlag", "0x6", 6},
		{"StatusFlag", "none", 0},
		{"StatusFlag", "CONFIRMED|0x10000", 0x10008},
		{"TCPState", "LISTEN", conntrack.TCPStateSynSent2},
		{"Protocol", "icmpv6", conntrack.ProtocolICMPv6},
		{"EventType", "Expect_New", uint32(conntrack.EventExpNew)},
	} {
		got, err := namings[test.naming].parse(test.text)
		require.NoError(t, err)
		require.Equal(t, test.want, got, test.text)
	}
	require.Equal(t, uint16(0x0a0f), conntrack.TCPFlags(0x0a, 0x0f))
}

// TestProtocolNames asserts that all 256 protocols have the names that v0.5.0
// printed: these, and numbers for the others.
func TestProtocolNames(t *testing.T) {
	t.Parallel()
	names := map[uint8]string{
		1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 33: "dccp", 47: "gre", 58: "ipv6-icmp",
		94: "ipip", 115: "l2tp", 132: "sctp", 136: "udplite",
	}
	for p := range 256 {
		want, ok := names[uint8(p)]
		if !ok {
			want = strconv.Itoa(p)
		}
		tuple := conntrack.Tuple{Proto: conntrack.ProtoTuple{Protocol: uint8(p)}}
		require.Equal(t, "<"+want+", Src: invalid IP:0, Dst: invalid IP:0>", tuple.String())
		require.Equal(t, want, conntrack.Protocol(p).String())
	}
}

// TestNamesAsText asserts that encoding/json and log/slog write named values as
// names, which can be parsed back.
func TestNamesAsText(t *testing.T) {
	t.Parallel()
	key := conntrack.FiveTuple{
		Protocol:    conntrack.ProtocolTCP,
		Source:      netip.MustParseAddrPort("192.0.2.1:40000"),
		Destination: netip.MustParseAddrPort("[2001:db8::1]:443"),
	}
	type values struct {
		Protocol conntrack.Protocol
		State    conntrack.TCPState
		Status   conntrack.Status
		Flags    conntrack.ExpectFlags
		Type     conntrack.EventType
		Tuple    conntrack.Tuple
		Bytes    map[conntrack.FiveTuple]int
		Events   map[conntrack.EventType]int
		Ways     map[conntrack.Bound]int
	}
	v := values{
		Protocol: conntrack.ProtocolUDP,
		State:    conntrack.TCPStateEstablished,
		Status:   conntrack.Status{Value: conntrack.StatusAssured | conntrack.StatusSeenReply},
		Flags:    conntrack.ExpectPermanent,
		Type:     conntrack.EventDestroy,
		Tuple:    key.Tuple(),
		Bytes:    map[conntrack.FiveTuple]int{key: 1},
		Events:   map[conntrack.EventType]int{conntrack.EventNew: 2},
		Ways:     map[conntrack.Bound]int{conntrack.Inbound: 3},
	}
	const want = `{"Protocol":"udp","State":"ESTABLISHED","Status":{"Value":"SEEN_REPLY|ASSURED"},"Flags":"PERMANENT",` +
		`"Type":"destroy","Tuple":"tcp 192.0.2.1:40000 \u003e [2001:db8::1]:443",` +
		`"Bytes":{"tcp 192.0.2.1:40000 \u003e [2001:db8::1]:443":1},"Events":{"new":2},"Ways":{"inbound":3}}`
	text, err := json.Marshal(v)
	require.NoError(t, err)
	require.Equal(t, want, string(text))
	var again values
	require.NoError(t, json.Unmarshal(text, &again))
	require.Equal(t, v, again)

	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("", "type", v.Type, "state", v.State, "key", key)
	require.Contains(t, log.String(), `"type":"destroy","state":"ESTABLISHED","key":"tcp 192.0.2.1:40000 > [2001:db8::1]:443"`)
}

// TestStatus asserts that each flag has a name and a method.
func TestStatus(t *testing.T) {
	t.Parallel()
	type S = conntrack.Status
	tests := []struct {
		flag conntrack.StatusFlag
		name string
		is   func(S) bool
	}{
		{conntrack.StatusExpected, "EXPECTED", S.Expected},
		{conntrack.StatusSeenReply, "SEEN_REPLY", S.SeenReply},
		{conntrack.StatusAssured, "ASSURED", S.Assured},
		{conntrack.StatusConfirmed, "CONFIRMED", S.Confirmed},
		{conntrack.StatusSrcNAT, "SRC_NAT", S.SrcNAT},
		{conntrack.StatusDstNAT, "DST_NAT", S.DstNAT},
		{conntrack.StatusSeqAdjust, "SEQ_ADJUST", S.SeqAdjust},
		{conntrack.StatusSrcNATDone, "SRC_NAT_DONE", S.SrcNATDone},
		{conntrack.StatusDstNATDone, "DST_NAT_DONE", S.DstNATDone},
		{conntrack.StatusDying, "DYING", S.Dying},
		{conntrack.StatusFixedTimeout, "FIXED_TIMEOUT", S.FixedTimeout},
		{conntrack.StatusTemplate, "TEMPLATE", S.Template},
		{conntrack.StatusUntracked, "UNTRACKED", nil},
		{conntrack.StatusHelper, "HELPER", S.Helper},
		{conntrack.StatusOffload, "OFFLOAD", S.Offload},
	}
	var all conntrack.StatusFlag
	for _, tt := range tests {
		require.Equal(t, tt.name, S{Value: tt.flag}.String())
		require.Zero(t, all&tt.flag, tt.name)
		all |= tt.flag
		if tt.is != nil {
			require.True(t, tt.is(S{Value: tt.flag}), tt.name)
			require.True(t, tt.is(S{Value: 0xffffffff}), tt.name)
			require.False(t, tt.is(S{Value: ^tt.flag}), tt.name)
			require.False(t, tt.is(S{}), tt.name)
		}
	}
}

func TestStatusString(t *testing.T) {
	t.Parallel()
	for value, want := range map[conntrack.StatusFlag]string{
		0:                                     "NONE",
		conntrack.StatusNATMask:               "SRC_NAT|DST_NAT",
		conntrack.StatusAssured | 1<<31:       "ASSURED|0x80000000",
		1<<30 | 1<<31:                         "0x40000000|0x80000000",
		conntrack.StatusNATDoneMask | 1<<0:    "EXPECTED|SRC_NAT_DONE|DST_NAT_DONE",
		conntrack.StatusOffload | 1<<1 | 1<<3: "SEEN_REPLY|CONFIRMED|OFFLOAD",
	} {
		require.Equal(t, want, conntrack.Status{Value: value}.String())
	}
}
