package cttext

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/ti-mo/conntrack"
)

// Options control how flows, expectations and events are printed and parsed.
// Most correspond to values of conntrack(8)'s option -o. The zero value prints
// entries like conntrack -L and events like conntrack -E.
type Options struct {
	// Extended starts flows with their address family (-o extended).
	Extended bool
	// ID adds the id of flows (-o id).
	ID bool
	// KTimestamp adds the start and stop time of flows, in seconds and in the
	// time zone Location (-o ktimestamp).
	KTimestamp bool
	// Timestamp starts events and expectations with a time (-o timestamp): that
	// of the event if the kernel sent one, otherwise Now.
	Timestamp bool
	// Labels, if not nil, adds the labels of flows (-o labels). Labels without
	// a name are left out. Parsing labels requires it too.
	Labels LabelNames
	// Save prints flows as the command that adds, changes or deletes them (-o
	// save). Then Extended, ID, KTimestamp, Timestamp and Labels have no effect
	// on flows: conntrack(8) refuses to combine them. A saved flow has no mark,
	// no labels and no helper. SCTP's verification tags are printed as numbers
	// in native byte order.
	Save bool

	// Now is the time that delta-time counts to for flows that have not ended.
	// The zero Time means the time of the call.
	Now time.Time
	// Location is the time zone of KTimestamp. Nil means the local time zone.
	Location *time.Location
}

func (o *Options) now() time.Time {
	if o.Now.IsZero() {
		return time.Now()
	}
	return o.Now
}

func (o *Options) location() *time.Location {
	if o.Location == nil {
		return time.Local
	}
	return o.Location
}

// lineSize is longer than almost all lines.
const lineSize = 512

// Flow returns f as a line of conntrack -L, without a newline.
func (o Options) Flow(f *conntrack.Flow) string {
	var b [lineSize]byte
	return string(o.AppendFlow(b[:0], f))
}

// AppendFlow appends the line that [Options.Flow] returns to b.
func (o Options) AppendFlow(b []byte, f *conntrack.Flow) []byte {
	l := flowLine{Flow: f, o: &o}
	return withoutBlank(l.append(b), len(b))
}

// Expect returns ex as a line of conntrack -L expect, without a newline.
func (o Options) Expect(ex *conntrack.Expect) string {
	var b [lineSize]byte
	return string(o.AppendExpect(b[:0], ex))
}

// AppendExpect appends the line that [Options.Expect] returns to b.
func (o Options) AppendExpect(b []byte, ex *conntrack.Expect) []byte {
	start := len(b)
	if o.Timestamp {
		b = appendExpectTime(b, o.now())
	}
	return withoutBlank(appendExpect(b, ex), start)
}

// Event returns e as a line of conntrack -E or conntrack -E expect, without a
// newline. It returns "" if e has neither a flow nor an expectation.
//
// If a process caused the event, the line ends with the address of its socket.
// conntrack(8) also looks up the name of the process; Event does not.
func (o Options) Event(e *conntrack.Event) string {
	var b [lineSize]byte
	return string(o.AppendEvent(b[:0], e))
}

// AppendEvent appends the line that [Options.Event] returns to b.
func (o Options) AppendEvent(b []byte, e *conntrack.Event) []byte {
	start := len(b)
	at := e.Time
	if o.Timestamp && at.IsZero() {
		at = o.now()
	}
	switch {
	case e.Flow != nil:
		if o.Timestamp && !o.Save {
			b = appendFlowTime(b, at)
		}
		l := flowLine{Flow: e.Flow, o: &o, event: e.Type, at: at, zeroMark: e.ZeroMark}
		b = l.append(b)
		if e.PortID != 0 {
			b = appendUint(appendWord(b, "", byProcess), portIDKey, uint64(e.PortID))
		}
	case e.Expect != nil:
		if o.Timestamp {
			b = appendExpectTime(b, at)
		}
		b = appendExpect(appendEventType(b, e.Type), e.Expect)
	}
	return withoutBlank(b, start)
}

