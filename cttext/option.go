package cttext

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ti-mo/conntrack"
)

// commandName may stand before a command. It is also the name of the table that
// may follow -I and the like.
const commandName = "conntrack"

// optionReader parses the options of a command.
type optionReader struct {
	lineReader
	op Op
	// printed is set to accept only what -o save prints.
	printed bool

	// These are the values of the options that were given.
	orig, reply                 conntrack.Tuple
	sourceMask, destinationMask netip.Addr
	source, destination, anyNAT netip.AddrPort
	timeout, id                 uint32
	mark, markMask              uint32
	status, unset               conntrack.StatusFlag
	zone                        uint16
	info                        conntrack.ProtoInfo
	labels                      conntrack.Flow // only its labels
	withLabels                  []int
}

// These are the options that do not belong to a tuple.
const (
	optTimeout wordSet = 1 << iota
	optStatus
	optZone
	optOrigZone
	optReplyZone
	optSource
	optDestination
	optReplySource
	optReplyDestination
	optSourceMask
	optDestinationMask
	optSrcNAT
	optDstNAT
	optAnyNAT
	optProtocol
	optFamily
	optMark
	optID
	optLabel
	optLabelAdd
	optLabelDel
	optOutput
	optState
	optOrigVTag
	optReplyVTag
	optRole
	optField // followed by the options of tuples, see told
)

// told reports whether an option gave field f of a direction.
func (r *optionReader) told(direction int, f tupleField) bool {
	return r.seen.has(fieldOption(direction, f))
}

func fieldOption(direction int, f tupleField) wordSet {
	return optField << (2*int(f) + direction)
}

// An opSet is a set of Ops.
type opSet uint8

const (
	forAdd    opSet = 1<<OpCreate | 1<<OpAdd
	forUpdate opSet = 1 << OpUpdate
	forDelete opSet = 1 << OpDelete
	forGet    opSet = 1 << OpGet
	forList   opSet = 1 << OpList
	forAll          = forAdd | forUpdate | forDelete | forGet | forList
)

// An option is an option of conntrack(8) that takes a value.
type option struct {
	word  wordSet
	names []string
	// ops are the commands that have the option.
	ops opSet
	// printed is set if -o save prints the option.
	printed bool
	// optional is set if the value may be omitted, and repeated if the option
	// may be given more than once.
	optional, repeated bool
	// protocols are those that have the option, or nil for all.
	protocols []uint8
	read      func(r *optionReader, value string) error
}

