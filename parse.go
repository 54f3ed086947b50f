package conntrack

import (
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/netfilter"
)

// ParseFlow is [TextOptions.ParseFlow] without labels, in the machine's time zone.
func ParseFlow(line string) (Flow, error) { return TextOptions{}.ParseFlow(line) }

// ParseExpect is [TextOptions.ParseExpect] without options.
func ParseExpect(line string) (Expect, error) { return TextOptions{}.ParseExpect(line) }

// ParseEvent is [TextOptions.ParseEvent] without labels, in the machine's time
// zone.
func ParseEvent(line string) (Event, error) { return TextOptions{}.ParseEvent(line) }

// ParseFlow reads a flow from a line that conntrack(8) printed, with whatever
// options but -o xml, or that is from /proc/net/nf_conntrack, or that [Flow.Text] or
// [Event.Text] returned. It can then be looked up, deleted, or created again.
//
// It reads what -o save prints too, and such options of conntrack(8) as one
// would type to add, change or remove a flow, long or short, with the words
// "conntrack" and -I before them or not.
//
// The flow has what the line shows, and what can be told from that:
//   - the original tuple must be complete. Without a reply tuple, a flow is still
//     found; options for conntrack -I are taken for a reply tuple that is the
//     original one turned round, as far as they say nothing else.
//   - Status has StatusConfirmed, StatusSeenReply where it is not [UNREPLIED], and
//     the flag shown, of which there is one at most: a flow that is [OFFLOAD]
//     may or may not be assured. Where the tuples show that NAT changes the
//     source or the destination, there are the flags for it, and for that NAT was
//     decided on; so Create makes a flow that is translated. A saved flow without
//     a timeout is one that is offloaded. Options that change, remove or get a flow
//     say nothing of Status unless they have -u.
//   - TCP has the flag TCPFlagBeLiberal in both directions, since the line does
//     not show the window scales: a connection that is created again without them
//     would have most of its segments taken for invalid.
//   - Timestamp is of whole seconds, and where only delta-time shows it, Now is
//     the time that it counts to, or that of the event if the line has it. Of a
//     time that the clock of Location showed twice, it is one of the two.
//
// Only Labels, Now and Location of o matter: all forms are read. An error says
// which word of the line is wrong; what is unknown, or there twice, is wrong.
func (o TextOptions) ParseFlow(line string) (Flow, error) {
	r := newFlowReader(&o, line)
	err := r.prefix()
	if err == nil {
		err = r.read()
	}
	if err != nil {
		return Flow{}, r.failed("flow", err)
	}
	return r.flow, nil
}

// ParseExpect reads an expectation from a line of conntrack -L expect or conntrack
// -E expect, or that [Expect.Text] or [Event.Text] returned.
//
// The line does not show the protocol of the master. It is taken from the
// helper, if it is one of the kernel's that follows one protocol alone, and else
// it is that of the expectation if the words for ports allow that, or TCP.
func (o TextOptions) ParseExpect(line string) (Expect, error) {
	r := newExpectReader(&o, line)
	err := r.prefix()
	if err == nil {
		err = r.read()
	}
	if err != nil {
		return Expect{}, r.failed("expectation", err)
	}
	return r.expect, nil
}

// ParseEvent reads an event from a line of conntrack -E, conntrack -E -o save or
// conntrack -E expect, or that [Event.Text] returned. Of the flow or expectation
// it is as ParseFlow and ParseExpect say.
//
// The name of the program that asked for the change has no place in an Event.
func (o TextOptions) ParseEvent(line string) (Event, error) {
	flow := newFlowReader(&o, line)
	if err := flow.prefix(); err != nil {
		return Event{}, flow.failed("event", err)
	}
	if next := flow.peek(); isNumber(next) || strings.HasPrefix(next, protoKey) {
		return o.parseExpectEvent(line)
	}
	if err := flow.read(); err != nil {
		return Event{}, flow.failed("event", err)
	}
	if flow.event == EventUnknown {
		return Event{}, flow.failed("event", errNoEvent)
	}
	f := flow.flow // what flow points to keeps all of the reader
	e := Event{Type: flow.event, Flow: &f, Time: flow.at, NSID: flow.nsid, PortID: flow.portID}
	e.ZeroMark = flow.seen["mark="] && e.Flow.Mark == 0
	return e, nil
}

