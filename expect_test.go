//go:build linux

package conntrack_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/netfilter"
)

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

// TestExpectFTP asserts which expectations the kernel creates from an FTP
// session.
func TestExpectFTP(t *testing.T) {
	t.Parallel()
	client4, client6 := netip.AddrPortFrom(client4.Addr(), 40000), netip.AddrPortFrom(client6.Addr(), 40000)
	server4, server6 := netip.AddrPortFrom(server4.Addr(), 21), netip.AddrPortFrom(server6.Addr(), 21)
	port := func(a netip.AddrPort, port uint16) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), port) }

	tests := []struct {
		name           string
		client, server netip.AddrPort
		lines          []string // of the client and the server in turn
		from, to       netip.AddrPort
	}{
		{
			"PORT", client4, server4,
			[]string{"USER anonymous\r\n", "331 Password\r\n", "PORT 127,0,0,2,200,10\r\n"},
			port(server4, 20), port(client4, 51210),
		},
		{
			"PASV", client4, server4,
			[]string{"USER anonymous\r\n", "331 Password\r\n", "PASV\r\n", "227 Entering Passive Mode (127,0,0,1,200,11).\r\n"},
			port(client4, 40001), port(server4, 51211),
		},
		{
			"EPRT", client6, server6,
			[]string{"USER anonymous\r\n", "331 Password\r\n", fmt.Sprintf("EPRT |2|%s|51212|\r\n", client6.Addr())},
			port(server6, 20), port(client6, 51212),
		},
		{
			"EPSV", client6, server6,
			[]string{"USER anonymous\r\n", "331 Password\r\n", "EPSV\r\n", "229 Entering Extended Passive Mode (|||51213|)\r\n"},
			port(client6, 40001), port(server6, 51213),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			ns.Helper("ftp", unix.IPPROTO_TCP, 21)
			c, watcher := dial(t, ns), dial(t, ns)

			// The kernel sends no events about expectations of a flow that is
			// older than the first listener.
			events := listen(t, watcher, append(netfilter.GroupsCTExp, netfilter.GroupCTNew))
			control := ns.TCP(tt.client, tt.server)
			require.Equal(t, conntrack.EventNew, receive(t, events).Type)
			for i, line := range tt.lines {
				if i%2 == 0 {
					control.Send([]byte(line))
				} else {
					control.Reply([]byte(line))
				}
			}

			expects, err := c.DumpExpect()
			require.NoError(t, err)
			require.Len(t, expects, 1)
			ex := expects[0]
			master := tuple(unix.IPPROTO_TCP, tt.client, tt.server)
			require.Equal(t, master, ex.TupleMaster)
			require.Equal(t, tuple(unix.IPPROTO_TCP, port(tt.from, 0), tt.to), ex.Tuple)
			require.Zero(t, ex.Mask.Proto.SourcePort)
			require.Equal(t, uint16(0xffff), ex.Mask.Proto.DestinationPort)
			require.Equal(t, allOnes(tt.to.Addr()), ex.Mask.IP.SourceAddress)
			require.Equal(t, "ftp", ex.HelpName)
			require.InDelta(t, 300, ex.Timeout, patience.Seconds())
			require.NotZero(t, ex.ID)
			require.Zero(t, ex.NAT)

			// Over loopback, the helper reads everything twice. Its second
			// expectation replaces the first.
			next := func(typ conntrack.EventType) *conntrack.Expect {
				for {
					ev := receive(t, events)
					if ev.Type == typ && ev.Expect != nil && ev.Expect.ID == ex.ID {
						return ev.Expect
					}
				}
			}
			requireExpect(t, ex, *next(conntrack.EventExpNew))

			// The expected connection is made.
			ns.TCP(tt.from, tt.to)
			requireExpect(t, ex, *next(conntrack.EventExpDestroy))
			ev := receive(t, events)
			require.Equal(t, conntrack.EventNew, ev.Type)
			require.Equal(t, tuple(unix.IPPROTO_TCP, tt.from, tt.to), ev.Flow.TupleOrig)
			require.Equal(t, master, ev.Flow.TupleMaster)
			requireRelated(t, c, ev.Flow.TupleOrig, master)
			expects, err = c.DumpExpect()
			require.NoError(t, err)
			require.Empty(t, expects)
		})
	}
}

