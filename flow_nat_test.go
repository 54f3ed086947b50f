//go:build linux

package conntrack_test

import (
	"encoding/json"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/cttext"
	"github.com/ti-mo/conntrack/internal/nstest"
)

// newNATNS returns a namespace with NAT. The kernel translates if there is a
// NAT chain, even one in which no rule matches.
func newNATNS(t *testing.T) *nstest.NS {
	t.Helper()
	ns := nstest.New(t)
	for _, unused := range []netip.AddrPort{netip.MustParseAddrPort("127.9.9.9:9"), netip.MustParseAddrPort("[2001:db8::9]:9")} {
		ns.DNAT(unix.IPPROTO_UDP, unused, unused)
		ns.SNAT(unix.IPPROTO_UDP, unused, unused)
	}
	return ns
}

// exchange sends data from src to dst, which must arrive at server, and an
// answer back. It returns the peer that the server saw.
func exchange(t *testing.T, ns *nstest.NS, proto uint8, src, dst, server netip.AddrPort) (peer netip.AddrPort) {
	t.Helper()
	if proto == unix.IPPROTO_TCP {
		p := ns.TCPThrough(src, dst, server)
		p.Send([]byte("ping"))
		p.Reply([]byte("pong"))
		peer = p.Server.RemoteAddr().(*net.TCPAddr).AddrPort()
		return netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
	}
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

// requireInRange asserts that is, the translation of was, lies in the parts of
// r that are set.
func requireInRange(t *testing.T, was, is netip.AddrPort, r conntrack.NATRange) {
	t.Helper()
	first, last := netip.AddrPortFrom(was.Addr(), was.Port()), was
	if r.MinAddr.IsValid() {
		first = netip.AddrPortFrom(r.MinAddr, first.Port())
		last = netip.AddrPortFrom(r.MinAddr, last.Port())
	}
	if r.MaxAddr.IsValid() {
		last = netip.AddrPortFrom(r.MaxAddr, last.Port())
	}
	if r.MinPort != 0 {
		first = netip.AddrPortFrom(first.Addr(), r.MinPort)
		last = netip.AddrPortFrom(last.Addr(), max(r.MinPort, r.MaxPort))
	}
	require.False(t, is.Addr().Less(first.Addr()) || last.Addr().Less(is.Addr()), "%s is not from %s to %s", is, first, last)
	require.False(t, is.Port() < first.Port() || last.Port() < is.Port(), "%s is not from %s to %s", is, first, last)
}

// TestNAT asserts that packets of created flows are translated.
func TestNAT(t *testing.T) {
	t.Parallel()
	type natRange = conntrack.NATRange
	addr, nat4 := netip.MustParseAddr, netip.MustParseAddrPort("127.0.0.7:7007")
	range4 := natRange{MinAddr: addr("127.0.0.10"), MaxAddr: addr("127.0.0.19"), MinPort: 7000, MaxPort: 7009}
	range6 := natRange{MinAddr: server6.Addr(), MaxAddr: server6.Addr(), MinPort: 7000, MaxPort: 7009}
	const source, destination = conntrack.StatusSrcNAT, conntrack.StatusDstNAT
	tests := []struct {
		name     string
		src, dst netip.AddrPort
		nat      conntrack.NAT
		status   conntrack.StatusFlag
	}{
		{"source", client4, server4, conntrack.NAT{Source: conntrack.NATTo(nat4)}, source},
		{"source address", client4, server4, conntrack.NAT{Source: natRange{MinAddr: nat4.Addr()}}, source},
		{"source port", client4, server4, conntrack.NAT{Source: natRange{MinPort: 7007}}, source},
		{"source ports", client4, server4, conntrack.NAT{Source: natRange{MinPort: 7007, MaxPort: 7010}}, source},
		{"source range", client4, server4, conntrack.NAT{Source: range4}, source},
		{"destination", client4, server4, conntrack.NAT{Destination: conntrack.NATTo(other4)}, destination},
		{"destination address", client4, server4, conntrack.NAT{Destination: natRange{MinAddr: other4.Addr()}}, destination},
		{"destination port", client4, server4, conntrack.NAT{Destination: natRange{MinPort: 7007}}, destination},
		{"destination range", client4, server4, conntrack.NAT{Destination: range4}, destination},
		{"both", client4, server4, conntrack.NAT{Source: range4, Destination: range4}, source | destination},
		{"IPv6 source range", client6, server6, conntrack.NAT{Source: range6}, source},
		{"IPv6 source ports", client6, server6, conntrack.NAT{Source: natRange{MinPort: 7000, MaxPort: 7009}}, source},
		{"IPv6 destination port", client6, server6, conntrack.NAT{Destination: natRange{MinPort: 7007}}, destination},
		{
			"IPv6 destination", client6, server6,
			conntrack.NAT{Destination: conntrack.NATTo(netip.AddrPortFrom(client6.Addr(), 7009))}, destination,
		},
		{
			"IPv6 both", client6, server6,
			conntrack.NAT{Source: range6, Destination: conntrack.NATTo(netip.AddrPortFrom(client6.Addr(), 7009))}, source | destination,
		},
	}
	for _, tt := range tests {
		for protoName, proto := range map[string]uint8{"UDP": unix.IPPROTO_UDP, "TCP": unix.IPPROTO_TCP} {
			t.Run(protoName+" "+tt.name, func(t *testing.T) {
				t.Parallel()
				ns := newNATNS(t)
				c := dial(t, ns)
				f := flowBetween(proto, tt.src, tt.dst)
				f.NAT = &tt.nat
				if tt.status == source {
					f.TupleReply = conntrack.Tuple{} // is derived
				}
				create(t, c, f)
				got := dumpOne(t, c)
				require.Equal(t, f.TupleOrig, got.TupleOrig)
				require.Equal(t, tt.status, got.Status.Value&conntrack.StatusNATMask)
				requireInRange(t, tt.src, got.MappedClient(), tt.nat.Source)
				requireInRange(t, tt.dst, got.Server(), tt.nat.Destination)

				peer := exchange(t, ns, proto, tt.src, tt.dst, got.Server())
				require.Equal(t, got.MappedClient(), peer)
				after := dumpOne(t, c)
				require.Equal(t, got.TupleReply, after.TupleReply)
				require.True(t, after.Status.SeenReply(), "the packets went through another flow")
				if proto == unix.IPPROTO_TCP {
					return // the same address cannot be dialed again at once
				}

				// A flow from the kernel can be restored.
				require.NoError(t, c.Delete(after))
				create(t, c, after)
				again := dumpOne(t, c)
				require.Equal(t, after.TupleReply, again.TupleReply)
				require.Equal(t, after.Status, again.Status)
				require.Equal(t, peer, exchange(t, ns, proto, tt.src, tt.dst, after.Server()))
			})
		}
	}
}

// TestNATOfEcho asserts that address and id of ICMP are translated.
func TestNATOfEcho(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		proto            uint8
		src, dst, source netip.Addr
		query, reply     uint8
	}{
		"IPv4": {unix.IPPROTO_ICMP, client4.Addr(), client4.Addr(), other4.Addr(), 8, 0},
		"IPv6": {unix.IPPROTO_ICMPV6, server6.Addr(), server6.Addr(), client6.Addr(), 128, 129},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := newNATNS(t)
			c := dial(t, ns)
			create(t, c, conntrack.Flow{
				Timeout:   100,
				TupleOrig: echoTuple(tt.proto, tt.src, tt.dst, tt.query, 7),
				NAT:       &conntrack.NAT{Source: conntrack.NATRange{MinAddr: tt.source, MinPort: 99}},
			})
			want := echoTuple(tt.proto, tt.dst, tt.source, tt.reply, 99)
			for range 2 {
				ns.ICMPEcho(tt.dst, 7)
				got := dumpOne(t, c)
				require.Equal(t, want, got.TupleReply)
				require.True(t, got.Status.SeenReply())
				require.True(t, got.SourceTranslated())
				require.NoError(t, c.Delete(got))
				got.Status.Value &^= conntrack.StatusSeenReply
				create(t, c, got)
			}
		})
	}
}