func (o *TextOptions) parseExpectEvent(line string) (Event, error) {
	r := newExpectReader(o, line)
	err := r.prefix()
	if err == nil {
		err = r.read()
	}
	ex := r.expect
	e := Event{Expect: &ex, Time: r.at, NSID: r.nsid, PortID: r.portID}
	switch r.event {
	case EventNew:
		e.Type = EventExpNew
	case EventDestroy:
		e.Type = EventExpDestroy
	default:
		err = cmp.Or(err, errNoEvent)
	}
	if err != nil {
		return Event{}, r.failed("event", err)
	}
	return e, nil
}

// What can be wrong with a line besides its words.
var (
	errNoEvent  = errors.New("no event: neither [NEW], [DESTROY] nor, of a flow, [UPDATE] before it")
	errNoTuple  = errors.New("the addresses and ports of the original direction are not complete")
	errNoReply  = errors.New("the addresses and ports of the reply direction are not complete")
	errNoExpect = errors.New("the addresses and ports are not complete")
	errControl  = errors.New("a control character in it, or more than one line")
	errTwice    = errors.New("there already")
	errUnknown  = errors.New("unknown word")
	errFamilies = errors.New("IPv4 and IPv6 in one line")
	errNoState  = errors.New("no state of that protocol")

	errNoLabelNames = errors.New("TextOptions.Labels is needed to read the names of labels")
	errUnknownLabel = errors.New("unknown label")
)

// lineReader reads a line word by word.
type lineReader struct {
	o    *TextOptions
	rest string
	// word is the current one, n its number, from 1, and behind what follows,
	// with the blanks that are not in rest.
	word   string
	n      int
	behind string
	// ended is set behind the last word: what is wrong then is not a word.
	ended bool
	seen  map[string]bool

	// What stands before the entry.
	event  EventType
	at     time.Time
	nsid   NSID
	portID uint32

	family netfilter.ProtoFamily
}

func newLineReader(o *TextOptions, line string) lineReader {
	return lineReader{o: o, rest: strings.TrimSpace(line), seen: make(map[string]bool)}
}

func (r *lineReader) failed(kind string, err error) error {
	if r.ended || r.word == "" {
		return fmt.Errorf("conntrack: parse %s: %w", kind, err)
	}
	return fmt.Errorf("conntrack: parse %s: word %d, %.99q: %w", kind, r.n, r.word, err)
}

// peek returns the next word, or "" at the end. What is in brackets is one word.
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

const blanks = " \t"

// next makes the next word the current one, and returns whether there is one.
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

// once returns an error if it was called with that key before.
func (r *lineReader) once(key string) error {
	if r.seen[key] {
		return errTwice
	}
	r.seen[key] = true
	return nil
}

// prefix reads what stands before an entry: when the event was, and of what
// type.
func (r *lineReader) prefix() error {
	if strings.ContainsFunc(r.rest, func(c rune) bool { return c < ' ' && c != '\t' }) {
		return errControl
	}
	if next := r.peek(); len(next) > 1 && next[0] == '[' && (isDigit(next[1]) || next[1] == '-') {
		r.next()
		sec, usec, ok := strings.Cut(strings.Trim(next, "[]"), ".")
		s, err1 := strconv.ParseInt(strings.TrimRight(sec, " "), 10, 64)
		us, err2 := strconv.ParseUint(strings.TrimRight(usec, " "), 10, 32)
		if !ok || err1 != nil || err2 != nil || us >= 1e6 {
			return errors.New("no time")
		}
		r.at = time.Unix(s, int64(us)*1000)
	}
	for _, e := range eventTexts {
		if r.peek() == e.name {
			r.next()
			r.event = e.event
			break
		}
	}
	return nil
}