// withoutBlank removes the final blank of the line that starts at start. Every
// word ends with one.
func withoutBlank(b []byte, start int) []byte {
	if n := len(b); n > start && b[n-1] == ' ' {
		return b[:n-1]
	}
	return b
}

// appendEventType appends the name of t, aligned right, if it has one.
func appendEventType(b []byte, t conntrack.EventType) []byte {
	for _, e := range eventWords {
		if e.event == t {
			b = append(b, "         "[len(e.word):]...)
			return appendWord(b, "", e.word)
		}
	}
	return b
}

// appendFlowTime appends the time of a flow's event.
func appendFlowTime(b []byte, at time.Time) []byte {
	b = append(b, '[')
	b = appendPadded(b, at.Unix(), 8, '0', true)
	b = append(b, '.')
	b = appendPadded(b, int64(at.Nanosecond()/1000), 6, '0', true)
	return append(b, "]\t"...)
}

// appendExpectTime appends the time of an expectation. Its microseconds have
// blanks after them in place of leading zeros.
func appendExpectTime(b []byte, at time.Time) []byte {
	b = append(b, '[')
	b = appendPadded(b, at.Unix(), 8, ' ', false)
	b = append(b, '.')
	b = appendPadded(b, int64(at.Nanosecond()/1000), 6, ' ', false)
	return append(b, "]\t"...)
}

// appendPadded appends v, padded to width with pad before or after it.
func appendPadded(b []byte, v int64, width int, pad byte, before bool) []byte {
	var digits [20]byte
	text := strconv.AppendInt(digits[:0], v, 10)
	if !before {
		b = append(b, text...)
	}
	for range width - len(text) {
		b = append(b, pad)
	}
	if before {
		b = append(b, text...)
	}
	return b
}

// flowLine is a flow to print.
type flowLine struct {
	*conntrack.Flow
	o *Options
	// event is EventUnknown for an entry of the table.
	event conntrack.EventType
	// at is the time of the event. It is zero for an entry.
	at time.Time
	// zeroMark makes an event show a mark of zero.
	zeroMark bool
}

func (l *flowLine) append(b []byte) []byte {
	if l.o.Save {
		return l.appendSaved(b)
	}
	b = appendEventType(b, l.event)
	if l.o.Extended {
		b = appendFamily(b, &l.TupleOrig.IP)
	}
	b = appendProtocol(b, l.TupleOrig.Proto.Protocol)
	if l.hasTimeout() {
		b = appendUint(b, "", uint64(l.Timeout))
	}
	b = appendState(b, &l.ProtoInfo)
	b = l.appendDirection(b, "zone-orig=", &l.TupleOrig, &l.CountersOrig, l.showsOrig())
	if !l.Status.SeenReply() {
		b = append(b, "[UNREPLIED] "...)
	}
	b = l.appendDirection(b, "zone-reply=", &l.TupleReply, &l.CountersReply, l.showsReply())
	for _, s := range statusWords {
		if l.Status.Value&s.flag != 0 {
			b = appendWord(b, "", s.word)
			break
		}
	}
	return l.appendRest(b)
}

// appendRest appends the words after the two directions.
func (l *flowLine) appendRest(b []byte) []byte {
	// In events, the kernel sends the mark only if it is not zero or has become
	// zero.
	if l.event == conntrack.EventUnknown || l.Mark != 0 || l.zeroMark {
		b = appendUint(b, "mark=", uint64(l.Mark))
	}
	if l.SecurityContext != "" {
		b = appendWord(b, "secctx=", string(l.SecurityContext))
	}
	if l.Zone != 0 {
		b = appendUint(b, "zone=", uint64(l.Zone))
	}
	if !l.Timestamp.Start.IsZero() {
		b = appendUint(b, "delta-time=", l.delta())
	}
	if l.o.KTimestamp {
		b = l.appendClock(b, "[start=", l.Timestamp.Start)
		b = l.appendClock(b, "[stop=", l.Timestamp.Stop)
	}
	if l.Helper.Name != "" {
		b = appendWord(b, "helper=", l.Helper.Name)
	}
	if l.Use != 0 {
		b = appendUint(b, "use=", uint64(l.Use))
	}
	if l.o.ID && l.ID != 0 {
		b = appendUint(b, "id=", uint64(l.ID))
	}
	if l.o.Labels != nil && len(l.Labels) > 0 {
		b = l.appendLabels(b)
	}
	return b
}

