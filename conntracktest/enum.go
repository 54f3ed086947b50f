package conntracktest

// The kernel's constants, as far as the Kernel needs them.

// An errno is an error by its number in Linux. 0 is none.
type errno int32

const (
	eperm      errno = 1
	enoent     errno = 2
	ebadf      errno = 9
	enomem     errno = 12
	ebusy      errno = 16
	eexist     errno = 17
	einval     errno = 22
	emfile     errno = 24
	enospc     errno = 28
	erange     errno = 34
	etime      errno = 62
	emsgsize   errno = 90
	eopnotsupp errno = 95
	enobufs    errno = 105
	ealready   errno = 114
)

// linux/netlink.h
const (
	nlmsgError = 2
	nlmsgDone  = 3
	nlmsgMin   = 0x10

	flagRequest      = 0x1
	flagMulti        = 0x2
	flagAck          = 0x4
	flagEcho         = 0x8
	flagDumpIntr     = 0x10
	flagDumpFiltered = 0x20
	flagDump         = 0x300
	flagExcl         = 0x200
	flagCreate       = 0x400
	flagCapped       = 0x100

	attrNested   = 0x8000
	attrTypeMask = 0x3fff

	nlmsgHeaderLen = 16
	nfgenmsgLen    = 4
)

// linux/netfilter/nfnetlink.h
const (
	subsysConntrack  = 1
	subsysExpect     = 2
	subsysHook       = 12
	hookFunctionName = 4

	batchBegin = 16
	batchEnd   = 17

	groupNew        = 1
	groupUpdate     = 2
	groupDestroy    = 3
	groupExpNew     = 4
	groupExpDestroy = 6
	groupMax        = 9
)

const (
	afUnspec = 0
	afInet   = 2
	afInet6  = 10
)

// linux/netfilter/nf_conntrack_common.h
const (
	statusExpected    = 1 << 0
	statusSeenReply   = 1 << 1
	statusAssured     = 1 << 2
	statusConfirmed   = 1 << 3
	statusSrcNAT      = 1 << 4
	statusDstNAT      = 1 << 5
	statusSeqAdjust   = 1 << 6
	statusSrcNATDone  = 1 << 7
	statusDstNATDone  = 1 << 8
	statusDying       = 1 << 9
	statusFixed       = 1 << 10
	statusTemplate    = 1 << 11
	statusUntracked   = 1 << 12
	statusHelper      = 1 << 13
	statusOffload     = 1 << 14
	statusHWOffload   = 1 << 15
	statusAll         = 1<<16 - 1
	statusUnchangable = statusExpected | statusConfirmed | statusSrcNAT | statusDstNAT | statusSeqAdjust |
		statusSrcNATDone | statusDstNATDone | statusDying | statusTemplate | statusUntracked |
		statusOffload | statusHWOffload
)

// linux/netfilter/nfnetlink_conntrack.h
// messageType returns the type of a message of a subsystem.
func messageType(subsystem, message uint16) uint16 { return subsystem<<8 | message }

const (
	ctNew = iota
	ctGet
	ctDelete
	ctGetCtrZero
	ctGetStatsCPU
	ctGetStats
	ctGetDying
	ctGetUnconfirmed
	ctMessages
)

const (
	expNew = iota
	expGet
	expDelete
	expGetStatsCPU
	expMessages
)

const (
	ctaTupleOrig      = 1
	ctaTupleReply     = 2
	ctaStatus         = 3
	ctaProtoInfo      = 4
	ctaHelp           = 5
	ctaNATSrc         = 6
	ctaTimeout        = 7
	ctaMark           = 8
	ctaCountersOrig   = 9
	ctaCountersReply  = 10
	ctaUse            = 11
	ctaID             = 12
	ctaNATDst         = 13
	ctaTupleMaster    = 14
	ctaSeqAdjOrig     = 15
	ctaSeqAdjReply    = 16
	ctaZone           = 18
	ctaTimestamp      = 20
	ctaMarkMask       = 21
	ctaLabels         = 22
	ctaLabelsMask     = 23
	ctaSynProxy       = 24
	ctaFilter         = 25
	ctaStatusMask     = 26
	ctaTimestampEvent = 27

	ctaTupleIP    = 1
	ctaTupleProto = 2
	ctaTupleZone  = 3

	ctaIPv4Src = 1
	ctaIPv4Dst = 2
	ctaIPv6Src = 3
	ctaIPv6Dst = 4

	ctaProtoNum        = 1
	ctaProtoSrcPort    = 2
	ctaProtoDstPort    = 3
	ctaProtoICMPID     = 4
	ctaProtoICMPType   = 5
	ctaProtoICMPCode   = 6
	ctaProtoICMPv6ID   = 7
	ctaProtoICMPv6Type = 8
	ctaProtoICMPv6Code = 9

	ctaProtoInfoTCP  = 1
	ctaProtoInfoSCTP = 3

	ctaTCPState       = 1
	ctaTCPWScaleOrig  = 2
	ctaTCPWScaleReply = 3
	ctaTCPFlagsOrig   = 4
	ctaTCPFlagsReply  = 5

	ctaSCTPState     = 1
	ctaSCTPVTagOrig  = 2
	ctaSCTPVTagReply = 3

	ctaCountersPackets = 1
	ctaCountersBytes   = 2

	ctaTimestampStart = 1
	ctaTimestampStop  = 2

	ctaNATv4MinIP = 1
	ctaNATv4MaxIP = 2
	ctaNATProto   = 3
	ctaNATv6MinIP = 4
	ctaNATv6MaxIP = 5

	ctaProtoNATPortMin = 1
	ctaProtoNATPortMax = 2

	ctaSeqAdjPosition = 1
	ctaSeqAdjBefore   = 2
	ctaSeqAdjAfter    = 3

	ctaSynProxyISN   = 1
	ctaSynProxyITS   = 2
	ctaSynProxyTSOff = 3

	ctaHelpName = 1
	ctaHelpInfo = 2

	ctaFilterOrigFlags  = 1
	ctaFilterReplyFlags = 2

	ctaExpectMaster   = 1
	ctaExpectTuple    = 2
	ctaExpectMask     = 3
	ctaExpectTimeout  = 4
	ctaExpectID       = 5
	ctaExpectHelpName = 6
	ctaExpectZone     = 7
	ctaExpectFlags    = 8
	ctaExpectClass    = 9
	ctaExpectNAT      = 10
	ctaExpectFN       = 11

	ctaExpectNATDir   = 1
	ctaExpectNATTuple = 2

	ctaStatsFound         = 2
	ctaStatsInvalid       = 4
	ctaStatsInsert        = 8
	ctaStatsInsertFailed  = 9
	ctaStatsDrop          = 10
	ctaStatsEarlyDrop     = 11
	ctaStatsError         = 12
	ctaStatsSearchRestart = 13
	ctaStatsClashResolve  = 14
	ctaStatsChainTooLong  = 15

	ctaStatsGlobalEntries    = 1
	ctaStatsGlobalMaxEntries = 2

	ctaStatsExpNew    = 1
	ctaStatsExpCreate = 2
	ctaStatsExpDelete = 3
)

const (
	protoICMP    = 1
	protoTCP     = 6
	protoUDP     = 17
	protoGRE     = 47
	protoICMPv6  = 58
	protoSCTP    = 132
	protoUDPLite = 136
)
