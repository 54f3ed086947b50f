package nfnl

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack/netfilter"
)

// A SubsystemID identifies the part of the packet filter that a message belongs
// to. It is the upper byte of the netlink message type.
type SubsystemID uint8

// The subsystems that this module uses (linux/netfilter/nfnetlink.h).
const (
	NFSubsysCTNetlink        SubsystemID = 1  // NFNL_SUBSYS_CTNETLINK
	NFSubsysCTNetlinkExp     SubsystemID = 2  // NFNL_SUBSYS_CTNETLINK_EXP
	NFSubsysCTNetlinkTimeout SubsystemID = 8  // NFNL_SUBSYS_CTNETLINK_TIMEOUT
	NFSubsysHook             SubsystemID = 12 // NFNL_SUBSYS_HOOK
)

// A MessageType identifies the operation or the entity of a message within its
// subsystem. It is the lower byte of the netlink message type.
type MessageType uint8

// A Header is the start of an nfnetlink message: the type and the flags of the
// netlink header (struct nlmsghdr), and the nfnetlink header after it (struct
// nfgenmsg).
type Header struct {
	Flags       netlink.HeaderFlags
	SubsystemID SubsystemID
	MessageType MessageType

	Family     netfilter.ProtoFamily
	Version    uint8
	ResourceID uint16
}

func (h Header) String() string {
	return fmt.Sprintf("<subsystem %d, message %d, flags %#x, family %d, version %d, resource %d>",
		h.SubsystemID, h.MessageType, uint16(h.Flags), h.Family, h.Version, h.ResourceID)
}

const (
	nlmsgHeaderLen = 16 // sizeof(struct nlmsghdr)
	nfgenmsgLen    = 4  // sizeof(struct nfgenmsg)
)

// SubsystemOffset returns the offset of the SubsystemID in a netlink message.
// It is the upper byte of nlmsg_type, which is in native byte order.
func SubsystemOffset() uint32 {
	const nlmsgType = 4
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 0x100 {
		return nlmsgType + 1
	}
	return nlmsgType
}

// DecodeMessage returns the header of m and the bytes of its attributes, which
// are not copied.
func DecodeMessage(m netlink.Message) (Header, []byte, error) {
	if len(m.Data) < nfgenmsgLen {
		return Header{}, nil, fmt.Errorf("%w: %d bytes after the netlink header, the nfnetlink header has %d",
			ErrMalformed, len(m.Data), nfgenmsgLen)
	}
	return Header{
		Flags:       m.Header.Flags,
		SubsystemID: SubsystemID(m.Header.Type >> 8),
		MessageType: MessageType(m.Header.Type),
		Family:      netfilter.ProtoFamily(m.Data[0]),
		Version:     m.Data[1],
		ResourceID:  binary.BigEndian.Uint16(m.Data[2:]),
	}, m.Data[nfgenmsgLen:], nil
}
