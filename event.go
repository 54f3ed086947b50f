package conntrack

import (
	"fmt"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack/netfilter"
)

// An Event is a change of the connection tracking table or of the expectation
// table. Either Flow or Expect is set.
type Event struct {
	Type EventType

	Flow   *Flow
	Expect *Expect
}

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
func eventType(h netfilter.Header) EventType {
	switch {
	case h.SubsystemID == netfilter.NFSubsysCTNetlink && h.MessageType == ctNew:
		// The kernel marks what is new with both flags.
		const isNew = netlink.Create | netlink.Excl
		if h.Flags&isNew == isNew {
			return EventNew
		}
		return EventUpdate
	case h.SubsystemID == netfilter.NFSubsysCTNetlink && h.MessageType == ctDelete:
		return EventDestroy
	case h.SubsystemID == netfilter.NFSubsysCTNetlinkExp && h.MessageType == expNew:
		return EventExpNew
	case h.SubsystemID == netfilter.NFSubsysCTNetlinkExp && h.MessageType == expDelete:
		return EventExpDestroy
	}
	return EventUnknown
}

// Unmarshal decodes the message that an event is sent as, for programs that
// receive these messages by themselves. The Event keeps nothing of it.
func (e *Event) Unmarshal(nlmsg netlink.Message) error {
	h, attrs, err := netfilter.DecodeMessage(nlmsg)
	if err != nil {
		return err
	}
	return e.unmarshal(h, attrs, nil)
}

func (e *Event) unmarshal(h netfilter.Header, attrs []byte, s *slab) error {
	*e = Event{Type: eventType(h)}
	switch e.Type {
	case EventNew, EventUpdate, EventDestroy:
		e.Flow = new(Flow)
		return e.Flow.unmarshal(attrs, s)
	case EventExpNew, EventExpDestroy:
		e.Expect = new(Expect)
		return e.Expect.unmarshal(attrs, s)
	}
	return fmt.Errorf("%w: subsystem %d, message type %d", ErrUnknownEvent, h.SubsystemID, h.MessageType)
}
