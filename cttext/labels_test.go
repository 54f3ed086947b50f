package cttext_test

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack/cttext"
)

// TestReadLabelNames asserts that names are read as conntrack(8) reads them.
// The input was tried on conntrack(8).
func TestReadLabelNames(t *testing.T) {
	t.Parallel()
	names, err := cttext.ReadLabelNames(strings.NewReader(
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
	_, err = cttext.ReadLabelNames(iotest.ErrReader(broken))
	require.ErrorIs(t, err, broken)
}

func TestLoadLabelNames(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(cttext.LabelFile); err == nil {
		_, err = cttext.LoadLabelNames()
		require.NoError(t, err)
		return
	}
	_, err := cttext.LoadLabelNames()
	require.ErrorIs(t, err, fs.ErrNotExist)
}