func allOnes(like netip.Addr) netip.Addr {
	b := like.AsSlice()
	for i := range b {
		b[i] = 0xff
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// requireExpect asserts that got is want after some time has passed.
func requireExpect(t testing.TB, want, got conntrack.Expect) {
	t.Helper()
	require.InDelta(t, want.Timeout, got.Timeout, patience.Seconds())
	want.Timeout = got.Timeout
	require.Equal(t, want, got)
}

func requireRelated(t testing.TB, c *conntrack.Conn, tuple, master conntrack.Tuple) {
	t.Helper()
	f := get(t, c, conntrack.Flow{TupleOrig: tuple})
	require.Equal(t, tuple, f.TupleOrig)
	require.True(t, f.Status.Expected())
	require.Equal(t, master, f.TupleMaster)
}

// TestCreateExpect asserts that a created expectation is dumped unchanged, and
// that the kernel acts on it.
func TestCreateExpect(t *testing.T) {
	t.Parallel()
	const (
		permanent = 1
		inactive  = 2
	)
	ftp4 := newMaster("ftp", unix.IPPROTO_TCP, client4, server4)
	ftp6 := newMaster("ftp", unix.IPPROTO_TCP, client6, server6)
	sip4 := newMaster("sip", unix.IPPROTO_UDP, client4, server4)

	tests := []struct {
		name   string
		master conntrack.Flow
		dst    netip.AddrPort
		change func(ex *conntrack.Expect) // sent to the kernel
		want   func(ex *conntrack.Expect) // returned by the kernel
		honour bool
	}{
		{name: "IPv4", master: ftp4, dst: other4, honour: true},
		{name: "IPv6", master: ftp6, dst: server6, honour: true},
		{
			name: "source port", master: ftp4, dst: other4, honour: true,
			change: func(ex *conntrack.Expect) {
				ex.Tuple.Proto.SourcePort = client4.Port()
				ex.Mask.Proto.SourcePort = 0xffff
			},
		},
		{
			name: "source network", master: ftp4, dst: other4, honour: true,
			change: func(ex *conntrack.Expect) {
				ex.Tuple.IP.SourceAddress = netip.MustParseAddr("127.0.0.0")
				ex.Mask.IP.SourceAddress = netip.MustParseAddr("255.255.255.0")
			},
		},
		{
			name: "mask without protocol", master: ftp4, dst: other4, honour: true,
			change: func(ex *conntrack.Expect) { ex.Mask.Proto.Protocol = 0 },
			want:   func(ex *conntrack.Expect) { ex.Mask.Proto.Protocol = unix.IPPROTO_UDP },
		},
		{
			name: "mask of the destination, which the kernel does not look at", master: ftp4, dst: other4, honour: true,
			change: func(ex *conntrack.Expect) {
				ex.Mask.IP.DestinationAddress = netip.MustParseAddr("255.0.0.0")
				ex.Mask.Proto.DestinationPort = 0
			},
			want: func(ex *conntrack.Expect) {
				ex.Mask.IP.DestinationAddress = netip.MustParseAddr("255.255.255.255")
				ex.Mask.Proto.DestinationPort = 0xffff
			},
		},
		{
			name: "permanent", master: ftp4, dst: other4, honour: true,
			change: func(ex *conntrack.Expect) { ex.Flags = permanent },
		},
		{
			name: "inactive", master: ftp4, dst: other4,
			change: func(ex *conntrack.Expect) { ex.Flags = inactive },
		},
		{
			name: "class", master: sip4, dst: other4, honour: true,
			change: func(ex *conntrack.Expect) { ex.Class, ex.HelpName = 1, "sip" },
		},
		{
			name: "function", master: ftp4, dst: other4, honour: true,
			change: func(ex *conntrack.Expect) { ex.Function = "nat-follow-master" },
		},
		{
			name: "NAT", master: ftp4, dst: other4,
			change: func(ex *conntrack.Expect) {
				ex.NAT.Direction = true
				ex.NAT.Tuple = tuple(unix.IPPROTO_TCP, server4, netip.MustParseAddrPort("0.0.0.0:0"))
			},
		},
		{
			name: "NAT in the original direction", master: ftp6, dst: server6,
			change: func(ex *conntrack.Expect) {
				ex.NAT.Tuple = tuple(unix.IPPROTO_TCP, client6, netip.MustParseAddrPort("[::]:0"))
			},
		},
		{
			name: "zone", master: with(ftp4, func(f *conntrack.Flow) { f.Zone = 7 }), dst: other4,
			change: func(ex *conntrack.Expect) { ex.Zone = 7 },
			want:   func(ex *conntrack.Expect) { ex.Zone = 0 }, // the kernel does not send it
		},
		{
			name: "helper", master: ftp4, dst: other4, honour: true,
			change: func(ex *conntrack.Expect) { ex.HelpName = "ftp" },
		},
		{
			name: "helper, which the kernel does not look at", master: ftp4, dst: other4, honour: true,
			change: func(ex *conntrack.Expect) { ex.HelpName = "nonesuch" },
		},
		{
			name: "timeout", master: ftp4, dst: other4, honour: true,
			change: func(ex *conntrack.Expect) { ex.Timeout = 5000 },
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			c := dial(t, ns)
			create(t, c, tt.master)
			ex := newExpect(tt.master, tt.dst)
			if tt.change != nil {
				tt.change(&ex)
			}
			if ex.HelpName == "nonesuch" {
				needKernel(t, 5, 11, "before, the kernel looks for the helper")
			}
			require.NoError(t, c.CreateExpect(ex))
			require.ErrorIs(t, c.CreateExpect(ex), unix.EEXIST)

			want := ex
			if tt.want != nil {
				tt.want(&want)
			}
			expects, err := c.DumpExpect()
			require.NoError(t, err)
			require.Len(t, expects, 1)
			got := expects[0]
			require.NotZero(t, got.ID)
			require.Greater(t, got.Timeout, uint32(60))
			require.Equal(t, ex.Timeout != 0, got.Timeout > 4000)
			want.ID, want.Timeout, want.HelpName = got.ID, got.Timeout, tt.master.Helper.Name
			require.Equal(t, want, got)

			if tt.honour {
				src := client4
				if tt.dst.Addr().Is6() {
					src = client6
				}
				ns.UDP(src, tt.dst, false)
				requireRelated(t, c, tuple(unix.IPPROTO_UDP, src, tt.dst), tt.master.TupleOrig)
			}
			expects, err = c.DumpExpect()
			require.NoError(t, err)
			require.Equal(t, !tt.honour || ex.Flags&permanent != 0, len(expects) == 1)
		})
	}
}

// TestCreateExpectNAT asserts that the NAT of an expectation applies to the
// expected flow.
func TestCreateExpectNAT(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	// The kernel only translates packets if there is a NAT rule.
	ns.DNAT(unix.IPPROTO_UDP, netip.MustParseAddrPort("127.0.0.99:9"), other4)
	c := dial(t, ns)
	// The master was translated: its replies come from 127.0.0.3.
	master := newMaster("ftp", unix.IPPROTO_TCP, client4, server4)
	master.TupleReply.IP.SourceAddress = other4.Addr()
	create(t, c, master)

	ex := newExpect(master, server4)
	ex.Function = "nat-follow-master"
	ex.NAT.Tuple = tuple(unix.IPPROTO_UDP, other4, netip.MustParseAddrPort("0.0.0.0:0"))
	require.NoError(t, c.CreateExpect(ex))

	ns.UDPThrough(client4, server4, other4, true)
	f := get(t, c, conntrack.Flow{TupleOrig: tuple(unix.IPPROTO_UDP, client4, server4)})
	require.True(t, f.Status.Expected())
	require.True(t, f.Status.DstNAT())
	require.Equal(t, other4.Addr(), f.TupleReply.IP.SourceAddress)
	require.Equal(t, other4.Port(), f.TupleReply.Proto.SourcePort)
}

func TestCreateExpectRefused(t *testing.T) {
	t.Parallel()
	none := func(*conntrack.Expect) {}
	helped := newMaster("ftp", unix.IPPROTO_TCP, client4, server4)
	tests := []struct {
		name   string
		master conntrack.Flow
		change func(ex *conntrack.Expect)
		want   error
	}{
		{"master is not there", newFlow(1), func(ex *conntrack.Expect) { ex.TupleMaster = newFlow(2).TupleOrig }, unix.ENOENT},
		{"master has no helper", newFlow(1), none, unix.EOPNOTSUPP},
		{"another zone", helped, func(ex *conntrack.Expect) { ex.Zone = 3 }, unix.ENOENT},
		{"unknown function", helped, func(ex *conntrack.Expect) { ex.Function = "nonesuch" }, unix.EINVAL},
		{"class that the helper has not", helped, func(ex *conntrack.Expect) { ex.Class, ex.HelpName = 100, "ftp" }, unix.EINVAL},
		{"long helper name", helped, func(ex *conntrack.Expect) { ex.HelpName = "0123456789abcdef" }, unix.EINVAL},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, nstest.New(t))
			create(t, c, tt.master)
			ex := newExpect(tt.master, other4)
			tt.change(&ex)
			err := c.CreateExpect(ex)
			require.ErrorIs(t, err, tt.want)
			var op *conntrack.OpError
			require.ErrorAs(t, err, &op)
			require.Equal(t, ex.Tuple, op.Tuple)

			expects, err := c.DumpExpect()
			require.NoError(t, err)
			require.Empty(t, expects)
		})
	}
}

