//go:build linux

package comparison_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/internal/release"
	"github.com/ti-mo/conntrack/netfilter"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// patience is how long a test waits for something that must happen.
const patience = 20 * time.Second

// These are the ends of most flows. The loopback interface has their addresses.
var (
	client4 = netip.MustParseAddrPort("127.0.0.2:40000")
	server4 = netip.MustParseAddrPort("127.0.0.1:8080")
	other4  = netip.MustParseAddrPort("127.0.0.3:9090")
	client6 = netip.AddrPortFrom(nstest.IPv6, 40000)
	server6 = netip.MustParseAddrPort("[::1]:8080")
)

// dial returns a Conn in ns.
func dial(t testing.TB, ns *nstest.NS) *conntrack.Conn {
	t.Helper()
	c, err := conntrack.Dial(ns.Config())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// lastMark is the mark of the flow that ends a test.
const lastMark = 0xe0d

func lastFlow() conntrack.Flow {
	return with(newFlow6(0), func(f *conntrack.Flow) { f.Mark = lastMark })
}

func tuple(proto uint8, src, dst netip.AddrPort) conntrack.Tuple {
	return conntrack.Tuple{
		IP:    conntrack.IPTuple{SourceAddress: src.Addr(), DestinationAddress: dst.Addr()},
		Proto: conntrack.ProtoTuple{Protocol: proto, SourcePort: src.Port(), DestinationPort: dst.Port()},
	}
}

func echoTuple(proto uint8, src, dst netip.Addr, typ uint8, id uint16) conntrack.Tuple {
	return conntrack.Tuple{
		IP: conntrack.IPTuple{SourceAddress: src, DestinationAddress: dst},
		Proto: conntrack.ProtoTuple{
			Protocol: proto,
			ICMPv4:   proto == unix.IPPROTO_ICMP,
			ICMPv6:   proto == unix.IPPROTO_ICMPV6,
			ICMPID:   id,
			ICMPType: typ,
		},
	}
}

// newFlow returns a flow that can be created. It is different for each n.
func newFlow(n int) conntrack.Flow {
	dst := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 2}), 53)
	src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}), 1000)
	return flowBetween(unix.IPPROTO_UDP, src, dst)
}

// newFlow6 is newFlow for IPv6.
func newFlow6(n int) conntrack.Flow {
	dst := netip.AddrPortFrom(netip.MustParseAddr("2001:db8::2"), 53)
	src := netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 14: byte(n >> 8), 15: byte(n)}), 1000)
	return flowBetween(unix.IPPROTO_UDP, src, dst)
}

func flowBetween(proto uint8, src, dst netip.AddrPort) conntrack.Flow {
	return conntrack.NewFlow(proto, 0, src.Addr(), dst.Addr(), src.Port(), dst.Port(), 120, 0)
}

// with returns f modified by change.
func with(f conntrack.Flow, change func(f *conntrack.Flow)) conntrack.Flow {
	change(&f)
	return f
}

func create(t testing.TB, c *conntrack.Conn, flows ...conntrack.Flow) {
	t.Helper()
	for _, f := range flows {
		require.NoError(t, c.Create(f))
	}
}

func get(t testing.TB, c *conntrack.Conn, f conntrack.Flow) conntrack.Flow {
	t.Helper()
	got, err := c.Get(f)
	require.NoError(t, err)
	return got
}

// dumpOne returns the only flow of the table.
func dumpOne(t testing.TB, c *conntrack.Conn) conntrack.Flow {
	t.Helper()
	flows, err := c.Dump(nil)
	require.NoError(t, err)
	require.Len(t, flows, 1)
	return flows[0]
}

// requireFlow asserts that got is want as returned by the kernel: with an ID, a
// use count, a timeout that counts down, and StatusConfirmed.
func requireFlow(t testing.TB, want, got conntrack.Flow) {
	t.Helper()
	require.NotZero(t, got.ID)
	require.NotZero(t, got.Use)
	require.InDelta(t, want.Timeout, got.Timeout, patience.Seconds())
	require.LessOrEqual(t, got.Timeout, want.Timeout)
	want.ID, want.Use, want.Timeout = got.ID, got.Use, got.Timeout
	want.Status.Value |= conntrack.StatusConfirmed
	require.Equal(t, want, got)
}

// listen starts listening with one worker of c. At the end of the test, it
// asserts that there was no error.
func listen(t testing.TB, c *conntrack.Conn, groups []netfilter.NetlinkGroup) <-chan conntrack.Event {
	t.Helper()
	events := make(chan conntrack.Event, 4096)
	errs, err := c.Listen(events, 1, groups)
	require.NoError(t, err)
	t.Cleanup(func() {
		select {
		case err := <-errs:
			t.Errorf("error of Listen: %v", err)
		default:
		}
	})
	return events
}

// receive returns the next value from ch.
func receive[T any](t testing.TB, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(patience):
		require.FailNow(t, "nothing received", "in %s", patience)
	}
	return v
}

// kernelAtLeast reports whether the running kernel is the given release or
// later.
func kernelAtLeast(t testing.TB, major, minor int) bool {
	t.Helper()
	running, err := release.Running()
	require.NoError(t, err)
	return !running.Less(release.Release{Major: major, Minor: minor})
}

// needSteadyUse skips a test that compares all of a long dump.
func needSteadyUse(t testing.TB) {
	t.Helper()
	if !kernelAtLeast(t, 5, 11) {
		t.Skip("needs Linux 5.11: before, a dump itself is one more use of each flow that a chunk begins with")
	}
}

// newExpect returns an expectation of a UDP flow to dst from any address.
func newExpect(master conntrack.Flow, dst netip.AddrPort) conntrack.Expect {
	none, all := netip.IPv4Unspecified(), netip.AddrFrom4([4]byte{255, 255, 255, 255})
	if dst.Addr().Is6() {
		none = netip.IPv6Unspecified()
		all = netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
	}
	return conntrack.Expect{
		TupleMaster: master.TupleOrig,
		Tuple:       tuple(unix.IPPROTO_UDP, netip.AddrPortFrom(none, 0), dst),
		Mask:        tuple(unix.IPPROTO_UDP, netip.AddrPortFrom(none, 0), netip.AddrPortFrom(all, 0xffff)),
	}
}

// newMaster returns a flow that can have expectations.
func newMaster(helper string, proto uint8, src, dst netip.AddrPort) conntrack.Flow {
	f := flowBetween(proto, src, dst)
	f.Helper.Name = helper
	return f
}
