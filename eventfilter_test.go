//go:build linux

package conntrack_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/netfilter"
)

// Few values for each field, so that filters and events meet.
var (
	filterProtocols = []uint8{6, 17, 132}
	filterPorts     = []uint16{0, 53, 80, 443}
	filterMarks     = []uint32{0, 1, 2, 0x10, 0xffffffff}
	filterZones     = []uint16{0, 1, 2}
	filterStates    = []uint8{1, 3, 5}
	filterAddrs     = map[bool][]netip.Addr{
		false: {
			netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"),
			netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("192.168.0.255"),
		},
		true: {
			netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"),
			netip.MustParseAddr("fd00:1::1"), netip.MustParseAddr("2001:db8:0:1:8000::1"),
		},
	}
)

func pick[T any](r *rand.Rand, values []T) T { return values[r.IntN(len(values))] }

func randomFlow(r *rand.Rand) conntrack.Flow {
	addrs := filterAddrs[r.IntN(2) == 0]
	f := conntrack.NewFlow(pick(r, filterProtocols), 0, pick(r, addrs), pick(r, addrs),
		pick(r, filterPorts), pick(r, filterPorts), 600, pick(r, filterMarks))
	f.TupleReply.IP.SourceAddress = pick(r, addrs)
	f.TupleReply.Proto.DestinationPort = pick(r, filterPorts)
	switch r.IntN(3) {
	case 0:
		f.Zone = pick(r, filterZones)
	case 1:
		f.TupleOrig.Zone = pick(r, filterZones)
	}
	if f.TupleOrig.Proto.Protocol == 6 && r.IntN(2) == 0 {
		f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: pick(r, filterStates)}
	}
	return f
}

// randomList returns no list most of the time.
func randomList[T comparable](r *rand.Rand, value func() T) conntrack.List[T] {
	var values []T
	if r.IntN(3) == 0 {
		for range 1 + r.IntN(4) {
			values = append(values, value())
		}
	}
	if r.IntN(2) == 0 {
		return conntrack.Exclude(values...)
	}
	return conntrack.Include(values...)
}

