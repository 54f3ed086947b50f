package conntrack

// The constants of linux/netfilter/nfnetlink_conntrack.h in their order. A
// number is the release of Linux that introduced the constant; those without
// one are as old as ctnetlink (2.6.14). Errors about malformed messages take
// the kernel's names from the tables.

// enum cntl_msg_types
const (
	ctNew            = iota // IPCTNL_MSG_CT_NEW
	ctGet                   // IPCTNL_MSG_CT_GET
	ctDelete                // IPCTNL_MSG_CT_DELETE
	ctGetCtrZero            // IPCTNL_MSG_CT_GET_CTRZERO
	ctGetStatsCPU           // IPCTNL_MSG_CT_GET_STATS_CPU (3.6)
	ctGetStats              // IPCTNL_MSG_CT_GET_STATS (3.6)
	ctGetDying              // IPCTNL_MSG_CT_GET_DYING (3.8)
	ctGetUnconfirmed        // IPCTNL_MSG_CT_GET_UNCONFIRMED (3.8)
)

// enum ctnl_exp_msg_types
const (
	expNew         = iota // IPCTNL_MSG_EXP_NEW
	expGet                // IPCTNL_MSG_EXP_GET
	expDelete             // IPCTNL_MSG_EXP_DELETE
	expGetStatsCPU        // IPCTNL_MSG_EXP_GET_STATS_CPU (3.6)
)

// enum ctattr_type
const (
	ctaUnspec = iota
	ctaTupleOrig
	ctaTupleReply
	ctaStatus
	ctaProtoInfo
	ctaHelp
	ctaNATSrc
	ctaTimeout
	ctaMark
	ctaCountersOrig
	ctaCountersReply
	ctaUse
	ctaID
	ctaNATDst         // 2.6.17
	ctaTupleMaster    // 2.6.23
	ctaSeqAdjOrig     // 2.6.24
	ctaSeqAdjReply    // 2.6.24
	ctaSecMark        // 2.6.25, neither sent nor read since 2.6.37
	ctaZone           // 2.6.34
	ctaSecCtx         // 2.6.37
	ctaTimestamp      // 2.6.38
	ctaMarkMask       // 3.4, in updates 4.0
	ctaLabels         // 3.9
	ctaLabelsMask     // 3.9
	ctaSynProxy       // 4.18
	ctaFilter         // 5.8
	ctaStatusMask     // 5.15
	ctaTimestampEvent // 6.14
)

var ctaNames = []string{
	ctaTupleOrig:      "CTA_TUPLE_ORIG",
	ctaTupleReply:     "CTA_TUPLE_REPLY",
	ctaStatus:         "CTA_STATUS",
	ctaProtoInfo:      "CTA_PROTOINFO",
	ctaHelp:           "CTA_HELP",
	ctaNATSrc:         "CTA_NAT_SRC",
	ctaTimeout:        "CTA_TIMEOUT",
	ctaMark:           "CTA_MARK",
	ctaCountersOrig:   "CTA_COUNTERS_ORIG",
	ctaCountersReply:  "CTA_COUNTERS_REPLY",
	ctaUse:            "CTA_USE",
	ctaID:             "CTA_ID",
	ctaNATDst:         "CTA_NAT_DST",
	ctaTupleMaster:    "CTA_TUPLE_MASTER",
	ctaSeqAdjOrig:     "CTA_SEQ_ADJ_ORIG",
	ctaSeqAdjReply:    "CTA_SEQ_ADJ_REPLY",
	ctaSecMark:        "CTA_SECMARK",
	ctaZone:           "CTA_ZONE",
	ctaSecCtx:         "CTA_SECCTX",
	ctaTimestamp:      "CTA_TIMESTAMP",
	ctaMarkMask:       "CTA_MARK_MASK",
	ctaLabels:         "CTA_LABELS",
	ctaLabelsMask:     "CTA_LABELS_MASK",
	ctaSynProxy:       "CTA_SYNPROXY",
	ctaFilter:         "CTA_FILTER",
	ctaStatusMask:     "CTA_STATUS_MASK",
	ctaTimestampEvent: "CTA_TIMESTAMP_EVENT",
}

// enum ctattr_tuple
const (
	ctaTupleUnspec = iota
	ctaTupleIP
	ctaTupleProto
	ctaTupleZone // 4.3
)

