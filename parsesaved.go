package conntrack

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/ti-mo/conntrack/netfilter"
)

// commandName is what a line may begin with that was typed, and also the name of
// the table that may stand behind the command.
const commandName = "conntrack"

// savedFlow is what options of conntrack(8) say of a flow, as far as it depends on
// other options.
type savedFlow struct {
	reply IPTuple
	// What the source and the destination are translated into.
	source, destination netip.AddrPort
	// protoOptions belong to the protocol.
	protoOptions []protoOption
}

// A protoOption is an option for a protocol, word number n.
type protoOption struct {
	name, value string
	n           int
}

// A savedOption is an option of conntrack(8) that takes a value.
type savedOption struct {
	names []string
	read  func(r *flowReader, value string) error
}

// savedOptions are the options that say something of a flow, besides those of
// protocols.
var savedOptions = []savedOption{
	{[]string{"-t", "--timeout"}, func(r *flowReader, v string) error { return readUint(v, &r.flow.Timeout) }},
	{[]string{"-u", "--status"}, (*flowReader).readSavedStatus},
	{[]string{"-w", "--zone"}, func(r *flowReader, v string) error { return readUint(v, &r.flow.Zone) }},
	{[]string{"--orig-zone"}, func(r *flowReader, v string) error { return readUint(v, &r.orig.Zone) }},
	{[]string{"--reply-zone"}, func(r *flowReader, v string) error { return readUint(v, &r.reply.Zone) }},
	{[]string{"-s", "--src", "--orig-src"}, addrOption(func(r *flowReader) *netip.Addr { return &r.orig.IP.SourceAddress })},
	{[]string{"-d", "--dst", "--orig-dst"}, addrOption(func(r *flowReader) *netip.Addr { return &r.orig.IP.DestinationAddress })},
	{[]string{"-r", "--reply-src"}, addrOption(func(r *flowReader) *netip.Addr { return &r.saved.reply.SourceAddress })},
	{[]string{"-q", "--reply-dst"}, addrOption(func(r *flowReader) *netip.Addr { return &r.saved.reply.DestinationAddress })},
	{[]string{"-n", "--src-nat"}, func(r *flowReader, v string) error { return r.readAddrPort(v, &r.saved.source) }},
	{[]string{"-g", "--dst-nat"}, func(r *flowReader, v string) error { return r.readAddrPort(v, &r.saved.destination) }},
	{[]string{"-p", "--proto", "--protonum"}, (*flowReader).readSavedProtocol},
	{[]string{"-f", "--family"}, (*flowReader).readSavedFamily},
	{[]string{"-m", "--mark"}, (*flowReader).readSavedMark},
	{[]string{"--label-add"}, func(r *flowReader, v string) error { return r.readSavedLabels(v, r.flow.SetLabel) }},
	{[]string{"--label-del"}, func(r *flowReader, v string) error { return r.readSavedLabels(v, r.flow.ClearLabel) }},
}

// savedCommands are what a line may do to the table.
var savedCommands = []struct {
	names []string
	event EventType
}{
	{[]string{"-A", "--add", "-I", "--create"}, EventNew},
	{[]string{"-U", "--update"}, EventUpdate},
	{[]string{"-D", "--delete"}, EventDestroy},
	{[]string{"-G", "--get"}, EventUnknown},
}

// protoOptionNames are those options of protocols that have other names too.
var protoOptionNames = map[string]string{
	"--orig-port-src": "--sport",
	"--orig-port-dst": "--dport",
	"--orig-key-src":  "--srckey",
	"--orig-key-dst":  "--dstkey",
}

func addrOption(field func(r *flowReader) *netip.Addr) func(r *flowReader, value string) error {
	return func(r *flowReader, value string) (err error) {
		*field(r), err = r.addr(value)
		return err
	}
}

