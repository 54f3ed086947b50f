//go:build linux

package conntrack_test

import (
	"context"
	"io/fs"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/netfilter"
)

// TestFlowsAreKept asserts that a Flow belongs to the caller: later ones do not
// change it.
func TestFlowsAreKept(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	const n = 3000
	flows := manyFlows(n)
	for i := range flows {
		flows[i].TupleOrig.Proto.Protocol, flows[i].TupleReply.Proto.Protocol = 6, 6
		flows[i].ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: uint8(1 + i%9)}
		flows[i].Mark = uint32(1 + i%9)
	}
	require.NoError(t, c.CreateBatch(flows))
	var kept []conntrack.Flow
	for f, err := range c.Flows(t.Context(), conntrack.Filter{}, nil) {
		require.NoError(t, err)
		kept = append(kept, f)
	}
	require.Len(t, kept, n)
	for _, f := range kept {
		require.EqualValues(t, f.Mark, f.ProtoInfo.TCP.State)
	}
}

// TestFlowsBody asserts that the loop body can use the Conn, even for another
// dump.
func TestFlowsBody(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	const n = 1000
	require.NoError(t, c.CreateBatch(manyFlows(n)))
	seen := 0
	for f, err := range c.Flows(t.Context(), conntrack.Filter{}, nil) {
		require.NoError(t, err)
		switch seen++; seen % 100 {
		case 0:
			inner := 0
			for _, err := range c.Flows(t.Context(), conntrack.Filter{}, nil) {
				require.NoError(t, err)
				if inner++; inner == 10 {
					break
				}
			}
			_, err := c.Stats()
			require.NoError(t, err)
		case 1:
			require.NoError(t, c.UpdateBatch([]conntrack.Flow{{TupleOrig: f.TupleOrig, Mark: 1}}))
			require.EqualValues(t, 1, get(t, c, f).Mark)
		default:
			require.NoError(t, c.Delete(f))
		}
	}
	stats, err := c.StatsGlobal()
	require.NoError(t, err)
	require.Less(t, stats.Entries, uint32(n/10))
}

// TestFlowsAgain asserts that each range over an iterator is a new dump.
func TestFlowsAgain(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	flows := c.Flows(t.Context(), conntrack.Filter{}, nil)
	for n := range 3 {
		count := 0
		for _, err := range flows {
			require.NoError(t, err)
			count++
		}
		require.Equal(t, n, count)
		create(t, c, newFlow(n))
	}
}

func TestFlowsEnd(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	require.NoError(t, dial(t, ns).CreateBatch(manyFlows(2000)))
	// last ranges over all flows and calls at after 100 of them. It returns how
	// many flows came after that, and the error that ended the loop.
	last := func(c *conntrack.Conn, ctx context.Context, at func()) (after int, err error) {
		seen := 0
		for _, err = range c.Flows(ctx, conntrack.Filter{}, nil) {
			if err != nil {
				continue
			}
			if seen++; seen == 100 {
				at()
			}
			if seen > 100 {
				after++
			}
		}
		return after, err
	}
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := dial(t, ns)
		after, err := last(c, ctx, cancel)
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, after)
		after, err = last(c, t.Context(), func() {})
		require.NoError(t, err, "the Conn goes on")
		require.Equal(t, 1900, after)
	})
	t.Run("cancelled before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := last(dial(t, ns), ctx, func() { t.Error("a flow was yielded") })
		require.ErrorIs(t, err, context.Canceled)
	})
	t.Run("closed", func(t *testing.T) {
		c := dial(t, ns)
		after, err := last(c, t.Context(), func() { require.NoError(t, c.Close()) })
		require.ErrorIs(t, err, fs.ErrClosed)
		require.Less(t, after, 1900, "what was received before")
	})
	t.Run("panic", func(t *testing.T) {
		c := dial(t, ns)
		require.Panics(t, func() { _, _ = last(c, t.Context(), func() { panic("in the loop") }) })
		require.Len(t, slices.Collect(keys(c.Flows(t.Context(), conntrack.Filter{}, nil))), 2000)
	})
}

// keys drops the errors of an iterator.
func keys[T any](seq func(func(T, error) bool)) func(func(T) bool) {
	return func(yield func(T) bool) {
		for v := range seq {
			if !yield(v) {
				return
			}
		}
	}
}

