package cttimeout

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nfnl"
)

// A State identifies one timeout of one protocol. Most are named after the
// state that a flow is in while the timeout runs. The constants of this type
// are all valid states.
//
// The text form of a State is the kernel's name without CTA_TIMEOUT_, such as
// TCP_ESTABLISHED. States are ordered by protocol, then by the kernel's order.
type State uint16 // the protocol's number, and in the lower byte the attribute's type

// ProtocolGeneric stands for all IP protocols that the kernel has no tracker
// for, such as ESP (50). A policy for such a protocol must use it: for the
// protocol's own number, the kernel answers EOPNOTSUPP.
const ProtocolGeneric = 255

// The timeout of ICMP (enum ctattr_timeout_icmp).
const (
	ICMPTimeout State = conntrack.ProtocolICMP<<8 + iota + 1 // CTA_TIMEOUT_ICMP_TIMEOUT
)

// The timeouts of TCP (enum ctattr_timeout_tcp). All but the last two apply to
// the state in their name: a flow ends if it stays in that state for so long
// without a packet.
const (
	TCPSynSent     State = conntrack.ProtocolTCP<<8 + iota + 1 // CTA_TIMEOUT_TCP_SYN_SENT
	TCPSynRecv                                                 // CTA_TIMEOUT_TCP_SYN_RECV
	TCPEstablished                                             // CTA_TIMEOUT_TCP_ESTABLISHED
	TCPFinWait                                                 // CTA_TIMEOUT_TCP_FIN_WAIT
	TCPCloseWait                                               // CTA_TIMEOUT_TCP_CLOSE_WAIT
	TCPLastAck                                                 // CTA_TIMEOUT_TCP_LAST_ACK
	TCPTimeWait                                                // CTA_TIMEOUT_TCP_TIME_WAIT
	TCPClose                                                   // CTA_TIMEOUT_TCP_CLOSE
	TCPSynSent2                                                // CTA_TIMEOUT_TCP_SYN_SENT2: both ends have sent a SYN

	// TCPRetrans (CTA_TIMEOUT_TCP_RETRANS) limits the timeout in any state once
	// a segment has been sent net.netfilter.nf_conntrack_tcp_max_retrans times
	// without an answer.
	TCPRetrans
	// TCPUnack (CTA_TIMEOUT_TCP_UNACK) limits the timeout in any state while
	// some data is not acknowledged.
	TCPUnack
)

// The timeouts of UDP (enum ctattr_timeout_udp).
const (
	// UDPUnreplied (CTA_TIMEOUT_UDP_UNREPLIED) applies until packets have been
	// seen in both directions, and during the first two seconds of the flow.
	UDPUnreplied State = conntrack.ProtocolUDP<<8 + iota + 1
	// UDPReplied (CTA_TIMEOUT_UDP_REPLIED) applies after that.
	UDPReplied
)

// The timeouts of DCCP (enum ctattr_timeout_dccp). Current kernels, such as
// 6.18, do not track DCCP and answer EOPNOTSUPP.
const (
	DCCPRequest  State = conntrack.ProtocolDCCP<<8 + iota + 1 // CTA_TIMEOUT_DCCP_REQUEST
	DCCPRespond                                               // CTA_TIMEOUT_DCCP_RESPOND
	DCCPPartOpen                                              // CTA_TIMEOUT_DCCP_PARTOPEN
	DCCPOpen                                                  // CTA_TIMEOUT_DCCP_OPEN
	DCCPCloseReq                                              // CTA_TIMEOUT_DCCP_CLOSEREQ
	DCCPClosing                                               // CTA_TIMEOUT_DCCP_CLOSING
	DCCPTimeWait                                              // CTA_TIMEOUT_DCCP_TIMEWAIT
)

// The timeouts of GRE (enum ctattr_timeout_gre).
const (
	GREUnreplied State = conntrack.ProtocolGRE<<8 + iota + 1 // CTA_TIMEOUT_GRE_UNREPLIED: packets in one direction
	GREReplied                                               // CTA_TIMEOUT_GRE_REPLIED: packets in both
)

// The timeout of ICMPv6 (enum ctattr_timeout_icmpv6).
const (
	ICMPv6Timeout State = conntrack.ProtocolICMPv6<<8 + iota + 1 // CTA_TIMEOUT_ICMPV6_TIMEOUT
)

// The timeouts of SCTP (enum ctattr_timeout_sctp).
const (
	SCTPClosed          State = conntrack.ProtocolSCTP<<8 + iota + 1 // CTA_TIMEOUT_SCTP_CLOSED
	SCTPCookieWait                                                   // CTA_TIMEOUT_SCTP_COOKIE_WAIT
	SCTPCookieEchoed                                                 // CTA_TIMEOUT_SCTP_COOKIE_ECHOED
	SCTPEstablished                                                  // CTA_TIMEOUT_SCTP_ESTABLISHED
	SCTPShutdownSent                                                 // CTA_TIMEOUT_SCTP_SHUTDOWN_SENT
	SCTPShutdownRecd                                                 // CTA_TIMEOUT_SCTP_SHUTDOWN_RECD
	SCTPShutdownAckSent                                              // CTA_TIMEOUT_SCTP_SHUTDOWN_ACK_SENT
	SCTPHeartbeatSent                                                // CTA_TIMEOUT_SCTP_HEARTBEAT_SENT
	SCTPHeartbeatAcked                                               // CTA_TIMEOUT_SCTP_HEARTBEAT_ACKED: current kernels have it but do not use it
)

