//go:build linux

package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/ti-mo/conntrack"
)

// printTexts prints the texts of values constructed here, as an object by
// value.
func printTexts(print func(any)) error {
	texts := object{}
	add := func(name string, v fmt.Stringer) { texts[name] = textsOf(v) }
	addTuples(add)
	addStatus(add)
	addNumbers(add)
	addFlowEvents(add)
	addExpectEvents(add)
	for _, verb := range []string{"%d", "%v", "%x", "%#x", "%#08x"} {
		texts["StatusFlag "+verb] = fmt.Sprintf(verb, conntrack.StatusSeenReply|conntrack.StatusAssured)
	}
	print(texts)
	return nil
}

// textsOf returns the texts of v that programs print.
func textsOf(v fmt.Stringer) object {
	return object{
		"String": v.String(),
		"%v":     fmt.Sprintf("%v", v),
		"%+v":    fmt.Sprintf("%+v", v),
		"%s":     fmt.Sprintf("%s!", v),
		"slog":   logged(v),
	}
}

// logged returns the text that log/slog writes for v.
func logged(v any) string {
	var line bytes.Buffer
	handler := slog.NewTextHandler(&line, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})
	slog.New(handler).Info("seen", "value", v)
	return line.String()
}

var (
	addr4    = netip.MustParseAddr("192.0.2.1")
	other4   = netip.MustParseAddr("192.0.2.2")
	addr6    = netip.MustParseAddr("2001:db8::1")
	other6   = netip.MustParseAddr("2001:db8::2")
	mapped   = netip.MustParseAddr("::ffff:192.0.2.1")
	withZone = netip.MustParseAddr("fe80::1%eth0")
)

func tuple(proto uint8, src, dst netip.Addr) conntrack.Tuple {
	return conntrack.Tuple{
		IP:    conntrack.IPTuple{SourceAddress: src, DestinationAddress: dst},
		Proto: conntrack.ProtoTuple{Protocol: proto, SourcePort: 1234, DestinationPort: 80},
	}
}

func addTuples(add func(string, fmt.Stringer)) {
	for proto := range 256 {
		add(fmt.Sprintf("Tuple of protocol %d", proto), tuple(uint8(proto), addr4, other4))
	}
	add("Tuple of IPv6", tuple(6, addr6, other6))
	add("Tuple of a mapped address", tuple(6, mapped, mapped))
	add("Tuple of an address with a zone", tuple(6, withZone, withZone))
	add("Tuple of two families", tuple(6, addr4, addr6))
	add("Tuple without source", tuple(17, netip.Addr{}, other4))
	add("Tuple without destination", tuple(17, addr6, netip.Addr{}))
	add("Tuple without addresses", tuple(17, netip.Addr{}, netip.Addr{}))
	add("Tuple without protocol", tuple(0, addr4, other4))
	add("Tuple of nothing", conntrack.Tuple{})
	add("Tuple of nothing but a zone", conntrack.Tuple{Zone: 7})
	add("Tuple of nothing but ports", conntrack.Tuple{Proto: conntrack.ProtoTuple{SourcePort: 1, DestinationPort: 2}})
	add("Tuple of ICMP", conntrack.Tuple{
		IP:    conntrack.IPTuple{SourceAddress: addr4, DestinationAddress: other4},
		Proto: conntrack.ProtoTuple{Protocol: 1, ICMPv4: true, ICMPID: 42, ICMPType: 8, ICMPCode: 1},
	})
}

func addStatus(add func(string, fmt.Stringer)) {
	add("Status of nothing", conntrack.Status{})
	for bit := range 32 {
		add(fmt.Sprintf("Status of bit %d", bit), conntrack.Status{Value: 1 << bit})
	}
	// These are all flags of v0.5.0 and all combinations that flows have.
	add("Status of bits 0 to 14", conntrack.Status{Value: 1<<15 - 1})
	for flags := range 1 << 10 {
		add(fmt.Sprintf("Status %#x", flags), conntrack.Status{Value: conntrack.StatusFlag(flags)})
	}
}

// addNumbers adds counters, adjustments and statistics with each combination of
// fields, because v0.5.0 treats some of them as empty.
func addNumbers(add func(string, fmt.Stringer)) {
	for i, c := range counters() {
		add(fmt.Sprintf("Counter %d", i), c)
	}
	for i, a := range adjustments() {
		add(fmt.Sprintf("SequenceAdjust %d", i), a)
	}
	add("Stats of nothing", conntrack.Stats{})
	add("Stats", conntrack.Stats{
		CPUID: 1, Found: 2, Invalid: 3, Ignore: 4, Insert: 5, InsertFailed: 6,
		Drop: 7, EarlyDrop: 8, Error: 9, SearchRestart: 1<<32 - 1,
	})
}

