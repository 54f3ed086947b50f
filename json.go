package conntrack

import "errors"

// MarshalJSON returns f as a JSON object. Its names and forms are stable, but
// there may be more of them in later versions: readers ignore what they do not
// know, as [Flow.UnmarshalJSON] does.
//
//	id                number  ID
//	status            list    Status: "SEEN_REPLY", "ASSURED", ...
//	timeout           number  Timeout, in seconds
//	start, stop       time    Timestamp
//	tcp               object  ProtoInfo.TCP
//	  state           name    "ESTABLISHED", ...
//	  orig_window_scale, reply_window_scale  number
//	  orig_flags, reply_flags  list: "WINDOW_SCALE", "SACK_PERM", ... of the upper byte
//	  orig_flags_mask, reply_flags_mask  list, of the lower byte
//	dccp              object  ProtoInfo.DCCP
//	  state           name    "OPEN", ...
//	  role            name    "client" or "server"
//	  handshake_seq   number
//	sctp              object  ProtoInfo.SCTP
//	  state           name    "ESTABLISHED", ...
//	  orig_vtag, reply_vtag  number
//	orig, reply       object  what there is of each direction
//	  protocol        name    "tcp", ...
//	  src, dst        address
//	  sport, dport    number  ports, or keys of GRE
//	  icmp            object
//	    type, code, id  number
//	    v4, v6        boolean, where ICMPv4 or ICMPv6 is not what the protocol says
//	  zone            number  the zone of this direction alone
//	  packets, bytes  number  the counter
//	  seq_adj         object  SeqAdjOrig or SeqAdjReply
//	    position, offset_before, offset_after  number
//	    direction     "orig" or "reply", where Direction is not that of this object
//	  counter_direction  "orig" or "reply", where the counter's Direction is not that of this object
//	master            object  TupleMaster: the same as orig up to zone
//	zone              number  Zone, for both directions
//	mark, mark_mask   number
//	labels, labels_mask  hexadecimal digits
//	helper            text    Helper.Name
//	helper_info       hexadecimal digits
//	security_context  text
//	syn_proxy         object
//	  isn, its, tsoff  number
//	nat               object  NAT
//	  source, destination  object
//	    min_addr, max_addr  address
//	    min_port, max_port  number
//	use               number
//
// The names of states, flags and protocols may become more, too: what has none
// here is a number, {"protocol":253}, and reading takes both. A name that is not
// known is an error.
//
// What is zero is left out, except where zero is a value: the state and role of
// an object, what is in icmp, and the counters of a flow that is
// [Flow.Counted].
//
// Times are text as in RFC 3339, in UTC, with nanoseconds. Addresses are text
// too. Text that is not valid UTF-8 loses what is not.
func (f Flow) MarshalJSON() ([]byte, error) { return marshalJSON(f.json) }

// UnmarshalJSON sets f to the flow that MarshalJSON wrote, and what is left out
// to zero. The flow is the same in all fields, provided that it is as the kernel
// sends it: times come back in the local time zone, and empty slices as nil.
func (f *Flow) UnmarshalJSON(b []byte) error { return unmarshalJSON(b, f, (*Flow).json) }

// MarshalJSON returns ex as a JSON object, of which holds what is said at
// [Flow.MarshalJSON].
//
//	id         number  ID
//	timeout    number  Timeout, in seconds
//	master     object  TupleMaster, as orig of a flow up to zone
//	tuple      object  Tuple
//	mask       object  Mask
//	zone       number  Zone
//	helper     text    HelpName
//	function   text    Function
//	flags      list    Flags: "PERMANENT", "INACTIVE", "USERSPACE"
//	class      number  Class
//	nat        object  NAT
//	  direction  "orig" or "reply"
//	  tuple    object
func (ex Expect) MarshalJSON() ([]byte, error) { return marshalJSON(ex.json) }

// UnmarshalJSON sets ex to the expectation that MarshalJSON wrote, and what is
// left out to zero.
func (ex *Expect) UnmarshalJSON(b []byte) error { return unmarshalJSON(b, ex, (*Expect).json) }

// MarshalJSON returns e as a JSON object, of which holds what is said at
// [Flow.MarshalJSON].
//
//	type    name    "new", "update", "destroy", "expect_new", "expect_destroy", "unknown"
//	time    time    Time
//	nsid    number  NSID, if it is another namespace than the Conn's own
//	port_id number  PortID
//	flow    object  Flow, with a mark of 0 where the kernel says that it is zero
//	expect  object  Expect
func (e Event) MarshalJSON() ([]byte, error) { return marshalJSON(e.json) }

// UnmarshalJSON sets e to the event that MarshalJSON wrote, and what is left out
// to zero.
func (e *Event) UnmarshalJSON(b []byte) error { return unmarshalJSON(b, e, (*Event).json) }

// The methods and functions below say for each type which fields its JSON has.
// They both write and read it (see jsonObject), and change what they write of
// only where they read.

