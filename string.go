package conntrack

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

func directionName(reply bool) string {
	if reply {
		return "reply"
	}
	return "orig"
}

// String returns f as one line for people and logs: its original direction,
// state, status, seconds until it expires, what NAT makes of it, counters, mark
// and zone. It leaves out what f does not have:
//
//	tcp 192.0.2.1:40000 > 192.0.2.2:443 ESTABLISHED SEEN_REPLY|ASSURED 300s
//
// Package [github.com/ti-mo/conntrack/cttext] prints the lines of conntrack(8).
func (f Flow) String() string {
	b := fmt.Appendf(nil, "%s ", f.TupleOrig.FiveTuple())
	if state := f.State(); state != "" {
		b = fmt.Appendf(b, "%s ", state)
	}
	b = fmt.Appendf(b, "%s %ds", f.Status, f.Timeout)
	if f.Translated() {
		b = fmt.Appendf(b, " translated to %s > %s", f.MappedClient(), f.Server())
	}
	if f.Counted() {
		b = fmt.Appendf(b, " %d+%d packets %d+%d bytes",
			f.CountersOrig.Packets, f.CountersReply.Packets, f.CountersOrig.Bytes, f.CountersReply.Bytes)
	}
	if f.Mark != 0 {
		b = fmt.Appendf(b, " mark %#x", f.Mark)
	}
	if zone := f.zone(); zone != 0 {
		b = fmt.Appendf(b, " zone %d", zone)
	}
	return string(b)
}

// String returns ex as one line for people and logs: what is expected, the
// helper, the seconds until it expires, its flags if it has any, and its
// master.
func (ex Expect) String() string {
	b := fmt.Appendf(nil, "%s %s %ds", ex.Tuple.FiveTuple(), ex.HelpName, ex.Timeout)
	if ex.Flags != 0 {
		b = fmt.Appendf(b, " %s", ExpectFlags(ex.Flags))
	}
	return string(fmt.Appendf(b, " by %s", ex.TupleMaster.FiveTuple()))
}

// The texts below are those of v0.5.0, since people search their logs for them.

// String returns the tuple as <tcp, Src: 1.2.3.4:54321, Dst: [fe80::1]:80>. An
// address that is not valid is "invalid IP".
func (t Tuple) String() string {
	return fmt.Sprintf("<%s, Src: %s, Dst: %s>",
		Protocol(t.Proto.Protocol), endText(t.Source()), endText(t.Destination()))
}

// MarshalText returns the text of t's [FiveTuple], and its zone if it has one:
//
//	udp 192.0.2.1:5353 > 192.0.2.2:53 zone 7
func (t Tuple) MarshalText() ([]byte, error) {
	text := t.FiveTuple().String()
	if t.Zone != 0 {
		text += zoneWord + strconv.Itoa(int(t.Zone))
	}
	return []byte(text), nil
}

// UnmarshalText sets t to the tuple that [Tuple.MarshalText] wrote. It restores
// all fields of a tuple that came from the kernel.
func (t *Tuple) UnmarshalText(text []byte) error {
	fiveTuple, zone, zoned := strings.Cut(string(text), zoneWord)
	var k FiveTuple
	if err := k.UnmarshalText([]byte(fiveTuple)); err != nil {
		return err
	}
	read := k.Tuple()
	if zoned {
		n, err := parseNumber(zone, 16)
		if err != nil {
			return fmt.Errorf("%.20q is no zone", zone)
		}
		read.Zone = uint16(n)
	}
	*t = read
	return nil
}

const zoneWord = " zone "

// String returns k in one of these forms:
//
//	tcp 192.0.2.1:40000 > 192.0.2.2:443
//	icmp 192.0.2.1 > 192.0.2.2 type 8 code 0 id 4660
func (k FiveTuple) String() string {
	if k.isICMP() {
		typeCode := k.Destination.Port()
		return fmt.Sprintf("%s %s > %s type %d code %d id %d", k.Protocol,
			k.Source.Addr(), k.Destination.Addr(), typeCode>>8, typeCode&0xff, k.Source.Port())
	}
	return fmt.Sprintf("%s %s > %s", k.Protocol, endText(k.Source), endText(k.Destination))
}

// MarshalText returns the text of [FiveTuple.String].
func (k FiveTuple) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText sets k to the five-tuple that [FiveTuple.MarshalText] wrote.
func (k *FiveTuple) UnmarshalText(text []byte) error {
	var read FiveTuple
	if err := read.parse(string(text)); err != nil {
		return fmt.Errorf("%.100q is no five-tuple: %.150w", text, err)
	}
	*k = read
	return nil
}

func (k *FiveTuple) parse(text string) error {
	protocol, ends, _ := strings.Cut(text, " ")
	if err := k.Protocol.UnmarshalText([]byte(protocol)); err != nil {
		return err
	}
	source, destination, found := strings.Cut(ends, " > ")
	if !found {
		return errors.New("it has no > between two ends")
	}
	if k.isICMP() {
		return k.parseICMP(source, destination)
	}
	var badSource, badDestination error
	k.Source, badSource = parseEnd(source)
	k.Destination, badDestination = parseEnd(destination)
	return cmp.Or(badSource, badDestination)
}

