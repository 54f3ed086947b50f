package conntrack

import (
	"bytes"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// MarshalJSON returns f as a JSON object. Its fields keep their names and forms in
// later versions, which may add more. Readers should ignore fields that they do not
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
//	orig, reply       object  one for each direction
//	  protocol        name    "tcp", ...
//	  src, dst        address
//	  sport, dport    number  ports, or keys of GRE
//	  icmp            object
//	    type, code, id  number
//	    v4, v6        boolean, if ICMPv4 or ICMPv6 is not what the protocol says
//	  zone            number  the zone of this direction alone
//	  packets, bytes  number  the counter
//	  counter_direction  "orig" or "reply", if the counter's Direction is not this one
//	  seq_adj         object  SeqAdjOrig or SeqAdjReply
//	    position, offset_before, offset_after  number
//	    direction     "orig" or "reply", if Direction is not this one
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
// A protocol, state or flag without a name is a number: {"protocol":253}. Later
// versions may have more names, so readers should accept both, as
// [Flow.UnmarshalJSON] does.
//
// Zero values are left out, except where zero has a meaning: the state and role of
// a protocol, the fields of icmp, and the counters if [Flow.Counted] is true.
//
// Times are in RFC 3339 format, in UTC, with nanoseconds; a year of more than four
// digits is an error. Invalid UTF-8 in a text is replaced, as by [json.Marshal].
func (f Flow) MarshalJSON() ([]byte, error) { return json.Marshal(newFlowJSON(&f)) }

// UnmarshalJSON sets f to the flow that [Flow.MarshalJSON] wrote, with zero for
// what it left out. It restores all fields of a flow that came from the kernel;
// times are in the local time zone.
//
// Names may be in any case. An unknown name of a protocol, state or flag is an
// error; unknown fields are ignored. JSON that versions without MarshalJSON wrote,
// such as {"Status":{"Value":6}}, is an error too. After an error, f is unchanged.
func (f *Flow) UnmarshalJSON(b []byte) error {
	j, err := readJSON[flowJSON](b)
	if j != nil {
		*f = j.flow()
	}
	return err
}

// MarshalJSON returns ex as a JSON object. The conventions are those of
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
func (ex Expect) MarshalJSON() ([]byte, error) { return json.Marshal(newExpectJSON(&ex)) }

// UnmarshalJSON sets ex to the expectation that [Expect.MarshalJSON] wrote. Otherwise
// it is like [Flow.UnmarshalJSON].
func (ex *Expect) UnmarshalJSON(b []byte) error {
	j, err := readJSON[expectJSON](b)
	if j != nil {
		*ex = j.expect()
	}
	return err
}

// MarshalJSON returns e as a JSON object. The conventions are those of
// [Flow.MarshalJSON].
//
//	type    name    "new", "update", "destroy", "expect_new", "expect_destroy", "unknown"
//	time    time    Time
//	nsid    number  NSID, if it is not the namespace of the Conn
//	port_id number  PortID
//	flow    object  Flow, with a mark of 0 if ZeroMark is set
//	expect  object  Expect
func (e Event) MarshalJSON() ([]byte, error) { return json.Marshal(newEventJSON(&e)) }

// UnmarshalJSON sets e to the event that [Event.MarshalJSON] wrote. Otherwise
// it is like [Flow.UnmarshalJSON].
func (e *Event) UnmarshalJSON(b []byte) error {
	j, err := readJSON[eventJSON](b)
	if j != nil {
		*e = j.event()
	}
	return err
}

// readJSON returns what b holds, or nil if b is null, which changes nothing.
func readJSON[T any](b []byte) (j *T, err error) {
	if err := json.Unmarshal(b, &j); err != nil {
		return nil, fmt.Errorf("conntrack: %.300w", fieldError(b, reflect.TypeFor[T](), "", err))
	}
	return j, nil
}

// fieldError returns the error of the first field of t, a struct, that cannot
// be read, with the path to the field, or err if there is none. For types that
// decode themselves, the error of encoding/json has neither the path nor what
// it expected.
func fieldError(b []byte, t reflect.Type, path string, err error) error {
	var fields map[string]json.RawMessage
	if json.Unmarshal(b, &fields) != nil {
		return err
	}
	for _, field := range reflect.VisibleFields(t) {
		tag, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		for name, raw := range fields {
			if field.Anonymous || !strings.EqualFold(name, tag) {
				continue
			}
			v := reflect.New(field.Type).Interface()
			if err := json.Unmarshal(raw, v); err != nil {
				return valueError(raw, v, path+name, err)
			}
		}
	}
	return err
}

// valueError returns err, the error from reading raw into v, with the path to
// v.
func valueError(raw []byte, v any, path string, err error) error {
	t := reflect.TypeOf(v).Elem()
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
		v = reflect.New(t).Interface()
	}
	var wrongType *json.UnmarshalTypeError
	_, readsJSON := v.(json.Unmarshaler)
	_, readsText := v.(encoding.TextUnmarshaler)
	switch isObject := t.Kind() == reflect.Struct && !readsJSON && !readsText; {
	case isObject && raw[0] == '{':
		return fieldError(raw, t, path+".", err)
	case !errors.As(err, &wrongType):
	case isObject:
		err = errors.New("want an object")
	case readsText || t.Kind() == reflect.String:
		err = errors.New("want text")
	case t.Kind() == reflect.Bool:
		err = errors.New("want true or false")
	default:
		err = fmt.Errorf("want a whole number from 0 to %d", uint64(1)<<t.Bits()-1)
	}
	return fmt.Errorf("JSON field %s is %.60s: %.150w", path, raw, err)
}

