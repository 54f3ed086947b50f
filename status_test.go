package conntrack_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
)

// TestStatus asserts that each flag has its name and its method.
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
