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
	"github.com/ti-mo/conntrack/internal/release"
	"github.com/ti-mo/conntrack/netfilter"
)

// TestFilterMark asserts that a dump and a flush select the same flows of both
// families: those with mark & Mask == Mark.
func TestFilterMark(t *testing.T) {
	t.Parallel()
	marks := []uint32{0, 1, 2, 0x0f, 0xf0, 0xff, 0x100, 0xffffffff}
	filters := []conntrack.Filter{
		{},
		{Mark: 1, Mask: 0xffffffff},
		{Mark: 1, Mask: 1},
		{Mark: 0, Mask: 1},
		{Mark: 0, Mask: 0xffffffff},
		{Mark: 0xf0, Mask: 0xf0},
		{Mark: 0x0f, Mask: 0x0f},
		{Mark: 0x80000000, Mask: 0x80000000},
	}
	for _, filter := range filters {
		t.Run(fmt.Sprintf("%#x of %#x", filter.Mark, filter.Mask), func(t *testing.T) {
			t.Parallel()
			c := dial(t, nstest.New(t))
			want, rest := make(map[conntrack.Tuple]bool), make(map[conntrack.Tuple]bool)
			for i, mark := range marks {
				for _, f := range []conntrack.Flow{newFlow(i), newFlow6(i)} {
					f.Mark = mark
					create(t, c, f)
					if mark&filter.Mask == filter.Mark {
						want[f.TupleOrig] = true
					} else {
						rest[f.TupleOrig] = true
					}
				}
			}
			flows, err := c.DumpFilter(filter, nil)
			require.NoError(t, err)
			require.Equal(t, want, originals(flows))

			require.NoError(t, c.FlushFilter(filter))
			flows, err = c.Dump(nil)
			require.NoError(t, err)
			require.Equal(t, rest, originals(flows))
		})
	}
}

func originals(flows []conntrack.Flow) map[conntrack.Tuple]bool {
	tuples := make(map[conntrack.Tuple]bool)
	for _, f := range flows {
		tuples[f.TupleOrig] = true
	}
	return tuples
}

// TestFilterZeroCounters asserts that the counters of other flows than the
// selected ones are not reset.
func TestFilterZeroCounters(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, nstest.Accounting())
	c := dial(t, ns)
	ns.UDP(client4, server4, true)
	ns.UDP(client6, server6, true)
	marked := dumpTuple(t, c, client6.Addr().Is6())
	marked.Mark = 1
	require.NoError(t, c.Update(marked))

	flows, err := c.DumpFilter(conntrack.Filter{Mark: 1, Mask: 1}, &conntrack.DumpOptions{ZeroCounters: true})
	require.NoError(t, err)
	require.Len(t, flows, 1)
	require.Equal(t, marked.CountersOrig, flows[0].CountersOrig)
	require.Zero(t, dumpTuple(t, c, true).CountersOrig.Packets)
	require.NotZero(t, dumpTuple(t, c, false).CountersOrig.Packets)
}

// dumpTuple returns the only flow of a family.
func dumpTuple(t testing.TB, c *conntrack.Conn, ipv6 bool) conntrack.Flow {
	t.Helper()
	flows, err := c.Dump(nil)
	require.NoError(t, err)
	for _, f := range flows {
		if f.TupleOrig.IP.IsIPv6() == ipv6 {
			return f
		}
	}
	require.FailNow(t, "no such flow")
	return conntrack.Flow{}
}

// TestFlush asserts that all flows are removed, in both families and all zones.
func TestFlush(t *testing.T) {
	t.Parallel()
	for name, flush := range map[string]func(*conntrack.Conn) error{
		"Flush":       (*conntrack.Conn).Flush,
		"FlushFilter": func(c *conntrack.Conn) error { return c.FlushFilter(conntrack.Filter{}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			c := dial(t, ns)
			for i := range 100 {
				f := newFlow(i)
				f.Zone = uint16(i % 3)
				f.Mark = uint32(i)
				create(t, c, f, newFlow6(i))
			}
			other := dial(t, nstest.New(t))
			create(t, other, newFlow(1))

			require.NoError(t, flush(c))
			require.Zero(t, ns.Count())
			flows, err := c.Dump(nil)
			require.NoError(t, err)
			require.Empty(t, flows)
			require.NoError(t, flush(c), "of an empty table")
			dumpOne(t, other)
		})
	}
}