func (f *Flow) json(o *jsonObject) {
	jsonNumber(o, "id", &f.ID)
	jsonFlags(o, "status", &f.Status.Value, statusNames)
	jsonNumber(o, "timeout", &f.Timeout)
	jsonTime(o, "start", &f.Timestamp.Start)
	jsonTime(o, "stop", &f.Timestamp.Stop)
	jsonPointer(o, "tcp", &f.ProtoInfo.TCP, (*ProtoInfoTCP).json)
	jsonPointer(o, "dccp", &f.ProtoInfo.DCCP, (*ProtoInfoDCCP).json)
	jsonPointer(o, "sctp", &f.ProtoInfo.SCTP, (*ProtoInfoSCTP).json)
	o.object("orig", false, func(o *jsonObject) {
		f.TupleOrig.json(o)
		f.jsonCounter(o, &f.CountersOrig, false)
		f.SeqAdjOrig.json(o, false)
	})
	o.object("reply", false, func(o *jsonObject) {
		f.TupleReply.json(o)
		f.jsonCounter(o, &f.CountersReply, true)
		f.SeqAdjReply.json(o, true)
	})
	o.object("master", false, f.TupleMaster.json)
	jsonNumber(o, "zone", &f.Zone)
	jsonNumber(o, "mark", &f.Mark)
	jsonNumber(o, "mark_mask", &f.MarkMask)
	jsonHex(o, "labels", &f.Labels)
	jsonHex(o, "labels_mask", &f.LabelsMask)
	jsonString(o, "helper", &f.Helper.Name)
	jsonHex(o, "helper_info", &f.Helper.Info)
	jsonString(o, "security_context", &f.SecurityContext)
	o.object("syn_proxy", false, f.SynProxy.json)
	jsonPointer(o, "nat", &f.NAT, (*NAT).json)
	jsonNumber(o, "use", &f.Use)
	if o.reading() && (f.CountersOrig.filled() || f.CountersReply.filled()) {
		f.CountedZero = false
	}
}

// jsonCounter is about the counter of one direction. Both are written if the
// kernel counts, even where they are zero.
func (f *Flow) jsonCounter(o *jsonObject, c *Counter, reply bool) {
	there := f.Counted()
	if o.reading() {
		there = o.has("packets") || o.has("bytes")
		f.CountedZero = f.CountedZero || there
	}
	if there {
		jsonAnyNumber(o, "packets", &c.Packets)
		jsonAnyNumber(o, "bytes", &c.Bytes)
	}
	jsonImpliedDirection(o, "counter_direction", &c.Direction, reply && there)
}

func (seq *SequenceAdjust) json(o *jsonObject, reply bool) {
	if !o.reading() && *seq == (SequenceAdjust{}) {
		return
	}
	o.object("seq_adj", true, func(o *jsonObject) {
		jsonNumber(o, "position", &seq.Position)
		jsonNumber(o, "offset_before", &seq.OffsetBefore)
		jsonNumber(o, "offset_after", &seq.OffsetAfter)
		jsonImpliedDirection(o, "direction", &seq.Direction, reply)
	})
}

func (t *Tuple) json(o *jsonObject) {
	jsonName(o, "protocol", &t.Proto.Protocol, ParseProtocol)
	jsonAddr(o, "src", &t.IP.SourceAddress)
	jsonNumber(o, "sport", &t.Proto.SourcePort)
	jsonAddr(o, "dst", &t.IP.DestinationAddress)
	jsonNumber(o, "dport", &t.Proto.DestinationPort)
	t.Proto.jsonICMP(o)
	jsonNumber(o, "zone", &t.Zone)
}

func (pt *ProtoTuple) jsonICMP(o *jsonObject) {
	var said ProtoTuple
	said.setProtocol(pt.Protocol)
	if o.reading() {
		pt.ICMPv4, pt.ICMPv6 = said.ICMPv4, said.ICMPv6
	}
	there := pt.isICMPv4() || pt.isICMPv6() || pt.ICMPType != 0 || pt.ICMPCode != 0 || pt.ICMPID != 0
	if !o.reading() && !there {
		return
	}
	o.object("icmp", true, func(o *jsonObject) {
		jsonAnyNumber(o, "type", &pt.ICMPType)
		jsonAnyNumber(o, "code", &pt.ICMPCode)
		jsonAnyNumber(o, "id", &pt.ICMPID)
		jsonImpliedBool(o, "v4", &pt.ICMPv4, said.ICMPv4)
		jsonImpliedBool(o, "v6", &pt.ICMPv6, said.ICMPv6)
	})
}

func (t *ProtoInfoTCP) json(o *jsonObject) {
	jsonAnyName(o, "state", &t.State, ParseTCPState)
	jsonNumber(o, "orig_window_scale", &t.OriginalWindowScale)
	jsonNumber(o, "reply_window_scale", &t.ReplyWindowScale)
	jsonTCPFlags(o, "orig_flags", &t.OriginalFlags)
	jsonTCPFlags(o, "reply_flags", &t.ReplyFlags)
}

