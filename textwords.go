package conntrack

import (
	"encoding/hex"
	"errors"
	"strconv"
	"time"
)

// A protoWord is what a ProtoTuple has one word for.
type protoWord struct {
	word string
	hex  bool
	// The options of conntrack(8), the second one for the reply direction.
	options [2]string
	bits    int
	get     func(p *ProtoTuple) uint64
	set     func(p *ProtoTuple, v uint64)
}

var (
	portWords = []protoWord{
		{"sport=", false, [2]string{"--sport", "--reply-port-src"}, 16, (*ProtoTuple).source, (*ProtoTuple).setSource},
		{"dport=", false, [2]string{"--dport", "--reply-port-dst"}, 16, (*ProtoTuple).destination, (*ProtoTuple).setDestination},
	}
	keyWords = []protoWord{
		{"srckey=", true, [2]string{"--srckey", "--reply-key-src"}, 16, (*ProtoTuple).source, (*ProtoTuple).setSource},
		{"dstkey=", true, [2]string{"--dstkey", "--reply-key-dst"}, 16, (*ProtoTuple).destination, (*ProtoTuple).setDestination},
	}
	icmpWords   = icmpWordsOf("--icmp")
	icmpv6Words = icmpWordsOf("--icmpv6")
)

func icmpWordsOf(option string) []protoWord {
	return []protoWord{
		{"type=", false, [2]string{option + "-type"}, 8,
			func(p *ProtoTuple) uint64 { return uint64(p.ICMPType) },
			func(p *ProtoTuple, v uint64) { p.ICMPType = uint8(v) }},
		{"code=", false, [2]string{option + "-code"}, 8,
			func(p *ProtoTuple) uint64 { return uint64(p.ICMPCode) },
			func(p *ProtoTuple, v uint64) { p.ICMPCode = uint8(v) }},
		{"id=", false, [2]string{option + "-id"}, 16,
			func(p *ProtoTuple) uint64 { return uint64(p.ICMPID) },
			func(p *ProtoTuple, v uint64) { p.ICMPID = uint16(v) }},
	}
}

func (pt *ProtoTuple) source() uint64          { return uint64(pt.SourcePort) }
func (pt *ProtoTuple) setSource(v uint64)      { pt.SourcePort = uint16(v) }
func (pt *ProtoTuple) destination() uint64     { return uint64(pt.DestinationPort) }
func (pt *ProtoTuple) setDestination(v uint64) { pt.DestinationPort = uint16(v) }

// protoWordsOf returns the words that tuples of a protocol have.
func protoWordsOf(protocol uint8) []protoWord {
	switch protocol {
	case ProtocolTCP, ProtocolUDP, ProtocolUDPLite, ProtocolSCTP, ProtocolDCCP:
		return portWords
	case ProtocolGRE:
		return keyWords
	case ProtocolICMP:
		return icmpWords
	case ProtocolICMPv6:
		return icmpv6Words
	}
	return nil
}

// protocolName returns the name that conntrack(8) prints, or "".
func protocolName(protocol uint8) string {
	switch {
	case protocol == ProtocolICMPv6:
		return "icmpv6"
	case protoWordsOf(protocol) != nil:
		return protocolNames[protocol]
	}
	return ""
}

// protoStates are the states of the protocols that have any.
var protoStates = []struct {
	protocol uint8
	names    []string
	// saved is how many of the names -o save knows.
	saved int
	get   func(p *ProtoInfo) (state uint8, ok bool)
	set   func(p *ProtoInfo, state uint8)
}{
	{ProtocolTCP, tcpStateNames, len(tcpStateNames), (*ProtoInfo).tcpState, (*ProtoInfo).setTCPState},
	{ProtocolDCCP, dccpStateNames, len(dccpStateNames), (*ProtoInfo).dccpState, (*ProtoInfo).setDCCPState},
	{ProtocolSCTP, sctpStateNames, SCTPStateHeartbeatSent, (*ProtoInfo).sctpState, (*ProtoInfo).setSCTPState},
}

func (p *ProtoInfo) tcpState() (uint8, bool) {
	if p.TCP == nil {
		return 0, false
	}
	return p.TCP.State, true
}

func (p *ProtoInfo) dccpState() (uint8, bool) {
	if p.DCCP == nil {
		return 0, false
	}
	return p.DCCP.State, true
}

func (p *ProtoInfo) sctpState() (uint8, bool) {
	if p.SCTP == nil {
		return 0, false
	}
	return p.SCTP.State, true
}

// setTCPState sets a state of which nothing else is known: without the window
// scales, a strict tracking would take most segments for invalid.
func (p *ProtoInfo) setTCPState(s uint8) {
	const liberal = TCPFlagBeLiberal << 8
	p.TCP = &ProtoInfoTCP{State: s, OriginalFlags: liberal, ReplyFlags: liberal}
}
func (p *ProtoInfo) setDCCPState(s uint8) { p.DCCP = &ProtoInfoDCCP{State: s} }
func (p *ProtoInfo) setSCTPState(s uint8) { p.SCTP = &ProtoInfoSCTP{State: s} }