// Zone 0 is a zone, and not none.
func TestFlushFilterZone(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	for zone := range uint16(3) {
		f := newFlow(int(zone))
		f.Zone = zone
		create(t, c, f, newFlow6(int(zone)))
	}
	zone := uint16(0)
	require.NoError(t, c.FlushFilter(conntrack.Filter{Zone: &zone}))
	flows, err := c.Dump(nil)
	require.NoError(t, err)
	require.Len(t, flows, 2)
	for _, f := range flows {
		require.NotZero(t, f.Zone)
	}
}

// TestFilterRefused asserts that an invalid filter is an error. It must not
// select everything.
func TestFilterRefused(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	require.NoError(t, c.CreateBatch(manyFlows(20)))
	addr4, addr6 := client4.Addr(), client6.Addr()
	one := uint16(1)
	for name, change := range map[string]func(f *conntrack.Filter){
		"prefix too long":        func(f *conntrack.Filter) { f.OrigSource = netip.PrefixFrom(addr4, 64) },
		"mapped prefix negative": func(f *conntrack.Filter) { f.Either = netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.1"), 129) },
		"prefix negative":        func(f *conntrack.Filter) { f.ReplyDestination = netip.PrefixFrom(addr6, -1) },
		"ICMPv4 and UDP":         func(f *conntrack.Filter) { f.Orig.Proto = conntrack.ProtoTuple{Protocol: 17, ICMPv4: true} },
		"ICMPv4 and ICMPv6":      func(f *conntrack.Filter) { f.Orig.Proto = conntrack.ProtoTuple{ICMPv4: true, ICMPv6: true} },
		"mark without mask":      func(f *conntrack.Filter) { f.Mark = 5 },
		"mark outside of mask":   func(f *conntrack.Filter) { f.Mark = 0xff; f.Mask = 0x0f },
		"unknown family":         func(f *conntrack.Filter) { f.Family = netfilter.ProtoARP },
		"two families":           func(f *conntrack.Filter) { f.Family = netfilter.ProtoIPv6; f.Orig.IP.SourceAddress = addr4 },
		"original v4, reply v6":  func(f *conntrack.Filter) { f.Orig.IP.SourceAddress = addr4; f.Reply.IP.SourceAddress = addr6 },
		"address outside of prefix": func(f *conntrack.Filter) {
			f.Orig.IP.SourceAddress = addr4
			f.OrigSource = netip.MustParsePrefix("10.0.0.0/8")
		},
		"mapped address outside of prefix": func(f *conntrack.Filter) {
			f.Orig.IP.SourceAddress = netip.AddrFrom16(addr4.As16())
			f.OrigSource = netip.MustParsePrefix("10.0.0.0/8")
		},
		"mapped address and IPv6": func(f *conntrack.Filter) {
			f.Orig.IP.SourceAddress = netip.AddrFrom16(addr4.As16())
			f.Either = netip.MustParsePrefix("fd00::/8")
		},
		"TCP state of UDP":        func(f *conntrack.Filter) { f.TCPState = conntrack.TCPStateClose; f.Reply.Proto.Protocol = 17 },
		"TCP state of ICMP":       func(f *conntrack.Filter) { f.TCPState = conntrack.TCPStateClose; f.Orig.Proto.ICMPID = 5 },
		"TCP state of protocol 0": func(f *conntrack.Filter) { f.TCPState = conntrack.TCPStateClose; f.OrigZero.Protocol = true },
		"two protocols":           func(f *conntrack.Filter) { f.Orig.Proto.Protocol = 6; f.Reply.Proto.Protocol = 17 },
		"ICMP with port":          func(f *conntrack.Filter) { f.Orig.Proto = conntrack.ProtoTuple{Protocol: 1, SourcePort: 5} },
		"UDP with ICMP id":        func(f *conntrack.Filter) { f.Orig.Proto = conntrack.ProtoTuple{Protocol: 17, ICMPID: 5} },
		"status outside of mask": func(f *conntrack.Filter) {
			f.Status = conntrack.StatusAssured
			f.StatusMask = conntrack.StatusSeenReply
		},
		"two zones":                 func(f *conntrack.Filter) { f.Zone = &one; f.Orig.Zone = 2 },
		"a zone for each direction": func(f *conntrack.Filter) { f.Orig.Zone = 1; f.Reply.Zone = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			var f conntrack.Filter
			change(&f)
			_, err := c.DumpFilter(f, nil)
			require.ErrorIs(t, err, conntrack.ErrFilterSelectsNothing)
			require.ErrorIs(t, c.FlushFilter(f), conntrack.ErrFilterSelectsNothing)
			_, err = c.DeleteFunc(t.Context(), f, func(*conntrack.Flow) bool { return true })
			require.ErrorIs(t, err, conntrack.ErrFilterSelectsNothing)
			for _, err := range c.Flows(t.Context(), f, nil) {
				require.ErrorIs(t, err, conntrack.ErrFilterSelectsNothing)
			}
			_, _, err = c.KernelFilters(f)
			require.ErrorIs(t, err, conntrack.ErrFilterSelectsNothing)
			for name, opts := range map[string]conntrack.EventOptions{
				"Filters": {Filters: []conntrack.Filter{{}, f}},
				"Except":  {Except: []conntrack.Filter{{Mask: 1}, f}},
			} {
				opts.Joined = func() { t.Error("joined") }
				for _, err := range c.Events(t.Context(), netfilter.GroupsCT, &opts) {
					require.ErrorIs(t, err, conntrack.ErrFilterSelectsNothing, name)
					require.ErrorContains(t, err, f.String(), name)
				}
			}
		})
	}
	var icmp conntrack.Filter
	icmp.Orig.Proto.ICMPv4 = true
	require.NoError(t, c.FlushFilter(icmp), "stands for protocol 1")
	left, err := c.Dump(nil)
	require.NoError(t, err)
	require.Len(t, left, 20)
}