var options = []option{
	{word: optTimeout, names: []string{"-t", "--timeout"}, ops: forAdd | forUpdate | forDelete, printed: true,
		read: func(r *optionReader, v string) error { return readDecimal(v, &r.timeout) }},
	{word: optStatus, names: []string{"-u", "--status"}, ops: forAll &^ forGet, printed: true, read: (*optionReader).readStatus},
	{word: optZone, names: []string{"-w", "--zone"}, ops: forAdd | forDelete | forList, printed: true,
		read: func(r *optionReader, v string) error { return readC(v, &r.zone) }},
	{word: optOrigZone, names: []string{"--orig-zone"}, ops: forAdd | forDelete | forList, printed: true,
		read: func(r *optionReader, v string) error { return readC(v, &r.orig.Zone) }},
	{word: optReplyZone, names: []string{"--reply-zone"}, ops: forAdd | forDelete | forList, printed: true,
		read: func(r *optionReader, v string) error { return readC(v, &r.reply.Zone) }},
	{word: optSource, names: []string{"-s", "--src", "--orig-src"}, ops: forAll, printed: true,
		read: func(r *optionReader, v string) error {
			return r.readNet(v, &r.orig.IP.SourceAddress, &r.sourceMask, optSourceMask)
		}},
	{word: optDestination, names: []string{"-d", "--dst", "--orig-dst"}, ops: forAll, printed: true,
		read: func(r *optionReader, v string) error {
			return r.readNet(v, &r.orig.IP.DestinationAddress, &r.destinationMask, optDestinationMask)
		}},
	{word: optReplySource, names: []string{"-r", "--reply-src"}, ops: forAll, printed: true,
		read: func(r *optionReader, v string) error { return r.readAddr(v, &r.reply.IP.SourceAddress) }},
	{word: optReplyDestination, names: []string{"-q", "--reply-dst"}, ops: forAll, printed: true,
		read: func(r *optionReader, v string) error { return r.readAddr(v, &r.reply.IP.DestinationAddress) }},
	{word: optSourceMask, names: []string{"--mask-src"}, ops: forUpdate | forDelete | forList,
		read: func(r *optionReader, v string) error { return r.readAddr(v, &r.sourceMask) }},
	{word: optDestinationMask, names: []string{"--mask-dst"}, ops: forUpdate | forDelete | forList,
		read: func(r *optionReader, v string) error { return r.readAddr(v, &r.destinationMask) }},
	{word: optSrcNAT, names: []string{"-n", "--src-nat"}, ops: forAll &^ forGet, printed: true, optional: true,
		read: func(r *optionReader, v string) error { return r.readAddrPort(v, &r.source) }},
	{word: optDstNAT, names: []string{"-g", "--dst-nat"}, ops: forAll &^ forGet, printed: true, optional: true,
		read: func(r *optionReader, v string) error { return r.readAddrPort(v, &r.destination) }},
	{word: optAnyNAT, names: []string{"-j", "--any-nat"}, ops: forList, optional: true,
		read: func(r *optionReader, v string) error { return r.readAddrPort(v, &r.anyNAT) }},
	{word: optProtocol, names: []string{"-p", "--proto", "--protonum"}, ops: forAll, printed: true, read: (*optionReader).readProtocol},
	{word: optFamily, names: []string{"-f", "--family"}, ops: forAll &^ forGet, read: (*optionReader).readFamily},
	{word: optMark, names: []string{"-m", "--mark"}, ops: forAll &^ forGet, read: (*optionReader).readMark},
	{word: optID, names: []string{"-i", "--id"}, ops: forUpdate | forDelete | forGet,
		read: func(r *optionReader, v string) error { return readC(v, &r.id) }},
	{word: optLabel, names: []string{"-l", "--label"}, ops: forAll &^ forAdd, repeated: true, read: (*optionReader).readLabels},
	{word: optLabelAdd, names: []string{"--label-add"}, ops: forAdd | forUpdate, repeated: true, read: (*optionReader).readLabelAdd},
	{word: optLabelDel, names: []string{"--label-del"}, ops: forUpdate, optional: true, read: (*optionReader).readLabelDel},
	{word: optOutput, names: []string{"-o", "--output"}, ops: forAll &^ forAdd,
		read: func(*optionReader, string) error { return nil }},
	{word: optState, names: []string{"--state"}, ops: forAll, printed: true,
		protocols: []uint8{conntrack.ProtocolTCP, conntrack.ProtocolSCTP, conntrack.ProtocolDCCP}, read: (*optionReader).readState},
	{word: optOrigVTag, names: []string{"--orig-vtag"}, ops: forAdd | forUpdate, printed: true,
		protocols: []uint8{conntrack.ProtocolSCTP},
		read:      func(r *optionReader, v string) error { return r.readVTag(v, false) }},
	{word: optReplyVTag, names: []string{"--reply-vtag"}, ops: forAdd | forUpdate, printed: true,
		protocols: []uint8{conntrack.ProtocolSCTP},
		read:      func(r *optionReader, v string) error { return r.readVTag(v, true) }},
	{word: optRole, names: []string{"--role"}, ops: forAdd, printed: true,
		protocols: []uint8{conntrack.ProtocolDCCP}, read: (*optionReader).readRole},
}

var (
	errNoCommand  = errors.New("no command: one of -I, -A, -U, -D, -G and -L")
	errNoOption   = errors.New("no option of conntrack(8) about flows, or not of that protocol, or before -p")
	errNotPrinted = errors.New("no option that -o save prints")
	errNoValue    = errors.New("its value is missing")
	errNoPorts    = errors.New("a port to translate to, and no ports in that protocol")
	errQuote      = errors.New("a quote that is not closed")
	errNoPort     = errors.New("no port")
	errNoFlag     = errors.New("unknown status flag")
	errUnset      = errors.New("flags can be set, and not cleared")
)

