package conntrack

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ti-mo/conntrack/netfilter"
)

// TextOptions say how flows, expectations and events are printed in the format of
// conntrack(8), and what its methods need to read them. Most are what its option
// -o has: without any, entries look as in conntrack -L, and events as in
// conntrack -E.
//
// The format is that of conntrack-tools 1.4.7.
type TextOptions struct {
	// Extended begins flows with their family (-o extended).
	Extended bool
	// ID adds the id of flows (-o id).
	ID bool
	// KTimestamp adds when a flow began and ended, to the second, in the time
	// zone Location (-o ktimestamp).
	KTimestamp bool
	// Timestamp begins events and expectations with their time: that of the
	// event if the kernel gave it, and else Now, but with Lossless nothing
	// (-o timestamp).
	Timestamp bool
	// Labels adds those labels of flows that have a name (-o labels), if it is
	// not nil; LoadLabelNames reads the names that conntrack(8) uses. To read
	// such a text takes the same names.
	Labels LabelNames
	// Save prints flows as the options that make conntrack(8) add, change or
	// remove them (-o save). All other options have no effect then: conntrack(8)
	// refuses them. There are no options there for much of a flow, such as the
	// helper; it leaves out the mark and labels; and the verification tags of SCTP
	// are numbers whose byte order is that of the machine.
	Save bool

	// Lossless adds words for all that conntrack(8) has none for, so that what
	// is read is what was printed. These words are this package's own, and may
	// become more. Where they and words of conntrack(8) disagree, they hold.
	Lossless bool

	// Now is the time that delta-time counts to, for flows that have not ended.
	// The zero Time stands for the time of the call.
	Now time.Time
	// Location is the time zone of KTimestamp, nil for that of the machine.
	Location *time.Location
}

func (o *TextOptions) now() time.Time {
	if o.Now.IsZero() {
		return time.Now()
	}
	return o.Now
}

func (o *TextOptions) location() *time.Location {
	if o.Location == nil {
		return time.Local
	}
	return o.Location
}

// String returns f as a line of conntrack -L, without the end of line.
func (f Flow) String() string { return f.Text(TextOptions{}) }

// Text returns f as a line of conntrack -L with the options o, without the end of
// line.
func (f Flow) Text(o TextOptions) string {
	b := lineBuffers.Get().(*lineBuffer)
	defer b.release()
	b.flow, b.options = f, o
	b.text = flowText{Flow: &b.flow, o: &b.options}
	b.line = b.text.append(b.line[:0])
	return asLine(b.line)
}

// A lineBuffer is what it takes to print a flow, but for the line itself. They are
// used again, since there may be a million flows to print.
type lineBuffer struct {
	flow    Flow
	options TextOptions
	text    flowText
	line    []byte
}

var lineBuffers = sync.Pool{New: func() any { return &lineBuffer{line: make([]byte, 0, lineSize)} }}

// release gives b back, and keeps nothing of the flow.
func (b *lineBuffer) release() {
	line := b.line
	if cap(line) > 1<<16 {
		line = nil
	}
	*b = lineBuffer{line: line}
	lineBuffers.Put(b)
}

// String returns ex as a line of conntrack -L expect, without the end of line.
func (ex Expect) String() string { return ex.Text(TextOptions{}) }

// Text returns ex as a line of conntrack -L expect with the options o, without
// the end of line.
func (ex Expect) Text(o TextOptions) string {
	b := make([]byte, 0, lineSize)
	if o.Timestamp {
		b = appendExpectTime(b, o.now())
	}
	return asLine(ex.append(b, &o))
}

// Text returns e as a line of conntrack -E, or of conntrack -E expect, with the
// options o, without the end of line. It is empty if e is of neither a flow nor
// an expectation.
//
// If a process asked for what happened to a flow, the line ends with the address
// of its socket. What conntrack(8) may find out of the process, and adds there, is
// not in an Event.
func (e Event) Text(o TextOptions) string {
	b := make([]byte, 0, lineSize)
	at := e.Time
	if o.Timestamp && at.IsZero() {
		at = o.now()
	}
	// A time that is not the event's would be read as if it were.
	prefix := o.Timestamp && !(o.Lossless && e.Time.IsZero())
	switch {
	case e.Flow != nil:
		if prefix && !o.Save {
			b = appendFlowTime(b, at)
		}
		t := flowText{Flow: e.Flow, o: &o, event: e.Type, now: at, zeroMark: e.ZeroMark}
		b = t.append(b)
	case e.Expect != nil:
		if prefix {
			b = appendExpectTime(b, at)
		}
		b = e.Expect.append(appendEventType(b, e.Type), &o)
	default:
		return ""
	}
	if o.Lossless && (e.Flow == nil || !o.Save) {
		b = e.appendRest(b)
	}
	if e.Flow != nil && e.PortID != 0 {
		b = appendUint(appendWord(b, "", byProcess), portIDKey, uint64(e.PortID))
	}
	return asLine(b)
}