// TestTCPRestored asserts that after a TCP connection is restored, none of its
// segments counts as invalid, however large the window.
func TestTCPRestored(t *testing.T) {
	t.Parallel()
	for name, keep := range map[string]func(f conntrack.Flow) (conntrack.Flow, error){
		"flow": func(f conntrack.Flow) (conntrack.Flow, error) { return f, nil },
		"line": func(f conntrack.Flow) (conntrack.Flow, error) {
			return cttext.Options{}.ParseFlow(cttext.Options{}.Flow(&f))
		},
		"JSON": func(f conntrack.Flow) (again conntrack.Flow, err error) {
			b, err := json.Marshal(f)
			require.NoError(t, err)
			return again, json.Unmarshal(b, &again)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			c := dial(t, ns)
			p := ns.TCP(client4, server4)
			p.Send([]byte("ping"))
			p.Reply([]byte("pong"))
			before := dumpOne(t, c)
			require.NotZero(t, before.ProtoInfo.TCP.OriginalWindowScale)
			kept, err := keep(before)
			require.NoError(t, err)
			require.NoError(t, c.Delete(before))
			create(t, c, kept)
			after := dumpOne(t, c)
			if name != "line" { // a line does not show the window scale
				require.Equal(t, before.ProtoInfo, after.ProtoInfo)
			}

			p.Send(make([]byte, 8<<20))
			p.Reply(make([]byte, 8<<20))
			stats, err := c.Stats()
			require.NoError(t, err)
			for _, s := range stats {
				require.Zero(t, s.Invalid, "packets of another connection than the one that was put back")
			}
			require.Equal(t, after.ID, dumpOne(t, c).ID)
		})
	}
}