// readAll reads all options. It makes the checks that do not depend on the
// command.
func (r *optionReader) readAll() error {
	if hasControl(r.rest) {
		return errControl
	}
	if r.peek() == commandName {
		r.next()
	}
	for {
		switch ok, err := r.nextArg(); {
		case err != nil:
			return err
		case !ok:
			return r.check()
		}
		if err := r.readArg(); err != nil {
			return err
		}
	}
}

// check returns an error if the options contradict each other.
func (r *optionReader) check() error {
	if r.op == 0 {
		return errNoCommand
	}
	for i := range options {
		if o := &options[i]; r.seen.has(o.word) && o.ops&(1<<r.op) == 0 && !(r.printed && o.printed) {
			return fmt.Errorf("%s does not go with %s", o.names[0], r.op)
		}
	}
	adds := forAdd&(1<<r.op) != 0
	switch {
	case r.seen.has(optSourceMask) && !r.seen.has(optSource), r.seen.has(optDestinationMask) && !r.seen.has(optDestination):
		return errors.New("a mask without its address")
	case r.seen.has(optAnyNAT) && r.seen.has(optSrcNAT|optDstNAT):
		return errors.New("--any-nat does not go with --src-nat and --dst-nat")
	case adds && (r.seen.has(optSrcNAT) && !r.source.IsValid() || r.seen.has(optDstNAT) && !r.destination.IsValid()):
		return errors.New("what to translate into is missing")
	case r.unset != 0 && (adds || r.op == OpUpdate):
		return errUnset
	case r.seen.has(optOrigVTag|optReplyVTag|optRole) && !r.seen.has(optState):
		return errors.New("--state is missing")
	}
	return nil
}

// nextArg advances to the next argument and removes its quotes. It reports
// whether there is one.
func (r *optionReader) nextArg() (bool, error) {
	if r.rest == "" {
		r.ended = true
		return false, nil
	}
	r.n++
	end := strings.IndexAny(r.rest, blanks+`"'`)
	if end < 0 {
		end = len(r.rest)
	}
	if end < len(r.rest) && strings.IndexByte(blanks, r.rest[end]) < 0 {
		return r.nextQuoted()
	}
	r.word, r.rest = r.rest[:end], strings.TrimLeft(r.rest[end:], blanks)
	return true, nil
}

// nextQuoted is nextArg for arguments that contain quotes.
func (r *optionReader) nextQuoted() (bool, error) {
	var word strings.Builder
	quote, i := byte(0), 0
	for ; i < len(r.rest); i++ {
		c := r.rest[i]
		switch {
		case c == quote:
			quote = 0
			continue
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
			continue
		case quote == '"' && c == '\\' && i+1 < len(r.rest):
			i++
			c = r.rest[i]
		case quote == 0 && strings.IndexByte(blanks, c) >= 0:
			r.word, r.rest = word.String(), strings.TrimLeft(r.rest[i:], blanks)
			return true, nil
		}
		word.WriteByte(c)
	}
	r.word, r.rest = word.String(), ""
	if quote != 0 {
		return false, errQuote
	}
	return true, nil
}

// readArg reads the current argument, and the next one if it is the value.
func (r *optionReader) readArg() error {
	if r.printed && r.word == byProcess {
		return r.process()
	}
	for op, names := range ops {
		if slices.Contains(names, r.word) {
			return r.readOp(Op(op))
		}
	}
	if !strings.HasPrefix(r.word, "-") {
		return errUnknown
	}
	name, value, attached := cutOption(r.word)
	o, ok := r.find(name)
	switch {
	case !ok:
		return errNoOption
	case r.printed && !o.printed:
		return errNotPrinted
	case r.seen.has(o.word) && !o.repeated:
		return errTwice
	}
	r.seen |= o.word
	n := r.n
	switch {
	case attached:
	case r.rest != "" && !(o.optional && (r.rest[0] == '-' || r.rest[0] == '!')):
		if _, err := r.nextArg(); err != nil {
			return err
		}
		value = r.word
	case o.optional:
		return o.read(r, "")
	default:
		return errNoValue
	}
	err := o.read(r, value)
	if err != nil {
		r.n, r.word = n, fmt.Sprintf("%.40s %.99s", name, value)
	}
	return err
}

