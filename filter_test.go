//go:build linux

package conntrack_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
)

// TestFilterMark asserts that a dump and a flush select the same flows: IPv4 and
// IPv6, those with mark & Mask == Mark.
func TestFilterMark(t *testing.T) {
	t.Parallel()
	marks := []uint32{0, 1, 2, 0x0f, 0xf0, 0xff, 0x100, 0xffffffff}
	filters := []conntrack.Filter{
		{},
		{Mark: 1, Mask: 0xffffffff},
		{Mark: 1, Mask: 1},
		{Mark: 0, Mask: 1},
		{Mark: 0, Mask: 0xffffffff},
		{Mark: 0xf0, Mask: 0xf0},
		{Mark: 0xff, Mask: 0x0f}, // selects nothing
		{Mark: 1, Mask: 0},       // selects nothing
		{Mark: 0x80000000, Mask: 0x80000000},
	}
	for _, filter := range filters {
		t.Run(fmt.Sprintf("%#x of %#x", filter.Mark, filter.Mask), func(t *testing.T) {
			t.Parallel()
			c := dial(t, nstest.New(t))
			want, rest := make(map[conntrack.Tuple]bool), make(map[conntrack.Tuple]bool)
			for i, mark := range marks {
				for _, f := range []conntrack.Flow{newFlow(i), newFlow6(i)} {
					f.Mark = mark
					create(t, c, f)
					if mark&filter.Mask == filter.Mark {
						want[f.TupleOrig] = true
					} else {
						rest[f.TupleOrig] = true
					}
				}
			}
			flows, err := c.DumpFilter(filter, nil)
			require.NoError(t, err)
			require.Equal(t, want, originals(flows))

			require.NoError(t, c.FlushFilter(filter))
			flows, err = c.Dump(nil)
			require.NoError(t, err)
			require.Equal(t, rest, originals(flows))
		})
	}
}

func originals(flows []conntrack.Flow) map[conntrack.Tuple]bool {
	tuples := make(map[conntrack.Tuple]bool)
	for _, f := range flows {
		tuples[f.TupleOrig] = true
	}
	return tuples
}

// TestFilterZeroCounters asserts that the counters of what the filter does not
// select stay.
func TestFilterZeroCounters(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, nstest.Accounting())
	c := dial(t, ns)
	ns.UDP(client4, server4, true)
	ns.UDP(client6, server6, true)
	marked := dumpTuple(t, c, client6.Addr().Is6())
	marked.Mark = 1
	require.NoError(t, c.Update(marked))

	flows, err := c.DumpFilter(conntrack.Filter{Mark: 1, Mask: 1}, &conntrack.DumpOptions{ZeroCounters: true})
	require.NoError(t, err)
	require.Len(t, flows, 1)
	require.Equal(t, marked.CountersOrig, flows[0].CountersOrig)
	require.Zero(t, dumpTuple(t, c, true).CountersOrig.Packets)
	require.NotZero(t, dumpTuple(t, c, false).CountersOrig.Packets)
}

// dumpTuple returns the one flow of the table that is IPv6, or IPv4.
func dumpTuple(t testing.TB, c *conntrack.Conn, ipv6 bool) conntrack.Flow {
	t.Helper()
	flows, err := c.Dump(nil)
	require.NoError(t, err)
	for _, f := range flows {
		if f.TupleOrig.IP.IsIPv6() == ipv6 {
			return f
		}
	}
	require.FailNow(t, "no such flow")
	return conntrack.Flow{}
}

// TestFlush asserts that everything goes: both families, all zones.
func TestFlush(t *testing.T) {
	t.Parallel()
	for name, flush := range map[string]func(*conntrack.Conn) error{
		"Flush":       (*conntrack.Conn).Flush,
		"FlushFilter": func(c *conntrack.Conn) error { return c.FlushFilter(conntrack.Filter{}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			c := dial(t, ns)
			for i := range 100 {
				f := newFlow(i)
				f.Zone = uint16(i % 3)
				f.Mark = uint32(i)
				create(t, c, f, newFlow6(i))
			}
			other := dial(t, nstest.New(t))
			create(t, other, newFlow(1))

			require.NoError(t, flush(c))
			require.Zero(t, ns.Count())
			flows, err := c.Dump(nil)
			require.NoError(t, err)
			require.Empty(t, flows)
			require.NoError(t, flush(c), "of an empty table")
			dumpOne(t, other)
		})
	}
}
