package cttext

import (
	"bytes"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/ti-mo/conntrack"
)

// An Op is what a [Command] does to the table.
type Op uint8

const (
	// OpCreate adds a flow that must not exist yet (-I): see
	// [conntrack.Conn.Create].
	OpCreate Op = iota + 1
	// OpAdd adds a flow, or changes the existing one (-A): see
	// [conntrack.Conn.CreateOrUpdate].
	OpAdd
	// OpUpdate changes flows (-U): see [conntrack.Conn.UpdateFunc].
	OpUpdate
	// OpDelete deletes flows (-D): see [conntrack.Conn.DeleteFunc].
	OpDelete
	// OpGet finds one flow (-G): see [conntrack.Conn.Get].
	OpGet
	// OpList lists flows (-L): see [conntrack.Conn.Flows].
	OpList
)

// ops are conntrack(8)'s options for each Op.
var ops = [...][]string{
	OpCreate: {"-I", "--create"},
	OpAdd:    {"-A", "--add"},
	OpUpdate: {"-U", "--update"},
	OpDelete: {"-D", "--delete"},
	OpGet:    {"-G", "--get"},
	OpList:   {"-L", "--dump"},
}

// String returns the option of conntrack(8), such as "-I".
func (op Op) String() string {
	if op == 0 || int(op) >= len(ops) {
		return "unknown"
	}
	return ops[op][0]
}

// A Command is a parsed command of conntrack(8). [Options.ParseCommand] returns
// one.
type Command struct {
	Op Op
	// Flow is the flow that -I and -A add, the values that -U sets, or the key
	// by which -G finds a flow. It is zero for -D and -L.
	Flow conntrack.Flow
	// Filter selects the flows that -U, -D, -G and -L apply to. It cannot
	// express every condition of a command; Match checks them all.
	Filter conntrack.Filter

	conditions conditions
}

// conditions are those that a Filter has no fields for. A nil pointer means no
// condition.
type conditions struct {
	id, timeout                 *uint32
	zone, origZone, replyZone   *uint16
	state                       *uint8
	labels                      []int
	srcNAT, dstNAT, anyNAT      *netip.AddrPort
	source, destination         netip.Addr // only the bits set in these masks count
	sourceMask, destinationMask netip.Addr
}

// Match reports whether f meets all conditions of -U, -D, -G or -L.
//
// It is stricter than conntrack(8) in two cases: conntrack -D ignores -u
// UNREPLIED and negated flags, and a timeout that is the only condition.
func (c *Command) Match(f *conntrack.Flow) bool { return c.Filter.Match(f) && c.conditions.match(f) }

func (c *conditions) match(f *conntrack.Flow) bool {
	_, state, _ := stateOf(&f.ProtoInfo)
	for _, bit := range c.labels {
		if !f.HasLabel(bit) {
			return false
		}
	}
	return is(c.id, f.ID) && is(c.timeout, f.Timeout) && is(c.state, state) &&
		is(c.zone, f.Zone) && is(c.origZone, f.TupleOrig.Zone) && is(c.replyZone, f.TupleReply.Zone) &&
		agree(c.source, c.sourceMask, f.TupleOrig.IP.SourceAddress) &&
		agree(c.destination, c.destinationMask, f.TupleOrig.IP.DestinationAddress) &&
		(c.srcNAT == nil || isSrcNAT(f, *c.srcNAT)) && (c.dstNAT == nil || isDstNAT(f, *c.dstNAT)) &&
		(c.anyNAT == nil || isSrcNAT(f, *c.anyNAT) || isDstNAT(f, *c.anyNAT))
}

func is[T comparable](want *T, v T) bool { return want == nil || *want == v }

// agree reports whether want and addr are equal in the bits that mask sets.
func agree(want, mask, addr netip.Addr) bool {
	if !mask.IsValid() {
		return true
	}
	return addr.BitLen() == mask.BitLen() && bytes.Equal(and(want, mask), and(addr, mask))
}

func and(addr, mask netip.Addr) []byte {
	b := addr.AsSlice()
	for i, m := range mask.AsSlice() {
		b[i] &= m
	}
	return b
}