// TestExpectEvents asserts that expectations are destroyed with their master.
func TestExpectEvents(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	c := dial(t, ns)
	events := listen(t, c, netfilter.GroupsCTExp)
	for _, f := range []conntrack.Flow{
		newMaster("ftp", unix.IPPROTO_TCP, client4, server4),
		newMaster("tftp", unix.IPPROTO_UDP, client6, server6),
	} {
		create(t, c, f)
		ex := newExpect(f, netip.AddrPortFrom(f.TupleOrig.IP.DestinationAddress, 1))
		require.NoError(t, c.CreateExpect(ex))
		ev := receive(t, events)
		require.Equal(t, conntrack.EventExpNew, ev.Type)
		require.Nil(t, ev.Flow)
		require.Equal(t, ex.Tuple, ev.Expect.Tuple)
		require.Equal(t, f.Helper.Name, ev.Expect.HelpName)
		made := *ev.Expect

		require.NoError(t, c.Delete(f))
		ev = receive(t, events)
		require.Equal(t, conntrack.EventExpDestroy, ev.Type)
		requireExpect(t, made, *ev.Expect)
	}
}

// TestExpects asserts that a loop over the expectations returns all of them,
// and can be left early.
func TestExpects(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	const n = 500
	want := make(map[conntrack.Tuple]bool)
	for i := range n {
		master := newMaster("ftp", unix.IPPROTO_TCP, netip.AddrPortFrom(client4.Addr(), uint16(i+1)), server4)
		ex := newExpect(master, netip.AddrPortFrom(other4.Addr(), uint16(i+1)))
		create(t, c, master)
		require.NoError(t, c.CreateExpect(ex))
		want[ex.Tuple] = true
	}
	expects, err := c.DumpExpect()
	require.NoError(t, err)
	got := make(map[conntrack.Tuple]bool)
	for _, ex := range expects {
		got[ex.Tuple] = true
	}
	require.Equal(t, want, got)
	require.Len(t, expects, n)

	seen := 0
	for ex, err := range c.Expects(t.Context()) {
		require.NoError(t, err)
		require.Contains(t, want, ex.Tuple)
		if seen++; seen == 10 {
			break
		}
	}
	require.Equal(t, 10, seen)
}

