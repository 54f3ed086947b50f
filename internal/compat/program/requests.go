//go:build linux

package main

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/ti-mo/conntrack"
)

// printRequests prints the outcome of each request in a sequence, and the table
// after it.
func printRequests(print func(any)) error {
	c := dial()
	defer c.Close()
	for _, h := range sequence() {
		err := h.do(c)
		flows, dumpErr := c.Dump(nil)
		if dumpErr != nil {
			return dumpErr
		}
		slices.SortFunc(flows, func(a, b conntrack.Flow) int {
			return cmp.Or(cmp.Compare(a.Zone, b.Zone), cmp.Compare(fmt.Sprint(a.TupleOrig), fmt.Sprint(b.TupleOrig)))
		})
		table := make([]any, len(flows))
		for i := range flows {
			table[i] = fields(&flows[i])
		}
		print(object{h.name: object{"Outcome": outcome(err), "Table": table}})
	}
	return nil
}

func sequence() []habit {
	const confirmed = conntrack.StatusConfirmed
	tcp := conntrack.NewFlow(6, confirmed|conntrack.StatusSeenReply|conntrack.StatusAssured, addr4, other4, 1234, 80, 600, 0x17)
	tcp.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: 3, OriginalWindowScale: 7, ReplyWindowScale: 6}
	udp := conntrack.NewFlow(17, confirmed, addr6, other6, 1234, 53, 600, 0x2f)
	zoned := conntrack.NewFlow(17, confirmed, addr4, other4, 1234, 53, 600, 0)
	zoned.Zone = 5
	inDirection := zoned
	inDirection.Zone, inDirection.TupleOrig.Zone = 0, 9
	icmp := conntrack.NewFlow(1, confirmed, addr4, other4, 0, 0, 600, 0)
	icmp.TupleOrig.Proto = conntrack.ProtoTuple{Protocol: 1, ICMPv4: true, ICMPID: 42, ICMPType: 8}
	icmp.TupleReply.Proto = conntrack.ProtoTuple{Protocol: 1, ICMPv4: true, ICMPID: 42}
	icmp6 := conntrack.NewFlow(58, confirmed, addr6, other6, 0, 0, 600, 0)
	icmp6.TupleOrig.Proto = conntrack.ProtoTuple{Protocol: 58, ICMPv6: true, ICMPID: 42, ICMPType: 128}
	icmp6.TupleReply.Proto = conntrack.ProtoTuple{Protocol: 58, ICMPv6: true, ICMPID: 42, ICMPType: 129}
	sctp := conntrack.NewFlow(132, confirmed, addr4, other4, 1234, 80, 600, 0)
	sctp.ProtoInfo.SCTP = &conntrack.ProtoInfoSCTP{State: 3, VTagOriginal: 1, VTagReply: 2}
	gre := conntrack.NewFlow(47, confirmed, addr4, other4, 0x11, 0x22, 600, 0)
	labelled := conntrack.NewFlow(17, confirmed, addr4, other4, 5678, 53, 600, 0)
	labelled.Labels = []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	adjusted := conntrack.NewFlow(6, confirmed, addr4, other4, 5678, 80, 600, 0)
	adjusted.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: 3}
	adjusted.SeqAdjOrig = conntrack.SequenceAdjust{Position: 1, OffsetBefore: 2, OffsetAfter: 3}
	adjusted.SeqAdjReply = conntrack.SequenceAdjust{Direction: true, Position: 4, OffsetBefore: 5, OffsetAfter: 6}
	proxied := conntrack.NewFlow(6, confirmed, addr4, other4, 9012, 80, 600, 0)
	proxied.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: 3}
	proxied.SynProxy = conntrack.SynProxy{ISN: 1, ITS: 2, TSOff: 3}

	create := func(name string, f conntrack.Flow) habit {
		return habit{"create " + name, func(c *conntrack.Conn) error { return c.Create(f) }}
	}
	update := func(name string, f conntrack.Flow) habit {
		return habit{"update " + name, func(c *conntrack.Conn) error { return c.Update(f) }}
	}
	remove := func(name string, f conntrack.Flow) habit {
		return habit{"delete " + name, func(c *conntrack.Conn) error { return c.Delete(f) }}
	}
	const labels = "\xff\x00\xff\x00\xff\x00\xff\x00\xff\x00\xff\x00\xff\x00\xff\x00"
	return []habit{
		create("TCP", tcp),
		create("UDP over IPv6", udp),
		create("in a zone", zoned),
		create("in a zone for a direction", inDirection),
		create("ICMP", icmp),
		create("ICMPv6", icmp6),
		create("SCTP", sctp),
		create("GRE", gre),
		create("with labels", labelled),
		create("with adjustments", adjusted),
		create("with SYN proxy", proxied),
		create("again", tcp),
		update("mark", conntrack.Flow{TupleOrig: tcp.TupleOrig, Mark: 0x33}),
		update("timeout by the reply tuple", conntrack.Flow{TupleReply: labelled.TupleReply, Timeout: 900}),
		update("status", conntrack.Flow{TupleOrig: labelled.TupleOrig, Status: conntrack.Status{Value: confirmed | conntrack.StatusSeenReply}}),
		update("state", conntrack.Flow{TupleOrig: tcp.TupleOrig, ProtoInfo: conntrack.ProtoInfo{TCP: &conntrack.ProtoInfoTCP{State: 7}}}),
		update("in a zone", conntrack.Flow{TupleOrig: zoned.TupleOrig, Zone: 5, Mark: 0x44}),
		update("some labels", conntrack.Flow{TupleOrig: labelled.TupleOrig, Labels: []byte(labels), LabelsMask: []byte(labels)}),
		update("all labels", conntrack.Flow{TupleOrig: labelled.TupleOrig, Labels: []byte(labels)}),
		update("a flow as it was created", udp),
		remove("ICMP", icmp),
		remove("ICMPv6", icmp6),
		remove("by the reply tuple", conntrack.Flow{TupleReply: gre.TupleReply}),
		remove("in the wrong zone", conntrack.Flow{TupleOrig: zoned.TupleOrig, Zone: 6}),
		remove("in its zone", conntrack.Flow{TupleOrig: zoned.TupleOrig, Zone: 5}),
		remove("again", icmp),
		{"flush what has no such mark", func(c *conntrack.Conn) error {
			return c.FlushFilter(conntrack.Filter{Mark: 0x99, Mask: 0xff})
		}},
		{"flush a mark", func(c *conntrack.Conn) error { return c.FlushFilter(conntrack.Filter{Mark: 0x30, Mask: 0xf0}) }},
		{"flush", (*conntrack.Conn).Flush},
		{"flush nothing", (*conntrack.Conn).Flush},
	}
}
