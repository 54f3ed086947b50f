//go:build linux && !race

package conntrack

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"github.com/ti-mo/conntrack/internal/nstest"
	"golang.org/x/sys/unix"
)

// The tests of this file pin what is allocated, and so run before the parallel
// ones. The race detector allocates too.

// tcpFlows returns n flows that have all that most flows have.
func tcpFlows(n int) []Flow {
	flows := make([]Flow, n)
	for i := range flows {
		src := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		flows[i] = NewFlow(unix.IPPROTO_TCP, StatusAssured|StatusSeenReply,
			src, netip.MustParseAddr("10.1.0.1"), 40000, 443, 600, 1)
		flows[i].ProtoInfo.TCP = &ProtoInfoTCP{State: tcpEstablished}
	}
	return flows
}

func dialTest(t testing.TB) *Conn {
	t.Helper()
	n := nstest.New(t, nstest.NoTracking(), nstest.Accounting(), nstest.Timestamps())
	c, err := Dial(n.Config())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// allocations returns how often fn allocates, with the fraction that
// testing.AllocsPerRun leaves out.
func allocations(t *testing.T, fn func() error) float64 {
	t.Helper()
	const times = 100
	var err error
	n := testing.AllocsPerRun(5, func() {
		for range times {
			if err == nil {
				err = fn()
			}
		}
	})
	require.NoError(t, err)
	return n / times
}

func TestAllocations(t *testing.T) {
	c := dialTest(t)
	f := tcpFlows(1)[0]
	require.LessOrEqual(t, allocations(t, func() error {
		return errors.Join(c.Create(f), c.Delete(f))
	}), 2.0, "a Create and a Delete")

	require.NoError(t, c.Create(f))
	require.LessOrEqual(t, allocations(t, func() error { return c.Update(f) }), 1.0, "an Update")
	require.LessOrEqual(t, allocations(t, func() error {
		got, err := c.Get(f)
		if err == nil && got.ProtoInfo.TCP == nil {
			t.Error("no TCP state")
		}
		return err
	}), 2.0, "a Get")
}

func TestDumpAllocations(t *testing.T) {
	const flows = 4000
	c := dialTest(t)
	require.NoError(t, c.CreateBatch(tcpFlows(flows)))
	seen := 0
	perDump := testing.AllocsPerRun(5, func() {
		seen = 0
		for f, err := range c.Flows(context.Background(), Filter{}, nil) {
			if err != nil || f.ProtoInfo.TCP.State != tcpEstablished || f.Timestamp.Start.IsZero() {
				t.Fatalf("%+v, %v", f, err)
			}
			seen++
		}
	})
	require.Equal(t, flows, seen)
	require.LessOrEqual(t, perDump/flows, 0.05, "a flow of a dump")
}

// TestFlowSize pins the size of what a dump copies for each flow.
func TestFlowSize(t *testing.T) {
	require.LessOrEqual(t, int(unsafe.Sizeof(Flow{})), 576)
}
