package cttext

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/netfilter"
)

// ParseFlow parses a flow from a printed line. The line may come from
// conntrack(8) with any options but -o xml, from /proc/net/nf_conntrack, or
// from [Options.Flow] or [Options.Event]. The flow can then be looked up,
// deleted or created again.
//
// The flow has what the line shows, and what follows from it:
//   - The original tuple must be complete. The reply tuple may be missing.
//   - Status has StatusConfirmed, StatusSeenReply unless the line has
//     [UNREPLIED], and the one flag that the line shows, if any. An [OFFLOAD]
//     flow may or may not be assured. If the tuples show that NAT changes the
//     source or the destination, Status also has the NAT flags, so that Create
//     makes a translated flow. A flow printed by -o save without a timeout is
//     offloaded.
//   - TCP has TCPFlagBeLiberal in both directions. The line does not show the
//     window scales, and without them or the flag, the kernel would regard most
//     segments of a recreated connection as invalid.
//   - Timestamp is in whole seconds. If the line only has delta-time, it counts
//     back from the time of the event or, without one, from Now. A time that
//     the clock of Location showed twice may be either of the two. The year, in
//     UTC, must be from 0 to 9999.
//
// Of o, only Labels, Now and Location matter; all formats are recognized. An
// error says which word of the line is wrong. Unknown and repeated words are
// errors.
func (o Options) ParseFlow(line string) (conntrack.Flow, error) {
	r := newFlowReader(&o, line)
	if err := r.read(); err != nil {
		return conntrack.Flow{}, r.failed("flow", err)
	}
	return r.flow, nil
}

// ParseExpect parses an expectation from a printed line: one of conntrack -L
// expect or conntrack -E expect, or one from [Options.Expect] or
// [Options.Event].
//
// The line does not show the protocol of the master, so ParseExpect infers it.
// If the helper is one of the kernel's that serves only one protocol, it is
// that. Otherwise it is the protocol of the expectation if it fits the words
// for ports, or else TCP.
func (o Options) ParseExpect(line string) (conntrack.Expect, error) {
	r := newExpectReader(&o, line)
	if err := r.read(); err != nil {
		return conntrack.Expect{}, r.failed("expectation", err)
	}
	return r.expect, nil
}

// ParseEvent parses an event from a printed line: one of conntrack -E,
// conntrack -E -o save or conntrack -E expect, or one from [Options.Event]. The
// flow or expectation in it is read as by [Options.ParseFlow] or
// [Options.ParseExpect].
//
// The name of the program that caused the event is not kept.
func (o Options) ParseEvent(line string) (conntrack.Event, error) {
	flow := newFlowReader(&o, line)
	if err := flow.prefix(); err != nil {
		return conntrack.Event{}, flow.failed("event", err)
	}
	if next := flow.peek(); isNumber(next) || strings.HasPrefix(next, protoKey) {
		return o.parseExpectEvent(line)
	}
	err := flow.readEntry()
	if err == nil && flow.event == conntrack.EventUnknown {
		err = errNoEvent
	}
	if err != nil {
		return conntrack.Event{}, flow.failed("event", err)
	}
	f := flow.flow // not a pointer into the reader, which would keep all of it alive
	return conntrack.Event{
		Type: flow.event, Flow: &f, Time: flow.at, PortID: flow.portID,
		ZeroMark: flow.seen.has(wordMark) && f.Mark == 0,
	}, nil
}

func (o *Options) parseExpectEvent(line string) (conntrack.Event, error) {
	r := newExpectReader(o, line)
	err := r.read()
	ex := r.expect
	e := conntrack.Event{Expect: &ex, Time: r.at, PortID: r.portID}
	switch {
	case err != nil:
	case r.event == conntrack.EventNew:
		e.Type = conntrack.EventExpNew
	case r.event == conntrack.EventDestroy:
		e.Type = conntrack.EventExpDestroy
	default:
		err = errNoEvent
	}
	if err != nil {
		return conntrack.Event{}, r.failed("event", err)
	}
	return e, nil
}

