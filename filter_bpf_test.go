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

// A recording is what one of several listeners received.
type recording struct {
	events []string
	err    error
	done   chan struct{}
}

// record runs listen. listen calls joined when it has joined the groups, and
// passes each event to keep until keep returns false.
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
				rec.events = append(rec.events, fmt.Sprintf("%v %v %v %v %v %+v",
					ev, ev.Flow.TupleOrig.Zone, ev.Flow.TupleReply.Zone, ev.Flow.TupleReply, ev.Flow.Status, ev.Flow.ProtoInfo.TCP))
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

// makeEvents makes the events of one round: flows are created, changed and
// deleted.
func makeEvents(t *testing.T, c *conntrack.Conn, r *rand.Rand, flows []conntrack.Flow) {
	t.Helper()
	_ = c.CreateBatch(flows) // some exist already
	for i := range flows {
		flows[i].Mark = pick(r, tableMarks)
		flows[i].Status.Value |= pick(r, tableStatus)
		flows[i].Timeout = 0 // it may be fixed
		flows[i].ProtoInfo = conntrack.ProtoInfo{}
		if flows[i].TupleOrig.Proto.Protocol == conntrack.ProtocolTCP && r.IntN(2) == 0 {
			flows[i].ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: uint8(pick(r, tableStates))}
		}
	}
	_ = c.UpdateBatch(flows) // some do not exist
	require.NoError(t, c.Flush())
}

// lastEvent makes an event that passes every filter: that of an expectation.
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

// randomFilters returns up to n filters that can match.
func randomFilters(r *rand.Rand, n int, flows []conntrack.Flow) []conntrack.Filter {
	var filters []conntrack.Filter
	for range r.IntN(n + 1) {
		if f := randomFilter(r, flows); f.Check() == nil {
			filters = append(filters, f)
		}
	}
	return filters
}

// selects reports, using Match, whether opts should let ev pass.
func selects(opts *conntrack.EventOptions, ev *conntrack.Event) bool {
	passes := len(opts.Filters) == 0
	for _, f := range opts.Filters {
		if ev.Flow.ProtoInfo.TCP == nil {
			f.TCPState = 0
		}
		passes = passes || f.Match(ev.Flow)
	}
	for _, f := range opts.Except {
		passes = passes && !f.Match(ev.Flow)
	}
	return passes
}

func every(*conntrack.Event) bool { return true }

// watch returns a listen function for record.
func watch(c *conntrack.Conn, groups []netfilter.NetlinkGroup, opts conntrack.EventOptions) func(func(), func(*conntrack.Event, error) bool) error {
	return func(joined func(), keep func(*conntrack.Event, error) bool) error {
		opts.Joined = joined
		for ev, err := range c.Events(context.Background(), groups, &opts) {
			if !keep(&ev, err) {
				break
			}
		}
		return nil
	}
}

// TestEventFilters asserts that filtering in the kernel, and filtering in the
// kernel and after decoding, pass the same events as Match does.
func TestEventFilters(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	groups := append([]netfilter.NetlinkGroup{netfilter.GroupCTExpNew}, netfilter.GroupsCT...)
	c := dial(t, nstest.New(t, nstest.Timestamps()))
	kernel := func(opts conntrack.EventOptions) func(func(), func(*conntrack.Event, error) bool) error {
		return func(joined func(), keep func(*conntrack.Event, error) bool) error {
			return c.KernelEvents(groups, &opts, joined, keep)
		}
	}

	passed, offered := 0, 0
	seen := make(map[uint8]int)
	for range rounds(t, 300) {
		flows := make([]conntrack.Flow, 40)
		for i := range flows {
			flows[i] = randomTableFlow(r)
			flows[i].Status.Value |= conntrack.StatusConfirmed
		}
		opts := conntrack.EventOptions{Filters: randomFilters(r, 3, flows), Except: randomFilters(r, 2, flows)}
		all := record(t, func(ev *conntrack.Event) bool {
			if selects(&opts, ev) {
				seen[ev.Flow.TupleOrig.Proto.Protocol]++
			}
			return true
		}, kernel(conntrack.EventOptions{}))
		want := record(t, func(ev *conntrack.Event) bool { return selects(&opts, ev) }, kernel(conntrack.EventOptions{}))
		gotKernel := record(t, every, kernel(opts))
		got := record(t, every, watch(c, groups, opts))

		makeEvents(t, c, r, flows)
		lastEvent(t, c)
		wanted := want.wait(t)
		require.Equal(t, wanted, gotKernel.wait(t), "Filters %v\nExcept %v", opts.Filters, opts.Except)
		require.Equal(t, wanted, got.wait(t), "Filters %v\nExcept %v", opts.Filters, opts.Except)
		offered += len(all.wait(t))
		passed += len(wanted)
		require.NoError(t, c.Flush())
	}
	t.Logf("%d of %d events passed, by protocol: %v", passed, offered, seen)
	require.NotZero(t, passed)
	require.Less(t, passed, offered)
}

