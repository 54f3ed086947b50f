package conntrack_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
)

// naming is a type whose values have names, and the reading of these.
type naming struct {
	name  func(v uint32) string
	parse func(s string) (uint32, error)
	bits  uint
}

func namingOf[T interface {
	~uint8 | ~uint32
	fmt.Stringer
}](parse func(string) (T, error), bits uint,
) naming {
	return naming{
		name:  func(v uint32) string { return T(v).String() },
		parse: func(s string) (uint32, error) { v, err := parse(s); return uint32(v), err },
		bits:  bits,
	}
}

var namings = map[string]naming{
	"Protocol":    namingOf(conntrack.ParseProtocol, 8),
	"TCPState":    namingOf(conntrack.ParseTCPState, 8),
	"SCTPState":   namingOf(conntrack.ParseSCTPState, 8),
	"DCCPState":   namingOf(conntrack.ParseDCCPState, 8),
	"DCCPRole":    namingOf(conntrack.ParseDCCPRole, 8),
	"Status":      namingOf(conntrack.ParseStatus, 32),
	"ExpectFlags": namingOf(conntrack.ParseExpectFlags, 32),
}

// TestNames reads back the name of every value, or of every flag, in any case.
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
		"icmpv6":                conntrack.Protocol(conntrack.ProtocolICMPv6),
		"89":                    conntrack.Protocol(89),
		"ESTABLISHED":           conntrack.TCPState(conntrack.TCPStateEstablished),
		"SYN_SENT2":             conntrack.TCPState(conntrack.TCPStateSynSent2),
		"10":                    conntrack.TCPState(10),
		"HEARTBEAT_SENT":        conntrack.SCTPState(conntrack.SCTPStateHeartbeatSent),
		"TIMEWAIT":              conntrack.DCCPState(conntrack.DCCPStateTimeWait),
		"server":                conntrack.DCCPRole(conntrack.DCCPRoleServer),
		"SEEN_REPLY|ASSURED":    conntrack.StatusSeenReply | conntrack.StatusAssured,
		"HW_OFFLOAD|0x10000":    conntrack.StatusHWOffload | 1<<16,
		"NONE":                  conntrack.ExpectFlags(0),
		"PERMANENT|USERSPACE":   conntrack.ExpectFlags(conntrack.ExpectPermanent | conntrack.ExpectUserSpace),
		"INACTIVE|0x8|0x100000": conntrack.ExpectFlags(conntrack.ExpectInactive | 8 | 0x100000),
	} {
		require.Equal(t, want, got.String())
	}
}

// TestNamesRead reads what people write.
func TestNamesRead(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]uint32{
		"assured,seen_reply": 6, "ASSURED | SEEN_REPLY": 6, "0x6": 6, "none": 0, "CONFIRMED|0x10000": 0x10008,
	} {
		got, err := conntrack.ParseStatus(text)
		require.NoError(t, err)
		require.Equal(t, conntrack.StatusFlag(want), got, text)
	}
	state, err := conntrack.ParseTCPState("LISTEN")
	require.NoError(t, err)
	require.EqualValues(t, conntrack.TCPStateSynSent2, state)
	protocol, err := conntrack.ParseProtocol("ipv6-icmp")
	require.NoError(t, err)
	require.EqualValues(t, conntrack.ProtocolICMPv6, protocol)
	require.Equal(t, uint16(0x0a0f), conntrack.TCPFlags(0x0a, 0x0f))
}
