//go:build !linux

package netfilter

import "fmt"

// A NetlinkGroup is a multicast group to which the kernel sends events.
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
	// GroupsCT are the groups of flow events: [GroupCTNew], [GroupCTUpdate] and
	// [GroupCTDestroy].
	GroupsCT = []NetlinkGroup{GroupCTNew, GroupCTUpdate, GroupCTDestroy}
	// GroupsCTExp are the groups of expectation events: [GroupCTExpNew],
	// [GroupCTExpUpdate] and [GroupCTExpDestroy].
	GroupsCTExp = []NetlinkGroup{GroupCTExpNew, GroupCTExpUpdate, GroupCTExpDestroy}
)

// A ProtoFamily is the protocol family of a message, such as [ProtoIPv4].
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

var familyNames = map[ProtoFamily]string{
	ProtoUnspec: "ProtoUnspec",
	ProtoInet:   "ProtoInet",
	ProtoIPv4:   "ProtoIPv4",
	ProtoARP:    "ProtoARP",
	ProtoNetDev: "ProtoNetDev",
	ProtoBridge: "ProtoBridge",
	ProtoIPv6:   "ProtoIPv6",
	ProtoDECNet: "ProtoDECNet",
}

// String returns the name of the constant, such as "ProtoIPv4", or the number,
// as in "ProtoFamily(4)", if there is no constant.
func (f ProtoFamily) String() string {
	if name, ok := familyNames[f]; ok {
		return name
	}
	return fmt.Sprintf("ProtoFamily(%d)", uint8(f))
}
