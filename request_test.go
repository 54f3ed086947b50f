//go:build linux

package conntrack_test

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
)

// collidingFlows fills the table with flows that share few tuples, so that the
// original tuple of one is the reply tuple of others. They are in different
// zones, for one direction or for both. Each flow has its own mark.
func collidingFlows(t *testing.T, c *conntrack.Conn, random *rand.Rand) []conntrack.Flow {
	t.Helper()
	addrs := []netip.AddrPort{client4, server4, other4}
	var tuples []conntrack.Tuple
	for _, src := range addrs {
		for _, dst := range addrs {
			tuples = append(tuples, tuple(unix.IPPROTO_UDP, src, dst))
		}
	}
	var flows []conntrack.Flow
	for mark := range uint32(150) {
		f := conntrack.Flow{
			TupleOrig:  tuples[random.IntN(len(tuples))],
			TupleReply: tuples[random.IntN(len(tuples))],
			Timeout:    600,
			Mark:       mark + 1,
		}
		zone := uint16(1 + random.IntN(3))
		switch random.IntN(4) {
		case 0:
			f.Zone = zone
		case 1:
			f.TupleOrig.Zone = zone
		case 2:
			f.TupleReply.Zone = zone
		}
		if err := c.Create(f); err != nil {
			require.ErrorIs(t, err, unix.EEXIST)
			continue
		}
		flows = append(flows, f)
	}
	dumped, err := c.Dump(nil)
	require.NoError(t, err)
	require.Len(t, dumped, len(flows))
	return dumped
}

// marks returns the sorted marks of the flows in the table.
func marks(t *testing.T, c *conntrack.Conn) []uint32 {
	t.Helper()
	flows, err := c.Dump(nil)
	require.NoError(t, err)
	return sortedMarks(flows)
}

func sortedMarks(flows []conntrack.Flow) []uint32 {
	marks := make([]uint32, 0, len(flows))
	for _, f := range flows {
		marks = append(marks, f.Mark)
	}
	slices.Sort(marks)
	return marks
}

// TestCollidingZones asserts that operations on a flow affect only that flow,
// even if others have the same tuples.
func TestCollidingZones(t *testing.T) {
	t.Parallel()
	needKernel(t, 5, 15, "before, the kernel finds any of the flows with a tuple")
	for seed := range uint64(rounds(t, 4)) {
		random := rand.New(rand.NewPCG(seed, 0))
		c := dial(t, nstest.New(t))
		flows := collidingFlows(t, c, random)

		for _, f := range flows {
			require.Equal(t, f.Mark, get(t, c, f).Mark, "seed %d", seed)
			f.ID = 0
			require.Equal(t, f.Mark, get(t, c, f).Mark, "seed %d, without ID", seed)
		}
		i := 0
		for got, err := range c.GetBatch(flows) {
			require.NoError(t, err)
			require.Equal(t, flows[i].Mark, got.Mark, "seed %d", seed)
			i++
		}

		// The package compares prefixes itself, so it resets flows one by one.
		everything := conntrack.Filter{OrigSource: netip.MustParsePrefix("0.0.0.0/0")}
		zeroed, err := c.DumpFilter(everything, &conntrack.DumpOptions{ZeroCounters: true})
		require.NoError(t, err)
		require.Equal(t, sortedMarks(flows), sortedMarks(zeroed), "seed %d", seed)

		// Every other flow gets a new mark, in one of three ways.
		const updated = 1 << 16
		want := sortedMarks(flows)
		for round, update := range []func(f conntrack.Flow) error{
			c.Update,
			func(f conntrack.Flow) error { return c.UpdateBatch([]conntrack.Flow{f}) },
			func(f conntrack.Flow) error { f.ID = 0; return c.Update(f) },
		} {
			for i, f := range flows {
				if i%2 == 0 {
					require.NoError(t, update(conntrack.Flow{
						ID: f.ID, Zone: f.Zone, TupleOrig: f.TupleOrig, TupleReply: f.TupleReply,
						Mark: f.Mark | updated<<round,
					}))
				}
			}
			for i, f := range flows {
				if i%2 == 0 {
					f.Mark |= updated << round
				}
				require.Equal(t, f.Mark, get(t, c, f).Mark, "seed %d, round %d", seed, round)
			}
		}
		n, err := c.UpdateFunc(t.Context(), conntrack.Filter{}, func(f *conntrack.Flow) (conntrack.Flow, bool) {
			return conntrack.Flow{Mark: 0, MarkMask: 0xffff0000}, f.Mark>>16 != 0
		})
		require.NoError(t, err)
		require.Equal(t, (len(flows)+1)/2, n)
		require.Equal(t, want, marks(t, c), "seed %d", seed)
		n, err = c.UpdateFunc(t.Context(), conntrack.Filter{}, func(f *conntrack.Flow) (conntrack.Flow, bool) {
			return conntrack.Flow{Mark: updated | f.Mark}, f.Mark%3 == 0
		})
		require.NoError(t, err)
		for i := range want {
			if want[i]%3 == 0 {
				want[i] |= updated
				n--
			}
		}
		require.Zero(t, n)
		slices.Sort(want)
		require.Equal(t, want, marks(t, c), "seed %d", seed)

		// Each delete leaves all other flows.
		random.Shuffle(len(flows), func(i, j int) { flows[i], flows[j] = flows[j], flows[i] })
		for i, f := range flows {
			if i%2 == 0 {
				f.ID = 0
			}
			if f.Mark%3 == 0 {
				f.Mark |= updated
			}
			if i%4 < 2 {
				require.NoError(t, c.Delete(f))
			} else {
				require.NoError(t, c.DeleteBatch([]conntrack.Flow{f}))
			}
			at, found := slices.BinarySearch(want, f.Mark)
			require.True(t, found)
			want = slices.Delete(want, at, at+1)
			require.Equal(t, want, marks(t, c), "seed %d, after %+v", seed, f)
		}
	}
}