// The timeouts of UDP-Lite (enum ctattr_timeout_udplite). They work like those
// of UDP and share their defaults.
const (
	UDPLiteUnreplied State = conntrack.ProtocolUDPLite<<8 + iota + 1 // CTA_TIMEOUT_UDPLITE_UNREPLIED
	UDPLiteReplied                                                   // CTA_TIMEOUT_UDPLITE_REPLIED
)

// The timeout of all other protocols (enum ctattr_timeout_generic).
const (
	GenericTimeout State = ProtocolGeneric<<8 + iota + 1 // CTA_TIMEOUT_GENERIC_TIMEOUT
)

const (
	attribute  = 0xff // bits of a State: the type of the attribute
	namePrefix = "CTA_TIMEOUT_"
)

// stateNames are the kernel's names of the attributes, by protocol and
// attribute type.
var stateNames = map[uint8][]string{
	conntrack.ProtocolICMP: {
		ICMPTimeout & attribute: "CTA_TIMEOUT_ICMP_TIMEOUT",
	},
	conntrack.ProtocolTCP: {
		TCPSynSent & attribute:     "CTA_TIMEOUT_TCP_SYN_SENT",
		TCPSynRecv & attribute:     "CTA_TIMEOUT_TCP_SYN_RECV",
		TCPEstablished & attribute: "CTA_TIMEOUT_TCP_ESTABLISHED",
		TCPFinWait & attribute:     "CTA_TIMEOUT_TCP_FIN_WAIT",
		TCPCloseWait & attribute:   "CTA_TIMEOUT_TCP_CLOSE_WAIT",
		TCPLastAck & attribute:     "CTA_TIMEOUT_TCP_LAST_ACK",
		TCPTimeWait & attribute:    "CTA_TIMEOUT_TCP_TIME_WAIT",
		TCPClose & attribute:       "CTA_TIMEOUT_TCP_CLOSE",
		TCPSynSent2 & attribute:    "CTA_TIMEOUT_TCP_SYN_SENT2",
		TCPRetrans & attribute:     "CTA_TIMEOUT_TCP_RETRANS",
		TCPUnack & attribute:       "CTA_TIMEOUT_TCP_UNACK",
	},
	conntrack.ProtocolUDP: {
		UDPUnreplied & attribute: "CTA_TIMEOUT_UDP_UNREPLIED",
		UDPReplied & attribute:   "CTA_TIMEOUT_UDP_REPLIED",
	},
	conntrack.ProtocolDCCP: {
		DCCPRequest & attribute:  "CTA_TIMEOUT_DCCP_REQUEST",
		DCCPRespond & attribute:  "CTA_TIMEOUT_DCCP_RESPOND",
		DCCPPartOpen & attribute: "CTA_TIMEOUT_DCCP_PARTOPEN",
		DCCPOpen & attribute:     "CTA_TIMEOUT_DCCP_OPEN",
		DCCPCloseReq & attribute: "CTA_TIMEOUT_DCCP_CLOSEREQ",
		DCCPClosing & attribute:  "CTA_TIMEOUT_DCCP_CLOSING",
		DCCPTimeWait & attribute: "CTA_TIMEOUT_DCCP_TIMEWAIT",
	},
	conntrack.ProtocolGRE: {
		GREUnreplied & attribute: "CTA_TIMEOUT_GRE_UNREPLIED",
		GREReplied & attribute:   "CTA_TIMEOUT_GRE_REPLIED",
	},
	conntrack.ProtocolICMPv6: {
		ICMPv6Timeout & attribute: "CTA_TIMEOUT_ICMPV6_TIMEOUT",
	},
	conntrack.ProtocolSCTP: {
		SCTPClosed & attribute:          "CTA_TIMEOUT_SCTP_CLOSED",
		SCTPCookieWait & attribute:      "CTA_TIMEOUT_SCTP_COOKIE_WAIT",
		SCTPCookieEchoed & attribute:    "CTA_TIMEOUT_SCTP_COOKIE_ECHOED",
		SCTPEstablished & attribute:     "CTA_TIMEOUT_SCTP_ESTABLISHED",
		SCTPShutdownSent & attribute:    "CTA_TIMEOUT_SCTP_SHUTDOWN_SENT",
		SCTPShutdownRecd & attribute:    "CTA_TIMEOUT_SCTP_SHUTDOWN_RECD",
		SCTPShutdownAckSent & attribute: "CTA_TIMEOUT_SCTP_SHUTDOWN_ACK_SENT",
		SCTPHeartbeatSent & attribute:   "CTA_TIMEOUT_SCTP_HEARTBEAT_SENT",
		SCTPHeartbeatAcked & attribute:  "CTA_TIMEOUT_SCTP_HEARTBEAT_ACKED",
	},
	conntrack.ProtocolUDPLite: {
		UDPLiteUnreplied & attribute: "CTA_TIMEOUT_UDPLITE_UNREPLIED",
		UDPLiteReplied & attribute:   "CTA_TIMEOUT_UDPLITE_REPLIED",
	},
	ProtocolGeneric: {
		GenericTimeout & attribute: "CTA_TIMEOUT_GENERIC_TIMEOUT",
	},
}