// manyExpects creates n masters with the helper, and an expectation for each.
func manyExpects(t *testing.T, c *conntrack.Conn, helper string, proto uint8, zone uint16, n int) (expects []conntrack.Expect) {
	t.Helper()
	for i := range n {
		port := uint16(i + 1)
		master := newMaster(helper, proto, netip.AddrPortFrom(client4.Addr(), port), server4)
		master.Zone = zone
		create(t, c, master)
		ex := newExpect(master, netip.AddrPortFrom(other4.Addr(), port))
		ex.Zone = zone
		require.NoError(t, c.CreateExpect(ex))
		expects = append(expects, ex)
	}
	return expects
}

func requireExpects(t testing.TB, c *conntrack.Conn, want int) []conntrack.Expect {
	t.Helper()
	expects, err := c.DumpExpect()
	require.NoError(t, err)
	require.Len(t, expects, want)
	return expects
}

// TestOneExpect asserts that one expectation can be read, changed and deleted
// without affecting others.
func TestOneExpect(t *testing.T) {
	t.Parallel()
	for name, zone := range map[string]uint16{"default zone": 0, "zone 7": 7} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, nstest.New(t))
			const n = 3
			expects := manyExpects(t, c, "ftp", unix.IPPROTO_TCP, zone, n)
			ex := expects[1]

			got, err := c.GetExpect(ex)
			require.NoError(t, err)
			require.Equal(t, ex.Tuple, got.Tuple)
			require.Equal(t, ex.TupleMaster, got.TupleMaster)
			i := slices.IndexFunc(requireExpects(t, c, n), func(other conntrack.Expect) bool { return other.ID == got.ID })
			require.GreaterOrEqual(t, i, 0)

			// Parts outside the mask may have any value.
			anySource := conntrack.Expect{Tuple: ex.Tuple, Zone: zone}
			anySource.Tuple.IP.SourceAddress = server4.Addr()
			again, err := c.GetExpect(anySource)
			require.NoError(t, err)
			require.Equal(t, got.ID, again.ID)

			ex.ID = got.ID + 1
			_, err = c.GetExpect(ex)
			require.ErrorIs(t, err, unix.ENOENT)
			require.ErrorIs(t, c.DeleteExpect(ex), unix.ENOENT)
			otherZone := expects[1]
			otherZone.Zone = 99
			require.ErrorIs(t, c.DeleteExpect(otherZone), unix.ENOENT)

			ex.ID, ex.Timeout = got.ID, 10_000
			require.NoError(t, c.UpdateExpect(ex))
			again, err = c.GetExpect(ex)
			require.NoError(t, err)
			require.InDelta(t, 10_000, again.Timeout, patience.Seconds())

			require.NoError(t, c.DeleteExpect(ex))
			_, err = c.GetExpect(ex)
			require.ErrorIs(t, err, unix.ENOENT)
			require.ErrorIs(t, c.DeleteExpect(ex), unix.ENOENT)
			require.ErrorIs(t, c.UpdateExpect(ex), unix.ENOENT)
			var op *conntrack.OpError
			require.ErrorAs(t, c.DeleteExpect(ex), &op)
			require.Equal(t, ex.Tuple, op.Tuple)
			requireExpects(t, c, n-1)
		})
	}
}