// suffix reads what stands behind an entry: words that only events have.
func (r *lineReader) suffix() (handled bool, err error) {
	key, value, _ := strings.Cut(r.word, "=")
	switch key + "=" {
	case eventTimeKey:
		return true, cmp.Or(r.once(key), readTime(value, &r.at))
	case nsidKey:
		id, err := strconv.ParseInt(value, 10, 32)
		r.nsid = NSID{int(id), true}
		return true, cmp.Or(r.once(key), err)
	case portIDKey:
		return true, cmp.Or(r.once(byProcess), readUint(value, &r.portID))
	}
	if r.word == byProcess {
		return true, r.process()
	}
	return false, nil
}

// process reads which process asked for a change: the address of its socket, and
// its name, which is not kept.
func (r *lineReader) process() error {
	if !r.next() || !strings.HasPrefix(r.word, portIDKey) {
		r.ended = false
		return errors.New(portIDKey + " expected behind it")
	}
	if err := readUint(r.word[len(portIDKey):], &r.portID); err != nil {
		return err
	}
	if strings.HasPrefix(r.peek(), "progname=") {
		// It may have blanks in it, and is the last word.
		r.rest = ""
	}
	return r.once(byProcess)
}

// ref returns the time that delta-time counts to.
func (r *lineReader) ref() time.Time {
	if !r.at.IsZero() {
		return r.at
	}
	return r.o.now()
}

// addr reads an address, which must be of the same family as those before.
func (r *lineReader) addr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, errors.New("no address")
	}
	family := netfilter.ProtoIPv4
	if a.Is6() {
		family = netfilter.ProtoIPv6
	}
	if r.family != netfilter.ProtoUnspec && r.family != family {
		return netip.Addr{}, errFamilies
	}
	r.family = family
	return a, nil
}

// tupleReader reads the words of a tuple.
type tupleReader struct {
	Tuple
	seen map[string]bool
}

// set sets what key is the word for. It is not handled if there is no such word
// in a tuple of that protocol.
func (t *tupleReader) set(r *lineReader, key, value string) (handled bool, err error) {
	switch key {
	case "src=":
		t.IP.SourceAddress, err = r.addr(value)
	case "dst=":
		t.IP.DestinationAddress, err = r.addr(value)
	default:
		words := protoWordsOf(t.Proto.Protocol)
		i := slices.IndexFunc(words, func(w protoWord) bool { return w.word == key })
		if i < 0 {
			return false, nil
		}
		var v uint64
		v, err = parseUint(value, words[i].bits)
		words[i].set(&t.Proto, v)
	}
	if t.seen[key] {
		return true, errTwice
	}
	if t.seen == nil {
		t.seen = make(map[string]bool)
	}
	t.seen[key] = true
	return true, err
}

// hasICMP reports whether an ICMP id comes next.
func (t *tupleReader) hasICMP() bool { return t.seen["code="] && !t.seen["id="] }

// started reports whether any word of t was read.
func (t *tupleReader) started() bool { return len(t.seen) > 0 }

// told reports whether all words of t were read, or, if it need not be there,
// none.
func (t *tupleReader) told(optional bool) bool {
	if !t.started() {
		return optional
	}
	words := protoWordsOf(t.Proto.Protocol)
	missing := slices.ContainsFunc(words, func(w protoWord) bool { return !t.seen[w.word] })
	if len(t.seen) == 2 && t.Proto.Protocol == ProtocolDCCP {
		missing, words = false, nil // not tracked since Linux 6.17: /proc has no ports
	}
	return t.seen["src="] && t.seen["dst="] && !missing && len(t.seen) == 2+len(words)
}

// flowReader reads a flow.
type flowReader struct {
	lineReader
	flow        Flow
	orig, reply tupleReader
	// state is the name of the state, the word number stateN.
	state  string
	stateN int
	// hasTimeout is set if there was a timeout.
	hasTimeout bool
	delta      *int64
	saved      savedFlow
}

func newFlowReader(o *TextOptions, line string) *flowReader {
	return &flowReader{lineReader: newLineReader(o, line)}
}

