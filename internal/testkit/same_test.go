//go:build linux

package testkit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/conntracktest"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/internal/release"
	"github.com/ti-mo/conntrack/netfilter"
)

// A side is the Kernel, or the running kernel in a namespace, with one who listens.
type side struct {
	name   string
	c      *conntrack.Conn
	fence  chan func()
	events []string // since take was called
	before []conntrack.Flow
}

func newSide(t *testing.T, name string, c *conntrack.Conn) *side {
	s := &side{name: name, c: c, fence: make(chan func())}
	joined := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	opts := &conntrack.EventOptions{Joined: func() { close(joined) }, Fence: s.fence}
	go func() {
		defer close(done)
		groups := append(slices.Clone(netfilter.GroupsCT), netfilter.GroupsCTExp...)
		for ev, err := range c.Events(ctx, groups, opts) {
			if ctx.Err() == nil {
				s.events = append(s.events, s.event(ev, err))
			}
		}
	}()
	<-joined
	return s
}

// take returns the events of what has happened since the last call.
func (s *side) take() []string {
	var taken []string
	done := make(chan struct{})
	s.fence <- func() { taken, s.events = s.events, nil; close(done) }
	<-done
	return taken
}

func (s *side) event(ev conntrack.Event, err error) string {
	if err != nil {
		return err.Error()
	}
	own := ev.PortID == s.c.PortID()
	text := fmt.Sprintf("%v own=%v port=%v time=%v zeroMark=%v ", ev.Type, own, ev.PortID != 0, !ev.Time.IsZero(), ev.ZeroMark)
	if ev.Flow != nil {
		return text + flowText(*ev.Flow)
	}
	return text + expectText(*ev.Expect)
}

// tidy makes a number of seconds one that some later or earlier is the same.
func tidy(seconds uint32) uint32 { return (seconds + 50) / 100 * 100 }

func moment(t time.Time) bool { return !t.IsZero() }

// flowText returns all of f that both sides have alike.
func flowText(f conntrack.Flow) string {
	hasID := f.ID != 0
	f.ID, f.Timeout = 0, tidy(f.Timeout)
	begun, ended := moment(f.Timestamp.Start), moment(f.Timestamp.Stop)
	f.Timestamp = conntrack.Timestamp{}
	info := f.ProtoInfo
	f.ProtoInfo = conntrack.ProtoInfo{}
	var proto string
	if info.TCP != nil {
		proto = fmt.Sprintf("%+v", *info.TCP)
	}
	if info.SCTP != nil {
		proto = fmt.Sprintf("%+v", *info.SCTP)
	}
	type plain conntrack.Flow // without String
	return fmt.Sprintf("id=%v begun=%v ended=%v %s %+v", hasID, begun, ended, proto, plain(f))
}

func expectText(ex conntrack.Expect) string {
	hasID := ex.ID != 0
	ex.ID, ex.Timeout = 0, tidy(ex.Timeout)
	type plain conntrack.Expect
	return fmt.Sprintf("id=%v %+v", hasID, plain(ex))
}

// code returns what of an error both sides have alike: the kernel's number, or the
// text of what was wrong before the kernel was asked.
func code(err error) string {
	var batch *conntrack.BatchError
	if errors.As(err, &batch) {
		var codes []string
		for _, e := range batch.Failed {
			codes = append(codes, fmt.Sprintf("%d: %s", e.Index, code(e.Err)))
		}
		return strings.Join(codes, ", ")
	}
	var number syscall.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &number):
		return number.Error()
	}
	return err.Error()
}

// An operation is done on both sides.
type operation struct {
	name string
	do   func(s *side) string
	// many says that the order of its events, and of its results, is the kernel's.
	many bool
}

