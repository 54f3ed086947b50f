//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
)

func TestMain(m *testing.M) { nstest.MainOf(m, main) }

// fill adds n UDP flows to the table in batches: the memory of the test counts
// as that of the program.
func fill(t *testing.T, ns *nstest.NS, n int) {
	t.Helper()
	conn, err := conntrack.Dial(ns.Config())
	require.NoError(t, err)
	defer conn.Close()
	flows := make([]conntrack.Flow, 0, 1000)
	for i := range n {
		client := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		flows = append(flows, conntrack.NewFlow(conntrack.ProtocolUDP, 0,
			client, netip.MustParseAddr("192.0.2.1"), uint16(1024+i>>16), 53, 300, 0))
		if len(flows) == cap(flows) || i == n-1 {
			require.NoError(t, conn.CreateBatch(flows))
			flows = flows[:0]
		}
	}
}

// TestMetrics asserts that flows are counted by protocol and state.
func TestMetrics(t *testing.T) {
	ns := nstest.New(t)
	ns.TCP(netip.MustParseAddrPort("127.0.0.1:40000"), netip.MustParseAddrPort("127.0.0.1:8080"))
	ns.UDP(netip.AddrPort{}, netip.MustParseAddrPort("127.0.0.1:0"), true)
	fill(t, ns, 3)

	p := ns.Start(nstest.Program())
	require.Zero(t, p.Exit(), p.Stderr())
	assert.Contains(t, p.Stdout(), "# TYPE conntrack_flows gauge\n")
	assert.Contains(t, p.Stdout(), `conntrack_flows{protocol="tcp",state="ESTABLISHED"} 1`+"\n")
	assert.Contains(t, p.Stdout(), `conntrack_flows{protocol="udp",state="REPLIED"} 1`+"\n")
	assert.Contains(t, p.Stdout(), `conntrack_flows{protocol="udp",state="UNREPLIED"} 3`+"\n")
	assert.Regexp(t, `(?m)^conntrack_flows_limit [1-9]`, p.Stdout())
	assert.Empty(t, p.Stderr())
}

// TestMetricsOfLargeTable asserts that progress is shown, and that memory does
// not grow with the table. Reading it at once would take 50 MiB.
func TestMetricsOfLargeTable(t *testing.T) {
	const flows = 100_000
	ns := nstest.New(t, nstest.NoTracking())
	small := maxResident(t, ns)
	fill(t, ns, flows)
	large := maxResident(t, ns)
	t.Logf("memory: %d KiB, and %d KiB for %d flows", small>>10, large>>10, flows)
	assert.Less(t, large-small, int64(20<<20))

	p := ns.Start(nstest.Program())
	require.Zero(t, p.Exit(), p.Stderr())
	assert.Contains(t, p.Stdout(), fmt.Sprintf(`conntrack_flows{protocol="udp",state="UNREPLIED"} %d`, flows)+"\n")
	assert.Contains(t, p.Stderr(), "\r50000 of about 100000 flows")
}

// maxResident runs the program and returns its peak memory use in bytes.
func maxResident(t *testing.T, ns *nstest.NS) int64 {
	t.Helper()
	cmd := nstest.Program()
	p := ns.Start(cmd)
	require.Zero(t, p.Exit(), p.Stderr())
	return int64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) << 10
}

// TestMetricsWithoutPrivilege asserts that the error says which privilege is
// missing.
func TestMetricsWithoutPrivilege(t *testing.T) {
	p := nstest.New(t).Start(nstest.Unprivileged(nstest.Program()))
	assert.Equal(t, 1, p.Exit())
	assert.Contains(t, p.Stderr(), "CAP_NET_ADMIN")
	assert.Empty(t, p.Stdout())
}

func TestMetricsUsage(t *testing.T) {
	ns := nstest.New(t)
	for arg, code := range map[string]int{"-h": 0, "-unknown": 2, "argument": 2} {
		p := ns.Start(nstest.Program(arg))
		assert.Equal(t, code, p.Exit(), arg)
		assert.Contains(t, p.Stderr(), "by protocol and state", arg)
	}
}