func (r *flowReader) read() error {
	if next := r.peek(); strings.HasPrefix(next, "-") || next == commandName {
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
	r.flow.Status.Value = StatusConfirmed | StatusSeenReply
	for r.next() {
		if err := r.readWord(); err != nil {
			return err
		}
	}
	return r.finish()
}

// readNames reads the family, if it is there, and the protocol.
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
	var p Protocol
	if err := p.UnmarshalText([]byte(name)); name != unknownName && (err != nil || isNumber(name) || uint64(p) != number) {
		return fmt.Errorf("%s is not the name of protocol %d", name, number)
	}
	r.orig.Proto.setProtocol(uint8(number))
	r.reply.Proto.setProtocol(uint8(number))
	return nil
}

// isState reports whether s looks like the name of a state.
func isState(s string) bool { return s != "" && s[0] >= 'A' && s[0] <= 'Z' }

func (r *flowReader) readWord() error {
	if handled, err := r.suffix(); handled {
		return err
	}
	if names, ok := strings.CutPrefix(r.word, labelsKey); ok {
		return r.readLabels(names)
	}
	if r.orig.Proto.Protocol == ProtocolGRE && isProcTimeout(r.word) {
		return nil
	}
	if r.word == "[UNREPLIED]" {
		r.flow.Status.Value &^= StatusSeenReply
		return r.once(r.word)
	}
	for _, s := range statusWords {
		if r.word == s.word {
			r.flow.Status.Value |= s.flag
			if s.flag == StatusHWOffload && !r.hasTimeout {
				r.flow.Status.Value |= StatusOffload
			}
			return r.once("flag")
		}
	}
	key, value := cutKey(r.word)
	if handled, err := r.readTupleWord(key, value); handled {
		return err
	}
	return r.readFlowWord(key, value)
}

// isProcTimeout reports whether word is one of those that /proc/net/nf_conntrack
// has for GRE: the timeouts that the flow has when packets come.
func isProcTimeout(word string) bool {
	for _, key := range []string{"timeout=", "stream_timeout="} {
		if value, ok := strings.CutPrefix(word, key); ok {
			return isNumber(strings.TrimSuffix(value, ","))
		}
	}
	return false
}

// cutKey returns the key of a word, with the = that ends it, and the value.
func cutKey(word string) (key, value string) {
	end := strings.IndexByte(word, '=') + 1
	if end == 0 {
		return word, ""
	}
	return word[:end], word[end:]
}

// readTupleWord reads a word of either direction. The second src= begins the
// reply direction.
func (r *flowReader) readTupleWord(key, value string) (handled bool, err error) {
	t := &r.orig
	if r.reply.started() || key == "src=" && t.seen[key] {
		t = &r.reply
	}
	switch key {
	case "zone-orig=":
		return true, cmp.Or(r.once(key), readUint(value, &r.orig.Zone))
	case "zone-reply=":
		return true, cmp.Or(r.once(key), readUint(value, &r.reply.Zone))
	case "packets=", "bytes=":
		return true, r.readCounter(key, value)
	case "id=":
		if !t.hasICMP() {
			return false, nil // the flow's
		}
	}
	return t.set(&r.lineReader, key, value)
}

// readCounter reads a part of a counter. That of the reply direction is the
// second one.
func (r *flowReader) readCounter(key, value string) error {
	c := &r.flow.CountersOrig
	if r.seen[key] {
		c, key = &r.flow.CountersReply, "reply "+key
		c.Direction = true
	}
	field := &c.Packets
	if strings.HasSuffix(key, "bytes=") {
		field = &c.Bytes
	}
	return cmp.Or(r.once(key), readUint(value, field))
}

func (r *flowReader) readFlowWord(key, value string) error {
	for i := range flowWords {
		w := &flowWords[i]
		if w.key != key || w.read == nil {
			continue
		}
		value, ok := strings.CutSuffix(value, w.end)
		if !ok {
			return errors.New("no ] behind it")
		}
		return cmp.Or(r.once(key), w.read(r, value))
	}
	return errUnknown
}