// TestDumpSize asserts that Dump asks for the number of flows and does not copy
// them as it grows.
func TestDumpSize(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	const n = 5000
	require.NoError(t, c.CreateBatch(manyFlows(n)))
	flows, err := c.Dump(nil)
	require.NoError(t, err)
	require.Len(t, flows, n)
	require.LessOrEqual(t, cap(flows), n*11/10)
}

// TestDumpFilterSize asserts that DumpFilter copies little of what it returns,
// and wastes little memory.
func TestDumpFilterSize(t *testing.T) { // not parallel: it counts allocations
	c := dial(t, nstest.New(t))
	const n = 50_000
	flows := manyFlows(n)
	for i := range flows {
		flows[i].Mark = uint32(i%20) + 1
	}
	require.NoError(t, c.CreateBatch(flows))
	allocated := func(fn func()) (bytes uint64) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		fn()
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	dump := func(f conntrack.Filter) (flows []conntrack.Flow) {
		flows, err := c.DumpFilter(f, nil)
		require.NoError(t, err)
		return flows
	}
	table := allocated(func() { require.Len(t, dump(conntrack.Filter{}), n) })
	all := allocated(func() { require.Len(t, dump(conntrack.Filter{Family: netfilter.ProtoIPv4}), n) })
	require.Less(t, float64(all), 1.2*float64(table))

	few := dump(conntrack.Filter{Mark: 1, Mask: 0xff})
	require.Len(t, few, n/20)
	require.LessOrEqual(t, cap(few), 4*len(few))
}

// TestDumpFilterPrefix asserts that a prefix, which no kernel compares, selects
// the right flows.
func TestDumpFilterPrefix(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	require.NoError(t, c.CreateBatch(manyFlows(512))) // from 10.1.0.0/24 and 10.1.1.0/24
	prefix := netip.MustParsePrefix("10.1.1.0/24")
	flows, err := c.DumpFilter(conntrack.Filter{OrigSource: prefix}, nil)
	require.NoError(t, err)
	require.Len(t, flows, 256)
	for _, f := range flows {
		require.True(t, prefix.Contains(f.Client().Addr()))
	}
}

// TestDumpTinyReadBuffer asserts that a dump does not depend on the size of the
// receive buffer.
func TestDumpTinyReadBuffer(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	const n = 5000
	require.NoError(t, c.CreateBatch(manyFlows(n)))
	require.NoError(t, c.SetReadBuffer(1))
	for range 3 {
		flows, err := c.Dump(nil)
		require.NoError(t, err)
		require.Len(t, flows, n)
	}
	_, err := c.Stats()
	require.NoError(t, err)
}

// TestDying asserts that flows are listed while they wait for a listener that
// wants all of their events.
func TestDying(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	c, slow := dial(t, ns), dial(t, ns)
	dying := func() (flows []conntrack.Flow) {
		for f, err := range c.Dying(t.Context()) {
			require.NoError(t, err)
			flows = append(flows, f)
		}
		return flows
	}
	require.Empty(t, dying())

	require.NoError(t, slow.SetOption(netlink.BroadcastError, true))
	require.NoError(t, slow.SetReadBuffer(4096))
	events := make(chan conntrack.Event) // never read
	_, err := slow.Listen(events, 1, []netfilter.NetlinkGroup{netfilter.GroupCTDestroy})
	require.NoError(t, err)
	flows := manyFlows(200)
	for i := range flows {
		flows[i].Mark = uint32(i) + 1
	}
	require.NoError(t, c.CreateBatch(flows))
	require.NoError(t, c.Flush())

	got := dying()
	require.NotEmpty(t, got)
	for _, f := range got {
		require.True(t, f.Status.Dying())
		require.Equal(t, flows[f.Mark-1].TupleOrig, f.TupleOrig)
	}
	table, err := c.Dump(nil)
	require.NoError(t, err)
	require.Empty(t, table)
}

// TestUnconfirmed asserts that the list can be requested. It is empty on every
// kernel if no packet is in flight.
func TestUnconfirmed(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	create(t, c, newFlow(1))
	for f, err := range c.Unconfirmed(t.Context()) {
		require.NoError(t, err)
		t.Errorf("%+v", f)
	}
}

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

