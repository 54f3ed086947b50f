package conntrack

import (
	"net/netip"
	"slices"
)

// An EventFilter selects the events of flows that pass all of its lists. Its zero
// value selects all events. The kernel decides most of it, before an event takes
// room in the receive buffer; the result is what Match says.
//
// A field that the kernel leaves out of an event is 0: mark and zone where they
// are 0, the ports of protocols without ports.
type EventFilter struct {
	// Protocol is the IP protocol number of the original direction.
	Protocol List[uint8]
	// Orig and Reply are about the tuples of the two directions.
	Orig, Reply TupleFilter
	// Mark is the flow's mark.
	Mark List[MarkMask]
	// Zone is the flow's zone, or the zone of its original direction.
	Zone List[uint16]
	// TCPState is the state of a TCP connection. Events that carry none pass.
	TCPState List[uint8]
}

// A TupleFilter is the part of an EventFilter about one direction.
type TupleFilter struct {
	Source, Destination         List[netip.Prefix]
	SourcePort, DestinationPort List[uint16]
}

// MarkMask matches the marks with mark & Mask == Mark.
type MarkMask struct {
	Mark, Mask uint32
}

// A List says which values of a field pass: those in it if it was made by
// Include, all others if it was made by Exclude. The zero List lets all pass.
type List[T comparable] struct {
	values  []T
	exclude bool
}

// Include returns the List that lets the given values pass; all, if there are
// none.
func Include[T comparable](values ...T) List[T] { return List[T]{values: slices.Clone(values)} }

// Exclude returns the List that lets all but the given values pass.
func Exclude[T comparable](values ...T) List[T] {
	return List[T]{values: slices.Clone(values), exclude: true}
}

// passes reports whether a value passes that the values of l satisfying match
// stand for.
func (l *List[T]) passes(match func(T) bool) bool {
	return len(l.values) == 0 || slices.ContainsFunc(l.values, match) != l.exclude
}

// passesValue reports whether v passes.
func (l *List[T]) passesValue(v T) bool {
	return len(l.values) == 0 || slices.Contains(l.values, v) != l.exclude
}

// Match reports whether f selects ev. Events of expectations are always
// selected.
func (f *EventFilter) Match(ev *Event) bool {
	if ev.Flow == nil {
		return true
	}
	flow := ev.Flow
	zone := flow.Zone
	if zone == 0 {
		zone = flow.TupleOrig.Zone
	}
	tcp := flow.ProtoInfo.TCP
	return f.Protocol.passesValue(flow.TupleOrig.Proto.Protocol) &&
		f.Orig.match(&flow.TupleOrig) &&
		f.Reply.match(&flow.TupleReply) &&
		f.Mark.passes(func(m MarkMask) bool { return flow.Mark&m.Mask == m.Mark }) &&
		f.Zone.passesValue(zone) &&
		(tcp == nil || f.TCPState.passesValue(tcp.State))
}

func (f *TupleFilter) match(t *Tuple) bool {
	return f.Source.passes(func(p netip.Prefix) bool { return p.Contains(t.IP.SourceAddress) }) &&
		f.Destination.passes(func(p netip.Prefix) bool { return p.Contains(t.IP.DestinationAddress) }) &&
		f.SourcePort.passesValue(t.Proto.SourcePort) &&
		f.DestinationPort.passesValue(t.Proto.DestinationPort)
}