// requireSame carries out the operations on both sides and requires that the results,
// the events and the tables are the same.
func requireSame(t *testing.T, ops []operation, sides ...*side) {
	t.Helper()
	var done []string
	for _, op := range ops {
		done = append(done, op.name)
		var results, events [2]string
		for i, s := range sides {
			results[i] = op.do(s)
			list := s.take()
			if op.many {
				slices.Sort(list)
			}
			events[i] = strings.Join(list, "\n")
		}
		log := func() string { return strings.Join(done, "\n") }
		require.Equal(t, results[0], results[1], "result (want the kernel's):\n%s", log())
		require.Equal(t, events[0], events[1], "events (want the kernel's):\n%s", log())
	}
}

// dumpAll dumps the tables. A dump of flows takes the kernel long, however few there
// are.
var dumpAll = operation{name: "dump all", many: true, do: func(s *side) string {
	flows, err := s.c.Dump(nil)
	var lines []string
	for _, f := range flows {
		lines = append(lines, flowText(f))
	}
	slices.Sort(lines)
	return code(err) + "\n" + strings.Join(lines, "\n")
}}

// getAll gets what was ever known to be there.
var getAll = operation{name: "get all", many: true, do: func(s *side) string {
	lines := strings.Split(s.remember(s.before...), "\n")
	expects, err := s.c.DumpExpect()
	for _, ex := range expects {
		lines = append(lines, expectText(ex))
	}
	stats, err2 := s.c.StatsGlobal()
	slices.Sort(lines)
	return fmt.Sprintln(code(errors.Join(err, err2)), stats.Entries, strings.Join(lines, "\n"))
}}

// reset empties the tables.
var reset = operation{name: "reset", many: true, do: func(s *side) string {
	s.before = nil
	return code(errors.Join(s.c.FlushExpect(), s.c.Flush()))
}}

// A source makes random operations. Few addresses, ports and zones make them meet.
type source struct{ *rand.Rand }

func (r source) one(n int) bool { return r.IntN(n) == 0 }

func pick[T any](r source, of ...T) T { return of[r.IntN(len(of))] }

func (r source) addr(v6 bool) netip.Addr {
	if v6 {
		return pick(r, netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"))
	}
	return pick(r, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3"))
}

func (r source) proto(v6 bool) uint8 {
	icmp := uint8(conntrack.ProtocolICMP)
	if v6 {
		icmp = conntrack.ProtocolICMPv6
	}
	return pick(r, conntrack.ProtocolTCP, conntrack.ProtocolTCP, conntrack.ProtocolUDP, conntrack.ProtocolUDP,
		conntrack.ProtocolSCTP, icmp, conntrack.ProtocolGRE, 50)
}

func (r source) tuple() conntrack.Tuple {
	v6 := r.one(4)
	t := conntrack.Tuple{
		IP:    conntrack.IPTuple{SourceAddress: r.addr(v6), DestinationAddress: r.addr(v6)},
		Proto: conntrack.ProtoTuple{Protocol: r.proto(v6)},
	}
	switch t.Proto.Protocol {
	case conntrack.ProtocolICMP:
		t.Proto.ICMPv4, t.Proto.ICMPType, t.Proto.ICMPID = true, pick[uint8](r, 8, 8, 0, 13, 3), uint16(r.IntN(2))
	case conntrack.ProtocolICMPv6:
		t.Proto.ICMPv6, t.Proto.ICMPType, t.Proto.ICMPID = true, pick[uint8](r, 128, 128, 129, 1), uint16(r.IntN(2))
	default:
		t.Proto.SourcePort, t.Proto.DestinationPort = pick[uint16](r, 1000, 1001), pick[uint16](r, 21, 1000)
	}
	return t
}

// zone puts f into a zone, mostly the default one.
func (r source) zone(f *conntrack.Flow) {
	id := uint16(1 + r.IntN(2))
	switch r.IntN(10) {
	case 0:
		f.Zone = id
	case 1:
		f.TupleOrig.Zone = id
	case 2:
		f.TupleReply.Zone = id
	}
}

func (r source) status() conntrack.Status {
	var v conntrack.StatusFlag
	for range r.IntN(3) {
		v |= 1 << r.IntN(16)
	}
	if r.one(2) {
		v |= conntrack.StatusSeenReply
	}
	return conntrack.Status{Value: v}
}

func (r source) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32() & r.Uint32())
	}
	return b
}