// isSrcNAT reports whether f's source is translated to the address and port in
// to. Parts of to that are not set match any.
func isSrcNAT(f *conntrack.Flow, to netip.AddrPort) bool {
	return f.Status.SrcNATDone() && f.SourceTranslated() && isAddrPort(f.MappedClient(), to)
}

// isDstNAT reports whether f's destination is translated to the address and
// port in to. Parts of to that are not set match any.
func isDstNAT(f *conntrack.Flow, to netip.AddrPort) bool {
	return f.Status.DstNATDone() && f.DestinationTranslated() && isAddrPort(f.Server(), to)
}

func isAddrPort(v, want netip.AddrPort) bool {
	return (!want.Addr().IsValid() || v.Addr() == want.Addr()) && (want.Port() == 0 || v.Port() == want.Port())
}

// Change returns the changes that -U makes to f, for use with
// [conntrack.Conn.UpdateFunc]. ok is false if f does not meet the conditions,
// or if nothing would change.
func (c *Command) Change(f *conntrack.Flow) (change conntrack.Flow, ok bool) {
	if c.Op != OpUpdate || !c.Match(f) {
		return conntrack.Flow{}, false
	}
	change = c.Flow
	if change.Status.Value != 0 {
		change.Status.Value |= f.Status.Value // flags can be set but not cleared
	}
	if change.Mark&^change.MarkMask != 0 {
		// Bits outside the mask are XORed with those of the mark.
		change.Mark ^= f.Mark &^ change.MarkMask
		change.MarkMask = ^uint32(0)
	}
	if now, new := f.ProtoInfo.SCTP, change.ProtoInfo.SCTP; now != nil && new != nil {
		// The kernel replaces either all of it or nothing.
		merged := *new
		if merged.VTagOriginal == 0 && merged.VTagReply == 0 {
			merged.VTagOriginal, merged.VTagReply = now.VTagOriginal, now.VTagReply
		}
		change.ProtoInfo.SCTP = &merged
	}
	return change, changes(&change, f)
}

// changes reports whether an Update with change would alter f.
func changes(change, f *conntrack.Flow) bool {
	_, state, hasState := stateOf(&change.ProtoInfo)
	_, before, _ := stateOf(&f.ProtoInfo)
	sctp := change.ProtoInfo.SCTP
	return change.Timeout != 0 && change.Timeout != f.Timeout ||
		change.Status.Value&^f.Status.Value != 0 ||
		f.Mark&^change.MarkMask^change.Mark != f.Mark ||
		hasState && state != before ||
		sctp != nil && f.ProtoInfo.SCTP != nil && *sctp != *f.ProtoInfo.SCTP ||
		changesLabels(change, f)
}

func changesLabels(change, f *conntrack.Flow) bool {
	if change.Labels == nil {
		return false
	}
	all := change.LabelsMask == nil
	for bit := range labelBits {
		mask := conntrack.Flow{Labels: change.LabelsMask}
		if (all || mask.HasLabel(bit)) && change.HasLabel(bit) != f.HasLabel(bit) {
			return true
		}
	}
	return false
}

// ParseCommand parses a command of conntrack(8), as typed in a shell or as in a
// file for its option -R. The command is one of -I, -A, -U, -D, -G and -L with
// its options, short or long. The word conntrack before it is optional. Quoted
// words may contain blanks. Options that belong to a protocol must follow -p.
//
// Numbers are read as conntrack(8) reads them. Marks, zones, ids, GRE keys and
// protocol numbers may be decimal, hexadecimal (0x10) or octal (010). Ports,
// timeouts and other numbers are decimal. Every condition counts, even where
// conntrack(8) would ignore it: see [Command.Match]. --src-nat=192.0.2.1 and -n
// 192.0.2.1 are equivalent. Option -o has no effect. Names of labels are looked
// up in o.Labels.
//
// A flow to add needs a complete original or reply direction. The other
// direction is derived from it, except for the parts that the command gives.
// Status has StatusConfirmed. If the source or the destination is translated,
// Status also has the NAT flags, so that Create makes a translated flow. TCP
// flows have TCPFlagBeLiberal in both directions, as in [Options.ParseFlow].
func (o Options) ParseCommand(line string) (Command, error) {
	r := optionReader{lineReader: newLineReader(&o, line)}
	c, err := r.command()
	if err != nil {
		return Command{}, r.failed("command", err)
	}
	return c, nil
}