// TestKernelFilters asserts that KernelFilters matches what is known about the
// running kernel, and that probing changes nothing.
func TestKernelFilters(t *testing.T) {
	t.Parallel()
	running, err := release.Running()
	require.NoError(t, err)
	since := func(major, minor int) bool { return !running.Less(release.Release{Major: major, Minor: minor}) }
	c := dial(t, nstest.New(t))
	create(t, c, newFlow(1), newFlow6(1))
	zone := uint16(0)
	source := conntrack.Tuple{IP: conntrack.IPTuple{SourceAddress: client4.Addr()}}
	for name, tt := range map[string]struct {
		filter      conntrack.Filter
		dump, flush bool
	}{
		"all":           {conntrack.Filter{}, true, true},
		"mark":          {conntrack.Filter{Mask: 1}, true, since(4, 1)},
		"family":        {conntrack.Filter{Family: netfilter.ProtoIPv6}, true, since(5, 3)},
		"zone":          {conntrack.Filter{Zone: &zone}, since(6, 8), since(6, 8)},
		"address":       {conntrack.Filter{Orig: source}, since(5, 10), since(6, 12)},
		"prefix":        {conntrack.Filter{OrigSource: netip.MustParsePrefix("10.0.0.0/8")}, false, false},
		"either":        {conntrack.Filter{Either: netip.PrefixFrom(client4.Addr(), 32)}, false, false},
		"TCP state":     {conntrack.Filter{TCPState: conntrack.TCPStateClose}, false, false},
		"zone of reply": {conntrack.Filter{Reply: conntrack.Tuple{Zone: 1}}, false, false},
	} {
		dump, flush, err := c.KernelFilters(tt.filter)
		require.NoError(t, err, name)
		require.Equal(t, tt.dump, dump, "%s: in a dump", name)
		require.Equal(t, tt.flush, flush, "%s: in a flush", name)
	}
	for name, f := range map[string]conntrack.Filter{ // no release tells for certain
		"status":       {Status: conntrack.StatusAssured},
		"IPv6 address": {Orig: conntrack.Tuple{IP: conntrack.IPTuple{SourceAddress: client6.Addr()}}},
	} {
		dump, flush, err := c.KernelFilters(f)
		require.NoError(t, err, name)
		t.Logf("%s: in a dump %v, in a flush %v", name, dump, flush)
	}
	flows, err := c.Dump(nil)
	require.NoError(t, err)
	require.Len(t, flows, 2)
}

