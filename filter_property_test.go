//go:build linux

package conntrack_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/netfilter"
)

// rounds returns how often a property test is to be repeated: the environment
// variable CONNTRACK_TEST_ROUNDS, for emulated machines, or the default.
func rounds(t *testing.T, byDefault int) int {
	t.Helper()
	s := os.Getenv("CONNTRACK_TEST_ROUNDS")
	if s == "" {
		return byDefault
	}
	n, err := strconv.Atoi(s)
	require.NoError(t, err)
	return n
}

// Few values for each field, zero among them, so that filters select something.
var (
	tableAddrs = map[bool][]netip.Addr{
		false: {netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.1.1")},
		true:  {netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), netip.MustParseAddr("fd00:0:0:1::1")},
	}
	tableProtocols = []uint8{1, 6, 6, 17, 17, 58, 132, 47, 89, 0}
	tablePorts     = []uint16{0, 53, 80}
	tableICMP      = map[uint8][]uint8{1: {0, 8, 13, 14}, 58: {128, 129}}
	tableIDs       = []uint16{0, 1, 2}
	tableMarks     = []uint32{0, 1, 2, 3, 0x100}
	tableZones     = []uint16{0, 1, 2}
	tableStates    = []conntrack.TCPState{conntrack.TCPStateNone, conntrack.TCPStateSynSent, conntrack.TCPStateEstablished}
	tableStatus    = []conntrack.StatusFlag{
		0, conntrack.StatusSeenReply, conntrack.StatusAssured | conntrack.StatusSeenReply, conntrack.StatusFixedTimeout,
	}
)

func pick[T any](r *rand.Rand, values []T) T { return values[r.IntN(len(values))] }

// opposite are the ICMP types of an answer.
var opposite = map[uint8]uint8{0: 8, 8: 0, 13: 14, 14: 13, 128: 129, 129: 128}

func randomTableFlow(r *rand.Rand) conntrack.Flow {
	addrs := tableAddrs[r.IntN(2) == 0]
	proto := pick(r, tableProtocols)
	f := conntrack.NewFlow(proto, pick(r, tableStatus), pick(r, addrs), pick(r, addrs),
		pick(r, tablePorts), pick(r, tablePorts), 600, pick(r, tableMarks))
	if types := tableICMP[proto]; types != nil {
		typ, id := pick(r, types), pick(r, tableIDs)
		f.TupleOrig.Proto = conntrack.ProtoTuple{Protocol: proto, ICMPType: typ, ICMPID: id}
		f.TupleReply.Proto = conntrack.ProtoTuple{Protocol: proto, ICMPType: opposite[typ], ICMPID: id}
	}
	if r.IntN(4) == 0 { // as by NAT
		f.TupleReply.IP.SourceAddress = pick(r, addrs)
	}
	if proto == conntrack.ProtocolTCP && r.IntN(3) != 0 {
		f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: uint8(pick(r, tableStates))}
	}
	switch r.IntN(5) {
	case 0:
		f.Zone = pick(r, tableZones)
	case 1:
		f.TupleOrig.Zone = pick(r, tableZones)
	case 2:
		f.TupleReply.Zone = pick(r, tableZones)
	}
	return f
}

// randomFilter returns a filter that selects by what a flow of the table has, but
// for some of its fields.
func randomFilter(r *rand.Rand, flows []conntrack.Flow) conntrack.Filter {
	var f conntrack.Filter
	like := pick(r, flows)
	often := func() bool { return r.IntN(4) == 0 }
	if often() {
		f.Mask = pick(r, tableMarks)
		f.Mark = like.Mark & f.Mask
	}
	if often() {
		f.Family = netfilter.ProtoIPv4
		if like.TupleOrig.IP.IsIPv6() {
			f.Family = netfilter.ProtoIPv6
		}
	}
	if often() {
		f.StatusMask = pick(r, tableStatus) | conntrack.StatusConfirmed
		f.Status = like.Status.Value & f.StatusMask
	} else if often() {
		f.Status = pick(r, tableStatus)
	}
	if often() {
		zone := pick(r, tableZones)
		f.Zone = &zone
	}
	if r.IntN(8) == 0 {
		f.TCPState = pick(r, tableStates)
	}
	if r.IntN(8) == 0 {
		f.Either = randomPrefix(r, pick(r, tableAddrs[like.TupleOrig.IP.IsIPv6()]))
	}
	f.Orig, f.OrigZero = randomTuple(r, like.TupleOrig)
	f.OrigSource = randomPrefixOf(r, like.TupleOrig.IP.SourceAddress)
	f.OrigDestination = randomPrefixOf(r, like.TupleOrig.IP.DestinationAddress)
	if r.IntN(2) == 0 {
		f.Reply, f.ReplyZero = randomTuple(r, like.TupleReply)
		f.ReplySource = randomPrefixOf(r, like.TupleReply.IP.SourceAddress)
		f.ReplyDestination = randomPrefixOf(r, like.TupleReply.IP.DestinationAddress)
	}
	return f
}

