package conntrack

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

func directionName(reply bool) string {
	if reply {
		return "reply"
	}
	return "orig"
}

// String returns f as one line for people and logs: its original direction, the
// state, the status, the seconds until it expires, what NAT makes of it, its
// counters, its mark and its zone, as far as there are any:
//
//	tcp 192.0.2.1:40000 > 192.0.2.2:443 ESTABLISHED SEEN_REPLY|ASSURED 300s
//
// The package cttext prints the lines of conntrack(8).
func (f Flow) String() string {
	b := fmt.Appendf(nil, "%s ", f.TupleOrig.FiveTuple())
	switch p := &f.ProtoInfo; {
	case p.TCP != nil:
		b = fmt.Appendf(b, "%s ", TCPState(p.TCP.State))
	case p.DCCP != nil:
		b = fmt.Appendf(b, "%s ", DCCPState(p.DCCP.State))
	case p.SCTP != nil:
		b = fmt.Appendf(b, "%s ", SCTPState(p.SCTP.State))
	}
	b = fmt.Appendf(b, "%s %ds", f.Status, f.Timeout)
	if f.Translated() {
		b = fmt.Appendf(b, " translated to %s > %s", f.MappedClient(), f.Server())
	}
	if f.Counted() {
		b = fmt.Appendf(b, " %d+%d packets %d+%d bytes",
			f.CountersOrig.Packets, f.CountersReply.Packets, f.CountersOrig.Bytes, f.CountersReply.Bytes)
	}
	if f.Mark != 0 {
		b = fmt.Appendf(b, " mark %#x", f.Mark)
	}
	if zone := f.zone(); zone != 0 {
		b = fmt.Appendf(b, " zone %d", zone)
	}
	return string(b)
}

// String returns ex as one line for people and logs: what is expected, the
// helper, the seconds until it expires, its flags if it has any, and its master.
func (ex Expect) String() string {
	b := fmt.Appendf(nil, "%s %s %ds", ex.Tuple.FiveTuple(), ex.HelpName, ex.Timeout)
	if ex.Flags != 0 {
		b = fmt.Appendf(b, " %s", ExpectFlags(ex.Flags))
	}
	return string(fmt.Appendf(b, " by %s", ex.TupleMaster.FiveTuple()))
}

// The texts below are those of v0.5.0, which programs' logs are searched for.

// String returns the tuple as <tcp, Src: 1.2.3.4:54321, Dst: [fe80::1]:80>. A
// missing address is "invalid IP".
func (t Tuple) String() string {
	return fmt.Sprintf("<%s, Src: %s, Dst: %s>", tupleProtocol(t.Proto.Protocol),
		hostPort(t.IP.SourceAddress, t.Proto.SourcePort),
		hostPort(t.IP.DestinationAddress, t.Proto.DestinationPort))
}

// tupleProtocol returns the name that Tuple.String has for a protocol.
func tupleProtocol(p uint8) string {
	switch p {
	case ProtocolICMPv6:
		return "ipv6-icmp"
	case 94:
		return "ipip"
	case 115:
		return "l2tp"
	}
	return Protocol(p).String()
}

func hostPort(addr netip.Addr, port uint16) string {
	return net.JoinHostPort(addr.String(), strconv.Itoa(int(port)))
}

// String returns the counter as [orig: 1 pkts/42 B].
func (ctr Counter) String() string {
	return fmt.Sprintf("[%s: %d pkts/%d B]", directionName(ctr.Direction), ctr.Packets, ctr.Bytes)
}

// String returns the adjustment as
// [dir: orig, pos: 42, before: 80, after: 747811].
func (seq SequenceAdjust) String() string {
	return fmt.Sprintf("[dir: %s, pos: %d, before: %d, after: %d]",
		directionName(seq.Direction), seq.Position, seq.OffsetBefore, seq.OffsetAfter)
}

// String returns the counters with their names.
func (s Stats) String() string {
	return fmt.Sprintf("<CPU %d - Found: %d, Invalid: %d, Ignore: %d, Insert: %d, InsertFailed: %d, "+
		"Drop: %d, EarlyDrop: %d, Error: %d, SearchRestart: %d>",
		s.CPUID, s.Found, s.Invalid, s.Ignore, s.Insert, s.InsertFailed,
		s.Drop, s.EarlyDrop, s.Error, s.SearchRestart)
}

// String returns the event on one line. It has no labels without a mask, which the
// kernel does not send, and neither counters nor adjustments that are zero in part.
func (e Event) String() string {
	switch {
	case e.Flow != nil:
		return fmt.Sprintf("[%s] %s", e.Type, e.Flow.describe())
	case e.Expect != nil:
		return fmt.Sprintf("[%s] %s", e.Type, e.Expect.describe())
	}
	return fmt.Sprintf("[%s] <Empty Event>", e.Type)
}

func (f *Flow) describe() string {
	unreplied := ""
	if !f.Status.SeenReply() {
		unreplied = "(Unreplied) "
	}
	acct := "<No Accounting>"
	if f.CountersOrig.printed() || f.CountersReply.printed() {
		acct = fmt.Sprintf("Acct: %s %s", f.CountersOrig, f.CountersReply)
	}
	labels := "<No Labels>"
	if len(f.Labels) > 0 && len(f.LabelsMask) > 0 {
		labels = fmt.Sprintf("Label: <%#x/%#x>", f.Labels, f.LabelsMask)
	}
	mark := "<No Mark>"
	if f.Mark != 0 {
		mark = fmt.Sprintf("Mark: <%#x>", f.Mark)
	}
	adjOrig := "<No SeqAdjOrig>"
	if f.SeqAdjOrig.printed() {
		adjOrig = fmt.Sprintf("SeqAdjOrig: %s", f.SeqAdjOrig)
	}
	adjReply := "<No SeqAdjReply>"
	if f.SeqAdjReply.printed() {
		adjReply = fmt.Sprintf("SeqAdjReply: %s", f.SeqAdjReply)
	}
	secCtx := "<No SecCtx>"
	if f.SecurityContext != "" {
		secCtx = fmt.Sprintf("SecCtx: %s", f.SecurityContext)
	}
	return fmt.Sprintf("%sTimeout: %d, %s, Zone %d, %s, %s, %s, %s, %s, %s",
		unreplied, f.Timeout, f.TupleOrig, f.Zone, acct, labels, mark, adjOrig, adjReply, secCtx)
}

// printed reports whether the text of an event has the counter.
func (ctr *Counter) printed() bool { return ctr.Packets != 0 && ctr.Bytes != 0 }

// printed reports whether the text of an event has the adjustment.
func (seq *SequenceAdjust) printed() bool {
	return seq.Position != 0 && seq.OffsetBefore != 0 && seq.OffsetAfter != 0
}

func (ex *Expect) describe() string {
	return fmt.Sprintf("Timeout: %d, Master: %s, Tuple: %s, Mask: %s, Zone: %d, Helper: '%s', Class: %#x",
		ex.Timeout, ex.TupleMaster, ex.Tuple, ex.Mask, ex.Zone, ex.HelpName, ex.Class)
}