func (p *ProtoInfoDCCP) json(o *jsonObject) {
	jsonAnyName(o, "state", &p.State, ParseDCCPState)
	jsonAnyName(o, "role", &p.Role, ParseDCCPRole)
	jsonNumber(o, "handshake_seq", &p.HandshakeSeq)
}

func (p *ProtoInfoSCTP) json(o *jsonObject) {
	jsonAnyName(o, "state", &p.State, ParseSCTPState)
	jsonNumber(o, "orig_vtag", &p.VTagOriginal)
	jsonNumber(o, "reply_vtag", &p.VTagReply)
}

func (p *SynProxy) json(o *jsonObject) {
	jsonNumber(o, "isn", &p.ISN)
	jsonNumber(o, "its", &p.ITS)
	jsonNumber(o, "tsoff", &p.TSOff)
}

func (n *NAT) json(o *jsonObject) {
	o.object("source", false, n.Source.json)
	o.object("destination", false, n.Destination.json)
}

func (r *NATRange) json(o *jsonObject) {
	jsonAddr(o, "min_addr", &r.MinAddr)
	jsonAddr(o, "max_addr", &r.MaxAddr)
	jsonNumber(o, "min_port", &r.MinPort)
	jsonNumber(o, "max_port", &r.MaxPort)
}

func (ex *Expect) json(o *jsonObject) {
	jsonNumber(o, "id", &ex.ID)
	jsonNumber(o, "timeout", &ex.Timeout)
	o.object("master", false, ex.TupleMaster.json)
	o.object("tuple", false, ex.Tuple.json)
	o.object("mask", false, ex.Mask.json)
	jsonNumber(o, "zone", &ex.Zone)
	jsonString(o, "helper", &ex.HelpName)
	jsonString(o, "function", &ex.Function)
	jsonFlags(o, "flags", &ex.Flags, expectFlagNames)
	jsonNumber(o, "class", &ex.Class)
	ex.NAT.json(o)
}

func (n *ExpectNAT) json(o *jsonObject) {
	if !o.reading() && *n == (ExpectNAT{}) {
		return
	}
	o.object("nat", true, func(o *jsonObject) {
		jsonDirection(o, "direction", &n.Direction)
		o.object("tuple", false, n.Tuple.json)
	})
}

func (e *Event) json(o *jsonObject) {
	jsonAnyName(o, "type", (*uint8)(&e.Type), parseEventName)
	jsonTime(o, "time", &e.Time)
	e.NSID.json(o)
	jsonNumber(o, "port_id", &e.PortID)
	jsonPointer(o, "flow", &e.Flow, e.jsonFlow)
	jsonPointer(o, "expect", &e.Expect, (*Expect).json)
}

func (e *Event) jsonFlow(f *Flow, o *jsonObject) {
	f.json(o)
	switch {
	case f.Mark != 0:
	case o.reading():
		e.ZeroMark = o.has("mark")
	case e.ZeroMark:
		jsonAnyNumber(o, "mark", &f.Mark)
	}
}

func (n *NSID) json(o *jsonObject) {
	id := uint32(n.id)
	if n.other || o.has("nsid") {
		jsonAnyNumber(o, "nsid", &id)
	}
	if o.reading() {
		*n = NSID{id: int(id), other: o.has("nsid")}
	}
}

// An eventName is an EventType with the name that it has in JSON and in logs:
// that of the constant has been what String returns since v0.5.0.
type eventName EventType

var eventNames = []string{
	EventUnknown:    "unknown",
	EventNew:        "new",
	EventUpdate:     "update",
	EventDestroy:    "destroy",
	EventExpNew:     "expect_new",
	EventExpDestroy: "expect_destroy",
}

func (n eventName) String() string { return nameOf(eventNames, n) }

func parseEventName(s string) (eventName, error) {
	return parseName[eventName]("event type", eventNames, s)
}

// jsonTCPFlags is about the flags in the upper byte of v, and under another name
// the mask in the lower one.
func jsonTCPFlags(o *jsonObject, name string, v *uint16) {
	flags, mask := uint8(*v>>8), uint8(*v)
	jsonFlags(o, name, &flags, tcpFlagNames)
	jsonFlags(o, name+"_mask", &mask, tcpFlagNames)
	if o.reading() {
		*v = TCPFlags(flags, mask)
	}
}

// jsonDirection is about a direction that is true for the reply direction.
func jsonDirection(o *jsonObject, name string, v *bool) {
	jsonValue(o, name, v, func(b []byte, reply bool) ([]byte, error) {
		return append(b, `"`+directionName(reply)+`"`...), nil
	}, func(raw []byte) (bool, error) {
		switch string(raw) {
		case `"orig"`:
			return false, nil
		case `"reply"`:
			return true, nil
		}
		return false, errors.New(`want "orig" or "reply"`)
	})
}

// jsonImpliedDirection is about a direction that is left out where it is the
// implied one.
func jsonImpliedDirection(o *jsonObject, name string, v *bool, implied bool) {
	if o.reading() {
		*v = implied
	} else if *v == implied {
		return
	}
	jsonDirection(o, name, v)
}