func randomTuple(r *rand.Rand, like conntrack.Tuple) (t conntrack.Tuple, zero conntrack.TupleFields) {
	maybe := func(set func()) {
		if r.IntN(5) == 0 {
			set()
		}
	}
	maybe(func() { t.IP.SourceAddress = randomlyMapped(r, like.IP.SourceAddress) })
	maybe(func() { t.IP.DestinationAddress = randomlyMapped(r, like.IP.DestinationAddress) })
	maybe(func() { t.Zone, zero.Zone = like.Zone, true })
	if r.IntN(2) == 0 {
		t.Proto.Protocol, zero.Protocol = like.Proto.Protocol, true
	}
	if like.Proto.Protocol == 1 || like.Proto.Protocol == 58 {
		maybe(func() { t.Proto.ICMPType, zero.ICMPType = like.Proto.ICMPType, true })
		maybe(func() { t.Proto.ICMPCode, zero.ICMPCode = like.Proto.ICMPCode, true })
		maybe(func() { t.Proto.ICMPID, zero.ICMPID = like.Proto.ICMPID, true })
		return t, zero
	}
	maybe(func() { t.Proto.SourcePort, zero.SourcePort = like.Proto.SourcePort, true })
	maybe(func() { t.Proto.DestinationPort, zero.DestinationPort = like.Proto.DestinationPort, true })
	return t, zero
}

// randomlyMapped returns a, or the IPv4-mapped IPv6 address for it.
func randomlyMapped(r *rand.Rand, a netip.Addr) netip.Addr {
	if r.IntN(2) == 0 {
		return a
	}
	return netip.AddrFrom16(a.As16())
}

// randomPrefixOf returns no prefix most of the time.
func randomPrefixOf(r *rand.Rand, a netip.Addr) netip.Prefix {
	if r.IntN(5) != 0 {
		return netip.Prefix{}
	}
	return randomPrefix(r, a)
}

// randomPrefix returns a prefix that a is in.
func randomPrefix(r *rand.Rand, a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if r.IntN(2) == 0 {
		bits = r.IntN(bits + 1)
	}
	mapped := randomlyMapped(r, a)
	return netip.PrefixFrom(mapped, bits+mapped.BitLen()-a.BitLen())
}

// requireSame compares two sets of flows and shows the first that differs.
func requireSame(t *testing.T, want, got []conntrack.Flow, what string, f conntrack.Filter) {
	t.Helper()
	count := map[string]int{}
	line := func(f conntrack.Flow) string {
		return fmt.Sprintf("%v %v %v zones %v %v %v mark %#x %v", f.ID, f.TupleOrig, f.TupleReply,
			f.Zone, f.TupleOrig.Zone, f.TupleReply.Zone, f.Mark, f.Status)
	}
	for _, flow := range want {
		count[line(flow)]++
	}
	for _, flow := range got {
		count[line(flow)]--
	}
	for l, n := range count {
		if n != 0 {
			t.Fatalf("%s: of %d wanted, %d gotten, %+d of %s\nwith %v", what, len(want), len(got), -n, l, f)
		}
	}
}

// What DumpFilter returns, and what FlushFilter leaves, is what Match says.
func TestFilterIsMatch(t *testing.T) {
	t.Parallel()
	const parts = 4
	for part := range parts {
		t.Run(strconv.Itoa(part), func(t *testing.T) {
			t.Parallel()
			testFilterIsMatch(t, rand.Uint64(), (rounds(t, 1000)+parts-1)/parts)
		})
	}
}

func testFilterIsMatch(t *testing.T, seed uint64, rounds int) {
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	c := dial(t, nstest.New(t))
	selected, spared := 0, 0
	for range rounds {
		fresh := make([]conntrack.Flow, 60)
		for i := range fresh {
			fresh[i] = randomTableFlow(r)
		}
		_ = c.CreateBatch(fresh) // some are there already
		all, err := c.Dump(nil)
		require.NoError(t, err)
		require.NotEmpty(t, all)

		f := randomFilter(r, all)
		var want, rest []conntrack.Flow
		for _, flow := range all {
			if f.Match(&flow) {
				want = append(want, flow)
			} else {
				rest = append(rest, flow)
			}
		}
		got, err := c.DumpFilter(f, nil)
		if errors.Is(err, conntrack.ErrFilterSelectsNothing) {
			require.Empty(t, want, "%v", f)
			continue
		}
		require.NoError(t, err, "%v", f)
		requireSame(t, want, got, "dump", f)

		require.NoError(t, c.FlushFilter(f), "%v", f)
		left, err := c.Dump(nil)
		require.NoError(t, err)
		requireSame(t, rest, left, "left by a flush", f)
		selected += len(want)
		spared += len(rest)
	}
	require.NotZero(t, selected)
	require.NotZero(t, spared)
}