// parseICMP reads the rest of a text that has ICMP fields instead of ports.
func (k *FiveTuple) parseICMP(source, destination string) error {
	destination, message, _ := strings.Cut(destination, " type ")
	typ, message, _ := strings.Cut(message, " code ")
	code, id, _ := strings.Cut(message, " id ")
	src, badSource := parseAddr(source)
	dst, badDestination := parseAddr(destination)
	typNumber, badType := parseNumber(typ, 8)
	codeNumber, badCode := parseNumber(code, 8)
	idNumber, badID := parseNumber(id, 16)
	k.Source = netip.AddrPortFrom(src, uint16(idNumber))
	k.Destination = netip.AddrPortFrom(dst, uint16(typNumber<<8|codeNumber))
	return cmp.Or(badSource, badDestination, badType, badCode, badID)
}

// endText returns one end of a tuple as 192.0.2.1:443 or [fd00::1]:443. Without
// a valid address it is invalid IP:443, as in v0.5.0.
func endText(end netip.AddrPort) string {
	return net.JoinHostPort(end.Addr().String(), strconv.Itoa(int(end.Port())))
}

// parseEnd is the inverse of endText.
func parseEnd(s string) (netip.AddrPort, error) {
	port, invalid := strings.CutPrefix(s, netip.Addr{}.String()+":")
	if !invalid {
		return netip.ParseAddrPort(s)
	}
	n, err := parseNumber(port, 16)
	return netip.AddrPortFrom(netip.Addr{}, uint16(n)), err
}

func parseAddr(s string) (netip.Addr, error) {
	if s == (netip.Addr{}).String() {
		return netip.Addr{}, nil
	}
	return netip.ParseAddr(s)
}

// String returns the counter as [orig: 1 pkts/42 B].
func (ctr Counter) String() string {
	return fmt.Sprintf("[%s: %d pkts/%d B]", directionName(ctr.Direction), ctr.Packets, ctr.Bytes)
}

// String returns the adjustment in this form:
//
//	[dir: orig, pos: 42, before: 80, after: 747811]
func (seq SequenceAdjust) String() string {
	return fmt.Sprintf("[dir: %s, pos: %d, before: %d, after: %d]",
		directionName(seq.Direction), seq.Position, seq.OffsetBefore, seq.OffsetAfter)
}

// String returns the counters that v0.5.0 had, with their names.
func (s Stats) String() string {
	return fmt.Sprintf("<CPU %d - Found: %d, Invalid: %d, Ignore: %d, Insert: %d, InsertFailed: %d, "+
		"Drop: %d, EarlyDrop: %d, Error: %d, SearchRestart: %d>",
		s.CPUID, s.Found, s.Invalid, s.Ignore, s.Insert, s.InsertFailed,
		s.Drop, s.EarlyDrop, s.Error, s.SearchRestart)
}

// String returns the event as one line. It leaves out labels without a mask,
// which are the only ones that the kernel sends, and counters and sequence
// adjustments that have a zero field.
func (e Event) String() string {
	switch {
	case e.Flow != nil:
		return fmt.Sprintf("[%s] %s", e.Type, e.Flow.describe())
	case e.Expect != nil:
		return fmt.Sprintf("[%s] %s", e.Type, e.Expect.describe())
	}
	return fmt.Sprintf("[%s] <Empty Event>", e.Type)
}

func (f *Flow) describe() string {
	unreplied := ""
	if !f.Status.SeenReply() {
		unreplied = "(Unreplied) "
	}
	acct := "<No Accounting>"
	if f.CountersOrig.printed() || f.CountersReply.printed() {
		acct = fmt.Sprintf("Acct: %s %s", f.CountersOrig, f.CountersReply)
	}
	labels := "<No Labels>"
	if len(f.Labels) > 0 && len(f.LabelsMask) > 0 {
		labels = fmt.Sprintf("Label: <%#x/%#x>", f.Labels, f.LabelsMask)
	}
	mark := "<No Mark>"
	if f.Mark != 0 {
		mark = fmt.Sprintf("Mark: <%#x>", f.Mark)
	}
	adjOrig := "<No SeqAdjOrig>"
	if f.SeqAdjOrig.printed() {
		adjOrig = fmt.Sprintf("SeqAdjOrig: %s", f.SeqAdjOrig)
	}
	adjReply := "<No SeqAdjReply>"
	if f.SeqAdjReply.printed() {
		adjReply = fmt.Sprintf("SeqAdjReply: %s", f.SeqAdjReply)
	}
	secCtx := "<No SecCtx>"
	if f.SecurityContext != "" {
		secCtx = fmt.Sprintf("SecCtx: %s", f.SecurityContext)
	}
	return fmt.Sprintf("%sTimeout: %d, %s, Zone %d, %s, %s, %s, %s, %s, %s",
		unreplied, f.Timeout, f.TupleOrig, f.Zone, acct, labels, mark, adjOrig, adjReply, secCtx)
}

// printed reports whether the text of an event includes the counter.
func (ctr *Counter) printed() bool { return ctr.Packets != 0 && ctr.Bytes != 0 }

// printed reports whether the text of an event includes the adjustment.
func (seq *SequenceAdjust) printed() bool {
	return seq.Position != 0 && seq.OffsetBefore != 0 && seq.OffsetAfter != 0
}

func (ex *Expect) describe() string {
	return fmt.Sprintf("Timeout: %d, Master: %s, Tuple: %s, Mask: %s, Zone: %d, Helper: '%s', Class: %#x",
		ex.Timeout, ex.TupleMaster, ex.Tuple, ex.Mask, ex.Zone, ex.HelpName, ex.Class)
}