// These errors quote at most the word that they are about, shortened by failed.
var (
	errNoEvent   = errors.New("no event: neither [NEW], [DESTROY] nor, of a flow, [UPDATE] before it")
	errNoTuple   = errors.New("the addresses and ports of the original direction are not complete")
	errNoReply   = errors.New("the addresses and ports of the reply direction are not complete")
	errNoExpect  = errors.New("the addresses and ports are not complete")
	errControl   = errors.New("a control character in it, or more than one line")
	errTwice     = errors.New("there already")
	errUnknown   = errors.New("unknown word")
	errFamilies  = errors.New("IPv4 and IPv6 in one line")
	errNoAddress = errors.New("no address")
	errNoState   = errors.New("no state of that protocol")
	errNoNumber  = errors.New("not a number")
	errNoTime    = errors.New("no time")
	errTime      = errors.New("a time out of the years 0 to 9999")
	errEmpty     = errors.New("empty")
	errCommand   = errors.New("a command, and not what was printed")

	errNoLabelNames = errors.New("Options.Labels is needed to read the names of labels")
	errUnknownLabel = errors.New("unknown label")
)

// A wordSet is a set of words or options that have been read.
type wordSet uint64

func (s wordSet) has(w wordSet) bool { return s&w != 0 }

// once adds w to s, or returns an error if s has it already.
func (s *wordSet) once(w wordSet) error {
	if s.has(w) {
		return errTwice
	}
	*s |= w
	return nil
}

// These are the words after the protocol of a flow or expectation, except those
// of tuples.
const (
	wordUnreplied wordSet = 1 << iota
	wordStatus
	wordZoneOrig
	wordZoneReply
	wordPackets
	wordBytes
	wordReplyPackets
	wordReplyBytes
	wordMark
	wordSecCtx
	wordZone
	wordDelta
	wordStart
	wordStop
	wordHelper
	wordUse
	wordID
	wordLabels
	wordFlags
	wordClass
)

// lineReader reads a line word by word.
type lineReader struct {
	o    *Options
	rest string
	// word is the current word, and n its number, counted from 1. behind is the
	// text after it, including the blanks that rest leaves out.
	word   string
	n      int
	behind string
	// ended is set after the last word: an error then is not about a word.
	ended bool
	seen  wordSet

	// These are the parts around the entry.
	event     conntrack.EventType
	at        time.Time
	byProcess bool
	portID    uint32

	family netfilter.ProtoFamily
}

func newLineReader(o *Options, line string) lineReader {
	return lineReader{o: o, rest: strings.TrimSpace(line)}
}

func (r *lineReader) failed(kind string, err error) error {
	if r.ended || r.word == "" {
		return fmt.Errorf("cttext: parse %s: %w", kind, err)
	}
	return fmt.Errorf("cttext: parse %s: word %d, %.99q: %w", kind, r.n, r.word, err)
}

const blanks = " \t"

// peek returns the next word, or "" at the end. Text in brackets is one word.
func (r *lineReader) peek() string {
	end := -1
	if strings.HasPrefix(r.rest, "[") {
		end = strings.IndexByte(r.rest, ']') + 1
	}
	if end <= 0 {
		end = strings.IndexAny(r.rest, blanks)
	}
	if end < 0 {
		return r.rest
	}
	return r.rest[:end]
}

// next advances to the next word. It reports whether there is one.
func (r *lineReader) next() bool {
	word := r.peek()
	if word == "" {
		r.ended = true
		return false
	}
	r.word = word
	r.n++
	r.behind = r.rest[len(word):]
	r.rest = strings.TrimLeft(r.behind, blanks)
	return true
}

// prefix reads what precedes an entry: the time and the type of the event.
func (r *lineReader) prefix() error {
	if hasControl(r.rest) {
		return errControl
	}
	if next := r.peek(); len(next) > 1 && next[0] == '[' && (isDigit(next[1]) || next[1] == '-') {
		r.next()
		if err := r.readTime(strings.Trim(next, "[]")); err != nil {
			return err
		}
	}
	for _, e := range eventWords {
		if r.peek() == e.word {
			r.next()
			r.event = e.event
			break
		}
	}
	return nil
}

