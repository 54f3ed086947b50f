//go:build linux

package conntrack_test

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
)

// TestReadLabelNames reads what conntrack(8) was tried on.
func TestReadLabelNames(t *testing.T) {
	t.Parallel()
	names, err := conntrack.ReadLabelNames(strings.NewReader(
		"# comment\n0 zero\n1\tone\n3 three # no comment\n127 last\n5 \"fi ve\"\n0x7 hex\n10 zero\n 12 indented\n" +
			"13 thir-teen extra\n14 three\n15\n16 a,b\n200 toobig\n18 a(b\n20 x_z\n21 99\n22   many   spaces  \n\n" +
			"010 octal\n128 b128\n27 crlf\r\n12 again\n-1 negative\nx y\n"))
	require.NoError(t, err)
	require.Len(t, names, 128)
	got := make(map[int]string)
	for bit, name := range names {
		if name != "" {
			got[bit] = name
		}
	}
	require.Equal(t, map[int]string{
		0: "zero", 1: "one", 7: "hex", 8: "octal", 12: "indented", 13: "thir-teen extra", 14: "three",
		21: "99", 22: "many   spaces", 27: "crlf", 127: "last",
	}, got)

	broken := errors.New("broken")
	_, err = conntrack.ReadLabelNames(iotest.ErrReader(broken))
	require.ErrorIs(t, err, broken)
}

func TestLoadLabelNames(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(conntrack.LabelFile); err == nil {
		_, err = conntrack.LoadLabelNames()
		require.NoError(t, err)
		return
	}
	_, err := conntrack.LoadLabelNames()
	require.ErrorIs(t, err, fs.ErrNotExist)
}

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