var ctaTupleNames = []string{
	ctaTupleIP:    "CTA_TUPLE_IP",
	ctaTupleProto: "CTA_TUPLE_PROTO",
	ctaTupleZone:  "CTA_TUPLE_ZONE",
}

// enum ctattr_ip
const (
	ctaIPUnspec = iota
	ctaIPv4Src
	ctaIPv4Dst
	ctaIPv6Src
	ctaIPv6Dst
)

var ctaIPNames = []string{
	ctaIPv4Src: "CTA_IP_V4_SRC",
	ctaIPv4Dst: "CTA_IP_V4_DST",
	ctaIPv6Src: "CTA_IP_V6_SRC",
	ctaIPv6Dst: "CTA_IP_V6_DST",
}

// enum ctattr_l4proto
const (
	ctaProtoUnspec = iota
	ctaProtoNum
	ctaProtoSrcPort
	ctaProtoDstPort
	ctaProtoICMPID
	ctaProtoICMPType
	ctaProtoICMPCode
	ctaProtoICMPv6ID
	ctaProtoICMPv6Type
	ctaProtoICMPv6Code
)

var ctaProtoNames = []string{
	ctaProtoNum:        "CTA_PROTO_NUM",
	ctaProtoSrcPort:    "CTA_PROTO_SRC_PORT",
	ctaProtoDstPort:    "CTA_PROTO_DST_PORT",
	ctaProtoICMPID:     "CTA_PROTO_ICMP_ID",
	ctaProtoICMPType:   "CTA_PROTO_ICMP_TYPE",
	ctaProtoICMPCode:   "CTA_PROTO_ICMP_CODE",
	ctaProtoICMPv6ID:   "CTA_PROTO_ICMPV6_ID",
	ctaProtoICMPv6Type: "CTA_PROTO_ICMPV6_TYPE",
	ctaProtoICMPv6Code: "CTA_PROTO_ICMPV6_CODE",
}

// enum ctattr_protoinfo
const (
	ctaProtoInfoUnspec = iota
	ctaProtoInfoTCP
	ctaProtoInfoDCCP // 2.6.30 to 6.16
	ctaProtoInfoSCTP // 2.6.27
)

var ctaProtoInfoNames = []string{
	ctaProtoInfoTCP:  "CTA_PROTOINFO_TCP",
	ctaProtoInfoDCCP: "CTA_PROTOINFO_DCCP",
	ctaProtoInfoSCTP: "CTA_PROTOINFO_SCTP",
}

// enum ctattr_protoinfo_tcp
const (
	ctaProtoInfoTCPUnspec = iota
	ctaProtoInfoTCPState
	ctaProtoInfoTCPWScaleOriginal // 2.6.23
	ctaProtoInfoTCPWScaleReply    // 2.6.23
	ctaProtoInfoTCPFlagsOriginal  // 2.6.23
	ctaProtoInfoTCPFlagsReply     // 2.6.23
)

var ctaProtoInfoTCPNames = []string{
	ctaProtoInfoTCPState:          "CTA_PROTOINFO_TCP_STATE",
	ctaProtoInfoTCPWScaleOriginal: "CTA_PROTOINFO_TCP_WSCALE_ORIGINAL",
	ctaProtoInfoTCPWScaleReply:    "CTA_PROTOINFO_TCP_WSCALE_REPLY",
	ctaProtoInfoTCPFlagsOriginal:  "CTA_PROTOINFO_TCP_FLAGS_ORIGINAL",
	ctaProtoInfoTCPFlagsReply:     "CTA_PROTOINFO_TCP_FLAGS_REPLY",
}

// enum ctattr_protoinfo_dccp
const (
	ctaProtoInfoDCCPUnspec = iota
	ctaProtoInfoDCCPState
	ctaProtoInfoDCCPRole
	ctaProtoInfoDCCPHandshakeSeq
)

var ctaProtoInfoDCCPNames = []string{
	ctaProtoInfoDCCPState:        "CTA_PROTOINFO_DCCP_STATE",
	ctaProtoInfoDCCPRole:         "CTA_PROTOINFO_DCCP_ROLE",
	ctaProtoInfoDCCPHandshakeSeq: "CTA_PROTOINFO_DCCP_HANDSHAKE_SEQ",
}

// enum ctattr_protoinfo_sctp
const (
	ctaProtoInfoSCTPUnspec = iota
	ctaProtoInfoSCTPState
	ctaProtoInfoSCTPVTagOriginal
	ctaProtoInfoSCTPVTagReply
)