func (r *optionReader) readOp(op Op) error {
	if r.op != 0 {
		return errors.New("a second command")
	}
	r.op = op
	if r.peek() == commandName {
		r.next()
	}
	return nil
}

// cutOption splits an option from a value in the same word, which follows a =
// or a single letter.
func cutOption(word string) (name, value string, attached bool) {
	if strings.HasPrefix(word, "--") {
		return strings.Cut(word, "=")
	}
	if len(word) > 2 {
		return word[:2], word[2:], true
	}
	return word, "", false
}

// find returns the option with the given name.
func (r *optionReader) find(name string) (o option, ok bool) {
	number := r.orig.Proto.Protocol
	for _, o := range options {
		if slices.Contains(o.names, name) && (o.protocols == nil || slices.Contains(o.protocols, number)) {
			return o, true
		}
	}
	for _, w := range wordsOf(number) {
		for direction, names := range w.options {
			if slices.Contains(names, name) {
				return fieldReader(direction, w), true
			}
		}
	}
	return option{}, false
}

// fieldReader returns the option for a field of a direction.
func fieldReader(direction int, w tupleWord) option {
	return option{
		word: fieldOption(direction, w.field), printed: true,
		read: func(r *optionReader, value string) (err error) {
			t := [...]*conntrack.Tuple{&r.orig, &r.reply}[direction]
			var v uint64
			if w.hex {
				v, err = parseC(value, w.field.size())
			} else {
				v, err = parseDigits(value, 10, w.field.size())
			}
			w.field.set(&t.Proto, uint16(v))
			return err
		},
	}
}

func readDecimal(s string, into *uint32) error {
	v, err := parseDigits(s, 10, 32)
	*into = uint32(v)
	return err
}

func (r *optionReader) readAddr(value string, into *netip.Addr) (err error) {
	*into, err = r.addr(value)
	return err
}

// readNet reads an address with an optional prefix length.
func (r *optionReader) readNet(value string, addr, mask *netip.Addr, word wordSet) error {
	text, length, ok := strings.Cut(value, "/")
	if err := r.readAddr(text, addr); err != nil || !ok {
		return err
	}
	n, err := parseDigits(length, 10, 8)
	if err != nil || int(n) > addr.BitLen() {
		return errors.New("no length of a prefix")
	}
	ones := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	if addr.Is6() {
		var all [16]byte
		for i := range all {
			all[i] = 255
		}
		ones = netip.AddrFrom16(all)
	}
	*mask = netip.PrefixFrom(ones, int(n)).Masked().Addr()
	return r.seen.once(word)
}

// readAddrPort reads an address with an optional port: 192.0.2.1, 192.0.2.1:80,
// 2001:db8::1 or [2001:db8::1]:80.
func (r *optionReader) readAddrPort(value string, into *netip.AddrPort) error {
	if value == "" {
		return nil
	}
	text, port := value, ""
	switch i := strings.LastIndexByte(value, ':'); {
	case strings.HasPrefix(value, "["):
		if i < 1 || value[i-1] != ']' {
			return errNoPort
		}
		text, port = value[1:i-1], value[i+1:]
	case strings.Count(value, ":") == 1:
		text, port = value[:i], value[i+1:]
	}
	addr, err := r.addr(text)
	if err != nil {
		return err
	}
	var number uint64
	if len(text) < len(value) {
		if number, err = parseDigits(port, 10, 16); err != nil {
			return errNoPort
		}
	}
	*into = netip.AddrPortFrom(addr, uint16(number))
	return nil
}

func (r *optionReader) readProtocol(value string) error {
	number, ok := findProtocol(value)
	if !ok {
		n, err := parseC(value, 8)
		if err != nil {
			return errors.New("unknown protocol")
		}
		number = uint8(n)
	}
	setProtocol(&r.orig.Proto, number)
	return nil
}

func (r *optionReader) readFamily(value string) error {
	for _, f := range familyNames {
		if f.name == value {
			return r.setFamily(f.family)
		}
	}
	return errors.New("no family: ipv4 or ipv6")
}

