package conntrack

import (
	"fmt"
	"strconv"
	"strings"
)

// The constants below have no type, since the fields that hold them are plain
// integers: they can be assigned to and compared with these as they are. Their
// names come by conversion: Protocol(t.Proto.Protocol).String().

// IP protocol numbers: those that connection tracking knows more of than the
// addresses.
const (
	ProtocolICMP    = 1
	ProtocolTCP     = 6
	ProtocolUDP     = 17
	ProtocolDCCP    = 33
	ProtocolGRE     = 47
	ProtocolICMPv6  = 58
	ProtocolSCTP    = 132
	ProtocolUDPLite = 136
)

// A Protocol is an IP protocol number (IANA, Protocol Numbers).
type Protocol uint8

// protocolNames are the names that conntrack(8) has, and igmp, which v0.5.0
// printed.
var protocolNames = []string{
	ProtocolICMP:    "icmp",
	2:               "igmp",
	ProtocolTCP:     "tcp",
	ProtocolUDP:     "udp",
	ProtocolDCCP:    "dccp",
	ProtocolGRE:     "gre",
	ProtocolICMPv6:  "icmpv6",
	ProtocolSCTP:    "sctp",
	ProtocolUDPLite: "udplite",
}

// String returns the name, such as tcp, or the number where there is none.
func (p Protocol) String() string { return nameOf(protocolNames, p) }

// ParseProtocol returns the protocol of that name, or number. The case does not
// matter.
func ParseProtocol(s string) (Protocol, error) {
	if equalFold(s, "ipv6-icmp") { // in /etc/protocols
		return ProtocolICMPv6, nil
	}
	return parseName[Protocol]("protocol", protocolNames, s)
}

// The states of a TCP connection (enum tcp_conntrack,
// linux/netfilter/nf_conntrack_tcp.h).
const (
	TCPStateNone        = iota // TCP_CONNTRACK_NONE
	TCPStateSynSent            // TCP_CONNTRACK_SYN_SENT
	TCPStateSynRecv            // TCP_CONNTRACK_SYN_RECV
	TCPStateEstablished        // TCP_CONNTRACK_ESTABLISHED
	TCPStateFinWait            // TCP_CONNTRACK_FIN_WAIT
	TCPStateCloseWait          // TCP_CONNTRACK_CLOSE_WAIT
	TCPStateLastAck            // TCP_CONNTRACK_LAST_ACK
	TCPStateTimeWait           // TCP_CONNTRACK_TIME_WAIT
	TCPStateClose              // TCP_CONNTRACK_CLOSE
	// TCPStateSynSent2: SYNs were seen in both directions. It is
	// TCP_CONNTRACK_SYN_SENT2, which took the place of TCP_CONNTRACK_LISTEN in
	// Linux 2.6.31.
	TCPStateSynSent2
)

// A TCPState is the state of a TCP connection, as in ProtoInfoTCP.State.
type TCPState uint8

var tcpStateNames = []string{
	TCPStateNone:        "NONE",
	TCPStateSynSent:     "SYN_SENT",
	TCPStateSynRecv:     "SYN_RECV",
	TCPStateEstablished: "ESTABLISHED",
	TCPStateFinWait:     "FIN_WAIT",
	TCPStateCloseWait:   "CLOSE_WAIT",
	TCPStateLastAck:     "LAST_ACK",
	TCPStateTimeWait:    "TIME_WAIT",
	TCPStateClose:       "CLOSE",
	TCPStateSynSent2:    "SYN_SENT2",
}

// String returns the kernel's name of the state, such as ESTABLISHED, or the
// number where there is none.
func (s TCPState) String() string { return nameOf(tcpStateNames, s) }

// ParseTCPState returns the state of that name, or number. The case does not
// matter.
func ParseTCPState(s string) (TCPState, error) {
	if equalFold(s, "LISTEN") {
		return TCPStateSynSent2, nil
	}
	return parseName[TCPState]("TCP state", tcpStateNames, s)
}

// The flags of one direction of a TCP connection (IP_CT_TCP_FLAG_*,
// linux/netfilter/nf_conntrack_tcp.h).
const (
	TCPFlagWindowScale        = 0x01 // IP_CT_TCP_FLAG_WINDOW_SCALE
	TCPFlagSACKPerm           = 0x02 // IP_CT_TCP_FLAG_SACK_PERM
	TCPFlagCloseInit          = 0x04 // IP_CT_TCP_FLAG_CLOSE_INIT
	TCPFlagBeLiberal          = 0x08 // IP_CT_TCP_FLAG_BE_LIBERAL
	TCPFlagDataUnacknowledged = 0x10 // IP_CT_TCP_FLAG_DATA_UNACKNOWLEDGED
	TCPFlagMaxAckSet          = 0x20 // IP_CT_TCP_FLAG_MAXACK_SET
	TCPFlagChallengeACK       = 0x40 // IP_CT_EXP_CHALLENGE_ACK
	TCPFlagSimultaneousOpen   = 0x80 // IP_CT_TCP_SIMULTANEOUS_OPEN
)

