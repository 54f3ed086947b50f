package conntrack

import (
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack/internal/nfnl"
)

// An Event is a change of the connection tracking table or of the expectation
// table. Either Flow or Expect is set.
//
// The Flow holds only a part of what the kernel knows about it:
//
//   - Every event carries ID, Status, Zone, Mark, TupleOrig and TupleReply.
//   - An [EventNew] also carries Timeout and whatever else the flow began with,
//     but no counters, no [Timestamp] and no Use.
//   - An [EventUpdate] also carries Timeout and whatever else has changed, but
//     no counters, no [Timestamp] and no Use.
//   - An [EventDestroy] also carries the last counters and the [Timestamp], if
//     the kernel keeps them (sysctls net.netfilter.nf_conntrack_acct and
//     net.netfilter.nf_conntrack_timestamp), and the TCP state, but no Labels
//     and no [Helper].
//
// So [Flow.Counted] is false for new and updated flows, and a program that
// keeps flows must merge each event into what it has: live[k] = *ev.Flow would
// lose the counters that a dump showed.
type Event struct {
	Type EventType

	Flow   *Flow
	Expect *Expect

	// NSID is the network namespace of the event.
	NSID NSID
	// PortID is the netlink address of the socket whose request caused the
	// event (nlmsg_pid), or 0 if a packet or a timeout did. It is [Conn.PortID]
	// for what this program does itself.
	PortID uint32
	// Time is when it happened, by the kernel's clock (CTA_TIMESTAMP_EVENT,
	// Linux 6.14). It is the zero Time on older kernels, for expectations, and
	// for flows that began while the sysctl
	// net.netfilter.nf_conntrack_timestamp was not set.
	Time time.Time

	// ZeroMark is set if the event says that the flow's mark is zero: the
	// kernel does so if the mark has become zero. If it always was, the event
	// carries no mark.
	ZeroMark bool
}

// An NSID identifies a network namespace other than that of the [Conn], by the
// id that the latter has for it (ip-netns(8), list-id). The zero NSID stands
// for the namespace of the Conn itself.
type NSID struct {
	id    int
	other bool
}

// ID returns the id of another namespace. ok is false if the event is from the
// namespace of the [Conn]. The kernel sends events of other namespaces only
// after [Conn.SetOption] with netlink.ListenAllNSID.
func (n NSID) ID() (id int, ok bool) { return n.id, n.other }

// An EventType says what happened to a flow or to an expectation.
type EventType uint8

const (
	// EventUnknown is the type of a message that this package does not know.
	EventUnknown EventType = iota
	// EventNew means that a flow was added to the table.
	EventNew
	// EventUpdate means that a flow was changed.
	EventUpdate
	// EventDestroy means that a flow was removed from the table. The [Flow] has
	// its last counters.
	EventDestroy
	// EventExpNew means that an expectation was added.
	EventExpNew
	// EventExpDestroy means that an expectation was removed because it was
	// fulfilled, expired or was deleted.
	EventExpDestroy
)

// eventTypes holds the constant's name and the text of each EventType.
var eventTypes = []struct{ name, text string }{
	EventUnknown:    {"EventUnknown", "unknown"},
	EventNew:        {"EventNew", "new"},
	EventUpdate:     {"EventUpdate", "update"},
	EventDestroy:    {"EventDestroy", "destroy"},
	EventExpNew:     {"EventExpNew", "expect_new"},
	EventExpDestroy: {"EventExpDestroy", "expect_destroy"},
}

// String returns the name of the constant.
func (t EventType) String() string {
	if int(t) < len(eventTypes) {
		return eventTypes[t].name
	}
	return fmt.Sprintf("EventType(%d)", uint8(t))
}

// MarshalText returns new, update, destroy, expect_new, expect_destroy or
// unknown, or the number of any other type.
func (t EventType) MarshalText() ([]byte, error) { return []byte(nameOrNumber(t)), nil }

func (t EventType) name() string {
	if int(t) < len(eventTypes) {
		return eventTypes[t].text
	}
	return ""
}

// UnmarshalText sets t to the type with the text that [EventType.MarshalText]
// returns, in any case, or with that number.
func (t *EventType) UnmarshalText(text []byte) error {
	for i, e := range eventTypes {
		if equalFold(e.text, string(text)) {
			*t = EventType(i)
			return nil
		}
	}
	return parseName(t, "event type", nil, text)
}

// eventType returns the type of the event whose message has header h.
func eventType(h nfnl.Header) EventType {
	switch {
	case h.SubsystemID == nfnl.NFSubsysCTNetlink && h.MessageType == ctNew:
		// The kernel sets both flags on a new entry.
		const isNew = netlink.Create | netlink.Excl
		if h.Flags&isNew == isNew {
			return EventNew
		}
		return EventUpdate
	case h.SubsystemID == nfnl.NFSubsysCTNetlink && h.MessageType == ctDelete:
		return EventDestroy
	case h.SubsystemID == nfnl.NFSubsysCTNetlinkExp && h.MessageType == expNew:
		return EventExpNew
	case h.SubsystemID == nfnl.NFSubsysCTNetlinkExp && h.MessageType == expDelete:
		return EventExpDestroy
	}
	return EventUnknown
}

// Unmarshal sets e to the event in a netlink message, for programs that receive
// these messages themselves. The Event does not refer to the message
// afterwards. For a message of another type, the error satisfies errors.Is(err,
// [ErrUnknownEvent]).
func (e *Event) Unmarshal(nlmsg netlink.Message) error {
	h, attrs, err := nfnl.DecodeMessage(nlmsg)
	if err != nil {
		return err
	}
	return e.unmarshal(nfnl.Message{Header: h, Attributes: attrs, PortID: nlmsg.Header.PID, NSID: -1}, new(Flow), nil)
}

// unmarshal decodes m. If m is about a flow, e.Flow becomes f, which must be
// zero.
func (e *Event) unmarshal(m nfnl.Message, f *Flow, s *slab) error {
	*e = Event{Type: eventType(m.Header), PortID: m.PortID}
	if m.NSID >= 0 {
		e.NSID = NSID{id: m.NSID, other: true}
	}
	switch e.Type {
	case EventNew, EventUpdate, EventDestroy:
		e.Flow = f
		if err := f.unmarshal(m.Attributes, s); err != nil {
			return err
		}
		return e.unmarshalOwn(m.Attributes)
	case EventExpNew, EventExpDestroy:
		e.Expect = new(Expect)
		return e.Expect.unmarshal(m.Attributes, s)
	}
	return fmt.Errorf("%w: subsystem %d, message type %d", ErrUnknownEvent, m.SubsystemID, m.MessageType)
}

// unmarshalOwn decodes the attributes that belong to the event, not to its
// flow.
func (e *Event) unmarshalOwn(b []byte) error {
	var d nfnl.Decoder
	for typ, v := range d.Attributes(b) {
		switch typ {
		case ctaMark:
			e.ZeroMark = d.Uint32(v) == 0
		case ctaTimestampEvent:
			e.Time = time.Unix(0, int64(d.Uint64(v)))
		}
	}
	return d.Err(ctaNames)
}