func randomPrefix(r *rand.Rand) netip.Prefix {
	switch r.IntN(12) {
	case 0:
		return netip.Prefix{}
	case 1:
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	case 2:
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	a := pick(r, filterAddrs[r.IntN(2) == 0])
	return netip.PrefixFrom(a, r.IntN(a.BitLen()+1))
}

func randomTupleFilter(r *rand.Rand) conntrack.TupleFilter {
	prefix := func() netip.Prefix { return randomPrefix(r) }
	port := func() uint16 { return pick(r, filterPorts) }
	return conntrack.TupleFilter{
		Source: randomList(r, prefix), Destination: randomList(r, prefix),
		SourcePort: randomList(r, port), DestinationPort: randomList(r, port),
	}
}

func randomEventFilter(r *rand.Rand) conntrack.EventFilter {
	return conntrack.EventFilter{
		Protocol: randomList(r, func() uint8 { return pick(r, filterProtocols) }),
		Orig:     randomTupleFilter(r),
		Reply:    randomTupleFilter(r),
		Mark: randomList(r, func() conntrack.MarkMask {
			return conntrack.MarkMask{Mark: pick(r, filterMarks), Mask: pick(r, filterMarks)}
		}),
		Zone:     randomList(r, func() uint16 { return pick(r, filterZones) }),
		TCPState: randomList(r, func() uint8 { return pick(r, filterStates) }),
	}
}

// A recording is what one of several listeners saw.
type recording struct {
	events []string
	err    error
	done   chan struct{}
}

// record runs listen, which calls joined when it has joined the groups, and keep
// with each event until keep returns false.
func record(t *testing.T, match func(*conntrack.Event) bool,
	listen func(joined func(), keep func(*conntrack.Event, error) bool) error,
) *recording {
	t.Helper()
	rec := &recording{done: make(chan struct{})}
	joined := make(chan struct{})
	go func() {
		defer close(rec.done)
		err := listen(func() { close(joined) }, func(ev *conntrack.Event, err error) bool {
			switch {
			case err != nil:
				rec.err = err
			case ev.Flow == nil:
				return false // the expectation that ends a round
			case match(ev):
				rec.events = append(rec.events, fmt.Sprintf("%v %v %v %+v",
					ev, ev.Flow.TupleOrig.Zone, ev.Flow.TupleReply, ev.Flow.ProtoInfo.TCP))
			}
			return err == nil
		})
		if err != nil {
			rec.err = err
		}
	}()
	select {
	case <-joined:
	case <-rec.done:
		t.Fatal(rec.err)
	}
	return rec
}

func (rec *recording) wait(t *testing.T) []string {
	t.Helper()
	select {
	case <-rec.done:
	case <-time.After(10 * time.Second):
		t.Fatal("the last event did not come")
	}
	require.NoError(t, rec.err)
	return rec.events
}

// The events of one round: flows come, change and go.
func makeEvents(t *testing.T, c *conntrack.Conn, r *rand.Rand) {
	t.Helper()
	flows := make([]conntrack.Flow, 40)
	for i := range flows {
		flows[i] = randomFlow(r)
	}
	_ = c.CreateBatch(flows) // some are there already
	for i := range flows {
		flows[i].Mark = pick(r, filterMarks)
		flows[i].ProtoInfo = conntrack.ProtoInfo{}
	}
	_ = c.UpdateBatch(flows) // some are not there
	require.NoError(t, c.Flush())
}

// lastEvent makes an event that passes each filter: that of an expectation.
func lastEvent(t *testing.T, c *conntrack.Conn) {
	t.Helper()
	master := conntrack.NewFlow(6, conntrack.StatusAssured|conntrack.StatusSeenReply,
		netip.MustParseAddr("172.16.0.1"), netip.MustParseAddr("172.16.0.2"), 1024, 21, 600, 0)
	master.Helper.Name = "ftp"
	require.NoError(t, c.Create(master))
	all := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	tuple := conntrack.NewFlow(6, 0, netip.MustParseAddr("172.16.0.2"), netip.MustParseAddr("172.16.0.1"), 20, 1025, 0, 0).TupleOrig
	require.NoError(t, c.CreateExpect(conntrack.Expect{
		Timeout: 600, TupleMaster: master.TupleOrig, Tuple: tuple,
		Mask: conntrack.NewFlow(6, 0, all, all, 0, 65535, 0, 0).TupleOrig,
	}))
}

// The kernel's program, and the program together with what is done after
// decoding, let the same events pass as Match on the unfiltered events.
func TestEventFilter(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	groups := append([]netfilter.NetlinkGroup{netfilter.GroupCTExpNew}, netfilter.GroupsCT...)
	every := func(*conntrack.Event) bool { return true }
	c := dial(t, nstest.New(t, nstest.Timestamps()))

	passed, offered := 0, 0
	for range rounds(t, 150) {
		f := randomEventFilter(r)
		kernel := func(f conntrack.EventFilter) func(func(), func(*conntrack.Event, error) bool) error {
			return func(joined func(), keep func(*conntrack.Event, error) bool) error {
				return c.KernelEvents(groups, f, joined, keep)
			}
		}
		all := record(t, every, kernel(conntrack.EventFilter{}))
		want := record(t, f.Match, kernel(conntrack.EventFilter{}))
		gotKernel := record(t, every, kernel(f))
		got := record(t, every, func(joined func(), keep func(*conntrack.Event, error) bool) error {
			opts := &conntrack.EventOptions{Filter: f, Joined: joined}
			for ev, err := range c.Events(context.Background(), groups, opts) {
				if !keep(&ev, err) {
					break
				}
			}
			return nil
		})

		makeEvents(t, c, r)
		lastEvent(t, c)
		wanted := want.wait(t)
		require.Equal(t, wanted, gotKernel.wait(t), "%+v", f)
		require.Equal(t, wanted, got.wait(t), "%+v", f)
		offered += len(all.wait(t))
		passed += len(wanted)
		require.NoError(t, c.Flush())
	}
	require.NotZero(t, passed)
	require.Less(t, passed, offered)
}

// A list that no program can hold is decided after decoding.
func TestEventFilterLongList(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	ports := make([]uint16, 3000)
	for i := range ports {
		ports[i] = uint16(i)
	}
	f := conntrack.EventFilter{
		Orig:     conntrack.TupleFilter{SourcePort: conntrack.Exclude(ports...)},
		Protocol: conntrack.Include[uint8](17),
	}
	require.Less(t, f.ProgramLen(), 100)

	got := record(t, func(*conntrack.Event) bool { return true },
		func(joined func(), keep func(*conntrack.Event, error) bool) error {
			opts := &conntrack.EventOptions{Filter: f, Joined: joined}
			for ev, err := range c.Events(t.Context(), []netfilter.NetlinkGroup{netfilter.GroupCTNew, netfilter.GroupCTExpNew}, opts) {
				if !keep(&ev, err) {
					break
				}
			}
			return nil
		})
	src, dst := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	for _, port := range []uint16{2998, 2999, 3000, 3001} {
		require.NoError(t, c.Create(conntrack.NewFlow(17, 0, src, dst, port, 53, 600, 0)))
		require.NoError(t, c.Create(conntrack.NewFlow(6, 0, src, dst, port, 53, 600, 0)))
	}
	lastEvent(t, c)
	events := got.wait(t)
	require.Len(t, events, 2)
	require.Contains(t, events[0], "10.0.0.1:3000")
	require.Contains(t, events[1], "10.0.0.1:3001")
}