// hasControl reports whether there is a control character in s other than a tab.
func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(c rune) bool { return c < ' ' && c != '\t' })
}

// readTime reads the time of an event.
func (r *lineReader) readTime(value string) error {
	sec, usec, ok := strings.Cut(value, ".")
	s, err1 := strconv.ParseInt(strings.TrimRight(sec, " "), 10, 64)
	us, err2 := strconv.ParseUint(strings.TrimRight(usec, " "), 10, 32)
	if !ok || err1 != nil || err2 != nil || us >= 1e6 {
		return errNoTime
	}
	r.at = time.Unix(s, int64(us)*1000)
	return checkTime(r.at)
}

// checkTime returns an error if t cannot be written as JSON.
func checkTime(t time.Time) error {
	if year := t.UTC().Year(); year < 0 || year > 9999 {
		return errTime
	}
	return nil
}

// process reads which process caused an event: the address of its socket and
// its name. The name is not kept.
func (r *lineReader) process() error {
	if r.byProcess {
		return errTwice
	}
	r.byProcess = true
	if !r.next() || !strings.HasPrefix(r.word, portIDKey) {
		r.ended = false
		return errors.New(portIDKey + " expected behind it")
	}
	if strings.HasPrefix(r.peek(), progNameKey) {
		r.rest = "" // the name is the last word and may contain blanks
	}
	return readUint(r.word[len(portIDKey):], &r.portID)
}

// addr parses an address, which must be of the same family as those before.
func (r *lineReader) addr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, errNoAddress
	}
	family := netfilter.ProtoIPv4
	if a.Is6() {
		family = netfilter.ProtoIPv6
	}
	return a, r.setFamily(family)
}

func (r *lineReader) setFamily(family netfilter.ProtoFamily) error {
	if r.family != netfilter.ProtoUnspec && r.family != family {
		return errFamilies
	}
	r.family = family
	return nil
}

// tupleReader reads the words of a tuple.
type tupleReader struct {
	conntrack.Tuple
	seen wordSet
}

// These are the words for the addresses of a tuple. Those for its protocol
// follow, in the order of tupleField.
const (
	wordSource wordSet = 1 << iota
	wordDestination
	wordField
)

// set sets the field that key names. handled is false if tuples of this
// protocol have no such word.
func (t *tupleReader) set(r *lineReader, key, value string) (handled bool, err error) {
	var word wordSet
	switch key {
	case "src=":
		word = wordSource
		t.IP.SourceAddress, err = r.addr(value)
	case "dst=":
		word = wordDestination
		t.IP.DestinationAddress, err = r.addr(value)
	default:
		w := findWord(t.Proto.Protocol, key)
		if w == nil {
			return false, nil
		}
		word = wordField << w.field
		var v uint64
		v, err = parseUint(value, w.field.size())
		w.field.set(&t.Proto, uint16(v))
	}
	if twice := t.seen.once(word); twice != nil {
		return true, twice
	}
	return true, err
}

// findWord returns the word of a protocol's tuples with the given key, or nil.
func findWord(number uint8, key string) *tupleWord {
	words := wordsOf(number)
	for i := range words {
		if words[i].key == key {
			return &words[i]
		}
	}
	return nil
}

// awaitsICMPID reports whether the next id= is an ICMP id.
func (t *tupleReader) awaitsICMPID() bool {
	return t.seen.has(wordField<<icmpCode) && !t.seen.has(wordField<<icmpID)
}

// started reports whether any word of t has been read.
func (t *tupleReader) started() bool { return t.seen != 0 }

// complete reports whether all words of t have been read, and none of another
// protocol.
func (t *tupleReader) complete() bool {
	const addrs = wordSource | wordDestination
	all := addrs
	for _, w := range wordsOf(t.Proto.Protocol) {
		all |= wordField << w.field
	}
	return t.seen == all || t.seen == addrs && mayLackPorts(t.Proto.Protocol)
}

