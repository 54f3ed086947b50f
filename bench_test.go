//go:build linux

package conntrack

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/internal/nstest"
)

// newestGolden returns the golden message with the given name from the last
// directory.
func newestGolden(b *testing.B, name string) netlink.Message {
	b.Helper()
	files, err := filepath.Glob("testdata/*/" + name + ".json")
	require.NoError(b, err)
	require.NotEmpty(b, files)
	r := readRecord(b, files[len(files)-1])
	return r.message(b)
}

func BenchmarkDecode(b *testing.B) {
	for _, name := range []string{"flow-tcp-ipv4", "flow-tcp-ipv6", "flow-udp-ipv4", "flow-icmp", "flow-labels", "flow-helper"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			attributes := newestGolden(b, name).Data[sizeofNfgenmsg:]
			var s slab
			var f Flow
			for b.Loop() {
				f = Flow{}
				if err := f.unmarshal(attributes, &s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("expect-ftp-ipv4", func(b *testing.B) {
		b.ReportAllocs()
		attributes := newestGolden(b, "expect-ftp-ipv4").Data[sizeofNfgenmsg:]
		var s slab
		var ex Expect
		for b.Loop() {
			ex = Expect{}
			if err := ex.unmarshal(attributes, &s); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, name := range []string{"event-new-tcp", "event-destroy-tcp", "event-expect-new"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			h, attributes, err := nfnl.DecodeMessage(newestGolden(b, name))
			require.NoError(b, err)
			m := nfnl.Message{Header: h, Attributes: attributes, NSID: -1}
			var s slab
			var e Event
			for b.Loop() {
				if err := e.unmarshal(m, new(Flow), &s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("stats", func(b *testing.B) {
		b.ReportAllocs()
		attributes := newestGolden(b, "stats").Data[sizeofNfgenmsg:]
		var s Stats
		for b.Loop() {
			if err := s.unmarshal(attributes); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	for _, name := range []string{"flow-tcp-ipv4", "flow-tcp-ipv6", "flow-labels", "flow-helper", "flow-expected"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			v, err := flowKind.decode(newestGolden(b, name))
			require.NoError(b, err)
			f := v.(*Flow)
			var e nfnl.Encoder
			for b.Loop() {
				e.Reset()
				if err := (attempt{op: opCreate}).append(&e, f, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("expect-ftp-ipv4", func(b *testing.B) {
		b.ReportAllocs()
		v, err := expectKind.decode(newestGolden(b, "expect-ftp-ipv4"))
		require.NoError(b, err)
		ex := v.(*Expect)
		var e nfnl.Encoder
		for b.Loop() {
			e.Reset()
			e.Message(nfnl.Header{})
			ex.marshal(&e)
		}
	})
}

// These tests count allocations, so they run before the parallel tests and
// without the race detector, which allocates too.

// tcpFlows returns n flows with the attributes that most flows have.
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

// allocations returns the allocations of one call of fn, including the fraction
// that testing.AllocsPerRun drops.
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

// TestFlowSize asserts the size of a Flow, which a dump copies for each flow.
func TestFlowSize(t *testing.T) {
	require.LessOrEqual(t, int(unsafe.Sizeof(Flow{})), 576)
}