// details gives f some of what both a new flow and an update may have.
func (r source) details(f *conntrack.Flow) {
	if r.one(3) {
		f.Mark = uint32(r.IntN(4))
	}
	if r.one(6) {
		f.MarkMask = pick[uint32](r, 1, 2, 0xffffffff)
	}
	if r.one(3) {
		f.Status = r.status()
	}
	switch {
	case r.one(3) && (f.TupleOrig.Proto.Protocol == conntrack.ProtocolTCP || r.one(8)):
		f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{
			State: uint8(r.IntN(11)), OriginalWindowScale: uint8(r.IntN(16)), ReplyWindowScale: uint8(r.IntN(3)),
			OriginalFlags: pick[uint16](r, 0, 0x0101, 0x0100, 0x0b0b), ReplyFlags: pick[uint16](r, 0, 0x0101, 0x0303),
		}
	case r.one(3) && (f.TupleOrig.Proto.Protocol == conntrack.ProtocolSCTP || r.one(8)):
		f.ProtoInfo.SCTP = &conntrack.ProtoInfoSCTP{State: uint8(r.IntN(11)), VTagOriginal: r.Uint32N(9), VTagReply: r.Uint32N(9)}
	}
	if r.one(8) {
		f.Labels = r.bytes(pick(r, 16, 16, 8, 4))
		if r.one(2) {
			f.LabelsMask = r.bytes(len(f.Labels))
		}
	}
	if r.one(8) {
		f.SeqAdjOrig = conntrack.SequenceAdjust{Position: r.Uint32(), OffsetBefore: 1, OffsetAfter: 2}
	}
	if r.one(8) {
		f.SeqAdjReply = conntrack.SequenceAdjust{Direction: true, Position: r.Uint32(), OffsetAfter: 2}
	}
	if r.one(8) {
		f.SynProxy = conntrack.SynProxy{ISN: r.Uint32(), ITS: r.Uint32(), TSOff: r.Uint32()}
	}
	if r.one(6) {
		f.Helper.Name = pick(r, "ftp", "ftp", "tftp", "irc", "none", conntrack.NoHelper)
	}
}

func (r source) newFlow() conntrack.Flow {
	f := conntrack.Flow{TupleOrig: r.tuple(), Timeout: pick[uint32](r, 300, 1000, 432000)}
	f.TupleReply = f.TupleOrig.Reverse()
	if r.one(10) {
		f.TupleReply = r.tuple()
	}
	r.zone(&f)
	r.details(&f)
	if r.one(8) {
		f.NAT = r.nat(&f)
	}
	if r.one(12) {
		f.TupleMaster = r.tuple()
	}
	return f
}

// nat returns a translation of which the outcome is not left to chance.
func (r source) nat(f *conntrack.Flow) *conntrack.NAT {
	v6 := f.TupleOrig.IP.IsIPv6()
	side := func() conntrack.NATRange {
		n := conntrack.NATRange{MinAddr: r.addr(v6)}
		port := uint16(2000 + r.IntN(60000))
		n.MinPort, n.MaxPort = port, port
		return n
	}
	nat := new(conntrack.NAT)
	which := r.IntN(3)
	if which != 0 {
		nat.Source = side()
	}
	if which != 1 {
		nat.Destination = side()
	}
	return nat
}