// lineSize is what hardly any line exceeds.
const lineSize = 512

// asLine returns b without the blank that each word ends with.
func asLine(b []byte) string {
	if n := len(b); n > 0 && b[n-1] == ' ' {
		b = b[:n-1]
	}
	return string(b)
}

// The names of events, and the commands of -o save that lead to them.
var eventTexts = []struct {
	event         EventType
	name, command string
}{
	{EventNew, "[NEW]", "-A"},
	{EventUpdate, "[UPDATE]", "-U"},
	{EventDestroy, "[DESTROY]", "-D"},
	{EventExpNew, "[NEW]", ""},
	{EventExpDestroy, "[DESTROY]", ""},
}

// appendEventType appends the name of t, if it has one, flush right.
func appendEventType(b []byte, t EventType) []byte {
	for _, e := range eventTexts {
		if e.event == t {
			b = append(b, "         "[len(e.name):]...)
			return append(append(b, e.name...), ' ')
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

// appendExpectTime appends the time of an expectation. There the microseconds
// have blanks behind where there should be zeros before them.
func appendExpectTime(b []byte, at time.Time) []byte {
	b = append(b, '[')
	b = appendPadded(b, at.Unix(), 8, ' ', false)
	b = append(b, '.')
	b = appendPadded(b, int64(at.Nanosecond()/1000), 6, ' ', false)
	return append(b, "]\t"...)
}

// appendPadded appends v and as many of pad, before or behind it, as width takes.
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

// flowText is a flow to be printed.
type flowText struct {
	*Flow
	o *TextOptions
	// event is EventUnknown for an entry of the table.
	event EventType
	// now is when the event was, and zero for an entry.
	now time.Time
	// zeroMark is set if a mark of zero is shown in an event.
	zeroMark bool
}

func (t *flowText) append(b []byte) []byte {
	if t.o.Save {
		return t.appendSaved(b)
	}
	b = appendEventType(b, t.event)
	if t.o.Extended {
		b = appendFamily(b, &t.TupleOrig.IP)
	}
	b = appendName(b, protocolName(t.TupleOrig.Proto.Protocol), uint64(t.TupleOrig.Proto.Protocol))
	if t.hasTimeout() {
		b = appendUint(b, "", uint64(t.Timeout))
	}
	if state := t.ProtoInfo.stateName(); state != "" {
		b = appendWord(b, "", state)
	}
	b = t.appendDirection(b, "zone-orig=", &t.TupleOrig, &t.CountersOrig, t.showsOrig())
	if !t.Status.SeenReply() {
		b = append(b, "[UNREPLIED] "...)
	}
	b = t.appendDirection(b, "zone-reply=", &t.TupleReply, &t.CountersReply, t.showsReply())
	for _, s := range statusWords {
		if t.Status.has(s.flag) {
			b = appendWord(b, "", s.word)
			break
		}
	}
	for i := range flowWords {
		if w := &flowWords[i]; (t.o.Lossless || !w.ours) && w.shown(t) {
			b = w.appendTo(b, t)
		}
	}
	return b
}

// hasTimeout reports whether the kernel gives f's timeout. It does not for flows
// that are in a flow table, and for those that expired.
func (t *flowText) hasTimeout() bool {
	return t.Timeout != 0 || !t.Status.Offload() && t.event != EventDestroy
}

// statusWords are the flags that are shown, besides that of a reply: the first
// one that is set.
var statusWords = []struct {
	word string
	flag StatusFlag
}{
	{"[HW_OFFLOAD]", StatusHWOffload},
	{"[OFFLOAD]", StatusOffload},
	{"[ASSURED]", StatusAssured},
}

// showsOrig reports whether there are words for the original direction.
func (f *Flow) showsOrig() bool {
	_, err := f.TupleOrig.IP.family()
	return err == nil
}

// showsReply reports whether there are words for the reply direction: they stand
// behind those of the original one, and its protocol holds for them.
func (f *Flow) showsReply() bool {
	_, err := family(&f.TupleOrig, &f.TupleReply)
	return err == nil && f.TupleReply.IP.filled() && f.TupleReply.Proto.Protocol == f.TupleOrig.Proto.Protocol && f.showsOrig()
}

func (t *flowText) appendDirection(b []byte, zone string, tuple *Tuple, c *Counter, shown bool) []byte {
	if shown {
		b = tuple.append(b, "")
		if tuple.Zone != 0 {
			b = appendUint(b, zone, uint64(tuple.Zone))
		}
	}
	if t.Counted() {
		b = appendUint(b, "packets=", c.Packets)
		b = appendUint(b, "bytes=", c.Bytes)
	}
	return b
}

// append appends t's words. Those of the addresses have prefix.
func (t *Tuple) append(b []byte, prefix string) []byte {
	b = appendAddrWord(b, prefix, "src=", t.IP.SourceAddress)
	b = appendAddrWord(b, prefix, "dst=", t.IP.DestinationAddress)
	for _, w := range protoWordsOf(t.Proto.Protocol) {
		b = append(b, w.word...)
		if w.hex {
			b = append(b, "0x"...)
			b = strconv.AppendUint(b, w.get(&t.Proto), 16)
		} else {
			b = strconv.AppendUint(b, w.get(&t.Proto), 10)
		}
		b = append(b, ' ')
	}
	return b
}

// asTold returns what t's words tell of it.
func (t *Tuple) asTold() Tuple {
	told := Tuple{Zone: t.Zone}
	told.IP.SourceAddress = t.IP.SourceAddress.WithZone("")
	told.IP.DestinationAddress = t.IP.DestinationAddress.WithZone("")
	told.Proto.setProtocol(t.Proto.Protocol)
	for _, w := range protoWordsOf(t.Proto.Protocol) {
		w.set(&told.Proto, w.get(&t.Proto))
	}
	return told
}

// stateName returns the name of the state that p has, or "". States without a
// name are NONE.
func (p *ProtoInfo) stateName() string {
	for i := range protoStates {
		s := &protoStates[i]
		state, ok := s.get(p)
		switch {
		case ok && int(state) < len(s.names):
			return s.names[state]
		case ok:
			return "NONE"
		}
	}
	return ""
}

func (w *flowWord) appendTo(b []byte, t *flowText) []byte {
	b = append(b, w.key...)
	b = w.value(t, b)
	b = append(b, w.end...)
	return append(b, ' ')
}

// directions returns what f says twice: which direction each part of it is of,
// and whether it is counted. What it says otherwise too are the
// usualDirections.
func (f *Flow) directions() (set uint64) {
	for i, b := range f.directionFields() {
		if *b {
			set |= 1 << i
		}
	}
	return set
}

func (f *Flow) setDirections(set uint64) {
	for i, b := range f.directionFields() {
		*b = set&(1<<i) != 0
	}
}

func (f *Flow) directionFields() [5]*bool {
	return [...]*bool{&f.CountersOrig.Direction, &f.CountersReply.Direction,
		&f.SeqAdjOrig.Direction, &f.SeqAdjReply.Direction, &f.CountedZero}
}

func (f *Flow) usualDirections() uint64 {
	var usual Flow
	usual.CountersReply.Direction = f.Counted()
	usual.SeqAdjReply.Direction = f.SeqAdjReply.filled()
	usual.CountedZero = f.CountedZero && !f.CountersOrig.filled() && !f.CountersReply.filled()
	return usual.directions()
}

// showsMark reports whether the kernel gives the mark: in events only if it is
// not zero, or became zero.
func (t *flowText) showsMark() bool { return t.event == EventUnknown || t.Mark != 0 || t.zeroMark }

func (t *flowText) appendMark(b []byte) []byte { return strconv.AppendUint(b, uint64(t.Mark), 10) }

func (t *flowText) showsDelta() bool { return !t.Timestamp.Start.IsZero() }

// appendDelta appends the seconds from when the flow began to when it ended, or
// to now. A flow that ended before it began has aged by nearly 2^64 seconds.
func (t *flowText) appendDelta(b []byte) []byte {
	end := t.Timestamp.Stop
	if end.IsZero() {
		end = t.now
	}
	if end.IsZero() {
		end = t.o.now()
	}
	return strconv.AppendUint(b, uint64(end.Unix()-t.Timestamp.Start.Unix()), 10)
}

func (t *flowText) showsLabels() bool { return t.hasNamedLabel() && len(t.Flow.Labels) > 0 }

func (t *flowText) showsNoLabels() bool {
	return t.o.Labels != nil && !t.hasNamedLabel() && len(t.Flow.Labels) > 0
}

func (t *flowText) hasNamedLabel() bool {
	for bit, name := range t.o.Labels.known() {
		if name != "" && t.HasLabel(bit) {
			return true
		}
	}
	return false
}

func (t *flowText) appendLabels(b []byte) []byte { return t.o.Labels.append(b, t.Flow) }

// appendRest appends what conntrack(8) does not tell of an event.
func (e *Event) appendRest(b []byte) []byte {
	if !e.Time.IsZero() {
		b = append(appendTime(append(b, eventTimeKey...), e.Time), ' ')
	}
	if e.NSID.other {
		b = append(strconv.AppendInt(append(b, nsidKey...), int64(e.NSID.id), 10), ' ')
	}
	if e.Expect != nil && e.PortID != 0 {
		b = appendUint(b, portIDKey, uint64(e.PortID))
	}
	return b
}

const (
	eventTimeKey = "event-time="
	nsidKey      = "nsid="

	// What the line of a flow's event ends with.
	byProcess = "[USERSPACE]"
	portIDKey = "portid="
)

// append appends ex without its time.
func (ex *Expect) append(b []byte, o *TextOptions) []byte {
	b = appendUint(b, "", uint64(ex.Timeout))
	b = appendUint(b, "proto=", uint64(ex.Tuple.Proto.Protocol))
	for _, t := range ex.tuples() {
		if t.told() {
			tuple := t.withProtocol()
			b = tuple.append(b, t.prefix)
		}
	}
	if ex.Zone != 0 {
		b = appendUint(b, "zone=", uint64(ex.Zone))
	}
	if ex.Flags&expectFlags != 0 {
		b = ex.appendFlags(b)
	}
	b = appendUint(b, "class=", uint64(ex.Class))
	if ex.HelpName != "" {
		b = append(appendText(append(b, "helper="...), ex.HelpName, o), ' ')
	}
	if !o.Lossless {
		return b
	}
	for i := range expectWords {
		if w := &expectWords[i]; w.shown(ex) {
			b = append(w.value(append(b, w.key...), ex), ' ')
		}
	}
	return b
}

// expectFlags are the flags that have names.
const expectFlags = ExpectPermanent | ExpectInactive | ExpectUserSpace

func (ex *Expect) appendFlags(b []byte) []byte {
	for bit, name := range expectFlagNames {
		if ex.Flags&(1<<bit) != 0 {
			b = append(append(b, name...), ',')
		}
	}
	b[len(b)-1] = ' '
	return b
}

// An expectTuple is a tuple of an expectation, and what the words for its
// addresses begin with.
type expectTuple struct {
	tuple  *Tuple
	prefix string
	// protocol is that which a reader supposes.
	protocol uint8
	family   netfilter.ProtoFamily
}

// tuples returns the tuples that have words.
func (ex *Expect) tuples() [3]expectTuple {
	family, _ := ex.Tuple.IP.family()
	protocol := ex.Tuple.Proto.Protocol
	return [...]expectTuple{
		{&ex.Tuple, "", protocol, family},
		{&ex.Mask, "mask-", protocol, family},
		{&ex.TupleMaster, "master-", ex.TupleMaster.Proto.Protocol, family},
	}
}

// told reports whether there are words for the tuple.
func (t *expectTuple) told() bool {
	family, err := t.tuple.IP.family()
	p := t.tuple.Proto.Protocol
	return err == nil && family == t.family && (p == t.protocol || p == 0)
}

// withProtocol returns the tuple as the kernel takes it: a mask needs no
// protocol.
func (t *expectTuple) withProtocol() Tuple {
	tuple := *t.tuple
	tuple.Proto.Protocol = t.protocol
	return tuple
}

// appendFamily appends the family of ip, if it has one.
func appendFamily(b []byte, ip *IPTuple) []byte {
	family, _ := ip.family()
	for _, f := range familyNames {
		if f.family == family {
			b = appendName(b, f.name, uint64(family))
		}
	}
	return b
}

var familyNames = [...]struct {
	name   string
	family netfilter.ProtoFamily
}{{"ipv4", netfilter.ProtoIPv4}, {"ipv6", netfilter.ProtoIPv6}}

// unknownName is the name of protocols that have none.
const unknownName = "unknown"

// appendName appends a name, flush left, and its number.
func appendName(b []byte, name string, number uint64) []byte {
	if name == "" {
		name = unknownName
	}
	const blanks = "        "
	b = append(b, name...)
	b = append(b, blanks[min(len(name), len(blanks)):]...)
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

// appendAddrWord appends an address, if there is one.
func appendAddrWord(b []byte, prefix, key string, a netip.Addr) []byte {
	if !a.IsValid() {
		return b
	}
	b = append(b, prefix...)
	b = append(b, key...)
	return append(appendAddr(b, a), ' ')
}

// appendAddr appends a as the C library prints it, which still knows
// "IPv4-compatible" IPv6 addresses, such as ::192.0.2.1.
func appendAddr(b []byte, a netip.Addr) []byte {
	if a.Is6() {
		if ip := a.As16(); [12]byte(ip[:]) == ([12]byte{}) && (ip[12] != 0 || ip[13] != 0) {
			return netip.AddrFrom4([4]byte(ip[12:])).AppendTo(append(b, "::"...))
		}
	}
	return a.WithZone("").AppendTo(b)
}

// appendFullAddr appends a with its zone, and nothing if there is none.
func appendFullAddr(b []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return b
	}
	b = appendAddr(b, a)
	if zone := a.Zone(); zone != "" {
		b = append(append(b, '%'), url.PathEscape(zone)...)
	}
	return b
}

// appendTuple appends all fields of t, of the last ones only those that are not
// zero.
func appendTuple(b []byte, t *Tuple) []byte {
	b = strconv.AppendUint(b, uint64(t.Proto.Protocol), 10)
	b = appendFullAddr(append(b, ','), t.IP.SourceAddress)
	b = appendFullAddr(append(b, ','), t.IP.DestinationAddress)
	fields := t.numbers()
	for i := len(fields); i > 0; i-- {
		if fields[i-1] != 0 {
			return appendList(append(b, ','), fields[:i]...)
		}
	}
	return b
}

// numbers returns the numbers in t. setNumbers is the inverse.
func (t *Tuple) numbers() [7]uint64 {
	p := &t.Proto
	var icmp uint64
	if p.ICMPv4 {
		icmp |= 1
	}
	if p.ICMPv6 {
		icmp |= 2
	}
	return [...]uint64{uint64(p.SourcePort), uint64(p.DestinationPort),
		icmp, uint64(p.ICMPID), uint64(p.ICMPType), uint64(p.ICMPCode), uint64(t.Zone)}
}

func (t *Tuple) setNumbers(n [7]uint64) {
	t.Proto.SourcePort, t.Proto.DestinationPort = uint16(n[0]), uint16(n[1])
	t.Proto.ICMPv4, t.Proto.ICMPv6 = n[2]&1 != 0, n[2]&2 != 0
	t.Proto.ICMPID, t.Proto.ICMPType, t.Proto.ICMPCode = uint16(n[3]), uint8(n[4]), uint8(n[5])
	t.Zone = uint16(n[6])
}

// tupleBits are the sizes of these numbers.
var tupleBits = [7]int{16, 16, 2, 16, 8, 8, 16}

func appendHex(b []byte, v uint64) []byte {
	return strconv.AppendUint(append(b, "0x"...), v, 16)
}

func appendList(b []byte, values ...uint64) []byte {
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, v, 10)
	}
	return b
}

// appendTime appends t as seconds since 1970, to the nanosecond.
func appendTime(b []byte, t time.Time) []byte {
	b = strconv.AppendInt(b, t.Unix(), 10)
	return appendPadded(append(b, '.'), int64(t.Nanosecond()), 9, '0', true)
}

// appendText appends s. If it must be read back and would not be, it is quoted.
func appendText(b []byte, s string, o *TextOptions) []byte {
	if !o.Lossless || !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '"' || r >= 0x7f }) {
		return append(b, s...)
	}
	return append(b, strings.ReplaceAll(strconv.QuoteToASCII(s), " ", `\x20`)...)
}
