package conntrack

import (
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack/internal/nfnl"
)

// An Event is a change of the connection tracking table or of the expectation
// table. Either Flow or Expect is set.
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

var eventTypeNames = []string{
	EventUnknown:    "EventUnknown",
	EventNew:        "EventNew",
	EventUpdate:     "EventUpdate",
	EventDestroy:    "EventDestroy",
	EventExpNew:     "EventExpNew",
	EventExpDestroy: "EventExpDestroy",
}

// String returns the name of the constant.
func (t EventType) String() string {
	if int(t) < len(eventTypeNames) {
		return eventTypeNames[t]
	}
	return fmt.Sprintf("EventType(%d)", uint8(t))
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
	return e.unmarshal(nfnl.Message{Header: h, Attributes: attrs, PortID: nlmsg.Header.PID, NSID: -1}, nil)
}

func (e *Event) unmarshal(m nfnl.Message, s *slab) error {
	*e = Event{Type: eventType(m.Header), PortID: m.PortID}
	if m.NSID >= 0 {
		e.NSID = NSID{id: m.NSID, other: true}
	}
	switch e.Type {
	case EventNew, EventUpdate, EventDestroy:
		e.Flow = new(Flow)
		if err := e.Flow.unmarshal(m.Attributes, s); err != nil {
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
