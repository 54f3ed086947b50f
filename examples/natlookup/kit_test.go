package main

import (
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/conntracktest"
)

// TestOriginalDestination needs no kernel that tracks connections, but for one
// connection.
func TestOriginalDestination(t *testing.T) {
	t.Parallel()
	k := conntracktest.NewKernel(nil)
	conn, err := k.Dial()
	require.NoError(t, err)
	defer conn.Close()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Skipf("no TCP here: %v", err)
	}
	defer listener.Close()
	client, err := net.Dial("tcp4", listener.Addr().String())
	require.NoError(t, err)
	defer client.Close()
	accepted, err := listener.Accept()
	require.NoError(t, err)
	defer accepted.Close()

	local := netip.MustParseAddrPort(listener.Addr().String())
	got, err := originalDestination(conn, accepted)
	require.NoError(t, err)
	require.Equal(t, local, got, "not tracked")

	dialed := netip.MustParseAddrPort("192.0.2.1:80")
	from := netip.MustParseAddrPort(client.LocalAddr().String())
	f := conntrack.Flow{TupleOrig: conntrack.NewTuple(conntrack.ProtocolTCP, from, dialed)}
	f.TupleReply = conntrack.NewTuple(conntrack.ProtocolTCP, local, from)
	f.Status.Value = conntrack.StatusDstNAT
	require.NoError(t, k.Add(f))
	got, err = originalDestination(conn, accepted)
	require.NoError(t, err)
	require.Equal(t, dialed, got)
}