// readLabels reads labels. Since their names may have blanks in them, there may
// be more to it than the current word.
func (r *flowReader) readLabels(names string) error {
	if r.o.Labels == nil {
		return errNoLabelNames
	}
	if err := r.once(emptyLabels); err != nil {
		return err
	}
	r.flow.Labels = labelSet(nil)
	names += r.behind
	for {
		bit, rest, ok := r.o.Labels.cut(names)
		if !ok {
			return errUnknownLabel
		}
		if r.flow.HasLabel(bit) {
			return errTwice
		}
		nfnl.SetBit(r.flow.Labels, bit, true)
		if names, ok = strings.CutPrefix(rest, ","); !ok {
			r.rest = strings.TrimLeft(rest, blanks)
			return nil
		}
	}
}

func (r *flowReader) readDelta(value string) error {
	// Of a flow that ended before it began, it is two's complement.
	n, err := parseUint(value, 64)
	delta := int64(n)
	r.delta = &delta
	return err
}

// finish puts the flow together from what was read.
func (r *flowReader) finish() error {
	r.finishTuples()
	if err := r.finishState(); err != nil {
		return err
	}
	if err := r.finishCounters(); err != nil {
		return err
	}
	r.finishDelta()
	// A line that tells everything has a status.
	all := r.seen["status="]
	if !r.orig.told(all && (r.seen["orig="] || r.orig.Proto.Protocol == 0)) {
		return errNoTuple
	}
	if !r.reply.told(true) || r.seen["zone-reply="] && !r.reply.started() {
		return errNoReply
	}
	if all {
		return nil
	}
	r.addTranslation(r.flow.SourceTranslated(), r.flow.DestinationTranslated())
	return nil
}

// finishTuples sets those tuples that words told and not all of was told.
func (r *flowReader) finishTuples() {
	if !r.seen["orig="] && r.orig.started() {
		r.flow.TupleOrig = r.orig.Tuple
	}
	if !r.seen["reply="] && r.reply.started() {
		r.flow.TupleReply = r.reply.Tuple
	}
}

// finishState sets the state, if not all of it was told.
func (r *flowReader) finishState() error {
	if r.state == r.flow.ProtoInfo.stateName() {
		return nil
	}
	for i := range protoStates {
		s := &protoStates[i]
		if n := slices.Index(s.names, r.state); n >= 0 && !r.flow.ProtoInfo.filled() && s.protocol == r.orig.Proto.Protocol {
			s.set(&r.flow.ProtoInfo, uint8(n))
			return nil
		}
	}
	r.word, r.n, r.ended = r.state, r.stateN, false
	return errNoState
}

func (r *flowReader) finishCounters() error {
	for _, pair := range [...][2]string{{"packets=", "bytes="}, {"reply packets=", "reply bytes="}} {
		if r.seen[pair[0]] != r.seen[pair[1]] {
			return errors.New("packets= and bytes= go together")
		}
	}
	if !r.seen["directions="] {
		f := &r.flow
		f.CountedZero = r.seen["packets="] && !f.CountersOrig.filled() && !f.CountersReply.filled()
	}
	return nil
}

// finishDelta sets the times if nothing but the age was told.
func (r *flowReader) finishDelta() {
	t := &r.flow.Timestamp
	if r.delta == nil || !t.Start.IsZero() {
		return
	}
	end := t.Stop.Unix()
	if t.Stop.IsZero() {
		end = r.ref().Unix()
		if r.event == EventDestroy {
			t.Stop = time.Unix(end, 0)
		}
	}
	t.Start = time.Unix(end-*r.delta, 0)
}

// addTranslation adds the flags of a flow that is translated.
func (r *flowReader) addTranslation(source, destination bool) {
	if source {
		r.flow.Status.Value |= StatusSrcNAT | StatusNATDoneMask
	}
	if destination {
		r.flow.Status.Value |= StatusDstNAT | StatusNATDoneMask
	}
}

// expectReader reads an expectation.
type expectReader struct {
	lineReader
	expect Expect
	// tuples are those with words: the expectation's, its mask, its master.
	tuples [3]tupleReader
	// current is the index of that which is being read.
	current int
}