// command parses a command.
func (r *optionReader) command() (c Command, err error) {
	if err := r.readAll(); err != nil {
		return c, err
	}
	c.Op = r.op
	switch c.Op {
	case OpCreate, OpAdd:
		c.Flow, err = r.newFlow()
		return c, err
	case OpUpdate:
		c.Flow = r.changes()
	case OpGet:
		if c.Flow, err = r.key(); err != nil {
			return c, err
		}
	}
	c.Filter, c.conditions = r.filter(), r.conditions()
	return c, nil
}

// newFlow returns the flow to add.
func (r *optionReader) newFlow() (f conntrack.Flow, err error) {
	f = r.meta()
	f.Status.Value |= conntrack.StatusConfirmed
	if f.TupleOrig, err = r.newOrig(); err != nil {
		return f, err
	}
	if f.TupleReply, err = r.newReply(f.TupleOrig); err != nil {
		return f, err
	}
	// An address that differs between the directions is a translation only with
	// --src-nat or --dst-nat.
	source := r.source.IsValid() || f.TupleReply.IP.DestinationAddress == f.TupleOrig.IP.SourceAddress
	destination := r.destination.IsValid() || f.TupleReply.IP.SourceAddress == f.TupleOrig.IP.DestinationAddress
	addTranslation(&f, source && f.SourceTranslated(), destination && f.DestinationTranslated())
	if !source {
		f.Status.Value &^= conntrack.StatusSrcNATDone
	}
	if !destination {
		f.Status.Value &^= conntrack.StatusDstNATDone
	}
	return f, nil
}

// newOrig returns the original direction of a flow to add. Parts that the
// command does not give are taken from the inverted reply direction.
func (r *optionReader) newOrig() (conntrack.Tuple, error) {
	orig := r.orig
	if !orig.IP.SourceAddress.IsValid() {
		orig.IP.SourceAddress = r.reply.IP.DestinationAddress
	}
	if !orig.IP.DestinationAddress.IsValid() {
		orig.IP.DestinationAddress = r.reply.IP.SourceAddress
	}
	if familyOf(&orig.IP) == 0 || !r.seen.has(optProtocol) {
		return orig, errNoTuple
	}
	for _, w := range wordsOf(orig.Proto.Protocol) {
		switch other := w.field.reversed(); {
		case r.told(0, w.field), w.field == icmpID:
		case r.told(1, other):
			w.field.set(&orig.Proto, other.get(&r.reply.Proto))
		case !mayLackPorts(orig.Proto.Protocol):
			return orig, errNoTuple
		}
	}
	return orig, nil
}

// newReply returns the reply direction of a flow to add: the inverted original
// direction, except for the parts that the command gives.
func (r *optionReader) newReply(orig conntrack.Tuple) (conntrack.Tuple, error) {
	reply := orig.Reverse()
	reply.Zone = r.reply.Zone
	for _, a := range [...]struct {
		into *netip.Addr
		told netip.Addr
		port *uint16
		to   netip.AddrPort
	}{
		{&reply.IP.SourceAddress, r.reply.IP.SourceAddress, &reply.Proto.SourcePort, r.destination},
		{&reply.IP.DestinationAddress, r.reply.IP.DestinationAddress, &reply.Proto.DestinationPort, r.source},
	} {
		if a.told.IsValid() {
			*a.into = a.told
		}
		if a.to.IsValid() {
			*a.into = a.to.Addr()
		}
		if a.to.Port() != 0 {
			if !hasPorts(orig.Proto.Protocol) {
				return reply, errNoPorts
			}
			*a.port = a.to.Port()
		}
	}
	for _, w := range wordsOf(orig.Proto.Protocol) {
		if r.told(1, w.field) {
			w.field.set(&reply.Proto, w.field.get(&r.reply.Proto))
		}
	}
	return reply, nil
}

// hasPorts reports whether a protocol has ports.
func hasPorts(number uint8) bool {
	words := wordsOf(number)
	return len(words) > 0 && words[0].key == portWords[0].key
}

// key returns the key of a flow: a complete direction.
func (r *optionReader) key() (f conntrack.Flow, err error) {
	switch {
	case !r.seen.has(optProtocol):
		return f, errNoTuple
	case r.complete(0, &r.orig):
		f.TupleOrig = r.orig
	case r.complete(1, &r.reply):
		f.TupleReply = r.reply
		setProtocol(&f.TupleReply.Proto, r.orig.Proto.Protocol)
	default:
		return f, errNoTuple
	}
	return f, nil
}

