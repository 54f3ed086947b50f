//go:build linux

package conntrack_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
)

// TestTupleOf asserts that both ends of a connection find their flow, and that
// the accepting end learns what was dialed.
func TestTupleOf(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		client, dialed, server netip.AddrPort
	}{
		"IPv4":       {client4, server4, server4},
		"IPv6":       {client6, server6, server6},
		"translated": {client4, netip.MustParseAddrPort("127.0.0.1:80"), server4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			if tt.dialed != tt.server {
				ns.DNAT(unix.IPPROTO_TCP, tt.dialed, tt.server)
			}
			c := dial(t, ns)
			pair := ns.TCPThrough(tt.client, tt.dialed, tt.server)
			for end, conn := range map[string]net.Conn{"client": pair.Client, "server": pair.Server} {
				tuple, err := conntrack.TupleOf(conn)
				require.NoError(t, err, end)
				f, err := c.Get(conntrack.Flow{TupleOrig: tuple})
				require.NoError(t, err, end)
				require.Equal(t, tt.client, f.Client(), end)
				require.Equal(t, tt.dialed, f.Dialed(), end)
				require.Equal(t, tt.server, f.Server(), end)
			}
		})
	}
}

// TestHalfGivenTuple asserts that a tuple that lacks a part counts as not given: the
// flow is found by the other one.
func TestHalfGivenTuple(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	create(t, c, newFlow(1))
	for what, half := range halfGiven(newFlow(1).TupleOrig) {
		f := conntrack.Flow{TupleOrig: half, TupleReply: newFlow(1).TupleReply, Mark: 7}
		got, err := c.Get(f)
		require.NoError(t, err, what)
		require.Equal(t, newFlow(1).TupleOrig, got.TupleOrig, what)
		require.NoError(t, c.Update(f), what)
		require.NoError(t, c.Delete(f), what)
		create(t, c, newFlow(1))
	}
}

// TestMappedTuple asserts that IPv4-mapped addresses are those of IPv4 flows.
func TestMappedTuple(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	mapped := newFlow(1)
	for _, ip := range []*conntrack.IPTuple{&mapped.TupleOrig.IP, &mapped.TupleReply.IP} {
		ip.SourceAddress = netip.AddrFrom16(ip.SourceAddress.As16())
		ip.DestinationAddress = netip.AddrFrom16(ip.DestinationAddress.As16())
	}
	require.NoError(t, c.Create(mapped))
	require.Equal(t, newFlow(1).TupleOrig, get(t, c, mapped).TupleOrig)
	require.Equal(t, newFlow(1).TupleOrig, get(t, c, newFlow(1)).TupleOrig)
	require.NoError(t, c.Delete(mapped))
}