const protoKey = "proto="

// masterTuple is the index of the one tuple whose protocol has no word.
const masterTuple = 2

func newExpectReader(o *TextOptions, line string) *expectReader {
	return &expectReader{lineReader: newLineReader(o, line)}
}

func (r *expectReader) read() error {
	if isNumber(r.peek()) {
		r.next()
		if err := readUint(r.word, &r.expect.Timeout); err != nil {
			return err
		}
	}
	if !r.next() {
		return errNoExpect
	}
	number, ok := strings.CutPrefix(r.word, protoKey)
	if !ok {
		return errors.New("proto= expected")
	}
	protocol, err := parseUint(number, 8)
	if err != nil {
		return err
	}
	for i := range r.tuples {
		r.tuples[i].Proto.setProtocol(uint8(protocol))
	}
	for r.next() {
		if err := r.readWord(); err != nil {
			return err
		}
	}
	return r.finish()
}

func (r *expectReader) readWord() error {
	if handled, err := r.suffix(); handled {
		return err
	}
	key, value := cutKey(r.word)
	if handled, err := r.readTupleWord(key, value); handled {
		return err
	}
	if key == r.word {
		return r.readFlags()
	}
	if err := r.once(key); err != nil {
		return err
	}
	switch key {
	case "zone=":
		return readUint(value, &r.expect.Zone)
	case "class=":
		return readUint(value, &r.expect.Class)
	case "helper=":
		return readText(value, &r.expect.HelpName)
	}
	for i := range expectWords {
		if w := &expectWords[i]; w.key == key {
			return w.read(&r.expect, value)
		}
	}
	return errUnknown
}

// readFlags reads the names of flags, with commas between them.
func (r *expectReader) readFlags() error {
	if err := r.once("flag names"); err != nil {
		return err
	}
	for name := range strings.SplitSeq(r.word, ",") {
		bit := slices.Index(expectFlagNames, name)
		if bit < 0 {
			return errUnknown
		}
		r.expect.Flags |= 1 << bit
	}
	return nil
}

// readTupleWord reads a word of one of the tuples. The addresses of mask and
// master have a prefix, which begins them.
func (r *expectReader) readTupleWord(key, value string) (handled bool, err error) {
	for i, t := range r.expect.tuples() {
		if short, ok := strings.CutPrefix(key, t.prefix); ok && t.prefix != "" && short != "=" {
			r.current, key = i, short
		}
	}
	t := &r.tuples[r.current]
	if key == "id=" && !t.hasICMP() {
		return false, nil // the expectation's
	}
	if r.current == masterTuple {
		t.guessProtocol(key)
	}
	return t.set(&r.lineReader, key, value)
}

// guessProtocol makes t one of a protocol that has that word.
func (t *tupleReader) guessProtocol(key string) {
	for _, p := range []uint8{t.Proto.Protocol, ProtocolTCP, ProtocolGRE, ProtocolICMP} {
		if slices.ContainsFunc(protoWordsOf(p), func(w protoWord) bool { return w.word == key }) {
			t.Proto.setProtocol(p)
			return
		}
	}
}

// helperProtocols are the protocols of masters, by the kernel's helpers that
// follow one alone.
var helperProtocols = map[string]uint8{
	"RAS": ProtocolUDP, "amanda": ProtocolUDP, "netbios-ns": ProtocolUDP, "snmp": ProtocolUDP, "snmp_trap": ProtocolUDP,
	"tftp": ProtocolUDP, "H.245": ProtocolTCP, "Q.931": ProtocolTCP, "ftp": ProtocolTCP, "irc": ProtocolTCP,
	"pptp": ProtocolTCP, "sane": ProtocolTCP,
}

