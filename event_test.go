package conntrack_test

import (
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nfnl"
)

func TestEventTypeString(t *testing.T) {
	t.Parallel()
	for typ, want := range map[conntrack.EventType]string{
		conntrack.EventUnknown:    "EventUnknown",
		conntrack.EventNew:        "EventNew",
		conntrack.EventUpdate:     "EventUpdate",
		conntrack.EventDestroy:    "EventDestroy",
		conntrack.EventExpNew:     "EventExpNew",
		conntrack.EventExpDestroy: "EventExpDestroy",
		255:                       "EventType(255)",
	} {
		require.Equal(t, want, typ.String())
	}
}

func TestEventString(t *testing.T) {
	t.Parallel()
	const (
		tuple = "<0, Src: invalid IP:0, Dst: invalid IP:0>"
		rest  = "<No Mark>, <No SeqAdjOrig>, <No SeqAdjReply>, <No SecCtx>"
	)
	tests := []struct {
		event conntrack.Event
		want  string
	}{
		{
			conntrack.Event{Type: conntrack.EventNew, Flow: &conntrack.Flow{}},
			"[EventNew] (Unreplied) Timeout: 0, " + tuple + ", Zone 0, <No Accounting>, <No Labels>, " + rest,
		},
		{
			// The kernel sends labels without a mask.
			conntrack.Event{Type: conntrack.EventUpdate, Flow: &conntrack.Flow{Labels: []byte{1, 0}}},
			"[EventUpdate] (Unreplied) Timeout: 0, " + tuple + ", Zone 0, <No Accounting>, <No Labels>, " + rest,
		},
		{
			conntrack.Event{Type: conntrack.EventDestroy, Flow: &conntrack.Flow{CountersReply: conntrack.Counter{Direction: true, Packets: 1, Bytes: 40}}},
			"[EventDestroy] (Unreplied) Timeout: 0, " + tuple + ", Zone 0, Acct: [orig: 0 pkts/0 B] [reply: 1 pkts/40 B], <No Labels>, " + rest,
		},
		{
			conntrack.Event{Type: conntrack.EventExpNew, Expect: &conntrack.Expect{}},
			"[EventExpNew] Timeout: 0, Master: " + tuple + ", Tuple: " + tuple + ", Mask: " + tuple + ", Zone: 0, Helper: '', Class: 0x0",
		},
		{conntrack.Event{Type: 99}, "[EventType(99)] <Empty Event>"},
	}
	for _, tt := range tests {
		require.Equal(t, tt.want, tt.event.String())
	}
}

// TestEventUnmarshal asserts the type of event for each header.
func TestEventUnmarshal(t *testing.T) {
	t.Parallel()
	const (
		ct, exp = netlink.HeaderType(nfnl.NFSubsysCTNetlink) << 8, netlink.HeaderType(nfnl.NFSubsysCTNetlinkExp) << 8
		isNew   = netlink.Create | netlink.Excl
	)
	tests := []struct {
		name  string
		typ   netlink.HeaderType
		flags netlink.HeaderFlags
		want  conntrack.EventType
	}{
		{"new", ct, isNew, conntrack.EventNew},
		{"update", ct, 0, conntrack.EventUpdate},
		{"update with one flag", ct, netlink.Create, conntrack.EventUpdate},
		{"destroy", ct | 2, 0, conntrack.EventDestroy},
		{"new expectation", exp, isNew, conntrack.EventExpNew},
		{"destroyed expectation", exp | 2, 0, conntrack.EventExpDestroy},
		{"another message", ct | 4, 0, conntrack.EventUnknown},
		{"another message about expectations", exp | 1, 0, conntrack.EventUnknown},
		{"another subsystem", 10 << 8 /* NFNL_SUBSYS_NFTABLES */, isNew, conntrack.EventUnknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ev := conntrack.Event{Type: conntrack.EventDestroy, Flow: &conntrack.Flow{Mark: 1}, Expect: &conntrack.Expect{}}
			err := ev.Unmarshal(netlink.Message{
				Header: netlink.Header{Type: tt.typ, Flags: tt.flags},
				Data:   make([]byte, 4),
			})
			require.Equal(t, tt.want, ev.Type)
			switch tt.want {
			case conntrack.EventUnknown:
				require.ErrorIs(t, err, conntrack.ErrUnknownEvent)
				require.Nil(t, ev.Flow)
				require.Nil(t, ev.Expect)
			case conntrack.EventExpNew, conntrack.EventExpDestroy:
				require.NoError(t, err)
				require.Nil(t, ev.Flow)
				require.Equal(t, &conntrack.Expect{}, ev.Expect)
			default:
				require.NoError(t, err)
				require.Equal(t, &conntrack.Flow{}, ev.Flow)
				require.Nil(t, ev.Expect)
			}
		})
	}

	var ev conntrack.Event
	require.ErrorIs(t, ev.Unmarshal(netlink.Message{Header: netlink.Header{Type: ct}, Data: []byte{1}}), nfnl.ErrMalformed)
}
