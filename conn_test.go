//go:build linux

package conntrack_test

import (
	"net/netip"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/netfilter"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// dial returns a Conn in a network namespace of the test's own.
func dial(t testing.TB, ns *nstest.NS) *conntrack.Conn {
	t.Helper()
	c, err := conntrack.Dial(ns.Config())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func TestSmoke(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, nstest.Accounting(), nstest.Timestamps())
	c := dial(t, ns)

	evs := make(chan conntrack.Event, 16)
	_, err := c.Listen(evs, 1, netfilter.GroupsCT)
	require.NoError(t, err)

	f := conntrack.NewFlow(6, conntrack.StatusAssured|conntrack.StatusSeenReply, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 1000, 80, 120, 7)
	require.NoError(t, c.Create(f))
	require.ErrorIs(t, c.Create(f), unix.EEXIST)
	g, err := c.Get(f)
	require.NoError(t, err)
	t.Logf("%+v", g)
	t.Log(<-evs)
	f.Mark = 8
	require.NoError(t, c.Update(f))
	t.Log(<-evs)
	fl, err := c.Dump(nil)
	require.NoError(t, err)
	require.Len(t, fl, 1)
	for i := 0; i < 3; i++ {
		fl, err = c.DumpFilter(conntrack.Filter{Mark: 7, Mask: 0xff}, nil)
		require.NoError(t, err)
		require.Len(t, fl, 0)
	}
	require.NoError(t, c.Delete(g))
	err = c.Delete(g)
	t.Log(err)
	require.ErrorIs(t, err, unix.ENOENT)
	t.Log(<-evs)
	st, err := c.Stats()
	require.NoError(t, err)
	t.Log(st)
	t.Log(c.StatsExpect())
	t.Log(c.StatsGlobal())
	_ = netlink.Dump
}
