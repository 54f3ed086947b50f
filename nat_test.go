//go:build linux

package conntrack_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
)

// newNATNS returns a namespace that translates: the kernel does so where there is
// a chain for it, even if no rule of it matches.
func newNATNS(t *testing.T) *nstest.NS {
	t.Helper()
	ns := nstest.New(t)
	for _, unused := range []netip.AddrPort{netip.MustParseAddrPort("127.9.9.9:9"), netip.MustParseAddrPort("[2001:db8::9]:9")} {
		ns.DNAT(unix.IPPROTO_UDP, unused, unused)
		ns.SNAT(unix.IPPROTO_UDP, unused, unused)
	}
	return ns
}

// exchange sends a datagram from src to dst, which must come to server, and one
// back, and returns where the server saw it come from.
func exchange(t *testing.T, ns *nstest.NS, src, dst, server netip.AddrPort) (peer netip.AddrPort) {
	t.Helper()
	var from, to *net.UDPConn
	ns.Do(func() (err error) {
		if to, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(server)); err != nil {
			return err
		}
		from, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(src), net.UDPAddrFromAddrPort(dst))
		return err
	})
	defer from.Close()
	defer to.Close()
	require.NoError(t, from.SetDeadline(time.Now().Add(patience)))
	require.NoError(t, to.SetDeadline(time.Now().Add(patience)))

	_, err := from.Write([]byte("ping"))
	require.NoError(t, err)
	buf := make([]byte, 16)
	n, peer, err := to.ReadFromUDPAddrPort(buf)
	require.NoError(t, err)
	require.Equal(t, "ping", string(buf[:n]))
	_, err = to.WriteToUDPAddrPort([]byte("pong"), peer)
	require.NoError(t, err)
	n, err = from.Read(buf)
	require.NoError(t, err)
	require.Equal(t, "pong", string(buf[:n]))
	return netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
}

// TestNAT creates flows that translate, and sends packets through them.
func TestNAT(t *testing.T) {
	t.Parallel()
	var (
		addr      = netip.MustParseAddr
		addrPort  = netip.MustParseAddrPort
		nat4      = addrPort("127.0.0.7:7007")
		firstPort = func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), 7000) }
		lastPort  = func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), 7009) }
	)
	const source, destination = conntrack.StatusSrcNAT, conntrack.StatusDstNAT
	tests := []struct {
		name        string
		src, dst    netip.AddrPort
		nat         conntrack.NAT
		first, last netip.AddrPort // of those that the source may become
		server      netip.AddrPort
		status      conntrack.StatusFlag
	}{
		{
			"source address and port", client4, server4,
			conntrack.NAT{Source: conntrack.NATTo(nat4)}, nat4, nat4, server4, source,
		},
		{
			"source address", client4, server4,
			conntrack.NAT{Source: conntrack.NATRange{MinAddr: nat4.Addr()}},
			netip.AddrPortFrom(nat4.Addr(), client4.Port()), netip.AddrPortFrom(nat4.Addr(), client4.Port()), server4, source,
		},
		{
			"source port", client4, server4,
			conntrack.NAT{Source: conntrack.NATRange{MinPort: 7007}},
			netip.AddrPortFrom(client4.Addr(), 7007), netip.AddrPortFrom(client4.Addr(), 7007), server4, source,
		},
		{
			"source addresses and ports", client4, server4,
			conntrack.NAT{Source: conntrack.NATRange{
				MinAddr: addr("127.0.0.10"), MaxAddr: addr("127.0.0.19"), MinPort: 7000, MaxPort: 7009,
			}},
			addrPort("127.0.0.10:7000"), addrPort("127.0.0.19:7009"), server4, source,
		},
		{
			"destination", client4, server4,
			conntrack.NAT{Destination: conntrack.NATTo(other4)}, client4, client4, other4, destination,
		},
		{
			"destination, a range of one", client4, server4,
			conntrack.NAT{Destination: conntrack.NATRange{
				MinAddr: other4.Addr(), MaxAddr: other4.Addr(), MinPort: other4.Port(), MaxPort: other4.Port(),
			}},
			client4, client4, other4, destination,
		},
		{
			"both", client4, server4,
			conntrack.NAT{Source: conntrack.NATTo(nat4), Destination: conntrack.NATTo(other4)},
			nat4, nat4, other4, source | destination,
		},
		{
			"IPv6 source ports", client6, server6,
			conntrack.NAT{Source: conntrack.NATRange{MinAddr: client6.Addr(), MinPort: 7000, MaxPort: 7009}},
			firstPort(client6), lastPort(client6), server6, source,
		},
		{
			"IPv6 both", client6, server6,
			conntrack.NAT{
				Source:      conntrack.NATTo(firstPort(server6)),
				Destination: conntrack.NATTo(lastPort(client6)),
			},
			firstPort(server6), firstPort(server6), lastPort(client6), source | destination,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := newNATNS(t)
			c := dial(t, ns)
			f := flowBetween(unix.IPPROTO_UDP, tt.src, tt.dst)
			f.NAT = &tt.nat
			create(t, c, f)

			peer := exchange(t, ns, tt.src, tt.dst, tt.server)
			require.False(t, peer.Addr().Less(tt.first.Addr()) || tt.last.Addr().Less(peer.Addr()), "%s", peer)
			require.False(t, peer.Port() < tt.first.Port() || tt.last.Port() < peer.Port(), "%s", peer)

			got := dumpOne(t, c)
			require.Equal(t, tuple(unix.IPPROTO_UDP, tt.src, tt.dst), got.TupleOrig)
			require.Equal(t, tuple(unix.IPPROTO_UDP, tt.server, peer), got.TupleReply)
			require.Equal(t, tt.status, got.Status.Value&conntrack.StatusNATMask)
			require.True(t, got.Status.SeenReply(), "the packets went through another flow")

			// What came from the kernel can be put back.
			require.NoError(t, c.Delete(got))
			create(t, c, got)
			again := dumpOne(t, c)
			require.Equal(t, got.TupleReply, again.TupleReply)
			require.Equal(t, got.Status, again.Status)
			require.Equal(t, peer, exchange(t, ns, tt.src, tt.dst, tt.server))
		})
	}
}