// flowReader parses a flow.
type flowReader struct {
	lineReader
	flow        conntrack.Flow
	orig, reply tupleReader
	// state is the name of the state, and stateN the number of that word.
	state  string
	stateN int
	// hasTimeout is set if the line has a timeout.
	hasTimeout bool
	delta      int64
}

func newFlowReader(o *Options, line string) *flowReader {
	return &flowReader{lineReader: newLineReader(o, line)}
}

func (r *flowReader) read() error {
	if err := r.prefix(); err != nil {
		return err
	}
	return r.readEntry()
}

// readEntry reads what follows the prefix.
func (r *flowReader) readEntry() error {
	if strings.HasPrefix(r.rest, "-") {
		return r.readSaved()
	}
	if err := r.readNames(); err != nil {
		return err
	}
	if isNumber(r.peek()) {
		r.next()
		r.hasTimeout = true
		if err := readUint(r.word, &r.flow.Timeout); err != nil {
			return err
		}
	}
	if isState(r.peek()) {
		r.next()
		r.state, r.stateN = r.word, r.n
	}
	r.flow.Status.Value = conntrack.StatusConfirmed | conntrack.StatusSeenReply
	for r.next() {
		if err := r.readWord(); err != nil {
			return err
		}
	}
	return r.finish()
}

// readSaved reads what -o save prints.
func (r *flowReader) readSaved() error {
	args := optionReader{lineReader: r.lineReader}
	f, err := args.savedFlow()
	event := r.event
	r.lineReader, r.flow = args.lineReader, f
	if err != nil {
		return err
	}
	if event != conntrack.EventUnknown {
		return errCommand
	}
	switch args.op {
	case OpAdd:
		r.event = conntrack.EventNew
	case OpUpdate:
		r.event = conntrack.EventUpdate
	case OpDelete:
		r.event = conntrack.EventDestroy
	}
	return nil
}

// readNames reads the family, which is optional, and the protocol.
func (r *flowReader) readNames() error {
	for _, f := range familyNames {
		if r.peek() != f.name {
			continue
		}
		r.next()
		if !r.next() || r.word != strconv.Itoa(int(f.family)) {
			return fmt.Errorf("no family: %s is %d", f.name, f.family)
		}
		r.family = f.family
	}
	if !r.next() {
		return errNoTuple
	}
	name := r.word
	if !r.next() {
		return errors.New("the number of a protocol is missing")
	}
	number, err := parseUint(r.word, 8)
	if err != nil {
		return fmt.Errorf("no protocol: %w", err)
	}
	if !isName(name, uint8(number)) {
		return fmt.Errorf("%.20q is not the name of protocol %d", name, number)
	}
	setProtocol(&r.orig.Proto, uint8(number))
	setProtocol(&r.reply.Proto, uint8(number))
	return nil
}

// isState reports whether s looks like the name of a state.
func isState(s string) bool { return s != "" && s[0] >= 'A' && s[0] <= 'Z' }

func (r *flowReader) readWord() error {
	switch {
	case r.word == byProcess:
		return r.process()
	case r.word == "[UNREPLIED]":
		r.flow.Status.Value &^= conntrack.StatusSeenReply
		return r.seen.once(wordUnreplied)
	case r.word == emptyLabels:
		r.flow.Labels = make([]byte, labelBits/8)
		return r.seen.once(wordLabels)
	case strings.HasPrefix(r.word, labelsKey):
		return r.readLabels()
	case r.orig.Proto.Protocol == conntrack.ProtocolGRE && isProcTimeout(r.word):
		return nil
	}
	for _, s := range statusWords {
		if r.word == s.word {
			r.flow.Status.Value |= s.flag
			if s.flag == conntrack.StatusHWOffload && !r.hasTimeout {
				r.flow.Status.Value |= conntrack.StatusOffload
			}
			return r.seen.once(wordStatus)
		}
	}
	key, value := cutKey(r.word)
	if handled, err := r.readTupleWord(key, value); handled {
		return err
	}
	word, err := r.readValue(key, value)
	if err != nil {
		return err
	}
	return r.seen.once(word)
}

