package nfnl

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack/netfilter"
)

// A Message is one message from the kernel.
type Message struct {
	Header

	// Sequence is the sequence number of the request that this answers. It is 0
	// for most events.
	Sequence uint32

	// PortID is the netlink address (nlmsg_pid) of the socket whose request
	// this answers, or whose request caused this event. It is 0 for events that
	// no request caused.
	PortID uint32

	// NSID is the id of the network namespace that an event comes from. It is
	// -1 without the option ListenAllNSID, and for events from the socket's own
	// namespace.
	NSID int

	// Last is set if this reply to Do is the last one of its datagram, so that
	// the next one has yet to be received.
	Last bool

	// Attributes are the bytes after the headers. They belong to the Conn and
	// are valid until the function that received the Message returns.
	Attributes []byte
}

// A rawMessage is the bytes of one message. It has at least a netlink header
// (struct nlmsghdr).
type rawMessage []byte

// nextMessage splits the first message off b.
func nextMessage(b []byte) (m rawMessage, rest []byte, err error) {
	if len(b) < nlmsgHeaderLen {
		return nil, nil, fmt.Errorf("%w: %d bytes, the netlink header has %d", ErrMalformed, len(b), nlmsgHeaderLen)
	}
	n := uint64(binary.NativeEndian.Uint32(b))
	if n < nlmsgHeaderLen || n > uint64(len(b)) {
		return nil, nil, fmt.Errorf("%w: a message of %d bytes where there are %d", ErrMalformed, n, len(b))
	}
	return b[:n:n], b[min(align(int(n)), len(b)):], nil
}

func (m rawMessage) typ() netlink.HeaderType {
	return netlink.HeaderType(binary.NativeEndian.Uint16(m[4:]))
}

func (m rawMessage) flags() netlink.HeaderFlags {
	return netlink.HeaderFlags(binary.NativeEndian.Uint16(m[6:]))
}

func (m rawMessage) sequence() uint32 { return binary.NativeEndian.Uint32(m[8:]) }

func (m rawMessage) portID() uint32 { return binary.NativeEndian.Uint32(m[12:]) }

// body returns the bytes after the netlink header.
func (m rawMessage) body() []byte { return m[nlmsgHeaderLen:] }

// message returns m as a Message. It must be long enough for the nfnetlink
// header.
func (m rawMessage) message() Message {
	typ := m.typ()
	return Message{
		Header: Header{
			Flags:       m.flags(),
			SubsystemID: SubsystemID(typ >> 8),
			MessageType: MessageType(typ),
			Family:      netfilter.ProtoFamily(m[16]),
			Version:     m[17],
			ResourceID:  binary.BigEndian.Uint16(m[18:]),
		},
		Sequence:   m.sequence(),
		PortID:     m.portID(),
		NSID:       -1,
		Attributes: m[nlmsgHeaderLen+nfgenmsgLen:],
	}
}

func (m rawMessage) tooShort() error {
	return fmt.Errorf("%w: %d bytes behind the netlink header, the nfnetlink header has %d",
		ErrMalformed, len(m.body()), nfgenmsgLen)
}