// readSaved reads a flow from options.
func (r *flowReader) readSaved() error {
	r.flow.Status.Value = StatusConfirmed
	if r.peek() == commandName {
		r.next()
	}
	for r.next() {
		handled, err := r.suffix()
		if !handled {
			err = r.readOption()
		}
		if err != nil {
			return err
		}
	}
	return r.finishSaved()
}

func (r *flowReader) readOption() error {
	for _, c := range savedCommands {
		if !slices.Contains(c.names, r.word) {
			continue
		}
		r.event = c.event
		if r.peek() == commandName {
			r.next()
		}
		return r.once("command")
	}
	if !strings.HasPrefix(r.word, "-") {
		return errUnknown
	}
	name, n := r.word, r.n
	value, err := r.optionValue(&name)
	if err != nil {
		return err
	}
	if other, ok := protoOptionNames[name]; ok {
		name = other
	}
	given := protoOption{name, value, n}
	for _, o := range savedOptions {
		if slices.Contains(o.names, name) {
			return r.failedAt(given, cmp.Or(r.once(o.names[0]), o.read(r, value)))
		}
	}
	if !isProtoOption(name) {
		r.word, r.n = name, n
		return errors.New("no option of conntrack(8) that says something of a flow")
	}
	r.saved.protoOptions = append(r.saved.protoOptions, given)
	return r.failedAt(given, r.once(name))
}

// optionValue returns the value of the option that is the current word: what is
// behind a = in it, or else the next word.
func (r *flowReader) optionValue(name *string) (value string, err error) {
	if before, after, ok := strings.Cut(*name, "="); ok && strings.HasPrefix(before, "--") {
		*name = before
		return unquote(after), nil
	}
	if short := *name; len(short) > 2 && short[1] != '-' { // -ptcp
		*name = short[:2]
		return unquote(short[2:]), nil
	}
	if !r.next() {
		r.ended = false
		return "", errors.New("its value is missing")
	}
	return unquote(r.word), nil
}

// unquote takes off the quotes that a shell would. No value has blanks in it.
func unquote(s string) string {
	if n := len(s); n > 1 && (s[0] == '"' || s[0] == '\'') && s[n-1] == s[0] {
		return s[1 : n-1]
	}
	return s
}

// isProtoOption reports whether a protocol has an option of that name.
func isProtoOption(name string) bool {
	switch name {
	case "--state", "--orig-vtag", "--reply-vtag", "--role":
		return true
	}
	for _, words := range [...][]protoWord{portWords, keyWords, icmpWords, icmpv6Words} {
		for _, w := range words {
			if slices.Contains(w.options[:], name) {
				return true
			}
		}
	}
	return false
}

func (r *flowReader) readSavedStatus(value string) error {
	if value == noStatus {
		return nil
	}
	var flags StatusFlag
	err := flags.UnmarshalText([]byte(value))
	r.flow.Status.Value |= flags
	return err
}

func (r *flowReader) readSavedProtocol(value string) error {
	var p Protocol
	err := p.UnmarshalText([]byte(value))
	r.orig.Proto.setProtocol(uint8(p))
	return err
}

func (r *flowReader) readSavedFamily(value string) error {
	for _, f := range familyNames {
		if f.name == value && (r.family == f.family || r.family == netfilter.ProtoUnspec) {
			r.family = f.family
			return nil
		}
	}
	return errors.New("no family of these addresses")
}

// readSavedMark reads a mark, and the mask behind a /.
func (r *flowReader) readSavedMark(value string) error {
	mark, mask, masked := strings.Cut(value, "/")
	err := readUint(mark, &r.flow.Mark)
	if err == nil && masked {
		err = readUint(mask, &r.flow.MarkMask)
	}
	return err
}

func (r *flowReader) readSavedLabels(value string, change func(bit int)) error {
	if r.o.Labels == nil {
		return errNoLabelNames
	}
	for name := range strings.SplitSeq(value, ",") {
		bit := slices.Index(r.o.Labels.known(), name)
		if bit < 0 || name == "" {
			return errUnknownLabel
		}
		change(bit)
	}
	return nil
}