// isProcTimeout reports whether word is one of those that
// /proc/net/nf_conntrack only has for GRE: the timeouts that the flow gets from
// a packet.
func isProcTimeout(word string) bool {
	for _, key := range []string{"timeout=", "stream_timeout="} {
		if value, ok := strings.CutPrefix(word, key); ok {
			return isNumber(strings.TrimSuffix(value, ","))
		}
	}
	return false
}

// cutKey splits a word into its key, including the =, and its value.
func cutKey(word string) (key, value string) {
	end := strings.IndexByte(word, '=') + 1
	if end == 0 {
		return word, ""
	}
	return word[:end], word[end:]
}

// readTupleWord reads a word of either direction. The second src= starts the
// reply direction.
func (r *flowReader) readTupleWord(key, value string) (handled bool, err error) {
	t := &r.orig
	if r.reply.started() || key == "src=" && t.seen.has(wordSource) {
		t = &r.reply
	}
	if key == "id=" && !t.awaitsICMPID() {
		return false, nil // the id of the flow
	}
	return t.set(&r.lineReader, key, value)
}

// readValue reads the value of a word that does not belong to a tuple.
func (r *flowReader) readValue(key, value string) (word wordSet, err error) {
	f := &r.flow
	switch key {
	case "zone-orig=":
		return wordZoneOrig, readUint(value, &r.orig.Zone)
	case "zone-reply=":
		return wordZoneReply, readUint(value, &r.reply.Zone)
	case "packets=":
		if r.seen.has(wordPackets) {
			return wordReplyPackets, readUint(value, &f.CountersReply.Packets)
		}
		return wordPackets, readUint(value, &f.CountersOrig.Packets)
	case "bytes=":
		if r.seen.has(wordBytes) {
			return wordReplyBytes, readUint(value, &f.CountersReply.Bytes)
		}
		return wordBytes, readUint(value, &f.CountersOrig.Bytes)
	case "mark=":
		return wordMark, readUint(value, &f.Mark)
	case "secctx=":
		return wordSecCtx, readText(value, &f.SecurityContext)
	case "zone=":
		return wordZone, readUint(value, &f.Zone)
	case "delta-time=":
		// For a flow that ended before it began, the number is in two's
		// complement.
		n, err := parseUint(value, 64)
		r.delta = int64(n)
		return wordDelta, err
	case "[start=":
		return wordStart, r.readClock(value, &f.Timestamp.Start)
	case "[stop=":
		return wordStop, r.readClock(value, &f.Timestamp.Stop)
	case "helper=":
		return wordHelper, readText(value, &f.Helper.Name)
	case "use=":
		return wordUse, readUint(value, &f.Use)
	case "id=":
		return wordID, readUint(value, &f.ID)
	}
	return 0, errUnknown
}

// readClock reads a time with a resolution of one second, followed by a ].
func (r *flowReader) readClock(value string, into *time.Time) error {
	value, ok := strings.CutSuffix(value, "]")
	if !ok {
		return errors.New("no ] behind it")
	}
	at, err := time.ParseInLocation(time.ANSIC, value, r.o.location())
	if err != nil {
		return errNoTime // an error of package time would quote a word of any length
	}
	*into = at
	return checkTime(at)
}

// readLabels reads labels. Their names may contain blanks, so they may extend
// past the current word.
func (r *flowReader) readLabels() error {
	if r.o.Labels == nil {
		return errNoLabelNames
	}
	if err := r.seen.once(wordLabels); err != nil {
		return err
	}
	defer func() { r.flow.LabelsMask = nil }() // SetLabel sets it for updates; a parsed flow has none
	names := r.word[len(labelsKey):] + r.behind
	for {
		bit, rest, ok := r.o.Labels.cut(names)
		if !ok {
			return errUnknownLabel
		}
		if r.flow.HasLabel(bit) {
			return errTwice
		}
		r.flow.SetLabel(bit)
		if names, ok = strings.CutPrefix(rest, ","); !ok {
			r.rest = strings.TrimLeft(rest, blanks)
			return nil
		}
	}
}