// The types below are the JSON objects. Each has a function that makes it from
// a value, and a method that returns the value.

type flowJSON struct {
	ID              uint32                `json:"id,omitzero"`
	Status          flagsJSON[StatusFlag] `json:"status,omitzero"`
	Timeout         uint32                `json:"timeout,omitzero"`
	Start           time.Time             `json:"start,omitzero"`
	Stop            time.Time             `json:"stop,omitzero"`
	TCP             *tcpJSON              `json:"tcp,omitzero"`
	DCCP            *dccpJSON             `json:"dccp,omitzero"`
	SCTP            *sctpJSON             `json:"sctp,omitzero"`
	Orig            directionJSON         `json:"orig,omitzero"`
	Reply           directionJSON         `json:"reply,omitzero"`
	Master          tupleJSON             `json:"master,omitzero"`
	Zone            uint16                `json:"zone,omitzero"`
	Mark            *uint32               `json:"mark,omitzero"`
	MarkMask        uint32                `json:"mark_mask,omitzero"`
	Labels          hexJSON               `json:"labels,omitempty"`
	LabelsMask      hexJSON               `json:"labels_mask,omitempty"`
	Helper          string                `json:"helper,omitzero"`
	HelperInfo      hexJSON               `json:"helper_info,omitempty"`
	SecurityContext Security              `json:"security_context,omitzero"`
	SynProxy        synProxyJSON          `json:"syn_proxy,omitzero"`
	NAT             *natJSON              `json:"nat,omitzero"`
	Use             uint32                `json:"use,omitzero"`
}