// TestNATRestored puts flows back that a rule made the kernel translate, of
// protocols whose packets do not have ports.
func TestNATRestored(t *testing.T) {
	t.Parallel()
	ns := newNATNS(t)
	c := dial(t, ns)
	base := flowBetween(unix.IPPROTO_GRE, client4, server4)
	echo := conntrack.Flow{
		Timeout:    100,
		TupleOrig:  echoTuple(unix.IPPROTO_ICMP, client4.Addr(), server4.Addr(), 8, 7),
		TupleReply: echoTuple(unix.IPPROTO_ICMP, server4.Addr(), client4.Addr(), 0, 7),
	}
	for _, f := range []conntrack.Flow{
		with(base, func(f *conntrack.Flow) { f.NAT = &conntrack.NAT{Source: conntrack.NATRange{MinAddr: other4.Addr()}} }),
		with(echo, func(f *conntrack.Flow) {
			f.NAT = &conntrack.NAT{Source: conntrack.NATRange{MinAddr: other4.Addr(), MinPort: 99}}
		}),
		with(flowBetween(unix.IPPROTO_AH, client4, server4), func(f *conntrack.Flow) {
			f.TupleOrig.Proto = conntrack.ProtoTuple{Protocol: unix.IPPROTO_AH}
			f.TupleReply.Proto = f.TupleOrig.Proto
			f.NAT = &conntrack.NAT{Destination: conntrack.NATRange{MinAddr: other4.Addr()}}
		}),
	} {
		create(t, c, f)
		got := get(t, c, f)
		require.NotZero(t, got.Status.Value&conntrack.StatusNATMask)
		require.NotEqual(t, f.TupleReply, got.TupleReply)
		require.NoError(t, c.Delete(got))
		create(t, c, got)
		again := get(t, c, f)
		require.Equal(t, got.TupleReply, again.TupleReply)
		require.Equal(t, got.Status, again.Status)
	}
}

func TestBadNAT(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	addr := netip.MustParseAddr
	for name, r := range map[string]conntrack.NATRange{
		"another family":      {MinAddr: server6.Addr()},
		"two families":        {MinAddr: server4.Addr(), MaxAddr: server6.Addr()},
		"the last alone":      {MaxAddr: server4.Addr()},
		"addresses backwards": {MinAddr: addr("127.0.0.2"), MaxAddr: addr("127.0.0.1")},
		"ports backwards":     {MinPort: 2, MaxPort: 1},
		"the last port alone": {MaxPort: 1},
	} {
		for end, nat := range map[string]conntrack.NAT{"source": {Source: r}, "destination": {Destination: r}} {
			t.Run(end+", "+name, func(t *testing.T) {
				err := c.Create(with(newFlow(1), func(f *conntrack.Flow) { f.NAT = &nat }))
				require.ErrorIs(t, err, conntrack.ErrBadNAT)
				require.ErrorContains(t, err, end)
			})
		}
	}
	create(t, c, newFlow(1))
	withNAT := with(newFlow(1), func(f *conntrack.Flow) { f.NAT = &conntrack.NAT{Source: conntrack.NATTo(server4)} })
	require.ErrorIs(t, c.Update(withNAT), conntrack.ErrUpdateNAT)
	require.ErrorIs(t, c.CreateOrUpdate(withNAT), unix.EOPNOTSUPP)
	require.ErrorIs(t, c.Create(withNAT), unix.EEXIST)
}

// TestCreateOrUpdate adds a flow, and then changes it.
func TestCreateOrUpdate(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	f := newFlow(1)
	require.ErrorIs(t, c.CreateOrUpdate(with(f, func(f *conntrack.Flow) { f.Timeout = 0 })), conntrack.ErrNeedTimeout)
	require.NoError(t, c.CreateOrUpdate(f))
	id := dumpOne(t, c).ID
	f.Mark = 7
	require.NoError(t, c.CreateOrUpdate(f))
	got := dumpOne(t, c)
	require.Equal(t, id, got.ID)
	require.Equal(t, uint32(7), got.Mark)
}