// complete reports whether the command gives all of a direction.
func (r *optionReader) complete(direction int, t *conntrack.Tuple) bool {
	missing := slices.ContainsFunc(wordsOf(r.orig.Proto.Protocol), func(w tupleWord) bool {
		return !r.told(direction, w.field) && w.field != icmpID
	})
	return familyOf(&t.IP) != 0 && !missing
}

// meta returns everything but the tuples of a flow to add or change.
func (r *optionReader) meta() conntrack.Flow {
	f := conntrack.Flow{
		Timeout: r.timeout, Zone: r.zone, Mark: r.mark, ProtoInfo: r.info,
		Labels: r.labels.Labels, LabelsMask: r.labels.LabelsMask,
	}
	f.Status.Value = r.status
	if r.seen.has(optMark) {
		f.MarkMask = ^uint32(0) // so that a mark of 0 counts
	}
	return f
}

// changes returns what -U changes.
func (r *optionReader) changes() conntrack.Flow {
	f := r.meta()
	f.MarkMask &= r.markMask
	return f
}

// filter returns the conditions that a Filter can express.
func (r *optionReader) filter() conntrack.Filter {
	f := conntrack.Filter{Family: r.family, Orig: r.orig, Reply: r.reply}
	if r.seen.has(optProtocol) && r.orig.Proto.Protocol == 0 {
		f.OrigZero.Protocol = true
	}
	for _, w := range wordsOf(r.orig.Proto.Protocol) {
		if r.told(0, w.field) {
			w.field.meanZero(&f.OrigZero)
		}
		if r.told(1, w.field) {
			w.field.meanZero(&f.ReplyZero)
		}
	}
	if r.sourceMask.IsValid() {
		f.OrigSource, f.Orig.IP.SourceAddress = prefixOf(r.orig.IP.SourceAddress, r.sourceMask), netip.Addr{}
	}
	if r.destinationMask.IsValid() {
		f.OrigDestination = prefixOf(r.orig.IP.DestinationAddress, r.destinationMask)
		f.Orig.IP.DestinationAddress = netip.Addr{}
	}
	if r.seen.has(optZone) {
		f.Zone = &r.zone
	}
	if r.op != OpUpdate {
		f.Mark, f.Mask = r.mark, r.markMask
		f.Status, f.StatusMask = r.status, r.status|r.unset
	}
	return f
}

// prefixOf returns the prefix of addr under mask, or the zero Prefix if the
// ones of mask are not contiguous.
func prefixOf(addr, mask netip.Addr) netip.Prefix {
	ones := 0
	for _, b := range mask.AsSlice() {
		ones += bits.OnesCount8(b)
	}
	if netip.PrefixFrom(mask, ones).Masked().Addr() != mask {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(addr, ones).Masked()
}

// conditions returns the conditions that are not in the Filter.
func (r *optionReader) conditions() conditions {
	c := conditions{
		id:        ifSeen(r, optID, r.id),
		zone:      ifSeen(r, optZone, r.zone),
		origZone:  ifSeen(r, optOrigZone, r.orig.Zone),
		replyZone: ifSeen(r, optReplyZone, r.reply.Zone),
		labels:    r.withLabels,
		srcNAT:    ifSeen(r, optSrcNAT, r.source),
		dstNAT:    ifSeen(r, optDstNAT, r.destination),
		anyNAT:    ifSeen(r, optAnyNAT, r.anyNAT),
		source:    r.orig.IP.SourceAddress, sourceMask: r.sourceMask,
		destination: r.orig.IP.DestinationAddress, destinationMask: r.destinationMask,
	}
	if r.op != OpUpdate {
		_, state, _ := stateOf(&r.info)
		c.state, c.timeout = ifSeen(r, optState, state), ifSeen(r, optTimeout, r.timeout)
	}
	return c
}

// ifSeen returns a pointer to v if the option was given, and nil otherwise.
func ifSeen[T any](r *optionReader, option wordSet, v T) *T {
	if !r.seen.has(option) {
		return nil
	}
	return &v
}