// A flowWord is a word that begins with a key.
type flowWord struct {
	key string
	// end is what stands behind the value.
	end string
	// ours is set if conntrack(8) has no such word.
	ours  bool
	shown func(t *flowText) bool
	value func(t *flowText, b []byte) []byte
	read  func(r *flowReader, value string) error
}

// flowWords are the words behind those of the two directions, in the order in
// which they are printed.
var flowWords = []flowWord{
	{key: "mark=", shown: (*flowText).showsMark, value: (*flowText).appendMark,
		read: func(r *flowReader, v string) error { return readUint(v, &r.flow.Mark) }},
	textWord("secctx=", func(f *Flow) *string { return (*string)(&f.SecurityContext) }),
	numberWord("zone=", func(f *Flow) *uint16 { return &f.Zone }),
	{key: "delta-time=", shown: (*flowText).showsDelta, value: (*flowText).appendDelta, read: (*flowReader).readDelta},
	clockWord("[start=", func(f *Flow) *time.Time { return &f.Timestamp.Start }),
	clockWord("[stop=", func(f *Flow) *time.Time { return &f.Timestamp.Stop }),
	textWord("helper=", func(f *Flow) *string { return &f.Helper.Name }),
	numberWord("use=", func(f *Flow) *uint32 { return &f.Use }),
	{
		key:   "id=",
		shown: func(t *flowText) bool { return t.Flow.ID != 0 && (t.o.ID || t.o.Lossless) },
		value: func(t *flowText, b []byte) []byte { return strconv.AppendUint(b, uint64(t.Flow.ID), 10) },
		read:  func(r *flowReader, v string) error { return readUint(v, &r.flow.ID) },
	},
	{key: labelsKey, shown: (*flowText).showsLabels, value: (*flowText).appendLabels},
	{
		// conntrack(8) takes off the last character, which it supposes to be a
		// comma.
		key:   emptyLabels,
		shown: (*flowText).showsNoLabels,
		value: func(_ *flowText, b []byte) []byte { return b },
		read:  func(r *flowReader, v string) error { r.flow.Labels = labelSet(nil); return nil },
	},

	{
		key: "status=", ours: true,
		shown: func(*flowText) bool { return true },
		value: func(t *flowText, b []byte) []byte { return appendHex(b, uint64(t.Status.Value)) },
		read:  func(r *flowReader, v string) error { return readUint(v, &r.flow.Status.Value) },
	},
	{
		key: "tcp=", ours: true,
		shown: func(t *flowText) bool { return t.ProtoInfo.TCP != nil },
		value: func(t *flowText, b []byte) []byte {
			p := t.ProtoInfo.TCP
			return appendList(b, uint64(p.State), uint64(p.OriginalWindowScale), uint64(p.ReplyWindowScale),
				uint64(p.OriginalFlags), uint64(p.ReplyFlags))
		},
		read: func(r *flowReader, v string) error {
			n, err := readList(v, 8, 8, 8, 16, 16)
			r.flow.ProtoInfo.TCP = &ProtoInfoTCP{uint8(n[0]), uint8(n[1]), uint8(n[2]), uint16(n[3]), uint16(n[4])}
			return err
		},
	},
	{
		key: "dccp=", ours: true,
		shown: func(t *flowText) bool { return t.ProtoInfo.DCCP != nil },
		value: func(t *flowText, b []byte) []byte {
			p := t.ProtoInfo.DCCP
			return appendList(b, uint64(p.State), uint64(p.Role), p.HandshakeSeq)
		},
		read: func(r *flowReader, v string) error {
			n, err := readList(v, 8, 8, 64)
			r.flow.ProtoInfo.DCCP = &ProtoInfoDCCP{uint8(n[0]), uint8(n[1]), n[2]}
			return err
		},
	},
	{
		key: "sctp=", ours: true,
		shown: func(t *flowText) bool { return t.ProtoInfo.SCTP != nil },
		value: func(t *flowText, b []byte) []byte {
			p := t.ProtoInfo.SCTP
			return appendList(b, uint64(p.State), uint64(p.VTagOriginal), uint64(p.VTagReply))
		},
		read: func(r *flowReader, v string) error {
			n, err := readList(v, 8, 32, 32)
			r.flow.ProtoInfo.SCTP = &ProtoInfoSCTP{uint8(n[0]), uint32(n[1]), uint32(n[2])}
			return err
		},
	},
	tupleWord("orig=", func(f *Flow) *Tuple { return &f.TupleOrig }, (*Flow).showsOrig),
	tupleWord("reply=", func(f *Flow) *Tuple { return &f.TupleReply }, (*Flow).showsReply),
	tupleWord("master=", func(f *Flow) *Tuple { return &f.TupleMaster }, func(*Flow) bool { return false }),
	timeWord("start-time=", func(f *Flow) *time.Time { return &f.Timestamp.Start }),
	timeWord("stop-time=", func(f *Flow) *time.Time { return &f.Timestamp.Stop }),
	seqAdjWord("seqadj-orig=", false, func(f *Flow) *SequenceAdjust { return &f.SeqAdjOrig }),
	seqAdjWord("seqadj-reply=", true, func(f *Flow) *SequenceAdjust { return &f.SeqAdjReply }),
	bytesWord("helper-info=", func(f *Flow) *[]byte { return &f.Helper.Info }),
	bytesWord("labels-set=", func(f *Flow) *[]byte { return &f.Labels }),
	bytesWord("labels-mask=", func(f *Flow) *[]byte { return &f.LabelsMask }),
	{
		key: "mark-mask=", ours: true,
		shown: func(t *flowText) bool { return t.MarkMask != 0 },
		value: func(t *flowText, b []byte) []byte { return appendHex(b, uint64(t.MarkMask)) },
		read:  func(r *flowReader, v string) error { return readUint(v, &r.flow.MarkMask) },
	},
	{
		key: "synproxy=", ours: true,
		shown: func(t *flowText) bool { return t.SynProxy != (SynProxy{}) },
		value: func(t *flowText, b []byte) []byte {
			return appendList(b, uint64(t.SynProxy.ISN), uint64(t.SynProxy.ITS), uint64(t.SynProxy.TSOff))
		},
		read: func(r *flowReader, v string) error {
			n, err := readList(v, 32, 32, 32)
			r.flow.SynProxy = SynProxy{uint32(n[0]), uint32(n[1]), uint32(n[2])}
			return err
		},
	},
	natWord("nat-src=", func(n *NAT) *NATRange { return &n.Source }),
	natWord("nat-dst=", func(n *NAT) *NATRange { return &n.Destination }),
	{
		key: "directions=", ours: true,
		shown: func(t *flowText) bool { return t.directions() != t.usualDirections() },
		value: func(t *flowText, b []byte) []byte { return strconv.AppendUint(b, uint64(t.directions()), 10) },
		read: func(r *flowReader, v string) error {
			n, err := readList(v, 5)
			r.flow.setDirections(n[0])
			return err
		},
	},
}