// kernelName returns the kernel's name of s, or "" if s is unknown.
func (s State) kernelName() string {
	names := stateNames[s.Protocol()]
	if typ := int(s & attribute); typ < len(names) {
		return names[typ]
	}
	return ""
}

// Protocol returns the number of the L4 protocol that s belongs to, or
// [ProtocolGeneric].
func (s State) Protocol() uint8 { return uint8(s >> 8) }

// String returns the text form of s, such as "TCP_ESTABLISHED".
func (s State) String() string {
	if name := s.kernelName(); name != "" {
		return strings.TrimPrefix(name, namePrefix)
	}
	return fmt.Sprintf("State(%#x)", uint16(s))
}

// ParseState returns the [State] with the given text form. It ignores case, and
// also accepts the kernel's full name. If it fails, the error wraps
// [ErrBadState].
func ParseState(name string) (State, error) {
	full := strings.ToUpper(name)
	if !strings.HasPrefix(full, namePrefix) {
		full = namePrefix + full
	}
	for protocol, names := range stateNames {
		if typ := slices.Index(names, full); typ > 0 {
			return State(protocol)<<8 | State(typ), nil
		}
	}
	return 0, fmt.Errorf("cttimeout: %q: %w", name, ErrBadState)
}

// MarshalText returns the text form of s. If s is unknown, the error wraps
// [ErrBadState].
func (s State) MarshalText() ([]byte, error) {
	if s.kernelName() == "" {
		return nil, fmt.Errorf("cttimeout: %s: %w", s, ErrBadState)
	}
	return []byte(s.String()), nil
}

// UnmarshalText sets s to the State with the given text form. It accepts what
// [ParseState] accepts.
func (s *State) UnmarshalText(text []byte) error {
	state, err := ParseState(string(text))
	if err != nil {
		return err
	}
	*s = state
	return nil
}

// States returns the timeouts of a protocol in the kernel's order. It returns
// none if the kernel has no tracker for the protocol.
func States(protocol uint8) []State {
	var states []State
	for typ := 1; typ < len(stateNames[protocol]); typ++ {
		states = append(states, State(protocol)<<8|State(typ))
	}
	return states
}

// Timeouts maps states of one protocol to their timeouts. A state that is not
// in the map keeps its timeout or gets the default: see the methods that take
// Timeouts. A timeout of zero ends flows at once.
//
// The kernel stores whole seconds. A timeout with a fraction of a second, below
// zero or above [MaxTimeout] causes [ErrBadTimeout].
type Timeouts map[State]time.Duration

// MaxTimeout is the longest timeout that this package passes to the kernel. The
// kernel multiplies the seconds by its timer frequency in 32 bits and does not
// check for overflow. On kernels with 1000 Hz, flows with a timeout of more
// than 24.8 days end at once, and a timeout of 50 days becomes one of 25
// seconds.
//
// Timeouts returned by the kernel may be longer if other programs set them.
const MaxTimeout = 24 * 24 * time.Hour

// marshal appends t as a nested CTA_TIMEOUT_DATA attribute.
func (t Timeouts) marshal(e *nfnl.Encoder, protocol uint8) error {
	nest := e.Nest(ctaTimeoutData)
	// They are sorted so that the same Timeouts always give the same bytes and
	// the same error.
	for _, state := range slices.Sorted(maps.Keys(t)) {
		timeout := t[state]
		if state.Protocol() != protocol || state.kernelName() == "" {
			return fmt.Errorf("%s: %w for protocol %d", state, ErrBadState, protocol)
		}
		if timeout < 0 || timeout > MaxTimeout || timeout%time.Second != 0 {
			return fmt.Errorf("%s: %v: %w", state, timeout, ErrBadTimeout)
		}
		e.Uint32(uint16(state&attribute), uint32(timeout/time.Second))
	}
	e.End(nest)
	return nil
}

// unmarshalTimeouts decodes the contents of a CTA_TIMEOUT_DATA attribute.
func unmarshalTimeouts(b []byte, protocol uint8) (Timeouts, error) {
	names := stateNames[protocol]
	t := make(Timeouts, len(names))
	var d nfnl.Decoder
	for typ, v := range d.Attributes(b) {
		if 0 < typ && int(typ) < len(names) {
			t[State(protocol)<<8|State(typ)] = time.Duration(d.Uint32(v)) * time.Second
		}
	}
	if err := d.Err(names); err != nil {
		return nil, err
	}
	return t, nil
}