// key returns a flow to be found, mostly by the tuples of one that s has.
func (r source) key(index int, random conntrack.Flow, by int) func(s *side) conntrack.Flow {
	return func(s *side) conntrack.Flow {
		if len(s.before) == 0 || by == 0 {
			return random
		}
		f := s.before[index%len(s.before)]
		k := conntrack.Flow{ID: f.ID, Zone: f.Zone, TupleOrig: f.TupleOrig, TupleReply: f.TupleReply}
		// A successor mostly has the ID of the one before, but not always.
		if now, err := s.c.Get(conntrack.Flow{Zone: f.Zone, TupleOrig: f.TupleOrig, TupleReply: f.TupleReply}); err == nil {
			k.ID = now.ID
		}
		switch by {
		case 1:
			k.ID = 0
		case 2:
			k.TupleReply = conntrack.Tuple{}
		case 3:
			k.TupleOrig = conntrack.Tuple{}
		case 4:
			k.ID = 0
			k.TupleReply = conntrack.Tuple{}
		case 5:
			k.ID++
		}
		return k
	}
}

func (r source) anyKey() func(s *side) conntrack.Flow {
	random := conntrack.Flow{TupleOrig: r.tuple()}
	r.zone(&random)
	return r.key(r.IntN(100), random, r.IntN(9))
}

func (r source) filter() conntrack.Filter {
	var f conntrack.Filter
	if r.one(3) {
		f.Mask = pick[uint32](r, 1, 3, 0xffffffff)
		f.Mark = uint32(r.IntN(4)) & f.Mask
	}
	if r.one(3) {
		f.Family = pick(r, netfilter.ProtoIPv4, netfilter.ProtoIPv6)
	}
	if r.one(4) {
		f.StatusMask = pick(r, conntrack.StatusSeenReply, conntrack.StatusAssured|conntrack.StatusSeenReply, conntrack.StatusNATMask)
		f.Status = f.StatusMask & conntrack.StatusFlag(r.Uint32())
	}
	if r.one(4) {
		zone := uint16(r.IntN(3))
		f.Zone = &zone
	}
	for _, to := range []*conntrack.Tuple{&f.Orig, &f.Reply} {
		if !r.one(4) {
			continue
		}
		t := r.tuple()
		if r.one(2) {
			t.IP.SourceAddress = netip.Addr{}
		}
		if r.one(2) {
			t.IP.DestinationAddress = netip.Addr{}
		}
		if r.one(3) {
			t.Proto = conntrack.ProtoTuple{Protocol: t.Proto.Protocol}
		}
		*to = t
	}
	return f
}

func (r source) expect() func(s *side) conntrack.Expect {
	ones := func(like netip.Addr) netip.Addr {
		if like.Is4() {
			return pick(r, netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("0.0.0.0"))
		}
		return pick(r, netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), netip.MustParseAddr("::"))
	}
	index, t, zone := r.IntN(100), r.tuple(), uint16(0)
	if r.one(6) {
		zone = uint16(r.IntN(3))
	}
	ex := conntrack.Expect{Tuple: t, Zone: zone, Flags: pick[uint32](r, 0, 0, 1, 2, 3), Class: pick[uint32](r, 0, 0, 0, 1)}
	ex.Mask.IP = conntrack.IPTuple{SourceAddress: ones(t.IP.SourceAddress), DestinationAddress: ones(t.IP.SourceAddress)}
	ex.Mask.Proto = conntrack.ProtoTuple{
		Protocol: t.Proto.Protocol, SourcePort: pick[uint16](r, 0, 0xffff), DestinationPort: 0xffff,
		ICMPType: t.Proto.ICMPType,
	}
	if r.one(4) {
		ex.HelpName = pick(r, "ftp", "none")
	}
	if r.one(6) {
		ex.Function = pick(r, "nat-follow-master", "none")
	}
	if r.one(2) {
		ex.NAT = conntrack.ExpectNAT{Direction: r.one(2), Tuple: t.Reverse()}
	}
	if r.one(3) {
		ex.Timeout = 1000
	}
	return func(s *side) conntrack.Expect {
		ex := ex
		ex.TupleMaster = t
		for i := range s.before {
			f := s.before[(index+i)%len(s.before)]
			if f.Helper.Name != "" && f.TupleOrig.IP.IsIPv6() == t.IP.IsIPv6() || i == len(s.before)-1 {
				ex.TupleMaster = f.TupleOrig
				ex.TupleMaster.Zone = 0
				if ex.Zone == 0 {
					ex.Zone = f.Zone
				}
				break
			}
		}
		return ex
	}
}

