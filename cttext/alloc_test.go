//go:build !race

package cttext_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack/cttext"
)

// TestAllocations asserts that printing a line takes one allocation, and none
// into a buffer with room for it. The file is not built with the race detector,
// which allocates too.
func TestAllocations(t *testing.T) {
	f, err := plain.ParseFlow(conntrackLines[1].line)
	require.NoError(t, err)
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { _ = plain.Flow(&f) }), 1.0)
	b := make([]byte, 0, 1024)
	for _, o := range []cttext.Options{{}, {Save: true}, {Extended: true, ID: true, KTimestamp: true, Timestamp: true, Labels: textLabels}} {
		require.Zero(t, testing.AllocsPerRun(100, func() { b = o.AppendFlow(b[:0], &f) }))
	}
}