func newFlowJSON(f *Flow) *flowJSON {
	j := &flowJSON{
		ID:              f.ID,
		Status:          flagsJSON[StatusFlag]{f.Status.Value},
		Timeout:         f.Timeout,
		Start:           f.Timestamp.Start.UTC(),
		Stop:            f.Timestamp.Stop.UTC(),
		TCP:             newTCPJSON(f.ProtoInfo.TCP),
		DCCP:            newDCCPJSON(f.ProtoInfo.DCCP),
		SCTP:            newSCTPJSON(f.ProtoInfo.SCTP),
		Orig:            newDirectionJSON(f.Counted(), &f.TupleOrig, &f.CountersOrig, &f.SeqAdjOrig, false),
		Reply:           newDirectionJSON(f.Counted(), &f.TupleReply, &f.CountersReply, &f.SeqAdjReply, true),
		Master:          newTupleJSON(&f.TupleMaster),
		Zone:            f.Zone,
		MarkMask:        f.MarkMask,
		Labels:          f.Labels,
		LabelsMask:      f.LabelsMask,
		Helper:          f.Helper.Name,
		HelperInfo:      f.Helper.Info,
		SecurityContext: f.SecurityContext,
		SynProxy:        synProxyJSON(f.SynProxy),
		NAT:             newNATJSON(f.NAT),
		Use:             f.Use,
	}
	if f.Mark != 0 {
		j.Mark = &f.Mark
	}
	return j
}

func (j *flowJSON) flow() Flow {
	f := Flow{
		ID:              j.ID,
		Timeout:         j.Timeout,
		Timestamp:       Timestamp{Start: localTime(j.Start), Stop: localTime(j.Stop)},
		Status:          Status{Value: j.Status.value},
		ProtoInfo:       ProtoInfo{TCP: j.TCP.info(), DCCP: j.DCCP.info(), SCTP: j.SCTP.info()},
		Helper:          Helper{Name: j.Helper, Info: j.HelperInfo},
		Zone:            j.Zone,
		SecurityContext: j.SecurityContext,
		TupleOrig:       j.Orig.tuple(),
		TupleReply:      j.Reply.tuple(),
		TupleMaster:     j.Master.tuple(),
		CountersOrig:    j.Orig.counter(false),
		CountersReply:   j.Reply.counter(true),
		SeqAdjOrig:      j.Orig.SeqAdj.adjustment(false),
		SeqAdjReply:     j.Reply.SeqAdj.adjustment(true),
		Labels:          j.Labels,
		LabelsMask:      j.LabelsMask,
		Use:             j.Use,
		SynProxy:        SynProxy(j.SynProxy),
		MarkMask:        j.MarkMask,
		NAT:             j.NAT.nat(),
	}
	if j.Mark != nil {
		f.Mark = *j.Mark
	}
	f.CountedZero = (j.Orig.counted() || j.Reply.counted()) && !f.Counted()
	return f
}

// localTime returns a decoded time in the local time zone, as times from the
// kernel are.
func localTime(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.Local()
}

type directionJSON struct {
	tupleJSON
	Packets          *uint64     `json:"packets,omitzero"`
	Bytes            *uint64     `json:"bytes,omitzero"`
	CounterDirection *replyJSON  `json:"counter_direction,omitzero"`
	SeqAdj           *seqAdjJSON `json:"seq_adj,omitzero"`
}

// newDirectionJSON returns one direction of a flow: the reply direction if
// reply is set.
func newDirectionJSON(counted bool, t *Tuple, c *Counter, seq *SequenceAdjust, reply bool) directionJSON {
	j := directionJSON{tupleJSON: newTupleJSON(t), SeqAdj: newSeqAdjJSON(seq, reply)}
	if counted {
		j.Packets, j.Bytes = &c.Packets, &c.Bytes
	}
	j.CounterDirection = unlessImplied(replyJSON(c.Direction), replyJSON(reply && counted))
	return j
}

func (j *directionJSON) counted() bool { return j.Packets != nil || j.Bytes != nil }

func (j *directionJSON) counter(reply bool) Counter {
	return Counter{
		Direction: bool(orImplied(j.CounterDirection, replyJSON(reply && j.counted()))),
		Packets:   orImplied(j.Packets, 0),
		Bytes:     orImplied(j.Bytes, 0),
	}
}

// unlessImplied returns a pointer to v, or nil if v is the implied value.
func unlessImplied[T comparable](v, implied T) *T {
	if v == implied {
		return nil
	}
	said := v // else v would be allocated in both cases
	return &said
}

