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
// The Flow has only a part of what the kernel knows of the flow:
//
//   - All events have ID, Status, Zone, Mark, TupleOrig and TupleReply.
//   - EventNew has Timeout and whatever else the flow began with, but no counters, no
//     Timestamp and no Use.
//   - EventUpdate has Timeout and whatever else has changed, but no counters, no
//     Timestamp and no Use.
//   - EventDestroy has the last counters and the Timestamp, if the kernel keeps them
//     (sysctls net.netfilter.nf_conntrack_acct and nf_conntrack_timestamp), but no
//     Labels and no Helper, and of ProtoInfo the TCP state alone.
//
// So [Flow.Counted] is false for new and updated flows. A program that keeps flows
// must merge an event into what it has: after live[k] = *ev.Flow, the counters that
// a dump showed are zero.
type Event struct {
	Type EventType

	Flow   *Flow
	Expect *Expect

	// NSID says in which network namespace it happened.
	NSID NSID
	// PortID is the netlink address of the socket whose request caused the event,
	// 0 if a packet or the clock did: by Conn.PortID a program knows its own
	// doing (nlmsg_pid).
	PortID uint32
	// Time is when it happened, by the kernel's clock (CTA_TIMESTAMP_EVENT). It
	// is the zero Time for expectations, before Linux 6.14, and for flows that
	// began when the sysctl net.netfilter.nf_conntrack_timestamp was not set.
	Time time.Time

	// ZeroMark is set if the kernel says that the flow's mark is zero, as it does
	// when the mark has become zero. Otherwise it leaves a mark of zero out.
	ZeroMark bool
}

// An NSID is the id of another network namespace, as the Conn's own one knows it
// (see ip-netns(8), list-id). The zero NSID stands for the Conn's own namespace.
type NSID struct {
	id    int
	other bool
}

// ID returns the id. If it is not ok, the event is from the Conn's own namespace,
// or the kernel was not asked for others, with
// SetOption(netlink.ListenAllNSID, true).
func (n NSID) ID() (id int, ok bool) { return n.id, n.other }

// An EventType says what happened.
type EventType uint8

const (
	// EventUnknown: a message of a type that this package does not know.
	EventUnknown EventType = iota
	// EventNew: a flow was added to the table.
	EventNew
	// EventUpdate: a flow was changed.
	EventUpdate
	// EventDestroy: a flow was removed from the table. The Flow has its last
	// counters.
	EventDestroy
	// EventExpNew: an expectation was added.
	EventExpNew
	// EventExpDestroy: an expectation was removed, since it was fulfilled,
	// expired or was deleted.
	EventExpDestroy
)

// eventTypes are the name of the constant and the text of each EventType.
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

// MarshalText returns new, update, destroy, expect_new, expect_destroy or unknown,
// or the number if it is none of them.
func (t EventType) MarshalText() ([]byte, error) { return []byte(nameOrNumber(t)), nil }

func (t EventType) name() string {
	if int(t) < len(eventTypes) {
		return eventTypes[t].text
	}
	return ""
}

// UnmarshalText sets t to the type that MarshalText wrote, in any case, or to the
// one with that number.
func (t *EventType) UnmarshalText(text []byte) error {
	for i, e := range eventTypes {
		if equalFold(e.text, string(text)) {
			*t = EventType(i)
			return nil
		}
	}
	return parseName(t, "event type", nil, text)
}

// eventType returns the type of the event that a message with header h is.
func eventType(h nfnl.Header) EventType {
	switch {
	case h.SubsystemID == nfnl.NFSubsysCTNetlink && h.MessageType == ctNew:
		// The kernel marks what is new with both flags.
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

// Unmarshal decodes the message that an event is sent as, for programs that
// receive these messages by themselves. The Event keeps nothing of it.
func (e *Event) Unmarshal(nlmsg netlink.Message) error {
	h, attrs, err := nfnl.DecodeMessage(nlmsg)
	if err != nil {
		return err
	}
	return e.unmarshal(nfnl.Message{Header: h, Attributes: attrs, PortID: nlmsg.Header.PID, NSID: -1}, new(Flow), nil)
}

// unmarshal decodes m. If it is about a flow, e.Flow becomes f, which must be zero.
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

// unmarshalOwn decodes what an event about a flow says besides the flow.
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
