//go:build linux

package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
)

func TestMain(m *testing.M) { nstest.MainOf(m, main) }

const total, stale = 100_000, 1000

// fill adds flows to one service to the table. The first endpoint answers one
// in a hundred, the second endpoint the others.
func fill(t *testing.T, ns *nstest.NS) {
	t.Helper()
	conn, err := conntrack.Dial(ns.Config())
	require.NoError(t, err)
	defer conn.Close()

	service := netip.MustParseAddrPort("10.96.0.10:53")
	flows := make([]conntrack.Flow, total)
	for i := range flows {
		client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), uint16(1024+i>>16))
		endpoint := netip.MustParseAddr("10.0.0.8")
		if i%(total/stale) == 0 {
			endpoint = netip.MustParseAddr("10.0.0.7")
		}
		f := conntrack.Flow{TupleOrig: conntrack.NewTuple(conntrack.ProtocolUDP, client, service), Timeout: 300}
		f.TupleReply = f.TupleOrig.Reverse()
		f.TupleReply.IP.SourceAddress = endpoint
		f.Status.Value = conntrack.StatusDstNAT
		flows[i] = f
	}
	require.NoError(t, conn.CreateBatch(flows))
	require.Equal(t, total, ns.Count())
}

// TestDropStale asserts that exactly the flows of the endpoint that is gone are
// removed.
func TestDropStale(t *testing.T) {
	ns := nstest.New(t, nstest.NoTracking())
	fill(t, ns)

	p := ns.Start(nstest.Program("-n", "10.0.0.7:53"))
	require.Zero(t, p.Exit(), p.Stderr())
	assert.Contains(t, p.Stdout(), "udp 10.1.0.0:1024 > 10.96.0.10:53\n")
	assert.Equal(t, stale+1, strings.Count(p.Stdout(), "\n"))
	assert.Equal(t, total, ns.Count())

	p = ns.Start(nstest.Program("10.0.0.7:53"))
	require.Zero(t, p.Exit(), p.Stderr())
	assert.Equal(t, "removed 1000 flows of 10.0.0.7:53\n", p.Stdout())
	assert.Equal(t, total-stale, ns.Count())

	p = ns.Start(nstest.Program("10.0.0.7:53"))
	require.Zero(t, p.Exit(), p.Stderr())
	assert.Equal(t, "removed 0 flows of 10.0.0.7:53\n", p.Stdout())
}

// TestDropStaleWithoutPrivilege asserts that the error says which privilege is
// missing.
func TestDropStaleWithoutPrivilege(t *testing.T) {
	p := nstest.New(t).Start(nstest.Unprivileged(nstest.Program("10.0.0.7:53")))
	assert.Equal(t, 1, p.Exit())
	assert.Contains(t, p.Stderr(), "CAP_NET_ADMIN")
}

func TestDropStaleUsage(t *testing.T) {
	ns := nstest.New(t)
	for _, tt := range []struct {
		name string
		args []string
		code int
	}{
		{"help", []string{"-h"}, 0},
		{"no endpoint", nil, 2},
		{"two endpoints", []string{"10.0.0.7:53", "10.0.0.8:53"}, 2},
		{"no port", []string{"10.0.0.7"}, 2},
		{"port zero", []string{"10.0.0.7:0"}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := ns.Start(nstest.Program(tt.args...))
			assert.Equal(t, tt.code, p.Exit())
			assert.Contains(t, p.Stderr(), "endpoint that is gone")
		})
	}
}