func orImplied[T any](v *T, implied T) T {
	if v == nil {
		return implied
	}
	return *v
}

type seqAdjJSON struct {
	Position     uint32     `json:"position,omitzero"`
	OffsetBefore uint32     `json:"offset_before,omitzero"`
	OffsetAfter  uint32     `json:"offset_after,omitzero"`
	Direction    *replyJSON `json:"direction,omitzero"`
}

func newSeqAdjJSON(seq *SequenceAdjust, reply bool) *seqAdjJSON {
	if *seq == (SequenceAdjust{}) {
		return nil
	}
	return &seqAdjJSON{
		Position:     seq.Position,
		OffsetBefore: seq.OffsetBefore,
		OffsetAfter:  seq.OffsetAfter,
		Direction:    unlessImplied(replyJSON(seq.Direction), replyJSON(reply)),
	}
}

func (j *seqAdjJSON) adjustment(reply bool) SequenceAdjust {
	if j == nil {
		return SequenceAdjust{}
	}
	return SequenceAdjust{
		Direction:    bool(orImplied(j.Direction, replyJSON(reply))),
		Position:     j.Position,
		OffsetBefore: j.OffsetBefore,
		OffsetAfter:  j.OffsetAfter,
	}
}

type tupleJSON struct {
	Protocol        nameJSON[Protocol] `json:"protocol,omitzero"`
	Source          netip.Addr         `json:"src,omitzero"`
	SourcePort      uint16             `json:"sport,omitzero"`
	Destination     netip.Addr         `json:"dst,omitzero"`
	DestinationPort uint16             `json:"dport,omitzero"`
	ICMP            *icmpJSON          `json:"icmp,omitzero"`
	Zone            uint16             `json:"zone,omitzero"`
}

func newTupleJSON(t *Tuple) tupleJSON {
	return tupleJSON{
		Protocol:        nameJSON[Protocol]{Protocol(t.Proto.Protocol)},
		Source:          t.IP.SourceAddress,
		SourcePort:      t.Proto.SourcePort,
		Destination:     t.IP.DestinationAddress,
		DestinationPort: t.Proto.DestinationPort,
		ICMP:            newICMPJSON(&t.Proto),
		Zone:            t.Zone,
	}
}

func (j *tupleJSON) tuple() Tuple {
	t := Tuple{
		IP:    IPTuple{SourceAddress: j.Source, DestinationAddress: j.Destination},
		Proto: ProtoTuple{SourcePort: j.SourcePort, DestinationPort: j.DestinationPort},
		Zone:  j.Zone,
	}
	t.Proto.setProtocol(uint8(j.Protocol.value))
	if icmp := j.ICMP; icmp != nil {
		t.Proto.ICMPType, t.Proto.ICMPCode, t.Proto.ICMPID = icmp.Type, icmp.Code, icmp.ID
		t.Proto.ICMPv4 = orImplied(icmp.V4, t.Proto.ICMPv4)
		t.Proto.ICMPv6 = orImplied(icmp.V6, t.Proto.ICMPv6)
	}
	return t
}

type icmpJSON struct {
	Type uint8  `json:"type"`
	Code uint8  `json:"code"`
	ID   uint16 `json:"id"`
	V4   *bool  `json:"v4,omitzero"`
	V6   *bool  `json:"v6,omitzero"`
}

func newICMPJSON(pt *ProtoTuple) *icmpJSON {
	if !pt.isICMPv4() && !pt.isICMPv6() && pt.ICMPType == 0 && pt.ICMPCode == 0 && pt.ICMPID == 0 {
		return nil
	}
	var implied ProtoTuple
	implied.setProtocol(pt.Protocol)
	return &icmpJSON{
		Type: pt.ICMPType,
		Code: pt.ICMPCode,
		ID:   pt.ICMPID,
		V4:   unlessImplied(pt.ICMPv4, implied.ICMPv4),
		V6:   unlessImplied(pt.ICMPv6, implied.ICMPv6),
	}
}