// finish assembles the flow from the words.
func (r *flowReader) finish() error {
	if err := r.finishState(); err != nil {
		return err
	}
	if err := r.finishCounters(); err != nil {
		return err
	}
	if err := r.finishTimes(); err != nil {
		return err
	}
	f := &r.flow
	if !r.orig.complete() {
		return errNoTuple
	}
	f.TupleOrig = r.orig.Tuple
	if r.reply.started() || r.seen.has(wordZoneReply) {
		if !r.reply.complete() {
			return errNoReply
		}
		f.TupleReply = r.reply.Tuple
	}
	addTranslation(f, f.SourceTranslated(), f.DestinationTranslated())
	return nil
}

func (r *flowReader) finishState() error {
	if r.state == "" {
		return nil
	}
	number := r.orig.Proto.Protocol
	if p := protocols[number]; p != nil {
		if state, ok := p.findState(r.state); ok {
			setState(&r.flow.ProtoInfo, number, state)
			return nil
		}
	}
	r.word, r.n, r.ended = r.state, r.stateN, false
	return errNoState
}

func (r *flowReader) finishCounters() error {
	if r.seen.has(wordPackets) != r.seen.has(wordBytes) || r.seen.has(wordReplyPackets) != r.seen.has(wordReplyBytes) {
		return errors.New("packets= and bytes= go together")
	}
	f := &r.flow
	f.CountersReply.Direction = r.seen.has(wordReplyPackets)
	if r.seen.has(wordPackets) {
		orig, reply := &f.CountersOrig, &f.CountersReply
		f.CountedZero = orig.Packets|orig.Bytes|reply.Packets|reply.Bytes == 0
	}
	return nil
}

// finishTimes sets the times of a line that only has an age.
func (r *flowReader) finishTimes() error {
	t := &r.flow.Timestamp
	if !r.seen.has(wordDelta) || !t.Start.IsZero() {
		return nil
	}
	end := t.Stop
	if end.IsZero() {
		end = r.at
		if end.IsZero() {
			end = r.o.now()
		}
		if r.event == conntrack.EventDestroy {
			t.Stop = time.Unix(end.Unix(), 0)
		}
	}
	t.Start = time.Unix(end.Unix()-r.delta, 0)
	return checkTime(t.Start)
}

// addTranslation adds the status flags of a translated flow.
func addTranslation(f *conntrack.Flow, source, destination bool) {
	if source {
		f.Status.Value |= conntrack.StatusSrcNAT | conntrack.StatusNATDoneMask
	}
	if destination {
		f.Status.Value |= conntrack.StatusDstNAT | conntrack.StatusNATDoneMask
	}
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isNumber(s string) bool {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	return s != ""
}

// parseUint parses a number, which is decimal, or hexadecimal after 0x.
func parseUint(s string, size int) (uint64, error) {
	if len(s) > 2 && (s[:2] == "0x" || s[:2] == "0X") {
		return parseDigits(s[2:], 16, size)
	}
	return parseDigits(s, 10, size)
}

// parseC parses a number like the C library: hexadecimal after 0x, octal after
// 0.
func parseC(s string, size int) (uint64, error) {
	if len(s) > 1 && s[0] == '0' && isNumber(s) {
		return parseDigits(s[1:], 8, size)
	}
	return parseUint(s, size)
}

func parseDigits(s string, base, size int) (uint64, error) {
	v, err := strconv.ParseUint(s, base, size)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, fmt.Errorf("not a number of %d bits", size)
	case err != nil:
		return 0, errNoNumber
	}
	return v, nil
}

// readUint reads a number that fits into T.
func readUint[T uint16 | uint32 | uint64](s string, into *T) error {
	v, err := parseUint(s, bits.Len64(uint64(^T(0))))
	*into = T(v)
	return err
}

// readC is readUint for numbers in the C library's syntax.
func readC[T uint16 | uint32](s string, into *T) error {
	v, err := parseC(s, bits.Len64(uint64(^T(0))))
	*into = T(v)
	return err
}

// readText reads a text that must not be empty.
func readText[T ~string](s string, into *T) error {
	if s == "" {
		return errEmpty
	}
	*into = T(strings.Clone(s)) // does not keep the whole line alive
	return nil
}