var tcpFlagNames = []string{
	"WINDOW_SCALE",
	"SACK_PERM",
	"CLOSE_INIT",
	"BE_LIBERAL",
	"DATA_UNACKNOWLEDGED",
	"MAXACK_SET",
	"CHALLENGE_ACK",
	"SIMULTANEOUS_OPEN",
}

// TCPFlags returns a value for ProtoInfoTCP.OriginalFlags or ReplyFlags, with
// which an Update or a Create sets the flags in mask to those in flags and leaves
// the others.
func TCPFlags(flags, mask uint8) uint16 { return uint16(flags)<<8 | uint16(mask) }

// The states of an SCTP association (enum sctp_conntrack,
// linux/netfilter/nf_conntrack_sctp.h).
const (
	SCTPStateNone            = iota // SCTP_CONNTRACK_NONE
	SCTPStateClosed                 // SCTP_CONNTRACK_CLOSED
	SCTPStateCookieWait             // SCTP_CONNTRACK_COOKIE_WAIT
	SCTPStateCookieEchoed           // SCTP_CONNTRACK_COOKIE_ECHOED
	SCTPStateEstablished            // SCTP_CONNTRACK_ESTABLISHED
	SCTPStateShutdownSent           // SCTP_CONNTRACK_SHUTDOWN_SENT
	SCTPStateShutdownRecd           // SCTP_CONNTRACK_SHUTDOWN_RECD
	SCTPStateShutdownAckSent        // SCTP_CONNTRACK_SHUTDOWN_ACK_SENT
	SCTPStateHeartbeatSent          // SCTP_CONNTRACK_HEARTBEAT_SENT (Linux 4.2)
	SCTPStateHeartbeatAcked         // SCTP_CONNTRACK_HEARTBEAT_ACKED (Linux 4.2 to 6.2)
)

// An SCTPState is the state of an SCTP association, as in ProtoInfoSCTP.State.
type SCTPState uint8

var sctpStateNames = []string{
	SCTPStateNone:            "NONE",
	SCTPStateClosed:          "CLOSED",
	SCTPStateCookieWait:      "COOKIE_WAIT",
	SCTPStateCookieEchoed:    "COOKIE_ECHOED",
	SCTPStateEstablished:     "ESTABLISHED",
	SCTPStateShutdownSent:    "SHUTDOWN_SENT",
	SCTPStateShutdownRecd:    "SHUTDOWN_RECD",
	SCTPStateShutdownAckSent: "SHUTDOWN_ACK_SENT",
	SCTPStateHeartbeatSent:   "HEARTBEAT_SENT",
	SCTPStateHeartbeatAcked:  "HEARTBEAT_ACKED",
}

// String returns the kernel's name of the state, such as ESTABLISHED, or the
// number where there is none.
func (s SCTPState) String() string { return nameOf(sctpStateNames, s) }

// ParseSCTPState returns the state of that name, or number. The case does not
// matter.
func ParseSCTPState(s string) (SCTPState, error) {
	return parseName[SCTPState]("SCTP state", sctpStateNames, s)
}

// The states of a DCCP connection (enum ct_dccp_states,
// linux/netfilter/nf_conntrack_dccp.h).
const (
	DCCPStateNone     = iota // CT_DCCP_NONE
	DCCPStateRequest         // CT_DCCP_REQUEST
	DCCPStateRespond         // CT_DCCP_RESPOND
	DCCPStatePartOpen        // CT_DCCP_PARTOPEN
	DCCPStateOpen            // CT_DCCP_OPEN
	DCCPStateCloseReq        // CT_DCCP_CLOSEREQ
	DCCPStateClosing         // CT_DCCP_CLOSING
	DCCPStateTimeWait        // CT_DCCP_TIMEWAIT
	DCCPStateIgnore          // CT_DCCP_IGNORE
	DCCPStateInvalid         // CT_DCCP_INVALID
)

// A DCCPState is the state of a DCCP connection, as in ProtoInfoDCCP.State.
type DCCPState uint8

var dccpStateNames = []string{
	DCCPStateNone:     "NONE",
	DCCPStateRequest:  "REQUEST",
	DCCPStateRespond:  "RESPOND",
	DCCPStatePartOpen: "PARTOPEN",
	DCCPStateOpen:     "OPEN",
	DCCPStateCloseReq: "CLOSEREQ",
	DCCPStateClosing:  "CLOSING",
	DCCPStateTimeWait: "TIMEWAIT",
	DCCPStateIgnore:   "IGNORE",
	DCCPStateInvalid:  "INVALID",
}

// String returns the kernel's name of the state, such as OPEN, or the number
// where there is none.
func (s DCCPState) String() string { return nameOf(dccpStateNames, s) }