type tcpJSON struct {
	State            nameJSON[TCPState] `json:"state"`
	OrigWindowScale  uint8              `json:"orig_window_scale,omitzero"`
	ReplyWindowScale uint8              `json:"reply_window_scale,omitzero"`
	OrigFlags        flagsJSON[tcpFlag] `json:"orig_flags,omitzero"`
	OrigFlagsMask    flagsJSON[tcpFlag] `json:"orig_flags_mask,omitzero"`
	ReplyFlags       flagsJSON[tcpFlag] `json:"reply_flags,omitzero"`
	ReplyFlagsMask   flagsJSON[tcpFlag] `json:"reply_flags_mask,omitzero"`
}

func newTCPJSON(p *ProtoInfoTCP) *tcpJSON {
	if p == nil {
		return nil
	}
	return &tcpJSON{
		State:            nameJSON[TCPState]{TCPState(p.State)},
		OrigWindowScale:  p.OriginalWindowScale,
		ReplyWindowScale: p.ReplyWindowScale,
		OrigFlags:        flagsJSON[tcpFlag]{tcpFlag(p.OriginalFlags >> 8)},
		OrigFlagsMask:    flagsJSON[tcpFlag]{tcpFlag(p.OriginalFlags)},
		ReplyFlags:       flagsJSON[tcpFlag]{tcpFlag(p.ReplyFlags >> 8)},
		ReplyFlagsMask:   flagsJSON[tcpFlag]{tcpFlag(p.ReplyFlags)},
	}
}

func (j *tcpJSON) info() *ProtoInfoTCP {
	if j == nil {
		return nil
	}
	return &ProtoInfoTCP{
		State:               uint8(j.State.value),
		OriginalWindowScale: j.OrigWindowScale,
		ReplyWindowScale:    j.ReplyWindowScale,
		OriginalFlags:       TCPFlags(uint8(j.OrigFlags.value), uint8(j.OrigFlagsMask.value)),
		ReplyFlags:          TCPFlags(uint8(j.ReplyFlags.value), uint8(j.ReplyFlagsMask.value)),
	}
}

type dccpJSON struct {
	State        nameJSON[dccpState] `json:"state"`
	Role         nameJSON[dccpRole]  `json:"role"`
	HandshakeSeq uint64              `json:"handshake_seq,omitzero"`
}

func newDCCPJSON(p *ProtoInfoDCCP) *dccpJSON {
	if p == nil {
		return nil
	}
	return &dccpJSON{nameJSON[dccpState]{dccpState(p.State)}, nameJSON[dccpRole]{dccpRole(p.Role)}, p.HandshakeSeq}
}

func (j *dccpJSON) info() *ProtoInfoDCCP {
	if j == nil {
		return nil
	}
	return &ProtoInfoDCCP{State: uint8(j.State.value), Role: uint8(j.Role.value), HandshakeSeq: j.HandshakeSeq}
}

type sctpJSON struct {
	State     nameJSON[SCTPState] `json:"state"`
	OrigVTag  uint32              `json:"orig_vtag,omitzero"`
	ReplyVTag uint32              `json:"reply_vtag,omitzero"`
}

func newSCTPJSON(p *ProtoInfoSCTP) *sctpJSON {
	if p == nil {
		return nil
	}
	return &sctpJSON{nameJSON[SCTPState]{SCTPState(p.State)}, p.VTagOriginal, p.VTagReply}
}

func (j *sctpJSON) info() *ProtoInfoSCTP {
	if j == nil {
		return nil
	}
	return &ProtoInfoSCTP{State: uint8(j.State.value), VTagOriginal: j.OrigVTag, VTagReply: j.ReplyVTag}
}