var ctaProtoInfoSCTPNames = []string{
	ctaProtoInfoSCTPState:        "CTA_PROTOINFO_SCTP_STATE",
	ctaProtoInfoSCTPVTagOriginal: "CTA_PROTOINFO_SCTP_VTAG_ORIGINAL",
	ctaProtoInfoSCTPVTagReply:    "CTA_PROTOINFO_SCTP_VTAG_REPLY",
}

// enum ctattr_counters
const (
	ctaCountersUnspec = iota
	ctaCountersPackets
	ctaCountersBytes
	ctaCounters32Packets // not sent since 2.6.30
	ctaCounters32Bytes   // not sent since 2.6.30
)

var ctaCountersNames = []string{
	ctaCountersPackets:   "CTA_COUNTERS_PACKETS",
	ctaCountersBytes:     "CTA_COUNTERS_BYTES",
	ctaCounters32Packets: "CTA_COUNTERS32_PACKETS",
	ctaCounters32Bytes:   "CTA_COUNTERS32_BYTES",
}

// enum ctattr_tstamp
const (
	ctaTimestampUnspec = iota
	ctaTimestampStart
	ctaTimestampStop
)

var ctaTimestampNames = []string{
	ctaTimestampStart: "CTA_TIMESTAMP_START",
	ctaTimestampStop:  "CTA_TIMESTAMP_STOP",
}

// enum ctattr_nat
const (
	ctaNATUnspec = iota
	ctaNATv4MinIP
	ctaNATv4MaxIP
	ctaNATProto
	ctaNATv6MinIP // 3.7
	ctaNATv6MaxIP // 3.7
)

var ctaNATNames = []string{
	ctaNATv4MinIP: "CTA_NAT_V4_MINIP",
	ctaNATv4MaxIP: "CTA_NAT_V4_MAXIP",
	ctaNATProto:   "CTA_NAT_PROTO",
	ctaNATv6MinIP: "CTA_NAT_V6_MINIP",
	ctaNATv6MaxIP: "CTA_NAT_V6_MAXIP",
}

// enum ctattr_protonat
const (
	ctaProtoNATUnspec = iota
	ctaProtoNATPortMin
	ctaProtoNATPortMax
)

var ctaProtoNATNames = []string{
	ctaProtoNATPortMin: "CTA_PROTONAT_PORT_MIN",
	ctaProtoNATPortMax: "CTA_PROTONAT_PORT_MAX",
}

// enum ctattr_seqadj
const (
	ctaSeqAdjUnspec = iota
	ctaSeqAdjCorrectionPos
	ctaSeqAdjOffsetBefore
	ctaSeqAdjOffsetAfter
)

var ctaSeqAdjNames = []string{
	ctaSeqAdjCorrectionPos: "CTA_SEQADJ_CORRECTION_POS",
	ctaSeqAdjOffsetBefore:  "CTA_SEQADJ_OFFSET_BEFORE",
	ctaSeqAdjOffsetAfter:   "CTA_SEQADJ_OFFSET_AFTER",
}

// enum ctattr_synproxy
const (
	ctaSynProxyUnspec = iota
	ctaSynProxyISN
	ctaSynProxyITS
	ctaSynProxyTSOff
)

var ctaSynProxyNames = []string{
	ctaSynProxyISN:   "CTA_SYNPROXY_ISN",
	ctaSynProxyITS:   "CTA_SYNPROXY_ITS",
	ctaSynProxyTSOff: "CTA_SYNPROXY_TSOFF",
}

// enum ctattr_expect
const (
	ctaExpectUnspec = iota
	ctaExpectMaster
	ctaExpectTuple
	ctaExpectMask
	ctaExpectTimeout
	ctaExpectID
	ctaExpectHelpName
	ctaExpectZone  // 2.6.34
	ctaExpectFlags // 2.6.37
	ctaExpectClass // 3.4
	ctaExpectNAT   // 3.4
	ctaExpectFN    // 3.4
)