// ParseDCCPState returns the state of that name, or number. The case does not
// matter.
func ParseDCCPState(s string) (DCCPState, error) {
	return parseName[DCCPState]("DCCP state", dccpStateNames, s)
}

// The roles of the original direction's sender in a DCCP connection (enum
// ct_dccp_roles, linux/netfilter/nf_conntrack_dccp.h).
const (
	DCCPRoleClient = iota // CT_DCCP_ROLE_CLIENT
	DCCPRoleServer        // CT_DCCP_ROLE_SERVER
)

// A DCCPRole is one of the two ends of a DCCP connection, as in
// ProtoInfoDCCP.Role.
type DCCPRole uint8

var dccpRoleNames = []string{DCCPRoleClient: "client", DCCPRoleServer: "server"}

// String returns client or server, or the number where it is neither.
func (r DCCPRole) String() string { return nameOf(dccpRoleNames, r) }

// ParseDCCPRole returns the role of that name, or number. The case does not
// matter.
func ParseDCCPRole(s string) (DCCPRole, error) {
	return parseName[DCCPRole]("DCCP role", dccpRoleNames, s)
}

// The flags of an expectation (linux/netfilter/nf_conntrack_common.h).
const (
	// ExpectPermanent: it stays when a packet has fulfilled it, until its time is
	// over (NF_CT_EXPECT_PERMANENT).
	ExpectPermanent = 1
	// ExpectInactive: packets do not fulfil it (NF_CT_EXPECT_INACTIVE).
	ExpectInactive = 2
	// ExpectUserSpace: a helper in user space made it
	// (NF_CT_EXPECT_USERSPACE). It cannot be set.
	ExpectUserSpace = 4
)

// ExpectFlags are the flags of an expectation, as in Expect.Flags.
type ExpectFlags uint32

var expectFlagNames = []string{"PERMANENT", "INACTIVE", "USERSPACE"}

// String returns the names of the flags that are set, such as
// PERMANENT|INACTIVE, or NONE.
func (f ExpectFlags) String() string { return flagNames(expectFlagNames, f) }

// ParseExpectFlags returns the flags of those names, or numbers, which | or ,
// stands between. NONE is the name of no flag. The case does not matter.
func ParseExpectFlags(s string) (ExpectFlags, error) {
	return parseFlags[ExpectFlags]("expectation flag", expectFlagNames, s)
}

// nameOf returns the name of v, or the number if it has none.
func nameOf[T ~uint8](names []string, v T) string {
	if int(v) < len(names) && names[v] != "" {
		return names[v]
	}
	return strconv.Itoa(int(v))
}

// parseName returns the value that has the name s, or is s.
func parseName[T ~uint8](kind string, names []string, s string) (T, error) {
	for v, name := range names {
		if name != "" && equalFold(name, s) {
			return T(v), nil
		}
	}
	v, err := parseUint(s, 8)
	if err != nil {
		return 0, fmt.Errorf("unknown %s %q", kind, s)
	}
	return T(v), nil
}

// flagNames returns the names of the bits that are set in v, or their numbers
// where they have none.
func flagNames[T ~uint32](names []string, v T) string {
	if v == 0 {
		return "NONE"
	}
	var set []string
	for bit := range 32 {
		switch {
		case v&(1<<bit) == 0:
		case bit < len(names):
			set = append(set, names[bit])
		default:
			set = append(set, fmt.Sprintf("%#x", uint32(1)<<bit))
		}
	}
	return strings.Join(set, "|")
}

// parseFlags is the inverse of flagNames.
func parseFlags[T ~uint32](kind string, names []string, s string) (T, error) {
	if equalFold(s, "NONE") {
		return 0, nil
	}
	var flags T
	for name := range strings.SplitSeq(strings.ReplaceAll(s, ",", "|"), "|") {
		flag, err := parseFlag[T](names, strings.TrimSpace(name))
		if err != nil {
			return 0, fmt.Errorf("unknown %s %q", kind, name)
		}
		flags |= flag
	}
	return flags, nil
}

func parseFlag[T ~uint32](names []string, s string) (T, error) {
	for bit, name := range names {
		if equalFold(name, s) {
			return 1 << bit, nil
		}
	}
	v, err := parseUint(s, 32)
	return T(v), err
}

// equalFold reports whether s is name in any case. Names are ASCII: what only
// folds to it is another name.
func equalFold(name, s string) bool { return len(name) == len(s) && strings.EqualFold(name, s) }

// parseUint reads a number, which is hexadecimal after 0x.
func parseUint(s string, bits int) (uint64, error) {
	digits, base := s, 10
	if len(s) > 2 && (s[:2] == "0x" || s[:2] == "0X") {
		digits, base = s[2:], 16
	}
	return strconv.ParseUint(digits, base, bits)
}