// TestFlushExpect asserts that the expectations of one helper, or all, are
// removed.
func TestFlushExpect(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	require.NoError(t, c.FlushExpect())
	manyExpects(t, c, "ftp", unix.IPPROTO_TCP, 0, 4)
	manyExpects(t, c, "sip", unix.IPPROTO_UDP, 5, 3)
	require.ErrorIs(t, c.FlushExpectHelper(""), conntrack.ErrNeedHelper)
	require.NoError(t, c.FlushExpectHelper("tftp"))
	requireExpects(t, c, 7)
	require.NoError(t, c.FlushExpectHelper("ftp"))
	for _, ex := range requireExpects(t, c, 3) {
		require.Equal(t, "sip", ex.HelpName)
	}
	require.NoError(t, c.FlushExpect())
	requireExpects(t, c, 0)
}

// TestExpectsOf asserts that a loop returns the expectations of one flow.
func TestExpectsOf(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	const several = 4 // the kernel allows a sip master this many per class
	expectsOf := func(master conntrack.Flow) (ports []int, err error) {
		for ex, err := range c.ExpectsOf(t.Context(), master) {
			if err != nil {
				return nil, err
			}
			require.Equal(t, master.TupleOrig, ex.TupleMaster)
			ports = append(ports, int(ex.Tuple.Proto.DestinationPort))
		}
		return ports, nil
	}
	manyExpects(t, c, "ftp", unix.IPPROTO_TCP, 0, 20)
	manyExpects(t, c, "ftp", unix.IPPROTO_TCP, 3, 20)
	master := newMaster("sip", unix.IPPROTO_UDP, client4, server4)
	create(t, c, master, newFlow(1))
	for i := range several {
		ex := newExpect(master, netip.AddrPortFrom(server4.Addr(), uint16(i)))
		ex.Class, ex.HelpName = 1, "sip"
		require.NoError(t, c.CreateExpect(ex))
	}

	ports, err := expectsOf(master)
	require.NoError(t, err)
	require.ElementsMatch(t, []int{0, 1, 2, 3}, ports)

	ftp := newMaster("ftp", unix.IPPROTO_TCP, netip.AddrPortFrom(client4.Addr(), 7), server4)
	for _, zone := range []uint16{0, 3} {
		ftp.Zone = zone
		ports, err = expectsOf(ftp)
		require.NoError(t, err)
		require.Equal(t, []int{7}, ports)
	}
	byReply := ftp
	byReply.TupleOrig = conntrack.Tuple{}
	for ex, err := range c.ExpectsOf(t.Context(), byReply) {
		require.NoError(t, err)
		require.Equal(t, ftp.TupleOrig, ex.TupleMaster)
	}

	ports, err = expectsOf(newFlow(1))
	require.NoError(t, err, "a flow without a helper")
	require.Empty(t, ports)
	_, err = expectsOf(newFlow(2))
	require.ErrorIs(t, err, unix.ENOENT)
	_, err = expectsOf(conntrack.Flow{})
	require.ErrorIs(t, err, conntrack.ErrNeedTuples)
	requireExpects(t, c, 40+several)
}

