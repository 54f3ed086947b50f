package main

import (
	"bytes"
	"io"
	"net/netip"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/conntracktest"
)

// TestCollect needs no kernel.
func TestCollect(t *testing.T) {
	t.Parallel()
	k := conntracktest.NewKernel(&conntracktest.Options{MaxEntries: 10})
	conn, err := k.Dial()
	require.NoError(t, err)
	defer conn.Close()
	for i := range uint16(3) {
		require.NoError(t, k.Add(conntrack.Flow{TupleOrig: conntrack.NewTuple(conntrack.ProtocolUDP,
			netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), 1000+i), netip.MustParseAddrPort("192.0.2.1:53"))}))
	}
	registry := prometheus.NewRegistry()
	require.NoError(t, collect(t.Context(), conn, registry, io.Discard))
	var out bytes.Buffer
	require.NoError(t, write(&out, registry))
	require.Contains(t, out.String(), `conntrack_flows{protocol="udp",state="UNREPLIED"} 3`)
	require.Contains(t, out.String(), "conntrack_flows_limit 10")
}