// readAddrPort reads an address and perhaps a port: 192.0.2.1, 192.0.2.1:80,
// 2001:db8::1, [2001:db8::1] or [2001:db8::1]:80.
func (r *flowReader) readAddrPort(value string, into *netip.AddrPort) error {
	if ap, err := netip.ParseAddrPort(value); err == nil {
		_, err = r.addr(ap.Addr().String())
		*into = ap
		return err
	}
	addr, err := r.addr(strings.TrimSuffix(strings.TrimPrefix(value, "["), "]"))
	*into = netip.AddrPortFrom(addr, 0)
	return err
}

// finishSaved puts the flow together from what was read.
func (r *flowReader) finishSaved() error {
	f := &r.flow
	f.TupleOrig = r.orig.Tuple
	if err := r.readProtoOptions(0); err != nil {
		return err
	}
	_, err := f.TupleOrig.IP.family()
	if err != nil || !r.seen["-p"] || !r.hasProtoOptions(0) && !f.withoutPorts() {
		return errNoTuple
	}
	if r.event == EventNew || r.saysReply() {
		if err := r.finishReply(); err != nil {
			return err
		}
	}
	// conntrack(8) always saves a status.
	if (r.event == EventNew || r.event == EventUpdate) && r.seen["-u"] && !r.seen["-t"] {
		f.Status.Value |= StatusOffload
	}
	if r.seen["command"] && r.event != EventNew && !r.seen["-u"] {
		f.Status.Value = 0 // what is to be changed or found says nothing of it
	}
	return r.readStateOptions()
}

// saysReply reports whether anything was said of the reply direction.
func (r *flowReader) saysReply() bool {
	s := &r.saved
	return s.reply != IPTuple{} || s.source.IsValid() || s.destination.IsValid() || r.hasProtoOptions(1)
}

// finishReply sets the reply tuple, and the flags that follow from it.
func (r *flowReader) finishReply() error {
	f, s := &r.flow, &r.saved
	f.TupleReply = f.TupleOrig.Reverse()
	f.TupleReply.Zone = r.reply.Zone
	ip, proto := &f.TupleReply.IP, &f.TupleReply.Proto
	ports := slices.Equal(optionsOf(proto.Protocol, 1), optionsOf(ProtocolTCP, 1))
	for _, part := range [...]struct {
		addr *netip.Addr
		port *uint16
		said netip.Addr
		to   netip.AddrPort
	}{
		{&ip.SourceAddress, &proto.SourcePort, s.reply.SourceAddress, s.destination},
		{&ip.DestinationAddress, &proto.DestinationPort, s.reply.DestinationAddress, s.source},
	} {
		if part.said.IsValid() {
			*part.addr = part.said
		}
		if part.to.IsValid() {
			*part.addr = part.to.Addr()
		}
		if port := part.to.Port(); port != 0 {
			if !ports {
				return errors.New("a port to translate to, and no ports in that protocol")
			}
			*part.port = port
		}
	}
	if err := r.readProtoOptions(1); err != nil {
		return err
	}
	// Another address that is not said to be a translation is none there.
	source := s.source.IsValid() || ip.DestinationAddress == f.TupleOrig.IP.SourceAddress
	destination := s.destination.IsValid() || ip.SourceAddress == f.TupleOrig.IP.DestinationAddress
	r.addTranslation(source && f.SourceTranslated(), destination && f.DestinationTranslated())
	if !source {
		f.Status.Value &^= StatusSrcNATDone
	}
	if !destination {
		f.Status.Value &^= StatusDstNATDone
	}
	return nil
}

// optionsOf returns the options of a protocol's tuples in one direction.
func optionsOf(protocol uint8, direction int) (names []string) {
	for _, w := range protoWordsOf(protocol) {
		if name := w.options[direction]; name != "" {
			names = append(names, name)
		}
	}
	return names
}