var ctaExpectNames = []string{
	ctaExpectMaster:   "CTA_EXPECT_MASTER",
	ctaExpectTuple:    "CTA_EXPECT_TUPLE",
	ctaExpectMask:     "CTA_EXPECT_MASK",
	ctaExpectTimeout:  "CTA_EXPECT_TIMEOUT",
	ctaExpectID:       "CTA_EXPECT_ID",
	ctaExpectHelpName: "CTA_EXPECT_HELP_NAME",
	ctaExpectZone:     "CTA_EXPECT_ZONE",
	ctaExpectFlags:    "CTA_EXPECT_FLAGS",
	ctaExpectClass:    "CTA_EXPECT_CLASS",
	ctaExpectNAT:      "CTA_EXPECT_NAT",
	ctaExpectFN:       "CTA_EXPECT_FN",
}

// enum ctattr_expect_nat
const (
	ctaExpectNATUnspec = iota
	ctaExpectNATDir
	ctaExpectNATTuple
)

var ctaExpectNATNames = []string{
	ctaExpectNATDir:   "CTA_EXPECT_NAT_DIR",
	ctaExpectNATTuple: "CTA_EXPECT_NAT_TUPLE",
}

// enum ctattr_help
const (
	ctaHelpUnspec = iota
	ctaHelpName
	ctaHelpInfo // 3.5
)

var ctaHelpNames = []string{
	ctaHelpName: "CTA_HELP_NAME",
	ctaHelpInfo: "CTA_HELP_INFO",
}

// enum ctattr_secctx
const (
	ctaSecCtxUnspec = iota
	ctaSecCtxName
)

var ctaSecCtxNames = []string{
	ctaSecCtxName: "CTA_SECCTX_NAME",
}

// enum ctattr_filter
const (
	ctaFilterUnspec = iota
	ctaFilterOrigFlags
	ctaFilterReplyFlags
)

// enum ctattr_stats_cpu
const (
	ctaStatsUnspec   = iota
	ctaStatsSearched // not sent since 4.9
	ctaStatsFound
	ctaStatsNew // not sent since 4.9
	ctaStatsInvalid
	ctaStatsIgnore
	ctaStatsDelete     // not sent since 4.9
	ctaStatsDeleteList // not sent since 4.9
	ctaStatsInsert
	ctaStatsInsertFailed
	ctaStatsDrop
	ctaStatsEarlyDrop
	ctaStatsError
	ctaStatsSearchRestart
	ctaStatsClashResolve // 5.10
	ctaStatsChainTooLong // 5.15
)

var ctaStatsNames = []string{
	ctaStatsSearched:      "CTA_STATS_SEARCHED",
	ctaStatsFound:         "CTA_STATS_FOUND",
	ctaStatsNew:           "CTA_STATS_NEW",
	ctaStatsInvalid:       "CTA_STATS_INVALID",
	ctaStatsIgnore:        "CTA_STATS_IGNORE",
	ctaStatsDelete:        "CTA_STATS_DELETE",
	ctaStatsDeleteList:    "CTA_STATS_DELETE_LIST",
	ctaStatsInsert:        "CTA_STATS_INSERT",
	ctaStatsInsertFailed:  "CTA_STATS_INSERT_FAILED",
	ctaStatsDrop:          "CTA_STATS_DROP",
	ctaStatsEarlyDrop:     "CTA_STATS_EARLY_DROP",
	ctaStatsError:         "CTA_STATS_ERROR",
	ctaStatsSearchRestart: "CTA_STATS_SEARCH_RESTART",
	ctaStatsClashResolve:  "CTA_STATS_CLASH_RESOLVE",
	ctaStatsChainTooLong:  "CTA_STATS_CHAIN_TOOLONG",
}

// enum ctattr_stats_global
const (
	ctaStatsGlobalUnspec = iota
	ctaStatsGlobalEntries
	ctaStatsGlobalMaxEntries // 4.18
)

var ctaStatsGlobalNames = []string{
	ctaStatsGlobalEntries:    "CTA_STATS_GLOBAL_ENTRIES",
	ctaStatsGlobalMaxEntries: "CTA_STATS_GLOBAL_MAX_ENTRIES",
}

// enum ctattr_expect_stats
const (
	ctaStatsExpUnspec = iota
	ctaStatsExpNew
	ctaStatsExpCreate
	ctaStatsExpDelete
)

var ctaStatsExpNames = []string{
	ctaStatsExpNew:    "CTA_STATS_EXP_NEW",
	ctaStatsExpCreate: "CTA_STATS_EXP_CREATE",
	ctaStatsExpDelete: "CTA_STATS_EXP_DELETE",
}