// hasTimeout reports whether the kernel sends the timeout. It does not for
// flows in a flow table and for expired flows.
func (l *flowLine) hasTimeout() bool {
	return l.Timeout != 0 || !l.Status.Offload() && l.event != conntrack.EventDestroy
}

// showsOrig reports whether the line has words for the original direction.
func (l *flowLine) showsOrig() bool { return familyOf(&l.TupleOrig.IP) != 0 }

// showsReply reports whether the line has words for the reply direction. They
// follow those of the original direction and use its protocol.
func (l *flowLine) showsReply() bool {
	return l.showsOrig() && familyOf(&l.TupleReply.IP) == familyOf(&l.TupleOrig.IP) &&
		l.TupleReply.Proto.Protocol == l.TupleOrig.Proto.Protocol
}

func (l *flowLine) appendDirection(b []byte, zone string, t *conntrack.Tuple, c *conntrack.Counter, shown bool) []byte {
	if shown {
		b = appendTuple(b, "", t, t.Proto.Protocol)
		if t.Zone != 0 {
			b = appendUint(b, zone, uint64(t.Zone))
		}
	}
	if l.Counted() {
		b = appendUint(b, "packets=", c.Packets)
		b = appendUint(b, "bytes=", c.Bytes)
	}
	return b
}

// delta returns the age of the flow in seconds, from its start to its end or to
// now. The age of a flow that ended before it began is negative, and so wraps
// around to nearly 2^64.
func (l *flowLine) delta() uint64 {
	end := l.Timestamp.Stop
	if end.IsZero() {
		end = l.at
	}
	if end.IsZero() {
		end = l.o.now()
	}
	return uint64(end.Unix() - l.Timestamp.Start.Unix())
}

// appendClock appends a time in seconds, if it is known.
func (l *flowLine) appendClock(b []byte, key string, at time.Time) []byte {
	if at.IsZero() {
		return b
	}
	b = at.In(l.o.location()).AppendFormat(append(b, key...), time.ANSIC)
	return append(b, "] "...)
}

// appendLabels appends the labels of a flow if it has any.
func (l *flowLine) appendLabels(b []byte) []byte {
	start := len(b)
	b = append(b, labelsKey...)
	names := l.o.Labels.append(b, l.Flow)
	if len(names) == len(b) {
		// conntrack(8) removes the last character, assuming that it is a comma.
		return appendWord(b[:start], "", emptyLabels)
	}
	return append(names, ' ')
}

const (
	labelsKey   = "labels="
	emptyLabels = "labels"
)

// appendTuple appends the words of t for a protocol. The words for the
// addresses start with prefix.
func appendTuple(b []byte, prefix string, t *conntrack.Tuple, number uint8) []byte {
	b = appendAddr(append(b, prefix...), "src=", t.IP.SourceAddress)
	b = appendAddr(append(b, prefix...), "dst=", t.IP.DestinationAddress)
	for _, w := range wordsOf(number) {
		v := uint64(w.field.get(&t.Proto))
		if w.hex {
			b = strconv.AppendUint(append(append(b, w.key...), "0x"...), v, 16)
			b = append(b, ' ')
		} else {
			b = appendUint(b, w.key, v)
		}
	}
	return b
}

