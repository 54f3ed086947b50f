package conntrack

import (
	"log/slog"
	"time"
)

// LogValue returns f as a group of attributes for a log. They are a selection
// of the fields of [Flow.MarshalJSON], with the same names and values:
//
//	id, status, timeout, start, stop
//	tcp.state, sctp.state, dccp.state
//	orig.protocol, orig.src, orig.sport, orig.dst, orig.dport, orig.icmp, orig.zone
//	orig.packets, orig.bytes, reply.packets, reply.bytes
//	reply.zone, if it is not that of orig; all of reply's tuple, if it is not orig reversed
//	zone, mark, helper
//
// Zero values are left out as in JSON. For a nil *Flow, package slog logs that
// LogValue panicked, and goes on.
func (f Flow) LogValue() slog.Value {
	var a logAttrs
	a.number("id", uint64(f.ID))
	a.flags("status", logFlags(f.Status.Value))
	a.number("timeout", uint64(f.Timeout))
	a.time("start", f.Timestamp.Start)
	a.time("stop", f.Timestamp.Stop)
	switch p := &f.ProtoInfo; {
	case p.TCP != nil:
		a.group("tcp", logState(TCPState(p.TCP.State)))
	case p.DCCP != nil:
		a.group("dccp", logState(dccpState(p.DCCP.State)))
	case p.SCTP != nil:
		a.group("sctp", logState(SCTPState(p.SCTP.State)))
	}
	orig := f.TupleOrig.logAttrs()
	reply := f.logReply()
	if f.Counted() {
		orig.counter(&f.CountersOrig)
		reply.counter(&f.CountersReply)
	}
	a.group("orig", orig)
	a.group("reply", reply)
	a.number("zone", uint64(f.Zone))
	a.number("mark", uint64(f.Mark))
	a.text("helper", f.Helper.Name)
	return slog.GroupValue(a...)
}

// logReply returns the attributes of the reply direction that the original one
// does not imply.
func (f *Flow) logReply() (a logAttrs) {
	implied := f.TupleOrig.Reverse()
	implied.Zone = f.TupleReply.Zone
	if f.TupleReply != implied {
		return f.TupleReply.logAttrs()
	}
	if f.TupleReply.Zone != f.TupleOrig.Zone {
		a.number("zone", uint64(f.TupleReply.Zone))
	}
	return a
}

// LogValue returns ex as a group of attributes for a log. They are a selection
// of the fields of [Expect.MarshalJSON], with the same names and values:
//
//	id, timeout, master, tuple, zone, helper, flags
func (ex Expect) LogValue() slog.Value {
	var a logAttrs
	a.number("id", uint64(ex.ID))
	a.number("timeout", uint64(ex.Timeout))
	a.group("master", ex.TupleMaster.logAttrs())
	a.group("tuple", ex.Tuple.logAttrs())
	a.number("zone", uint64(ex.Zone))
	a.text("helper", ex.HelpName)
	a.flags("flags", logFlags(ExpectFlags(ex.Flags)))
	return slog.GroupValue(a...)
}

func (t *Tuple) logAttrs() (a logAttrs) {
	p := &t.Proto
	if p.Protocol != 0 {
		a = append(a, slog.Any("protocol", logName(Protocol(p.Protocol))))
	}
	if addr := t.IP.SourceAddress; addr.IsValid() {
		a = append(a, slog.Any("src", addr))
	}
	a.number("sport", uint64(p.SourcePort))
	if addr := t.IP.DestinationAddress; addr.IsValid() {
		a = append(a, slog.Any("dst", addr))
	}
	a.number("dport", uint64(p.DestinationPort))
	if p.isICMPv4() || p.isICMPv6() {
		a.group("icmp", logAttrs{
			slog.Uint64("type", uint64(p.ICMPType)),
			slog.Uint64("code", uint64(p.ICMPCode)),
			slog.Uint64("id", uint64(p.ICMPID)),
		})
	}
	a.number("zone", uint64(t.Zone))
	return a
}

// logAttrs are attributes. Its methods leave out what is zero, except counter.
type logAttrs []slog.Attr

func logState[T named](state T) logAttrs { return logAttrs{slog.Any("state", logName(state))} }

// logName returns the name of v, or the number if it has none.
func logName[T named](v T) any {
	if name := v.name(); name != "" {
		return name
	}
	return uint64(v)
}

// logFlags returns the list of flags that JSON has.
func logFlags[T named](flags T) (list []any) {
	for rest := flags; rest != 0; rest &= rest - 1 {
		list = append(list, logName(rest&-rest))
	}
	return list
}

func (a *logAttrs) counter(c *Counter) {
	*a = append(*a, slog.Uint64("packets", c.Packets), slog.Uint64("bytes", c.Bytes))
}

func (a *logAttrs) number(name string, n uint64) {
	if n != 0 {
		*a = append(*a, slog.Uint64(name, n))
	}
}

func (a *logAttrs) text(name, s string) {
	if s != "" {
		*a = append(*a, slog.String(name, s))
	}
}

func (a *logAttrs) time(name string, t time.Time) {
	if !t.IsZero() {
		*a = append(*a, slog.Time(name, t.UTC()))
	}
}

func (a *logAttrs) flags(name string, list []any) {
	if len(list) != 0 {
		*a = append(*a, slog.Any(name, list))
	}
}

func (a *logAttrs) group(name string, attrs logAttrs) {
	if len(attrs) != 0 {
		*a = append(*a, slog.GroupAttrs(name, attrs...))
	}
}
