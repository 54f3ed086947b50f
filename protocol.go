package conntrack

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// The constants below have no type, so that they can be assigned to and
// compared with the fields that hold them, which are plain integers. Conversion
// gives their names: Protocol(t.Proto.Protocol).String().

// The IP protocols that connection tracking knows by more than their addresses.
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

// A Protocol is an IP protocol number, as assigned by IANA.
type Protocol uint8

// protocolNames are the names that v0.5.0 printed.
var protocolNames = []string{
	ProtocolICMP:    "icmp",
	2:               "igmp",
	ProtocolTCP:     "tcp",
	ProtocolUDP:     "udp",
	ProtocolDCCP:    "dccp",
	ProtocolGRE:     "gre",
	ProtocolICMPv6:  "ipv6-icmp",
	94:              "ipip",
	115:             "l2tp",
	ProtocolSCTP:    "sctp",
	ProtocolUDPLite: "udplite",
}

// String returns the name of the protocol, such as tcp, or its number if it has
// no name.
func (p Protocol) String() string { return nameOrNumber(p) }

func (p Protocol) name() string { return nameIn(protocolNames, p) }

// MarshalText returns the text of [Protocol.String].
func (p Protocol) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText sets p to the protocol with that name, in any case, or number.
// Besides ipv6-icmp it takes icmpv6.
func (p *Protocol) UnmarshalText(text []byte) error {
	if equalFold("icmpv6", string(text)) {
		*p = ProtocolICMPv6
		return nil
	}
	return parseName(p, "protocol", protocolNames, text)
}

// The states of a TCP connection (enum tcp_conntrack of
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
	// TCPStateSynSent2 means that SYNs were seen in both directions
	// (TCP_CONNTRACK_SYN_SENT2). It replaced TCP_CONNTRACK_LISTEN in Linux
	// 2.6.31.
	TCPStateSynSent2
)

// A TCPState is the state of a TCP connection. Convert ProtoInfoTCP.State to it
// for its name.
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

// String returns the kernel's name of the state, such as ESTABLISHED, or its
// number if it has no name.
func (s TCPState) String() string { return nameOrNumber(s) }

func (s TCPState) name() string { return nameIn(tcpStateNames, s) }

// MarshalText returns the text of [TCPState.String].
func (s TCPState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText sets s to the state with that name, in any case, or number. It
// takes LISTEN, the former name of the same number, for SYN_SENT2.
func (s *TCPState) UnmarshalText(text []byte) error {
	if equalFold("LISTEN", string(text)) {
		*s = TCPStateSynSent2
		return nil
	}
	return parseName(s, "TCP state", tcpStateNames, text)
}

// Flags of one direction of a TCP connection (IP_CT_TCP_FLAG_* of
// linux/netfilter/nf_conntrack_tcp.h): those that a program may want to see or
// set.
const (
	TCPFlagWindowScale = 0x01 // IP_CT_TCP_FLAG_WINDOW_SCALE
	TCPFlagSACKPerm    = 0x02 // IP_CT_TCP_FLAG_SACK_PERM
	TCPFlagCloseInit   = 0x04 // IP_CT_TCP_FLAG_CLOSE_INIT
	TCPFlagBeLiberal   = 0x08 // IP_CT_TCP_FLAG_BE_LIBERAL
)

// A tcpFlag is one of these flags, or one of those that have no constant here.
type tcpFlag uint8

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

func (f tcpFlag) name() string { return flagName(tcpFlagNames, f) }

func (f *tcpFlag) UnmarshalText(text []byte) error {
	return parseFlags(f, "TCP flag", tcpFlagNames, text)
}

// TCPFlags returns a value for OriginalFlags or ReplyFlags of [ProtoInfoTCP]
// that sets the flags in mask to those in flags and leaves the others as they
// are.
func TCPFlags(flags, mask uint8) uint16 { return uint16(flags)<<8 | uint16(mask) }

// The states of an SCTP association (enum sctp_conntrack of
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

// An SCTPState is the state of an SCTP association. Convert ProtoInfoSCTP.State
// to it for its name.
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

// String returns the kernel's name of the state, such as ESTABLISHED, or its
// number if it has no name.
func (s SCTPState) String() string { return nameOrNumber(s) }

func (s SCTPState) name() string { return nameIn(sctpStateNames, s) }

// MarshalText returns the text of [SCTPState.String].
func (s SCTPState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText sets s to the state with that name, in any case, or number.
func (s *SCTPState) UnmarshalText(text []byte) error {
	return parseName(s, "SCTP state", sctpStateNames, text)
}

// A dccpState is the state of a DCCP connection, as in ProtoInfoDCCP.State
// (enum ct_dccp_states of linux/netfilter/nf_conntrack_dccp.h).
type dccpState uint8

var dccpStateNames = []string{
	"NONE",
	"REQUEST",
	"RESPOND",
	"PARTOPEN",
	"OPEN",
	"CLOSEREQ",
	"CLOSING",
	"TIMEWAIT",
	"IGNORE",
	"INVALID",
}

func (s dccpState) name() string { return nameIn(dccpStateNames, s) }

func (s *dccpState) UnmarshalText(text []byte) error {
	return parseName(s, "DCCP state", dccpStateNames, text)
}

// A dccpRole is the role of the original direction's source, as in
// ProtoInfoDCCP.Role (enum ct_dccp_roles).
type dccpRole uint8

var dccpRoleNames = []string{"client", "server"}

func (r dccpRole) name() string { return nameIn(dccpRoleNames, r) }

func (r *dccpRole) UnmarshalText(text []byte) error {
	return parseName(r, "DCCP role", dccpRoleNames, text)
}

// nameIn returns the name of v, or "" if it has none.
func nameIn[T ~uint8](names []string, v T) string {
	if int(v) < len(names) {
		return names[v]
	}
	return ""
}

// nameOrNumber returns the name of v, or its number if it has none.
func nameOrNumber[T named](v T) string {
	return cmp.Or(v.name(), strconv.Itoa(int(v)))
}

// parseName sets v to the value with that name or number.
func parseName[T ~uint8](v *T, kind string, names []string, text []byte) error {
	s := string(text)
	for i, name := range names {
		if name != "" && equalFold(name, s) {
			*v = T(i)
			return nil
		}
	}
	n, err := parseNumber(s, 8)
	if err != nil {
		return fmt.Errorf("unknown %s %.60q", kind, s)
	}
	*v = T(n)
	return nil
}

// parseNumber reads a number: a hexadecimal one if it begins with 0x.
func parseNumber(s string, bits int) (uint64, error) {
	if digits, hex := strings.CutPrefix(strings.ToLower(s), "0x"); hex {
		return strconv.ParseUint(digits, 16, bits)
	}
	return strconv.ParseUint(s, 10, bits)
}

// equalFold reports whether s is name in any case. Names are ASCII, so other
// letters that fold to ASCII must not match.
func equalFold(name, s string) bool { return len(name) == len(s) && strings.EqualFold(name, s) }