// TestEventFiltersTooMany asserts that filters that do not fit into a program
// are applied after decoding.
func TestEventFiltersTooMany(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	ports := make([]conntrack.Filter, 3000)
	for i := range ports {
		ports[i].Orig.Proto.SourcePort = uint16(2000 + i)
	}
	udp := []conntrack.Filter{{Orig: conntrack.Tuple{Proto: conntrack.ProtoTuple{Protocol: 17}}}}
	groups := []netfilter.NetlinkGroup{netfilter.GroupCTNew, netfilter.GroupCTExpNew}
	listed, others := []uint16{2000, 4998, 4999}, []uint16{5000, 5001}
	for name, tt := range map[string]struct {
		opts conntrack.EventOptions
		want []uint16
	}{
		"Filters": {conntrack.EventOptions{Filters: ports}, append(listed, listed...)},
		"Except":  {conntrack.EventOptions{Filters: udp, Except: ports}, others},
	} {
		t.Run(name, func(t *testing.T) {
			got := record(t, every, watch(c, groups, tt.opts))
			src, dst := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
			for _, proto := range []uint8{17, 6} {
				for _, port := range append(listed, others...) {
					create(t, c, conntrack.NewFlow(proto, 0, src, dst, port, 53, 600, 0))
				}
			}
			lastEvent(t, c)
			events := got.wait(t)
			require.Len(t, events, len(tt.want))
			for i, port := range tt.want {
				require.Contains(t, events[i], fmt.Sprintf("10.0.0.1:%d,", port))
			}
			require.NoError(t, c.Flush())
		})
	}
}

// TestEventProgramLen asserts that a filter that does not fit leaves room for
// others, and that a field used by several filters is looked up once.
func TestEventProgramLen(t *testing.T) {
	t.Parallel()
	port := func(n int) (f conntrack.Filter) {
		f.Orig.Proto = conntrack.ProtoTuple{Protocol: 17, DestinationPort: uint16(n)}
		return f
	}
	ports := func(n int) (filters []conntrack.Filter) {
		for i := range n {
			filters = append(filters, port(1+i))
		}
		return filters
	}
	length := func(opts conntrack.EventOptions) int { return opts.ProgramLen() }
	const limit = 4096
	require.Zero(t, length(conntrack.EventOptions{}))
	require.Zero(t, length(conntrack.EventOptions{Filters: ports(3000)}), "all or none")
	one := length(conntrack.EventOptions{Except: ports(1)})
	require.NotZero(t, one)
	require.Less(t, length(conntrack.EventOptions{Except: ports(100)}), 100*one/2)
	require.Less(t, length(conntrack.EventOptions{Filters: ports(3000), Except: ports(1)}), 2*one)
	require.Less(t, length(conntrack.EventOptions{Filters: ports(500)}), limit)
	require.NotZero(t, length(conntrack.EventOptions{Filters: ports(500)}))
	most := length(conntrack.EventOptions{Except: ports(3000)})
	require.LessOrEqual(t, most, limit)
	require.Greater(t, most, limit-one, "as many as fit")
}