// appendState appends the name of p's state, or NONE for a state without a
// name.
func appendState(b []byte, p *conntrack.ProtoInfo) []byte {
	number, state, ok := stateOf(p)
	if !ok {
		return b
	}
	name := "NONE"
	if of := protocols[number]; state < of.states {
		name = of.stateName(state)
	}
	return appendWord(b, "", name)
}

// appendExpect appends ex without its time.
func appendExpect(b []byte, ex *conntrack.Expect) []byte {
	number := ex.Tuple.Proto.Protocol
	b = appendUint(b, "", uint64(ex.Timeout))
	b = appendUint(b, protoKey, uint64(number))
	family := familyOf(&ex.Tuple.IP)
	for i, t := range expectTuples(ex) {
		of := number
		if i == masterTuple {
			of = t.Proto.Protocol
		}
		// A mask may lack a protocol.
		if p := t.Proto.Protocol; family != 0 && familyOf(&t.IP) == family && (p == of || p == 0) {
			b = appendTuple(b, tuplePrefixes[i], t, of)
		}
	}
	if ex.Zone != 0 {
		b = appendUint(b, "zone=", uint64(ex.Zone))
	}
	b = appendExpectFlags(b, ex.Flags)
	b = appendUint(b, "class=", uint64(ex.Class))
	if ex.HelpName != "" {
		b = appendWord(b, "helper=", ex.HelpName)
	}
	return b
}

// expectTuples returns the tuples of ex in the order of their words.
func expectTuples(ex *conntrack.Expect) [3]*conntrack.Tuple {
	return [...]*conntrack.Tuple{&ex.Tuple, &ex.Mask, &ex.TupleMaster}
}

// tuplePrefixes are the prefixes of these tuples' words for addresses.
var tuplePrefixes = [...]string{"", "mask-", "master-"}

// masterTuple is the index of the only tuple whose protocol is not printed.
const masterTuple = 2

const protoKey = "proto="

func appendExpectFlags(b []byte, flags uint32) []byte {
	start := len(b)
	for _, flag := range expectFlags {
		if flags&uint32(flag) != 0 {
			b = append(append(b, flag.String()...), ',')
		}
	}
	if len(b) > start {
		b[len(b)-1] = ' '
	}
	return b
}

// appendFamily appends the family of ip, if it is known.
func appendFamily(b []byte, ip *conntrack.IPTuple) []byte {
	family := familyOf(ip)
	for _, f := range familyNames {
		if f.family == family {
			b = appendName(b, f.name, uint64(family))
		}
	}
	return b
}

func appendProtocol(b []byte, number uint8) []byte {
	name := unknownName
	if p := protocols[number]; p != nil {
		name = p.name
	}
	return appendName(b, name, uint64(number))
}

// appendName appends a name, aligned left, and its number.
func appendName(b []byte, name string, number uint64) []byte {
	const padding = "        "
	b = append(b, name...)
	b = append(b, padding[min(len(name), len(padding)):]...)
	return appendUint(b, " ", number)
}

func appendWord(b []byte, key, value string) []byte {
	b = append(b, key...)
	b = append(b, value...)
	return append(b, ' ')
}

func appendUint(b []byte, key string, value uint64) []byte {
	b = append(b, key...)
	b = strconv.AppendUint(b, value, 10)
	return append(b, ' ')
}

// appendAddr appends an address as the C library prints it. Unlike Go, it
// prints "IPv4-compatible" IPv6 addresses such as ::192.0.2.1.
func appendAddr(b []byte, key string, a netip.Addr) []byte {
	b = append(b, key...)
	if a.Is6() {
		if ip := a.As16(); [12]byte(ip[:]) == ([12]byte{}) && (ip[12] != 0 || ip[13] != 0) {
			b = netip.AddrFrom4([4]byte(ip[12:])).AppendTo(append(b, "::"...))
			return append(b, ' ')
		}
	}
	return append(a.WithZone("").AppendTo(b), ' ')
}
