//go:build linux

package conntrack_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
)

func TestLabelBits(t *testing.T) {
	t.Parallel()
	var f conntrack.Flow
	for _, bit := range []int{-1, 0, 127, 128, 1 << 30} {
		require.False(t, f.HasLabel(bit))
	}
	f.SetLabel(0)
	before := f
	f.SetLabel(127)
	f.ClearLabel(0)
	f.ClearLabel(64)
	require.True(t, before.HasLabel(0), "a copy is a copy")
	require.False(t, before.HasLabel(127))
	for bit := range 128 {
		require.Equal(t, bit == 127, f.HasLabel(bit), bit)
		mask := conntrack.Flow{Labels: f.LabelsMask}
		require.Equal(t, bit == 0 || bit == 64 || bit == 127, mask.HasLabel(bit), bit)
	}
	require.Panics(t, func() { f.SetLabel(128) })
	require.Panics(t, func() { f.ClearLabel(-1) })
}

// TestUpdateLabels asserts that an Update changes the labels that it is to change,
// and no other.
func TestUpdateLabels(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, nstest.NoTracking())
	ns.Labels()
	c := dial(t, ns)
	f := newFlow(1)
	f.SetLabel(3)
	f.SetLabel(64)
	create(t, c, f)

	dumped := dumpOne(t, c)
	dumped.SetLabel(5)
	dumped.ClearLabel(64)

	// Meanwhile somebody else sets one.
	other := conntrack.Flow{TupleOrig: f.TupleOrig}
	other.SetLabel(100)
	require.NoError(t, c.Update(other))

	require.NoError(t, c.Update(dumped))
	got := dumpOne(t, c)
	for bit := range 128 {
		require.Equal(t, bit == 3 || bit == 5 || bit == 100, got.HasLabel(bit), bit)
	}
}