func (r *expectReader) finish() error {
	master := &r.tuples[masterTuple]
	if p, ok := helperProtocols[r.expect.HelpName]; ok && master.seen["sport="] {
		master.Proto.setProtocol(p)
	}
	for i, t := range r.expect.tuples() {
		if r.seen[expectTupleKeys[i]] {
			continue
		}
		// A line that tells everything has an id.
		told := &r.tuples[i]
		if !told.told(r.seen["id="]) {
			return errNoExpect
		}
		if told.started() {
			*t.tuple = told.Tuple
		}
	}
	return nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isNumber(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' }) < 0
}

// parseUint reads a number, which is hexadecimal after 0x.
func parseUint(s string, bits int) (uint64, error) {
	digits, base := s, 10
	if len(s) > 2 && (s[:2] == "0x" || s[:2] == "0X") {
		digits, base = s[2:], 16
	}
	v, err := strconv.ParseUint(digits, base, bits)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, fmt.Errorf("not a number of %d bits", bits)
	case err != nil:
		return 0, errors.New("not a number")
	}
	return v, nil
}

// readUint reads a number that T has room for.
func readUint[T uint16 | uint32 | uint64 | StatusFlag](s string, into *T) error {
	v, err := parseUint(s, bits.Len64(uint64(^T(0))))
	*into = T(v)
	return err
}

// readList reads numbers of these sizes. There is one for each, whatever the
// error.
func readList(s string, bits ...int) ([]uint64, error) {
	n := make([]uint64, len(bits))
	parts := strings.Split(s, ",")
	if len(parts) != len(bits) {
		return n, fmt.Errorf("%d numbers expected", len(bits))
	}
	for i, part := range parts {
		var err error
		if n[i], err = parseUint(part, bits[i]); err != nil {
			return n, fmt.Errorf("%q: %w", part, err)
		}
	}
	return n, nil
}

func readText(s string, into *string) (err error) {
	*into = strings.Clone(s) // not the whole text that the line is of
	if strings.HasPrefix(s, `"`) {
		*into, err = strconv.Unquote(s)
	}
	if err == nil && *into == "" {
		return errors.New("empty")
	}
	return err
}

// readTime is the inverse of appendTime.
func readTime(s string, into *time.Time) error {
	sec, nsec, ok := strings.Cut(s, ".")
	n, err := strconv.ParseInt(sec, 10, 64)
	ns, err2 := strconv.ParseUint(nsec, 10, 32)
	if !ok || err != nil || err2 != nil || len(nsec) != 9 {
		return errors.New("no time")
	}
	*into = time.Unix(n, int64(ns))
	return nil
}

// readFullAddr is the inverse of appendFullAddr.
func readFullAddr(s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	s, zone, _ := strings.Cut(s, "%")
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%q: no address", s)
	}
	zone, err = url.PathUnescape(zone)
	return a.WithZone(zone), err
}

// readTuple is the inverse of appendTuple.
func readTuple(s string, t *Tuple) error {
	parts := strings.Split(s, ",")
	if len(parts) < 3 || len(parts) > 3+len(tupleBits) {
		return errors.New("a protocol, two addresses and numbers expected")
	}
	protocol, err := parseUint(parts[0], 8)
	if err != nil {
		return err
	}
	src, err := readFullAddr(parts[1])
	if err != nil {
		return err
	}
	dst, err := readFullAddr(parts[2])
	if err != nil {
		return err
	}
	var numbers [7]uint64
	for i, part := range parts[3:] {
		if numbers[i], err = parseUint(part, tupleBits[i]); err != nil {
			return err
		}
	}
	*t = Tuple{IP: IPTuple{src, dst}}
	t.Proto.Protocol = uint8(protocol)
	t.setNumbers(numbers)
	return nil
}

// readRange reads a NATRange.
func readRange(s string, into *NATRange) error {
	parts := strings.SplitN(s, ",", 3)
	if len(parts) < 3 {
		return errors.New("two addresses and two ports expected")
	}
	first, err := readFullAddr(parts[0])
	if err != nil {
		return err
	}
	last, err := readFullAddr(parts[1])
	if err != nil {
		return err
	}
	ports, err := readList(parts[2], 16, 16)
	*into = NATRange{first, last, uint16(ports[0]), uint16(ports[1])}
	return err
}