// The words that need more than their value to be read.
const (
	labelsKey   = "labels="
	emptyLabels = "labels"
)

func numberWord[T uint16 | uint32](key string, field func(f *Flow) *T) flowWord {
	return flowWord{
		key:   key,
		shown: func(t *flowText) bool { return *field(t.Flow) != 0 },
		value: func(t *flowText, b []byte) []byte { return strconv.AppendUint(b, uint64(*field(t.Flow)), 10) },
		read:  func(r *flowReader, v string) error { return readUint(v, field(&r.flow)) },
	}
}

func textWord(key string, field func(f *Flow) *string) flowWord {
	return flowWord{
		key:   key,
		shown: func(t *flowText) bool { return *field(t.Flow) != "" },
		value: func(t *flowText, b []byte) []byte { return appendText(b, *field(t.Flow), t.o) },
		read:  func(r *flowReader, v string) error { return readText(v, field(&r.flow)) },
	}
}

// clockWord is a time to the second.
func clockWord(key string, field func(f *Flow) *time.Time) flowWord {
	return flowWord{
		key: key, end: "]",
		shown: func(t *flowText) bool { return t.o.KTimestamp && !field(t.Flow).IsZero() },
		value: func(t *flowText, b []byte) []byte {
			return field(t.Flow).In(t.o.location()).AppendFormat(b, time.ANSIC)
		},
		read: func(r *flowReader, v string) (err error) {
			*field(&r.flow), err = time.ParseInLocation(time.ANSIC, v, r.o.location())
			return err
		},
	}
}

// timeWord is a time to the nanosecond.
func timeWord(key string, field func(f *Flow) *time.Time) flowWord {
	return flowWord{
		key: key, ours: true,
		shown: func(t *flowText) bool { return !field(t.Flow).IsZero() },
		value: func(t *flowText, b []byte) []byte { return appendTime(b, *field(t.Flow)) },
		read:  func(r *flowReader, v string) error { return readTime(v, field(&r.flow)) },
	}
}

