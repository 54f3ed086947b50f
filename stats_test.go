//go:build linux

package conntrack_test

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
)

func TestStatsGlobal(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	c := dial(t, ns)
	stats, err := c.StatsGlobal()
	require.NoError(t, err)
	require.Zero(t, stats.Entries)

	value, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_max")
	require.NoError(t, err)
	most, err := strconv.ParseUint(strings.TrimSpace(string(value)), 10, 32)
	require.NoError(t, err)
	require.Equal(t, uint32(most), stats.MaxEntries)

	for i := range 10 {
		create(t, c, newFlow(i), newFlow6(i))
	}
	stats, err = c.StatsGlobal()
	require.NoError(t, err)
	require.Equal(t, uint32(20), stats.Entries)
	require.Equal(t, 20, ns.Count())
}

// TestStats makes what is counted happen.
func TestStats(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	c := dial(t, ns)
	sum := func() (sum conntrack.Stats) {
		t.Helper()
		stats, err := c.Stats()
		require.NoError(t, err)
		seen := make(map[uint16]bool)
		for _, s := range stats {
			require.False(t, seen[s.CPUID])
			seen[s.CPUID] = true
			sum.Invalid += s.Invalid
			sum.InsertFailed += s.InsertFailed
			sum.Drop += s.Drop
			sum.Error += s.Error
		}
		require.Len(t, seen, possibleCPUs(t))
		return sum
	}
	require.Zero(t, sum())

	// A TCP header that is cut off.
	ns.Raw(unix.IPPROTO_TCP, client4.Addr(), server4.Addr(), []byte{1, 2, 3, 4})
	got := sum()
	require.NotZero(t, got.Invalid+got.Error)
}

// possibleCPUs returns how many CPUs the kernel has counters for.
func possibleCPUs(t testing.TB) int {
	t.Helper()
	value, err := os.ReadFile("/sys/devices/system/cpu/possible")
	require.NoError(t, err)
	n := 0
	for part := range strings.SplitSeq(strings.TrimSpace(string(value)), ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.Atoi(first)
		require.NoError(t, err)
		to, err := strconv.Atoi(last)
		require.NoError(t, err)
		n += to - from + 1
	}
	return n
}

func TestStatsExpect(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	c := dial(t, ns)
	sum := func() (sum conntrack.StatsExpect) {
		t.Helper()
		stats, err := c.StatsExpect()
		require.NoError(t, err)
		require.Len(t, stats, possibleCPUs(t))
		for _, s := range stats {
			sum.New += s.New
			sum.Create += s.Create
			sum.Delete += s.Delete
		}
		return sum
	}
	require.Zero(t, sum())

	master := newMaster("ftp", unix.IPPROTO_TCP, client4, server4)
	create(t, c, master)
	require.NoError(t, c.CreateExpect(newExpect(master, other4)))
	require.Equal(t, conntrack.StatsExpect{Create: 1}, sum())
	// A flow that was expected is new, and its expectation goes.
	ns.UDP(client4, other4, false)
	require.Equal(t, conntrack.StatsExpect{New: 1, Create: 1, Delete: 1}, sum())
}