// readMark reads a mark with an optional mask after a /.
func (r *optionReader) readMark(value string) error {
	mark, mask, masked := strings.Cut(value, "/")
	r.markMask = ^uint32(0)
	err := readC(mark, &r.mark)
	if err == nil && masked {
		err = readC(mask, &r.markMask)
	}
	return err
}

// statusNames are the names that -u accepts.
var statusNames = func() map[string]conntrack.StatusFlag {
	names := map[string]conntrack.StatusFlag{noStatus: 0}
	for _, f := range []conntrack.StatusFlag{
		conntrack.StatusExpected, conntrack.StatusSeenReply, conntrack.StatusAssured, conntrack.StatusFixedTimeout,
		conntrack.StatusOffload, conntrack.StatusHWOffload,
	} {
		names[flagName(f)] = f
	}
	return names
}()

// findStatus returns the flag with the given name, ignoring case.
func findStatus(name string) (flag conntrack.StatusFlag, ok bool) {
	for n, flag := range statusNames {
		if strings.EqualFold(n, name) {
			return flag, true
		}
	}
	return 0, false
}

// readStatus reads a comma-separated list of flags.
func (r *optionReader) readStatus(value string) error {
	for name := range strings.SplitSeq(value, ",") {
		into := &r.status
		if strings.HasPrefix(name, "!") {
			name, into = name[1:], &r.unset
		} else if name == "UNREPLIED" {
			name, into = flagName(conntrack.StatusSeenReply), &r.unset
		}
		flag, ok := findStatus(name)
		if !ok {
			return errNoFlag
		}
		*into |= flag
	}
	return nil
}

func (r *optionReader) readLabels(value string) error {
	labels, err := r.o.Labels.find(value)
	r.withLabels = append(r.withLabels, labels...)
	return err
}

func (r *optionReader) readLabelAdd(value string) error {
	labels, err := r.o.Labels.find(value)
	for _, bit := range labels {
		r.labels.SetLabel(bit)
	}
	return err
}

// readLabelDel reads the names of labels to remove. No names means all labels.
func (r *optionReader) readLabelDel(value string) error {
	if value == "" {
		r.labels.Labels = make([]byte, labelBits/8)
		return nil
	}
	labels, err := r.o.Labels.find(value)
	for _, bit := range labels {
		r.labels.ClearLabel(bit)
	}
	return err
}

func (r *optionReader) readState(name string) error {
	number := r.orig.Proto.Protocol
	p := protocols[number]
	if number == conntrack.ProtocolTCP && name == "LISTEN" {
		name = p.stateName(conntrack.TCPStateSynSent2) // the name that replaced it
	}
	state, ok := p.findState(name)
	if name == unnamed && p.saved < p.states {
		state, ok = p.saved, true // -o save uses the first state without a name
	}
	if !ok {
		return errNoState
	}
	setState(&r.info, number, state)
	return nil
}

func (r *optionReader) readVTag(value string, reply bool) error {
	if r.info.SCTP == nil {
		r.info.SCTP = new(conntrack.ProtoInfoSCTP)
	}
	into := &r.info.SCTP.VTagOriginal
	if reply {
		into = &r.info.SCTP.VTagReply
	}
	err := readDecimal(value, into)
	*into = savedVTag(*into)
	return err
}

func (r *optionReader) readRole(value string) error {
	if r.info.DCCP == nil {
		r.info.DCCP = new(conntrack.ProtoInfoDCCP)
	}
	role := slices.Index(dccpRoles[:], value)
	if role >= 0 {
		r.info.DCCP.Role = uint8(role)
		return nil
	}
	return errors.New("neither client nor server")
}

// savedFlow parses a flow that -o save printed.
func (r *optionReader) savedFlow() (conntrack.Flow, error) {
	r.printed = true
	if err := r.readAll(); err != nil {
		return conntrack.Flow{}, err
	}
	if r.op != OpAdd && r.op != OpUpdate && r.op != OpDelete {
		return conntrack.Flow{}, errCommand
	}
	f, err := r.newFlow()
	if r.op != OpDelete && !r.seen.has(optTimeout) {
		f.Status.Value |= conntrack.StatusOffload
	}
	return f, err
}