type synProxyJSON struct {
	ISN   uint32 `json:"isn,omitzero"`
	ITS   uint32 `json:"its,omitzero"`
	TSOff uint32 `json:"tsoff,omitzero"`
}

type natJSON struct {
	Source      natRangeJSON `json:"source,omitzero"`
	Destination natRangeJSON `json:"destination,omitzero"`
}

type natRangeJSON struct {
	MinAddr netip.Addr `json:"min_addr,omitzero"`
	MaxAddr netip.Addr `json:"max_addr,omitzero"`
	MinPort uint16     `json:"min_port,omitzero"`
	MaxPort uint16     `json:"max_port,omitzero"`
}

func newNATJSON(n *NAT) *natJSON {
	if n == nil {
		return nil
	}
	return &natJSON{natRangeJSON(n.Source), natRangeJSON(n.Destination)}
}

func (j *natJSON) nat() *NAT {
	if j == nil {
		return nil
	}
	return &NAT{NATRange(j.Source), NATRange(j.Destination)}
}

type expectJSON struct {
	ID       uint32                 `json:"id,omitzero"`
	Timeout  uint32                 `json:"timeout,omitzero"`
	Master   tupleJSON              `json:"master,omitzero"`
	Tuple    tupleJSON              `json:"tuple,omitzero"`
	Mask     tupleJSON              `json:"mask,omitzero"`
	Zone     uint16                 `json:"zone,omitzero"`
	Helper   string                 `json:"helper,omitzero"`
	Function string                 `json:"function,omitzero"`
	Flags    flagsJSON[ExpectFlags] `json:"flags,omitzero"`
	Class    uint32                 `json:"class,omitzero"`
	NAT      *expectNATJSON         `json:"nat,omitzero"`
}

func newExpectJSON(ex *Expect) *expectJSON {
	j := &expectJSON{
		ID:       ex.ID,
		Timeout:  ex.Timeout,
		Master:   newTupleJSON(&ex.TupleMaster),
		Tuple:    newTupleJSON(&ex.Tuple),
		Mask:     newTupleJSON(&ex.Mask),
		Zone:     ex.Zone,
		Helper:   ex.HelpName,
		Function: ex.Function,
		Flags:    flagsJSON[ExpectFlags]{ExpectFlags(ex.Flags)},
		Class:    ex.Class,
	}
	if ex.NAT != (ExpectNAT{}) {
		j.NAT = &expectNATJSON{replyJSON(ex.NAT.Direction), newTupleJSON(&ex.NAT.Tuple)}
	}
	return j
}

func (j *expectJSON) expect() Expect {
	ex := Expect{
		ID:          j.ID,
		Timeout:     j.Timeout,
		TupleMaster: j.Master.tuple(),
		Tuple:       j.Tuple.tuple(),
		Mask:        j.Mask.tuple(),
		Zone:        j.Zone,
		HelpName:    j.Helper,
		Function:    j.Function,
		Flags:       uint32(j.Flags.value),
		Class:       j.Class,
	}
	if j.NAT != nil {
		ex.NAT = ExpectNAT{Direction: bool(j.NAT.Direction), Tuple: j.NAT.Tuple.tuple()}
	}
	return ex
}

type expectNATJSON struct {
	Direction replyJSON `json:"direction"`
	Tuple     tupleJSON `json:"tuple,omitzero"`
}

type eventJSON struct {
	Type   nameJSON[EventType] `json:"type"`
	Time   time.Time           `json:"time,omitzero"`
	NSID   *uint32             `json:"nsid,omitzero"`
	PortID uint32              `json:"port_id,omitzero"`
	Flow   *flowJSON           `json:"flow,omitzero"`
	Expect *expectJSON         `json:"expect,omitzero"`
}

