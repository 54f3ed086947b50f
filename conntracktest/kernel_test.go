package conntracktest_test

import (
	"io/fs"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/conntracktest"
)

// dial returns a Kernel and a Conn that speaks to it.
func dial(t testing.TB, o *conntracktest.Options) (*conntracktest.Kernel, *conntrack.Conn) {
	t.Helper()
	k := conntracktest.NewKernel(o)
	return k, dialTo(t, k)
}

func dialTo(t testing.TB, k *conntracktest.Kernel) *conntrack.Conn {
	t.Helper()
	c, err := k.Dial()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// udp returns a UDP flow, another one for each n.
func udp(n int) conntrack.Flow {
	src := netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)})
	return conntrack.NewFlow(conntrack.ProtocolUDP, 0, src, netip.MustParseAddr("192.0.2.1"), 1000, 53, 120, 0)
}

func TestRequests(t *testing.T) {
	t.Parallel()
	k, c := dial(t, nil)
	require.NoError(t, c.Create(udp(1)))
	require.ErrorIs(t, c.Create(udp(1)), syscall.EEXIST)
	f, err := c.Get(udp(1))
	require.NoError(t, err)
	require.EqualValues(t, 120, f.Timeout)
	k.Advance(20 * time.Second)
	require.NoError(t, c.Update(conntrack.Flow{TupleOrig: f.TupleOrig, Mark: 7}))
	flows, err := c.Dump(nil)
	require.NoError(t, err)
	require.Equal(t, k.Flows(), flows)
	require.EqualValues(t, 7, flows[0].Mark)
	require.EqualValues(t, 100, flows[0].Timeout)
	require.NoError(t, c.Delete(f))
	require.ErrorIs(t, c.Delete(f), fs.ErrNotExist)
	require.Empty(t, k.Flows())
}

func TestLongDump(t *testing.T) {
	t.Parallel()
	const n = 1000
	k, c := dial(t, nil)
	for i := range n {
		require.NoError(t, k.Add(udp(i)))
	}
	steps := 0
	k.OnDump(func(step int) {
		steps++
		require.Equal(t, steps, step)
		if step == 1 {
			require.NoError(t, k.Remove(udp(n-1)))
			require.NoError(t, k.Add(udp(n)))
		}
	})
	flows, err := c.Dump(nil)
	require.NoError(t, err)
	require.Equal(t, k.Flows(), flows)
	require.Greater(t, steps, 2)
}

func TestSettings(t *testing.T) {
	t.Parallel()
	_, c := dial(t, &conntracktest.Options{Accounting: true, MaxEntries: 9, Events: conntracktest.EventsHeard})
	s, err := c.Settings()
	require.NoError(t, err)
	require.Equal(t, conntrack.Settings{
		Accounting: true, Max: 9, Events: 2, Buckets: 1, TracksIPv4: true, TracksIPv6: true, TrackingKnown: true,
	}, s)
}