// hidingFlows returns a flow in the default zone, and another flow whose
// replies have the same tuple there.
func hidingFlows() (flow, other conntrack.Flow) {
	flow = flowBetween(unix.IPPROTO_UDP, client4, server4)
	flow.Mark = 1
	other = flowBetween(unix.IPPROTO_UDP, other4, client4)
	other.TupleOrig.Zone = 9
	other.TupleReply = flow.TupleOrig
	other.Mark = 2
	return flow, other
}

// TestVanishedFlowHidesNothing asserts that a key of a deleted flow does not
// find another flow with the same tuple.
func TestVanishedFlowHidesNothing(t *testing.T) {
	t.Parallel()
	for name, zone := range map[string]uint16{"default zone": 0, "zone for both directions": 5} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, nstest.New(t))
			flow, other := hidingFlows()
			flow.Zone = zone
			create(t, c, flow, other)
			var gone, left conntrack.Flow
			dumped, err := c.Dump(nil)
			require.NoError(t, err)
			for _, f := range dumped {
				if f.Mark == flow.Mark {
					gone = f
				} else {
					left = f
				}
			}
			require.NoError(t, c.Delete(gone))

			change := conntrack.Flow{ID: gone.ID, Zone: zone, TupleOrig: gone.TupleOrig, TupleReply: gone.TupleReply, Mark: 3}
			require.ErrorIs(t, c.Update(change), unix.ENOENT)
			require.ErrorIs(t, c.UpdateBatch([]conntrack.Flow{change}), unix.ENOENT)
			require.ErrorIs(t, c.Delete(gone), unix.ENOENT)
			_, err = c.Get(gone)
			require.ErrorIs(t, err, unix.ENOENT)
			for _, err := range c.GetBatch([]conntrack.Flow{gone}) {
				require.ErrorIs(t, err, unix.ENOENT)
			}
			require.Equal(t, left.Mark, dumpOne(t, c).Mark)
		})
	}
}

// TestUpdateFuncOfVanished asserts the same for a flow that disappears after it
// was selected.
func TestUpdateFuncOfVanished(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	flow, other := hidingFlows()
	flow.Zone = 5
	create(t, c, flow, other)
	updated, err := c.UpdateFunc(t.Context(), conntrack.Filter{}, func(f *conntrack.Flow) (conntrack.Flow, bool) {
		if f.Mark != flow.Mark {
			return conntrack.Flow{}, false
		}
		require.NoError(t, c.Delete(*f))
		return conntrack.Flow{Mark: 3}, true
	})
	require.NoError(t, err)
	require.Zero(t, updated)
	require.Equal(t, other.Mark, dumpOne(t, c).Mark)
}

// TestCreateOrUpdateZones asserts that an existing flow that conflicts with the
// new one is not changed instead.
func TestCreateOrUpdateZones(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	flow, other := hidingFlows()
	create(t, c, other)
	err := c.CreateOrUpdate(flow)
	require.ErrorIs(t, err, unix.EEXIST)
	require.ErrorContains(t, err, "flow exists")
	require.ErrorIs(t, c.CreateOrUpdateBatch([]conntrack.Flow{flow}), unix.EEXIST)
	require.Equal(t, other.Mark, dumpOne(t, c).Mark)
}

// TestExpectsOfZones asserts that the expectations of another flow with the
// same tuple are not returned.
func TestExpectsOfZones(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	master := newMaster("ftp", unix.IPPROTO_TCP, client4, server4)
	hiding := newMaster("ftp", unix.IPPROTO_TCP, other4, client4)
	hiding.TupleOrig.Zone = 9
	hiding.TupleReply = master.TupleOrig
	create(t, c, master)
	require.NoError(t, c.CreateExpect(newExpect(master, other4)))
	create(t, c, hiding)

	dumped, err := c.Dump(nil)
	require.NoError(t, err)
	require.Len(t, dumped, 2)
	for _, f := range dumped {
		var seen []conntrack.Expect
		for ex, err := range c.ExpectsOf(t.Context(), f) {
			require.NoError(t, err)
			require.Equal(t, master.TupleOrig, ex.TupleMaster)
			seen = append(seen, ex)
		}
		if f.TupleOrig.Zone == 0 {
			require.Len(t, seen, 1)
		} else {
			require.Empty(t, seen)
		}
	}
}

// TestTupleOf asserts that both ends of a connection find its flow, and that
// the accepting end learns the address that was dialed.
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

// TestHalfGivenTuple asserts that an incomplete tuple counts as missing: the
// other tuple finds the flow.
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

// TestMappedTuple asserts that IPv4-mapped addresses find IPv4 flows.
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