func newEventJSON(e *Event) *eventJSON {
	j := &eventJSON{Type: nameJSON[EventType]{e.Type}, Time: e.Time.UTC(), PortID: e.PortID}
	if id, ok := e.NSID.ID(); ok {
		nsid := uint32(id)
		j.NSID = &nsid
	}
	if e.Flow != nil {
		j.Flow = newFlowJSON(e.Flow)
		if e.ZeroMark {
			j.Flow.Mark = &e.Flow.Mark
		}
	}
	if e.Expect != nil {
		j.Expect = newExpectJSON(e.Expect)
	}
	return j
}

func (j *eventJSON) event() Event {
	e := Event{Type: j.Type.value, Time: localTime(j.Time), PortID: j.PortID}
	if j.NSID != nil {
		e.NSID = NSID{id: int(*j.NSID), other: true}
	}
	if j.Flow != nil {
		f := j.Flow.flow()
		e.Flow = &f
		e.ZeroMark = j.Flow.Mark != nil && f.Mark == 0
	}
	if j.Expect != nil {
		ex := j.Expect.expect()
		e.Expect = &ex
	}
	return e
}

// A nameJSON is written as the name of its value, or as a number if it has no
// name.
type nameJSON[T named] struct{ value T }

// named is a type whose values have names. UnmarshalText of its pointer reads
// them.
type named interface {
	~uint8 | ~uint32
	// name returns the name of a value or of a single flag, or "" if it has
	// none.
	name() string
}

func (n nameJSON[T]) MarshalJSON() ([]byte, error) { return appendNameJSON(nil, n.value), nil }

func (n *nameJSON[T]) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	return any(&n.value).(encoding.TextUnmarshaler).UnmarshalText(bytes.Trim(withoutEscapes(b), `"`))
}

// A flagsJSON is a set of flags, written as a list of their names.
type flagsJSON[T named] struct{ value T }

func (f flagsJSON[T]) MarshalJSON() ([]byte, error) {
	b := append(make([]byte, 0, 64), '[')
	for rest := f.value; rest != 0; rest &= rest - 1 {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = appendNameJSON(b, rest&-rest)
	}
	return append(b, ']'), nil
}

func (f *flagsJSON[T]) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	b = withoutEscapes(b)
	list, ok := bytes.CutPrefix(b, []byte("["))
	if !ok {
		return errors.New("want a list of flags")
	}
	list = bytes.TrimSpace(bytes.TrimSuffix(list, []byte("]")))
	if len(list) == 0 {
		f.value = 0
		return nil
	}
	// Without the quotes it is what UnmarshalText reads.
	return any(&f.value).(encoding.TextUnmarshaler).UnmarshalText(bytes.ReplaceAll(list, []byte(`"`), nil))
}

// appendNameJSON appends the name of v, or its number if it has no name.
func appendNameJSON[T named](b []byte, v T) []byte {
	name := v.name()
	if name == "" {
		return strconv.AppendUint(b, uint64(v), 10)
	}
	return append(append(append(b, '"'), name...), '"')
}

// withoutEscapes returns the JSON value b without escapes for characters that a
// name may have.
func withoutEscapes(b []byte) []byte {
	if bytes.IndexByte(b, '\\') < 0 {
		return b
	}
	var v any
	_ = json.Unmarshal(b, &v) // valid: encoding/json passed it
	b, _ = json.Marshal(v)
	return b
}

// A hexJSON is written as hexadecimal digits.
type hexJSON []byte

func (h hexJSON) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

func (h *hexJSON) UnmarshalText(text []byte) (err error) {
	*h, err = hex.AppendDecode(nil, text)
	return err
}

// A replyJSON is a direction, written as "reply" if it is true and "orig" if
// not.
type replyJSON bool

func (r replyJSON) MarshalText() ([]byte, error) { return []byte(directionName(bool(r))), nil }

func (r *replyJSON) UnmarshalText(text []byte) error {
	switch string(text) {
	case directionName(false):
		*r = false
	case directionName(true):
		*r = true
	default:
		return errors.New(`want "orig" or "reply"`)
	}
	return nil
}