// TestNATRestored asserts that translated flows can be restored for protocols
// whose packets have no ports.
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
	require.ErrorIs(t, c.Create(withNAT), unix.EEXIST)
}

// TestCreateOrUpdate asserts that the first call adds a flow and the second one
// changes it.
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

// TestCreateOrUpdateTranslated asserts that a translated flow can be added
// twice, as by a program that repeatedly restores its table.
func TestCreateOrUpdateTranslated(t *testing.T) {
	t.Parallel()
	asked := with(flowBetween(unix.IPPROTO_UDP, client4, server4), func(f *conntrack.Flow) {
		f.NAT = &conntrack.NAT{Destination: conntrack.NATTo(other4)}
	})
	alone := with(asked, func(f *conntrack.Flow) { f.TupleReply = conntrack.Tuple{} })
	shown := with(asked, func(f *conntrack.Flow) {
		f.NAT = nil
		f.Status.Value = conntrack.StatusDstNAT | conntrack.StatusDstNATDone
		f.TupleReply = tuple(unix.IPPROTO_UDP, other4, client4)
	})
	for name, f := range map[string]conntrack.Flow{"by NAT": asked, "by NAT, without reply": alone, "by status": shown} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := newNATNS(t)
			c := dial(t, ns)
			for mark := range uint32(3) {
				f.Mark = mark + 1
				require.NoError(t, c.CreateOrUpdate(f))
				got := dumpOne(t, c)
				require.Equal(t, f.Mark, got.Mark)
				require.Equal(t, other4, got.Server())
				require.True(t, got.Status.DstNAT())
				if mark == 0 {
					exchange(t, ns, unix.IPPROTO_UDP, client4, server4, other4) // sets more status flags
				}
			}
			f.Mark = 9
			require.NoError(t, c.CreateOrUpdateBatch([]conntrack.Flow{f, newFlow(1)}))
			require.EqualValues(t, 9, get(t, c, conntrack.Flow{TupleOrig: f.TupleOrig}).Mark)
		})
	}
}

// TestCreateOrUpdateMaster asserts that a flow with a master can be added
// twice.
func TestCreateOrUpdateMaster(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	f := with(newFlow(2), func(f *conntrack.Flow) {
		f.TupleMaster = newFlow(1).TupleOrig
		f.Status.Value = conntrack.StatusSeenReply
	})
	create(t, c, newFlow(1))
	for mark := range uint32(2) {
		f.Mark = mark + 1
		require.NoError(t, c.CreateOrUpdate(f))
		require.Equal(t, f.Mark, get(t, c, newFlow(2)).Mark)
	}
}