func counters() (all []conntrack.Counter) {
	for i := range uint64(8) {
		all = append(all, conntrack.Counter{Direction: i&4 != 0, Packets: i & 1 * 10, Bytes: i & 2 * 1000})
	}
	return all
}

func adjustments() (all []conntrack.SequenceAdjust) {
	for i := range uint32(16) {
		all = append(all, conntrack.SequenceAdjust{
			Direction: i&8 != 0, Position: i & 1 * 42, OffsetBefore: i & 2 * 40, OffsetAfter: i & 4 * 4_000_000,
		})
	}
	return all
}

func addFlowEvents(add func(string, fmt.Stringer)) {
	flow := func(name string, change func(*conntrack.Flow)) {
		f := conntrack.NewFlow(6, conntrack.StatusConfirmed, addr4, other4, 1234, 80, 120, 0)
		change(&f)
		add("Event of a flow "+name, conntrack.Event{Type: conntrack.EventUpdate, Flow: &f})
	}
	flow("alone", func(*conntrack.Flow) {})
	flow("of nothing", func(f *conntrack.Flow) { *f = conntrack.Flow{} })
	flow("with a reply", func(f *conntrack.Flow) { f.Status.Value |= conntrack.StatusSeenReply })
	flow("with a zone and a mark", func(f *conntrack.Flow) { f.Zone, f.Mark = 7, 0xf000baaa })
	flow("with a zone for a direction", func(f *conntrack.Flow) { f.TupleOrig.Zone = 7 })
	flow("with a security context", func(f *conntrack.Flow) { f.SecurityContext = "selinux_t" })
	flow("with labels", func(f *conntrack.Flow) { f.Labels = []byte{0xf0, 0xf0} })
	flow("with a labels mask", func(f *conntrack.Flow) { f.LabelsMask = []byte{0xff, 0xff} })
	flow("with labels and a mask", func(f *conntrack.Flow) {
		f.Labels, f.LabelsMask = []byte{0xf0, 0xf0}, []byte{0xff, 0xff}
	})
	flow("with a helper and a master", func(f *conntrack.Flow) {
		f.Helper.Name, f.TupleMaster = "ftp", tuple(6, addr6, other6)
	})
	for i, c := range counters() {
		flow(fmt.Sprintf("with counter %d", i), func(f *conntrack.Flow) { f.CountersOrig = c })
		flow(fmt.Sprintf("with reply counter %d", i), func(f *conntrack.Flow) { f.CountersReply = c })
	}
	for i, a := range adjustments() {
		flow(fmt.Sprintf("with adjustment %d", i), func(f *conntrack.Flow) { f.SeqAdjOrig = a })
		flow(fmt.Sprintf("with reply adjustment %d", i), func(f *conntrack.Flow) { f.SeqAdjReply = a })
	}
}

func addExpectEvents(add func(string, fmt.Stringer)) {
	for i, e := range []conntrack.Event{
		{Type: conntrack.EventUnknown},
		{Type: conntrack.EventNew},
		{Type: conntrack.EventUpdate},
		{Type: conntrack.EventDestroy},
		{Type: conntrack.EventExpNew},
		{Type: conntrack.EventExpDestroy},
	} {
		add(fmt.Sprintf("Event %d of nothing", i), e)
		e.Flow = &conntrack.Flow{}
		add(fmt.Sprintf("Event %d of an empty flow", i), e)
		e.Flow, e.Expect = nil, &conntrack.Expect{}
		add(fmt.Sprintf("Event %d of an empty expectation", i), e)
		e.Flow = &conntrack.Flow{}
		add(fmt.Sprintf("Event %d of both", i), e)
	}
	add("Event of an expectation", conntrack.Event{Type: conntrack.EventExpNew, Expect: &conntrack.Expect{
		ID: 1, Timeout: 300, TupleMaster: tuple(6, addr4, other4), Tuple: tuple(17, addr6, other6),
		Mask: tuple(6, netip.Addr{}, addr4), Zone: 7, HelpName: "ftp", Function: "nat-follow-master",
		Flags: 1, Class: 0x42, NAT: conntrack.ExpectNAT{Direction: true, Tuple: tuple(6, addr4, other4)},
	}})
}