func (r source) operation() operation {
	switch pick(r, r.IntN(14), r.IntN(14), r.IntN(22)) {
	case 0, 1, 2, 3, 4:
		f := r.newFlow()
		return operation{name: fmt.Sprintf("create %s", flowText(f)), do: func(s *side) string {
			return code(s.c.Create(f)) + s.remember(f)
		}}
	case 5:
		f := r.newFlow()
		return operation{name: fmt.Sprintf("create or update %s", flowText(f)), do: func(s *side) string {
			return code(s.c.CreateOrUpdate(f)) + s.remember(f)
		}}
	case 6, 7, 8:
		key := r.anyKey()
		var change conntrack.Flow
		r.details(&change)
		if r.one(3) {
			change.Timeout = 2000
		}
		return operation{name: "update " + flowText(change), do: func(s *side) string {
			f, k := change, key(s)
			f.TupleOrig, f.TupleReply, f.Zone = k.TupleOrig, k.TupleReply, k.Zone
			return code(s.c.Update(f))
		}}
	case 9:
		key := r.anyKey()
		return operation{name: "delete", do: func(s *side) string { return code(s.c.Delete(key(s))) }}
	case 10:
		key := r.anyKey()
		return operation{name: "get", do: func(s *side) string {
			f, err := s.c.Get(key(s))
			return code(err) + flowText(f)
		}}
	case 11:
		flows := make([]conntrack.Flow, 1+r.IntN(5))
		name := "create batch"
		for i := range flows {
			flows[i] = r.newFlow()
			name += "\n\t" + flowText(flows[i])
		}
		return operation{name: name, do: func(s *side) string {
			return code(s.c.CreateBatch(flows)) + s.remember(flows...)
		}}
	case 12:
		a, b := r.anyKey(), r.anyKey()
		return operation{name: "delete batch", do: func(s *side) string {
			return code(s.c.DeleteBatch([]conntrack.Flow{a(s), b(s)}))
		}}
	case 13:
		a, b := r.anyKey(), r.anyKey()
		return operation{name: "get batch", do: func(s *side) string {
			var texts []string
			for f, err := range s.c.GetBatch([]conntrack.Flow{a(s), b(s)}) {
				texts = append(texts, code(err)+flowText(f))
			}
			return strings.Join(texts, "\n")
		}}
	case 14, 15:
		filter, zero := r.filter(), r.one(3)
		return operation{name: fmt.Sprintf("dump %v zero=%v", filter, zero), many: true, do: func(s *side) string {
			flows, err := s.c.DumpFilter(filter, &conntrack.DumpOptions{ZeroCounters: zero})
			var texts []string
			for _, f := range flows {
				texts = append(texts, flowText(f))
			}
			slices.Sort(texts)
			return code(err) + strings.Join(texts, "\n")
		}}
	case 16:
		filter := r.filter()
		return operation{name: fmt.Sprintf("flush %v", filter), many: true, do: func(s *side) string { return code(s.c.FlushFilter(filter)) }}
	case 17:
		ex := r.expect()
		update := r.one(5)
		return operation{name: "create expect", do: func(s *side) string {
			if update {
				return code(s.c.UpdateExpect(ex(s)))
			}
			return code(s.c.CreateExpect(ex(s)))
		}}
	case 18:
		ex, del := r.expect(), r.one(2)
		return operation{name: "get expect", do: func(s *side) string {
			if del {
				return code(s.c.DeleteExpect(ex(s)))
			}
			got, err := s.c.GetExpect(ex(s))
			return code(err) + expectText(got)
		}}
	case 19:
		filter, helper := r.filter(), r.one(3)
		var change conntrack.Flow
		r.details(&change)
		return operation{name: "update func " + flowText(change), many: true, do: func(s *side) string {
			if helper {
				return code(s.c.FlushExpectHelper("ftp"))
			}
			n, err := s.c.UpdateFunc(context.Background(), filter, func(f *conntrack.Flow) (conntrack.Flow, bool) {
				return change, f.Mark == 0
			})
			// Which failure is the first depends on the order.
			return fmt.Sprint(n, err == nil)
		}}
	case 20:
		filter := r.filter()
		return operation{name: fmt.Sprintf("delete func %v", filter), many: true, do: func(s *side) string {
			n, err := s.c.DeleteFunc(context.Background(), filter, func(f *conntrack.Flow) bool { return f.Mark != 1 })
			return fmt.Sprint(n, code(err))
		}}
	}
	key := r.anyKey()
	return operation{name: "expects of", many: true, do: func(s *side) string {
		var texts []string
		for ex, err := range s.c.ExpectsOf(context.Background(), key(s)) {
			texts = append(texts, code(err)+expectText(ex))
		}
		slices.Sort(texts)
		return strings.Join(texts, "\n")
	}}
}