// TestSettings asserts that the settings are those of the Conn's namespace, wherever
// the calling thread is.
func TestSettings(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		options []nstest.Option
		change  func(*nstest.NS)
		want    conntrack.Settings
	}{
		{"untracked", []nstest.Option{nstest.NoTracking()}, func(ns *nstest.NS) {
			ns.Sysctl("net.netfilter.nf_conntrack_events", "0")
		}, conntrack.Settings{}},
		{"tracked", nil, func(ns *nstest.NS) {
			ns.Sysctl("net.netfilter.nf_conntrack_events", "1")
		}, conntrack.Settings{Events: 1, TracksIPv4: true, TracksIPv6: true}},
		{"IPv4 tracked", []nstest.Option{nstest.NoTracking(), nstest.Accounting()}, func(ns *nstest.NS) {
			ns.Sysctl("net.netfilter.nf_conntrack_events", "1")
			ns.Track(nftables.TableFamilyIPv4)
		}, conntrack.Settings{Accounting: true, Events: 1, TracksIPv4: true}},
		{"IPv6 tracked", []nstest.Option{nstest.NoTracking(), nstest.Timestamps()}, func(ns *nstest.NS) {
			ns.Sysctl("net.netfilter.nf_conntrack_events", "0")
			ns.Track(nftables.TableFamilyIPv6)
		}, conntrack.Settings{Timestamps: true, TracksIPv6: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns, elsewhere := nstest.New(t, tt.options...), nstest.New(t, nstest.Accounting(), nstest.Timestamps())
			tt.change(ns)
			c := dial(t, ns)
			check := func() error {
				requireSettings(t, tt.want, c)
				return nil
			}
			check()
			ns.Do(check)
			elsewhere.Do(check)
		})
	}
}

// TestSettingsOfProcess asserts that a Conn in the process's own namespace, which
// keeps no thread there, has its settings.
func TestSettingsOfProcess(t *testing.T) {
	t.Parallel()
	elsewhere := nstest.New(t, nstest.NoTracking())
	c, err := conntrack.Dial(nil)
	require.NoError(t, err)
	defer c.Close()
	want, err := c.Settings()
	require.NoError(t, err)
	require.True(t, want.Accounting)
	require.True(t, want.Timestamps)
	elsewhere.Do(func() error {
		got, err := c.Settings()
		require.NoError(t, err)
		require.Equal(t, want, got)
		return nil
	})
}

// TestSettingsWithoutProc asserts that the error says why nothing is known.
func TestSettingsWithoutProc(t *testing.T) {
	t.Parallel()
	nstest.Require(t)
	c, err := conntrack.Dial(nil)
	require.NoError(t, err)
	defer c.Close()
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread's view of files ends with it
		err := hideSysctls()
		if err == nil {
			_, err = c.Settings()
		}
		result <- err
	}()
	err = <-result
	requireOpError(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "/proc/sys/net/netfilter/nf_conntrack_acct")
	require.ErrorContains(t, err, "mount /proc")
	_, err = c.Settings()
	require.NoError(t, err)
}

// hideSysctls puts an empty directory in place of /proc/sys, for the calling thread.
func hideSysctls() error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return unix.Mount("tmpfs", "/proc/sys", "tmpfs", 0, "")
}

// requireSettings asserts what Settings returns, of what can be found out.
func requireSettings(t *testing.T, want conntrack.Settings, c *conntrack.Conn) {
	t.Helper()
	got, err := c.Settings()
	require.NoError(t, err)
	require.NotZero(t, got.Max)
	require.NotZero(t, got.Buckets)
	want.Max, want.Buckets = got.Max, got.Buckets
	want.TrackingKnown = got.TrackingKnown
	if _, err := os.Stat("/sys/module/nfnetlink_hook"); err == nil {
		want.TrackingKnown = true
	}
	if !want.TrackingKnown {
		t.Log("this kernel does not tell what its packets run into")
		want.TracksIPv4, want.TracksIPv6 = false, false
	}
	require.Equal(t, want, got)
}

// TestStats asserts that the counters count.
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

	// This TCP header is truncated.
	ns.Raw(unix.IPPROTO_TCP, client4.Addr(), server4.Addr(), []byte{1, 2, 3, 4})
	got := sum()
	require.NotZero(t, got.Invalid+got.Error)
}

// possibleCPUs returns the number of CPUs that the kernel has counters for.
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
	// The expected flow is new, and its expectation is removed.
	ns.UDP(client4, other4, false)
	require.Equal(t, conntrack.StatsExpect{New: 1, Create: 1, Delete: 1}, sum())
}