// tupleWord has all of a tuple, where its words do not tell it.
func tupleWord(key string, field func(f *Flow) *Tuple, told func(f *Flow) bool) flowWord {
	return flowWord{
		key: key, ours: true,
		shown: func(t *flowText) bool {
			tuple := field(t.Flow)
			if told(t.Flow) {
				return tuple.asTold() != *tuple
			}
			return *tuple != Tuple{}
		},
		value: func(t *flowText, b []byte) []byte { return appendTuple(b, field(t.Flow)) },
		read:  func(r *flowReader, v string) error { return readTuple(v, field(&r.flow)) },
	}
}

func seqAdjWord(key string, reply bool, field func(f *Flow) *SequenceAdjust) flowWord {
	return flowWord{
		key: key, ours: true,
		shown: func(t *flowText) bool { return field(t.Flow).filled() },
		value: func(t *flowText, b []byte) []byte {
			a := field(t.Flow)
			return appendList(b, uint64(a.Position), uint64(a.OffsetBefore), uint64(a.OffsetAfter))
		},
		read: func(r *flowReader, v string) error {
			n, err := readList(v, 32, 32, 32)
			*field(&r.flow) = SequenceAdjust{reply, uint32(n[0]), uint32(n[1]), uint32(n[2])}
			return err
		},
	}
}

func bytesWord(key string, field func(f *Flow) *[]byte) flowWord {
	return flowWord{
		key: key, ours: true,
		shown: func(t *flowText) bool { return *field(t.Flow) != nil },
		value: func(t *flowText, b []byte) []byte { return hex.AppendEncode(b, *field(t.Flow)) },
		read: func(r *flowReader, v string) (err error) {
			*field(&r.flow), err = hex.DecodeString(v)
			return err
		},
	}
}

func natWord(key string, field func(n *NAT) *NATRange) flowWord {
	return flowWord{
		key: key, ours: true,
		shown: func(t *flowText) bool { return t.NAT != nil },
		value: func(t *flowText, b []byte) []byte {
			r := field(t.NAT)
			b = append(appendFullAddr(b, r.MinAddr), ',')
			b = append(appendFullAddr(b, r.MaxAddr), ',')
			return appendList(b, uint64(r.MinPort), uint64(r.MaxPort))
		},
		read: func(r *flowReader, v string) error { return readRange(v, field(r.flow.newNAT())) },
	}
}

// An expectWord is a word that conntrack(8) does not have.
type expectWord struct {
	key   string
	shown func(ex *Expect) bool
	value func(b []byte, ex *Expect) []byte
	read  func(ex *Expect, value string) error
}

var expectWords = []expectWord{
	{
		"id=", func(*Expect) bool { return true },
		func(b []byte, ex *Expect) []byte { return strconv.AppendUint(b, uint64(ex.ID), 10) },
		func(ex *Expect, v string) error { return readUint(v, &ex.ID) },
	},
	{
		"flags=", func(ex *Expect) bool { return ex.Flags&^expectFlags != 0 },
		func(b []byte, ex *Expect) []byte { return appendHex(b, uint64(ex.Flags)) },
		func(ex *Expect, v string) error { return readUint(v, &ex.Flags) },
	},
	{
		"function=", func(ex *Expect) bool { return ex.Function != "" },
		func(b []byte, ex *Expect) []byte { return appendText(b, ex.Function, &TextOptions{Lossless: true}) },
		func(ex *Expect, v string) error { return readText(v, &ex.Function) },
	},
	expectTupleWord(0),
	expectTupleWord(1),
	expectTupleWord(2),
	{
		"nat=", func(ex *Expect) bool { return ex.NAT.Tuple != Tuple{} },
		func(b []byte, ex *Expect) []byte { return appendTuple(b, &ex.NAT.Tuple) },
		func(ex *Expect, v string) error { return readTuple(v, &ex.NAT.Tuple) },
	},
	{
		"nat-direction=", func(ex *Expect) bool { return ex.NAT.Direction },
		func(b []byte, ex *Expect) []byte { return append(b, directionName(true)...) },
		func(ex *Expect, v string) error {
			if v != directionName(true) {
				return errors.New("no direction but reply has a word")
			}
			ex.NAT.Direction = true
			return nil
		},
	},
}

// expectTupleKeys are the words for all of a tuple, in the order of tuples.
var expectTupleKeys = [...]string{"tuple=", "mask=", "master="}

func expectTupleWord(i int) expectWord {
	return expectWord{
		expectTupleKeys[i],
		func(ex *Expect) bool {
			t := ex.tuples()[i]
			// The protocol of the master has no word, and neither has a zone.
			if t.told() && t.tuple != &ex.TupleMaster && t.tuple.Zone == 0 {
				tuple := t.withProtocol()
				return tuple.asTold() != *t.tuple
			}
			return *t.tuple != Tuple{}
		},
		func(b []byte, ex *Expect) []byte { return appendTuple(b, ex.tuples()[i].tuple) },
		func(ex *Expect, v string) error { return readTuple(v, ex.tuples()[i].tuple) },
	}
}