// TestExpectZones asserts that dumped masters can be used, whether their zone
// applies to both directions or only to the original one.
func TestExpectZones(t *testing.T) {
	t.Parallel()
	master := newMaster("ftp", unix.IPPROTO_TCP, client4, server4)
	for name, master := range map[string]conntrack.Flow{
		"both":     with(master, func(f *conntrack.Flow) { f.Zone = 7 }),
		"original": with(master, func(f *conntrack.Flow) { f.TupleOrig.Zone = 7 }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, nstest.New(t))
			create(t, c, master)
			dumped := dumpOne(t, c)
			ex := newExpect(dumped, other4)
			ex.Zone = dumped.Zone
			require.NoError(t, c.CreateExpect(ex))
			ex.Timeout = 1000
			require.NoError(t, c.UpdateExpect(ex))
			got, err := c.GetExpect(ex)
			require.NoError(t, err)
			require.Equal(t, dumped.Zone, got.Zone)
			seen := 0
			for of, err := range c.ExpectsOf(t.Context(), dumped) {
				require.NoError(t, err)
				require.Equal(t, got.ID, of.ID)
				require.Equal(t, dumped.Zone, of.Zone)
				of.TupleMaster.Zone = ex.TupleMaster.Zone
				require.NoError(t, c.DeleteExpect(of))
				seen++
			}
			require.Equal(t, 1, seen)
		})
	}
}

