package main

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/conntracktest"
)

// TestDrop needs no kernel.
func TestDrop(t *testing.T) {
	t.Parallel()
	k := conntracktest.NewKernel(nil)
	conn, err := k.Dial()
	require.NoError(t, err)
	defer conn.Close()

	gone, there := netip.MustParseAddrPort("10.0.0.7:53"), netip.MustParseAddrPort("10.0.0.8:53")
	client, service := netip.MustParseAddrPort("10.1.0.1:1000"), netip.MustParseAddrPort("10.96.0.10:53")
	translated := conntrack.Flow{TupleOrig: conntrack.NewTuple(conntrack.ProtocolUDP, client, service)}
	translated.TupleReply = conntrack.NewTuple(conntrack.ProtocolUDP, gone, client)
	translated.Status.Value = conntrack.StatusDstNAT
	direct := conntrack.Flow{TupleOrig: conntrack.NewTuple(conntrack.ProtocolUDP, netip.MustParseAddrPort("10.1.0.2:1000"), gone)}
	other := conntrack.Flow{TupleOrig: conntrack.NewTuple(conntrack.ProtocolUDP, client, there)}
	tcp := conntrack.Flow{TupleOrig: conntrack.NewTuple(conntrack.ProtocolTCP, client, gone)}
	require.NoError(t, k.Add(translated, direct, other, tcp))

	removed, err := drop(t.Context(), conn, gone, true)
	require.NoError(t, err)
	require.Zero(t, removed)
	removed, err = drop(t.Context(), conn, gone, false)
	require.NoError(t, err)
	require.Equal(t, 2, removed)
	left := k.Flows()
	require.Len(t, left, 2)
	require.Equal(t, other.TupleOrig, left[0].TupleOrig)
	require.Equal(t, tcp.TupleOrig, left[1].TupleOrig)
}
