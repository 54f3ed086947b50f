package cttimeout_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack/cttimeout"
)

var allProtocols = []uint8{1, 6, 17, 33, 47, 58, 132, 136, cttimeout.ProtocolGeneric}

func TestStateNames(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, protocol := range allProtocols {
		states := cttimeout.States(protocol)
		require.NotEmpty(t, states)
		require.True(t, slices.IsSorted(states))
		for _, state := range states {
			require.Equal(t, protocol, state.Protocol())
			name := state.String()
			require.False(t, seen[name], name)
			seen[name] = true
			for _, form := range []string{name, strings.ToLower(name), "CTA_TIMEOUT_" + name, "cta_timeout_" + name} {
				got, err := cttimeout.ParseState(form)
				require.NoError(t, err)
				require.Equal(t, state, got)
			}
		}
	}
	require.Len(t, seen, 36)
	require.Equal(t, "TCP_ESTABLISHED", cttimeout.TCPEstablished.String())
	require.Equal(t, "SCTP_SHUTDOWN_ACK_SENT", cttimeout.SCTPShutdownAckSent.String())
	require.Equal(t, "DCCP_TIMEWAIT", cttimeout.DCCPTimeWait.String())
	require.Empty(t, cttimeout.States(0))
	require.Empty(t, cttimeout.States(50))
}

func TestBadStateNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "TCP", "CTA_TIMEOUT_", "ESTABLISHED", "TCP_ESTABLISHED ", "State(0x603)"} {
		_, err := cttimeout.ParseState(name)
		require.ErrorIs(t, err, cttimeout.ErrBadState, "%q", name)
		require.ErrorContains(t, err, fmt.Sprintf("%q", name))
	}
	for _, state := range []cttimeout.State{0, cttimeout.TCPSynSent - 1, cttimeout.TCPUnack + 1, 50<<8 | 1} {
		require.Equal(t, fmt.Sprintf("State(%#x)", uint16(state)), state.String())
		_, err := state.MarshalText()
		require.ErrorIs(t, err, cttimeout.ErrBadState)
	}
}

// TestText asserts that Timeouts can be read from and written to a
// configuration file.
func TestText(t *testing.T) {
	t.Parallel()
	want := cttimeout.Timeouts{cttimeout.TCPEstablished: time.Hour, cttimeout.TCPClose: time.Second}
	text, err := json.Marshal(want)
	require.NoError(t, err)
	require.JSONEq(t, `{"TCP_CLOSE": 1000000000, "TCP_ESTABLISHED": 3600000000000}`, string(text))
	var got cttimeout.Timeouts
	require.NoError(t, json.Unmarshal(text, &got))
	require.Equal(t, want, got)
	require.Equal(t, "map[TCP_ESTABLISHED:1h0m0s TCP_CLOSE:1s]", fmt.Sprint(got))

	require.ErrorIs(t, json.Unmarshal([]byte(`{"TCP_OPEN": 1}`), &got), cttimeout.ErrBadState)
}