func TestExpectTimeout(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	ex := manyExpects(t, c, "ftp", unix.IPPROTO_TCP, 0, 1)[0]
	require.ErrorIs(t, c.UpdateExpect(ex), conntrack.ErrExpectTimeout)
	for _, timeout := range []uint32{24*24*3600 + 1, 1 << 31, 1<<32 - 1} {
		ex.Timeout = timeout
		require.ErrorIs(t, c.UpdateExpect(ex), conntrack.ErrExpectTimeout)
		require.ErrorIs(t, c.CreateExpect(ex), conntrack.ErrExpectTimeout)
	}
	ex.Timeout = 24 * 24 * 3600
	require.NoError(t, c.UpdateExpect(ex))
	got, err := c.GetExpect(ex)
	require.NoError(t, err)
	require.InDelta(t, ex.Timeout, got.Timeout, patience.Seconds())
}

// helperRequest sends a message about the kernel's list of user-space helpers
// (linux/netfilter/nfnetlink_cthelper.h). All network namespaces share this
// list.
func helperRequest(t *testing.T, typ nfnl.MessageType, flags netlink.HeaderFlags, attributes func(*nfnl.Encoder)) error {
	t.Helper()
	conn, err := nfnl.Dial(nil)
	require.NoError(t, err)
	defer conn.Close()
	var e nfnl.Encoder
	e.Message(nfnl.Header{SubsystemID: 9 /* NFNL_SUBSYS_CTHELPER */, MessageType: typ, Flags: netlink.Acknowledge | flags})
	attributes(&e)
	return conn.Do(&e, nil)
}

// newUserHelper creates a user-space helper for UDP, which keeps n bytes in
// each flow.
func newUserHelper(t *testing.T, name string, n uint32) {
	t.Helper()
	nstest.Require(t)
	err := helperRequest(t, 0, netlink.Create, func(e *nfnl.Encoder) { // NFNL_MSG_CTHELPER_NEW
		e.String(1, name) // NFCTH_NAME
		tuple := e.Nest(2)
		e.Uint16(1, uint16(netfilter.ProtoIPv4)) // NFCTH_TUPLE_L3PROTONUM
		e.Uint8(2, unix.IPPROTO_UDP)             // NFCTH_TUPLE_L4PROTONUM
		e.End(tuple)
		e.Uint32(3, 0) // NFCTH_QUEUE_NUM
		policies := e.Nest(4)
		e.Uint32(1, 1) // NFCTH_POLICY_SET_NUM
		policy := e.Nest(2)
		e.String(1, "policy") // NFCTH_POLICY_NAME
		e.Uint32(2, 1)        // NFCTH_POLICY_EXPECT_MAX
		e.Uint32(3, 300)      // NFCTH_POLICY_EXPECT_TIMEOUT
		e.End(policy)
		e.End(policies)
		e.Uint32(5, n) // NFCTH_PRIV_DATA_LEN
	})
	if nfnl.IsInvalid(err) || errors.Is(err, fs.ErrPermission) {
		t.Skipf("helpers in user space take the kernel's nfnetlink_cthelper and the machine's CAP_NET_ADMIN: %v", err)
	}
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, helperRequest(t, 2, 0, func(e *nfnl.Encoder) { e.String(1, name) })) // NFNL_MSG_CTHELPER_DEL
	})
}

// TestHelperInfo asserts that the data that a helper keeps in a flow can be set
// and read.
func TestHelperInfo(t *testing.T) {
	t.Parallel()
	newUserHelper(t, "conntrack-test", 8)
	c := dial(t, nstest.New(t))
	f := newFlow(1)
	f.Helper = conntrack.Helper{Name: "conntrack-test", Info: []byte{1, 2, 3, 4, 5, 6, 7, 8}}
	create(t, c, f)
	require.Equal(t, f.Helper, dumpOne(t, c).Helper)

	f.Helper.Info = []byte{8, 7, 6, 5, 4, 3, 2, 1}
	require.NoError(t, c.Update(conntrack.Flow{TupleOrig: f.TupleOrig, Helper: f.Helper}))
	require.Equal(t, f.Helper, dumpOne(t, c).Helper)
	require.NoError(t, c.Delete(f))
}