// hasProtoOptions reports whether all (of the original direction) or any (of the
// reply) of the protocol's options were given.
func (r *flowReader) hasProtoOptions(direction int) bool {
	given := func(name string) bool { return r.seen[name] }
	names := optionsOf(r.orig.Proto.Protocol, direction)
	if direction == 0 {
		return !slices.ContainsFunc(names, func(name string) bool { return !given(name) })
	}
	return slices.ContainsFunc(names, given)
}

// readProtoOptions reads the options for the tuple of a direction.
func (r *flowReader) readProtoOptions(direction int) error {
	tuple := [...]*Tuple{&r.flow.TupleOrig, &r.flow.TupleReply}[direction]
	for _, w := range protoWordsOf(tuple.Proto.Protocol) {
		o, ok := r.takeProtoOption(w.options[direction])
		if !ok {
			continue
		}
		v, err := parseUint(o.value, w.bits)
		if err != nil {
			return r.failedAt(o, err)
		}
		w.set(&tuple.Proto, v)
	}
	return nil
}

// takeProtoOption removes the option of that name, if it was given.
func (r *flowReader) takeProtoOption(name string) (o protoOption, ok bool) {
	options := &r.saved.protoOptions
	i := slices.IndexFunc(*options, func(o protoOption) bool { return o.name == name })
	if i < 0 {
		return protoOption{}, false
	}
	o = (*options)[i]
	*options = slices.Delete(*options, i, i+1)
	return o, true
}

// failedAt returns err, and makes the option the word that it is about.
func (r *flowReader) failedAt(o protoOption, err error) error {
	if err != nil {
		r.word, r.n, r.ended = o.name+" "+o.value, o.n, false
	}
	return err
}

// readStateOptions reads the state and what belongs to it. It is the last to
// read options of the protocol: there must be none left.
func (r *flowReader) readStateOptions() error {
	p := &r.flow.ProtoInfo
	if o, ok := r.takeProtoOption("--state"); ok {
		if err := r.readStateOption(o.value); err != nil {
			return r.failedAt(o, err)
		}
	}
	for _, name := range [...]string{"--orig-vtag", "--reply-vtag", "--role"} {
		if p.SCTP == nil && strings.HasSuffix(name, "-vtag") || p.DCCP == nil && name == "--role" {
			continue
		}
		o, ok := r.takeProtoOption(name)
		if !ok {
			continue
		}
		var err error
		switch name {
		case "--orig-vtag":
			err = readUint(o.value, &p.SCTP.VTagOriginal)
			p.SCTP.VTagOriginal = savedVTag(p.SCTP.VTagOriginal)
		case "--reply-vtag":
			err = readUint(o.value, &p.SCTP.VTagReply)
			p.SCTP.VTagReply = savedVTag(p.SCTP.VTagReply)
		case "--role":
			var role dccpRole
			err = role.UnmarshalText([]byte(o.value))
			p.DCCP.Role = uint8(role)
		}
		if err != nil {
			return r.failedAt(o, err)
		}
	}
	if rest := r.saved.protoOptions; len(rest) > 0 {
		return r.failedAt(rest[0], errors.New("no option for this protocol"))
	}
	return nil
}

func (r *flowReader) readStateOption(name string) error {
	if name == "LISTEN" {
		name = tcpStateNames[TCPStateSynSent2] // what became of it
	}
	for i := range protoStates {
		s := &protoStates[i]
		if s.protocol != r.orig.Proto.Protocol {
			continue
		}
		state := slices.Index(s.names, name)
		if name == unnamed && s.saved < len(s.names) {
			state = s.saved // the first one that has no name there
		}
		if state >= 0 {
			s.set(&r.flow.ProtoInfo, uint8(state))
			return nil
		}
	}
	return errNoState
}