// TestFilterEither asserts that one DeleteFunc finds exactly the flows that
// have a host at any end, before or after translation.
func TestFilterEither(t *testing.T) {
	t.Parallel()
	peer4, peer6 := netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("fd09::1")
	ends := map[string]func(f *conntrack.Flow) *netip.Addr{
		"original source":      func(f *conntrack.Flow) *netip.Addr { return &f.TupleOrig.IP.SourceAddress },
		"original destination": func(f *conntrack.Flow) *netip.Addr { return &f.TupleOrig.IP.DestinationAddress },
		"reply source":         func(f *conntrack.Flow) *netip.Addr { return &f.TupleReply.IP.SourceAddress },
		"reply destination":    func(f *conntrack.Flow) *netip.Addr { return &f.TupleReply.IP.DestinationAddress },
	}
	for name, tt := range map[string]struct {
		peer     netip.Prefix
		new      func(n int) conntrack.Flow
		in       netip.Addr
		neighbor netip.Addr
	}{
		"IPv4 address": {netip.PrefixFrom(peer4, 32), newFlow, peer4, peer4.Next()},
		"IPv4 network": {netip.MustParsePrefix("10.9.0.0/20"), newFlow, netip.MustParseAddr("10.9.15.255"), netip.MustParseAddr("10.9.16.0")},
		"IPv4 mapped":  {netip.MustParsePrefix("::ffff:10.9.0.0/116"), newFlow, netip.MustParseAddr("10.9.15.255"), netip.MustParseAddr("10.9.16.0")},
		"IPv6 address": {netip.PrefixFrom(peer6, 128), newFlow6, peer6, peer6.Next()},
		"IPv6 network": {netip.MustParsePrefix("fd09::/65"), newFlow6, netip.MustParseAddr("fd09::7fff:0:0:1"), netip.MustParseAddr("fd09::8000:0:0:1")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, nstest.New(t))
			n, others := 0, map[conntrack.Tuple]bool{}
			for _, end := range ends {
				of, near := tt.new(n), tt.new(n+1)
				*end(&of), *end(&near) = tt.in, tt.neighbor
				create(t, c, of, near)
				others[near.TupleOrig] = true
				n += 2
			}
			far := newFlow6(n)
			if tt.in.Is6() {
				far = newFlow(n)
			}
			create(t, c, far)
			others[far.TupleOrig] = true

			deleted, err := c.DeleteFunc(t.Context(), conntrack.Filter{Either: tt.peer}, nil)
			require.NoError(t, err)
			require.Equal(t, len(ends), deleted)
			left, err := c.Dump(nil)
			require.NoError(t, err)
			require.Equal(t, others, originals(left))
		})
	}
}

// TestFilterTCPState asserts that a dump and a flush by TCP state select only
// TCP connections in that state.
func TestFilterTCPState(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	create(t, c, newFlow(100))
	for i, state := range []uint8{conntrack.TCPStateNone, conntrack.TCPStateEstablished, conntrack.TCPStateClose} {
		f := flowBetween(conntrack.ProtocolTCP, netip.AddrPortFrom(client4.Addr(), uint16(1+i)), server4)
		f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: state}
		create(t, c, f)
	}
	established := conntrack.Filter{TCPState: conntrack.TCPStateEstablished}
	flows, err := c.DumpFilter(established, nil)
	require.NoError(t, err)
	require.Len(t, flows, 1)
	require.EqualValues(t, conntrack.TCPStateEstablished, flows[0].ProtoInfo.TCP.State)

	require.NoError(t, c.FlushFilter(established))
	flows, err = c.Dump(nil)
	require.NoError(t, err)
	require.Len(t, flows, 3)
	for _, f := range flows {
		require.False(t, established.Match(&f), "%v", f.TupleOrig)
	}
}

// TestFilterMapped asserts that an IPv4-mapped address or prefix selects what
// the IPv4 one does, both in the kernel and here, and that a shorter mapped
// prefix counts as IPv6.
func TestFilterMapped(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	flow := newFlow(1)
	create(t, c, flow, newFlow(2), newFlow6(1))
	mapped := netip.AddrFrom16(flow.TupleOrig.IP.SourceAddress.As16())
	for name, tt := range map[string]struct {
		filter conntrack.Filter
		want   int
	}{
		"address":         {conntrack.Filter{Orig: conntrack.Tuple{IP: conntrack.IPTuple{SourceAddress: mapped}}}, 1},
		"address, family": {conntrack.Filter{Family: netfilter.ProtoIPv4, Reply: conntrack.Tuple{IP: conntrack.IPTuple{DestinationAddress: mapped}}}, 1},
		"/128":            {conntrack.Filter{OrigSource: netip.PrefixFrom(mapped, 128)}, 1},
		"/112":            {conntrack.Filter{OrigSource: netip.PrefixFrom(mapped, 112)}, 2},
		"/96":             {conntrack.Filter{OrigSource: netip.PrefixFrom(mapped, 96)}, 2},
		"/95":             {conntrack.Filter{OrigSource: netip.PrefixFrom(mapped, 95)}, 0},
		"/0":              {conntrack.Filter{OrigSource: netip.PrefixFrom(mapped, 0)}, 1},
		"address in /112": {conntrack.Filter{Orig: conntrack.Tuple{IP: conntrack.IPTuple{SourceAddress: mapped}}, OrigSource: netip.PrefixFrom(mapped, 112)}, 1},
	} {
		flows, err := c.DumpFilter(tt.filter, nil)
		require.NoError(t, err, name)
		require.Len(t, flows, tt.want, name)
	}
}