// remember makes flows known to keys, if they are in the table, and returns them.
func (s *side) remember(flows ...conntrack.Flow) string {
	keys := make([]conntrack.Flow, len(flows))
	for i, f := range flows {
		keys[i] = conntrack.Flow{Zone: f.Zone, TupleOrig: f.TupleOrig, TupleReply: f.TupleReply}
	}
	var texts []string
	for f, err := range s.c.GetBatch(keys) {
		if err == nil {
			s.before = append(s.before, f)
			texts = append(texts, flowText(f))
		}
	}
	return strings.Join(texts, "\n")
}

// needRelease skips the test on other kernels than the one that a Kernel is like.
func needRelease(t *testing.T) {
	t.Helper()
	running, err := release.Running()
	require.NoError(t, err)
	if running != (release.Release{Major: 6, Minor: 18}) {
		t.Skipf("a Kernel is like Linux 6.18, this is %v", running)
	}
}

// TestSameAsKernel carries out random sequences of operations on the Kernel and on the
// running kernel, side by side: results, events and tables are the same, but for
//
//   - IDs, timeouts by some seconds, and times,
//   - the order of dumps and flushes, and of their events,
//   - NAT whose outcome the kernel leaves to chance, which is not tried.
//
// The environment variable CONNTRACKTEST_SEED repeats one sequence, or tries
// another one.
func TestSameAsKernel(t *testing.T) {
	t.Parallel()
	needRelease(t)
	n := 1000
	if testing.Short() {
		n = 50
	}
	seed := uint64(1) // the same in each run
	if s := os.Getenv("CONNTRACKTEST_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
		n = 1
	}
	for name, o := range map[string]conntracktest.Options{
		"plain": {NoLabels: true},
		"full":  {Accounting: true, Timestamps: true},
	} {
		t.Run(name, func(t *testing.T) {
			var opts []nstest.Option
			if o.Accounting {
				opts = append(opts, nstest.Accounting(), nstest.Timestamps())
			}
			ns := nstest.New(t, opts...)
			ns.Sysctl("net.netfilter.nf_conntrack_events", "1")
			if !o.NoLabels {
				ns.Labels()
			}
			real, err := conntrack.Dial(ns.Config())
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, real.Close()) })
			c, err := conntracktest.NewKernel(&o).Dial()
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, c.Close()) })
			sides := []*side{newSide(t, "kernel", real), newSide(t, "kit", c)}
			for i := range n / 2 {
				seed := seed + uint64(i)
				r := source{rand.New(rand.NewPCG(seed, 0))}
				ops := []operation{reset}
				for range 5 + r.IntN(30) {
					ops = append(ops, r.operation())
				}
				ops = append(ops, getAll)
				if i%5 == 0 {
					ops = append(ops, dumpAll)
				}
				t.Logf("seed %d", seed)
				requireSame(t, ops, sides...)
			}
		})
	}
}
