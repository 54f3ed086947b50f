package netfilter

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
)

// A SubsystemID names the part of netfilter that a message is for. It is the
// upper byte of the netlink message type.
type SubsystemID uint8

// The subsystems of linux/netfilter/nfnetlink.h.
const (
	NFSubsysNone             SubsystemID = iota // NFNL_SUBSYS_NONE
	NFSubsysCTNetlink                           // NFNL_SUBSYS_CTNETLINK
	NFSubsysCTNetlinkExp                        // NFNL_SUBSYS_CTNETLINK_EXP
	NFSubsysQueue                               // NFNL_SUBSYS_QUEUE
	NFSubsysULOG                                // NFNL_SUBSYS_ULOG
	NFSubsysOSF                                 // NFNL_SUBSYS_OSF
	NFSubsysIPSet                               // NFNL_SUBSYS_IPSET
	NFSubsysAcct                                // NFNL_SUBSYS_ACCT
	NFSubsysCTNetlinkTimeout                    // NFNL_SUBSYS_CTNETLINK_TIMEOUT
	NFSubsysCTHelper                            // NFNL_SUBSYS_CTHELPER
	NFSubsysNFTables                            // NFNL_SUBSYS_NFTABLES
	NFSubsysNFTCompat                           // NFNL_SUBSYS_NFT_COMPAT
	NFSubsysHook                                // NFNL_SUBSYS_HOOK
	NFSubsysCount                               // NFNL_SUBSYS_COUNT
)

// A MessageType is the operation or the entity that a message is about, within
// its subsystem. It is the lower byte of the netlink message type.
type MessageType uint8

// A ProtoFamily is the network layer that a message is about.
type ProtoFamily uint8

// The families of linux/netfilter.h.
const (
	ProtoUnspec ProtoFamily = 0  // NFPROTO_UNSPEC
	ProtoInet   ProtoFamily = 1  // NFPROTO_INET
	ProtoIPv4   ProtoFamily = 2  // NFPROTO_IPV4
	ProtoARP    ProtoFamily = 3  // NFPROTO_ARP
	ProtoNetDev ProtoFamily = 5  // NFPROTO_NETDEV
	ProtoBridge ProtoFamily = 7  // NFPROTO_BRIDGE
	ProtoIPv6   ProtoFamily = 10 // NFPROTO_IPV6
	ProtoDECNet ProtoFamily = 12 // NFPROTO_DECNET
)

// A NetlinkGroup is a multicast group that the kernel sends events to.
type NetlinkGroup uint8

// The groups of linux/netfilter/nfnetlink.h.
const (
	GroupNone         NetlinkGroup = iota // NFNLGRP_NONE
	GroupCTNew                            // NFNLGRP_CONNTRACK_NEW
	GroupCTUpdate                         // NFNLGRP_CONNTRACK_UPDATE
	GroupCTDestroy                        // NFNLGRP_CONNTRACK_DESTROY
	GroupCTExpNew                         // NFNLGRP_CONNTRACK_EXP_NEW
	GroupCTExpUpdate                      // NFNLGRP_CONNTRACK_EXP_UPDATE
	GroupCTExpDestroy                     // NFNLGRP_CONNTRACK_EXP_DESTROY
	GroupNFTables                         // NFNLGRP_NFTABLES
	GroupAcctQuota                        // NFNLGRP_ACCT_QUOTA
	GroupNFTrace                          // NFNLGRP_NFTRACE
)

var (
	// GroupsCT are the groups of flow events: new, update, destroy.
	GroupsCT = []NetlinkGroup{GroupCTNew, GroupCTUpdate, GroupCTDestroy}
	// GroupsCTExp are the groups of expectation events: new, update, destroy.
	GroupsCTExp = []NetlinkGroup{GroupCTExpNew, GroupCTExpUpdate, GroupCTExpDestroy}
)

// A Header is what an nfnetlink message starts with: the type and the flags of
// the netlink header (struct nlmsghdr), and the nfnetlink header that follows
// it (struct nfgenmsg).
type Header struct {
	Flags       netlink.HeaderFlags
	SubsystemID SubsystemID
	MessageType MessageType

	Family     ProtoFamily
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

// SubsystemOffset returns where in a netlink message the SubsystemID stands: in
// the upper byte of nlmsg_type, which is in native byte order.
func SubsystemOffset() uint32 {
	const nlmsgType = 4
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 0x100 {
		return nlmsgType + 1
	}
	return nlmsgType
}

// DecodeMessage returns the header of m and the bytes of its attributes, which
// are m's own.
func DecodeMessage(m netlink.Message) (Header, []byte, error) {
	if len(m.Data) < nfgenmsgLen {
		return Header{}, nil, fmt.Errorf("%w: %d bytes after the netlink header, the nfnetlink header has %d",
			ErrMalformed, len(m.Data), nfgenmsgLen)
	}
	return Header{
		Flags:       m.Header.Flags,
		SubsystemID: SubsystemID(m.Header.Type >> 8),
		MessageType: MessageType(m.Header.Type),
		Family:      ProtoFamily(m.Data[0]),
		Version:     m.Data[1],
		ResourceID:  binary.BigEndian.Uint16(m.Data[2:]),
	}, m.Data[nfgenmsgLen:], nil
}