func TestFilterString(t *testing.T) {
	t.Parallel()
	zone := uint16(0)
	for want, f := range map[string]conntrack.Filter{
		"all":                          {},
		"mark=0x5/0xff":                {Mark: 5, Mask: 0xff},
		"mark=0x0/0x1":                 {Mask: 1},
		"family=ipv4":                  {Family: netfilter.ProtoIPv4},
		"family=ipv6":                  {Family: netfilter.ProtoIPv6},
		"family=3":                     {Family: netfilter.ProtoARP},
		"status=ASSURED/ASSURED":       {Status: conntrack.StatusAssured},
		"status=NONE/SEEN_REPLY":       {StatusMask: conntrack.StatusSeenReply},
		"zone=0 tcp-state=ESTABLISHED": {Zone: &zone, TCPState: conntrack.TCPStateEstablished},
		"orig-src=10.0.0.1/32 either=::/0": {
			Orig:   conntrack.Tuple{IP: conntrack.IPTuple{SourceAddress: netip.MustParseAddr("::ffff:10.0.0.1")}},
			Either: netip.MustParsePrefix("::/0"),
		},
		"orig-proto=udp orig-dst=10.0.0.0/8 orig-sport=0 orig-dport=53": {
			Orig:            conntrack.Tuple{Proto: conntrack.ProtoTuple{Protocol: 17, DestinationPort: 53}},
			OrigZero:        conntrack.TupleFields{SourcePort: true},
			OrigDestination: netip.MustParsePrefix("10.0.0.0/8"),
		},
		"reply-proto=icmp reply-icmp-type=0 reply-icmp-code=1 reply-icmp-id=7 reply-zone=2": {
			Reply:     conntrack.Tuple{Proto: conntrack.ProtoTuple{ICMPv4: true, ICMPCode: 1, ICMPID: 7}, Zone: 2},
			ReplyZero: conntrack.TupleFields{ICMPType: true},
		},
	} {
		require.Equal(t, want, f.String())
		require.Equal(t, want, fmt.Sprint(&f), "as a pointer")
	}
}

// rounds returns how often to repeat a property test: CONNTRACK_TEST_ROUNDS
// percent of the default, if it is set, for emulated machines.
func rounds(t *testing.T, byDefault int) int {
	t.Helper()
	s := os.Getenv("CONNTRACK_TEST_ROUNDS")
	if s == "" {
		return byDefault
	}
	percent, err := strconv.Atoi(s)
	require.NoError(t, err)
	return max(1, byDefault*percent/100)
}

// Each field has few values, including zero, so that filters select something.
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

// opposite maps an ICMP type to that of its answer.
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
	if r.IntN(4) == 0 { // as NAT does
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

// randomFilter returns a filter that matches a flow of the table, except in
// some of its fields.
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

// randomlyMapped returns a or its IPv4-mapped IPv6 form.
func randomlyMapped(r *rand.Rand, a netip.Addr) netip.Addr {
	if r.IntN(2) == 0 {
		return a
	}
	return netip.AddrFrom16(a.As16())
}

// randomPrefixOf returns a prefix that contains a, but usually none.
func randomPrefixOf(r *rand.Rand, a netip.Addr) netip.Prefix {
	if r.IntN(5) != 0 {
		return netip.Prefix{}
	}
	return randomPrefix(r, a)
}

// randomPrefix returns a prefix that contains a.
func randomPrefix(r *rand.Rand, a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if r.IntN(2) == 0 {
		bits = r.IntN(bits + 1)
	}
	mapped := randomlyMapped(r, a)
	return netip.PrefixFrom(mapped, bits+mapped.BitLen()-a.BitLen())
}

// requireSame asserts that two sets of flows are equal, and shows the first
// difference.
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

// TestFilterIsMatch asserts that DumpFilter returns, and FlushFilter removes,
// exactly the flows that match.
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
		_ = c.CreateBatch(fresh) // some exist already
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
