package netfilter

import "github.com/ti-mo/netfilter"

// A NetlinkGroup is a multicast group to which the kernel sends events.
type NetlinkGroup = netfilter.NetlinkGroup

// The groups of linux/netfilter/nfnetlink.h.
const (
	GroupNone         = netfilter.GroupNone         // NFNLGRP_NONE
	GroupCTNew        = netfilter.GroupCTNew        // NFNLGRP_CONNTRACK_NEW
	GroupCTUpdate     = netfilter.GroupCTUpdate     // NFNLGRP_CONNTRACK_UPDATE
	GroupCTDestroy    = netfilter.GroupCTDestroy    // NFNLGRP_CONNTRACK_DESTROY
	GroupCTExpNew     = netfilter.GroupCTExpNew     // NFNLGRP_CONNTRACK_EXP_NEW
	GroupCTExpUpdate  = netfilter.GroupCTExpUpdate  // NFNLGRP_CONNTRACK_EXP_UPDATE
	GroupCTExpDestroy = netfilter.GroupCTExpDestroy // NFNLGRP_CONNTRACK_EXP_DESTROY
	GroupNFTables     = netfilter.GroupNFTables     // NFNLGRP_NFTABLES
	GroupAcctQuota    = netfilter.GroupAcctQuota    // NFNLGRP_ACCT_QUOTA
	GroupNFTrace      = netfilter.GroupNFTrace      // NFNLGRP_NFTRACE
)

var (
	// GroupsCT are the groups of flow events: [GroupCTNew], [GroupCTUpdate] and
	// [GroupCTDestroy].
	GroupsCT = netfilter.GroupsCT
	// GroupsCTExp are the groups of expectation events: [GroupCTExpNew],
	// [GroupCTExpUpdate] and [GroupCTExpDestroy].
	GroupsCTExp = netfilter.GroupsCTExp
)

// A ProtoFamily is the protocol family of a message, such as [ProtoIPv4].
type ProtoFamily = netfilter.ProtoFamily

// The families of linux/netfilter.h.
const (
	ProtoUnspec = netfilter.ProtoUnspec // NFPROTO_UNSPEC
	ProtoInet   = netfilter.ProtoInet   // NFPROTO_INET
	ProtoIPv4   = netfilter.ProtoIPv4   // NFPROTO_IPV4
	ProtoARP    = netfilter.ProtoARP    // NFPROTO_ARP
	ProtoNetDev = netfilter.ProtoNetDev // NFPROTO_NETDEV
	ProtoBridge = netfilter.ProtoBridge // NFPROTO_BRIDGE
	ProtoIPv6   = netfilter.ProtoIPv6   // NFPROTO_IPV6
	ProtoDECNet = netfilter.ProtoDECNet // NFPROTO_DECNET
)
