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

// A State names one of the timeouts of one protocol: mostly the state that a flow
// is in while the timeout runs. The constants of this type are all that there
// are.
//
// Its text form is the kernel's name without CTA_TIMEOUT_, such as
// TCP_ESTABLISHED. States are ordered by protocol, and then as the kernel orders
// them.
type State uint16 // the protocol's number, and in the lower byte the attribute's type

// ProtocolGeneric stands for all IP protocols that the kernel has no tracker for,
// such as ESP (50). It is the Protocol of a policy for these: the kernel answers
// EOPNOTSUPP to their own numbers.
const ProtocolGeneric = 255

// The timeout of ICMP (enum ctattr_timeout_icmp).
const (
	ICMPTimeout State = conntrack.ProtocolICMP<<8 + iota + 1 // CTA_TIMEOUT_ICMP_TIMEOUT
)

// The timeouts of TCP (enum ctattr_timeout_tcp). All but the last two are those of
// a state, and the flow is dropped when it has been in that state for so long
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

	// TCPRetrans (CTA_TIMEOUT_TCP_RETRANS) is an upper limit in any state, once
	// a segment was sent net.netfilter.nf_conntrack_tcp_max_retrans times
	// without an answer.
	TCPRetrans
	// TCPUnack (CTA_TIMEOUT_TCP_UNACK) is an upper limit in any state, while there
	// is data that was not acknowledged.
	TCPUnack
)

// The timeouts of UDP (enum ctattr_timeout_udp).
const (
	// UDPUnreplied (CTA_TIMEOUT_UDP_UNREPLIED) holds until packets have been seen
	// in both directions, and for the first two seconds of the flow.
	UDPUnreplied State = conntrack.ProtocolUDP<<8 + iota + 1
	// UDPReplied (CTA_TIMEOUT_UDP_REPLIED) holds after that.
	UDPReplied
)

// The timeouts of DCCP (enum ctattr_timeout_dccp). Current kernels do not track
// DCCP any more, 6.18 for one, and answer EOPNOTSUPP.
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
	SCTPHeartbeatAcked                                               // CTA_TIMEOUT_SCTP_HEARTBEAT_ACKED: current kernels have it and do not use it
)

// The timeouts of UDP-Lite (enum ctattr_timeout_udplite), which are as those of
// UDP. They have the same defaults: there is one set for both.
const (
	UDPLiteUnreplied State = conntrack.ProtocolUDPLite<<8 + iota + 1 // CTA_TIMEOUT_UDPLITE_UNREPLIED
	UDPLiteReplied                                                   // CTA_TIMEOUT_UDPLITE_REPLIED
)

// The timeout of all other protocols (enum ctattr_timeout_generic).
const (
	GenericTimeout State = ProtocolGeneric<<8 + iota + 1 // CTA_TIMEOUT_GENERIC_TIMEOUT
)

const (
	attribute  = 0xff // of a State: the attribute's type
	namePrefix = "CTA_TIMEOUT_"
)

// stateNames are the kernel's names of the attributes, by protocol and type.
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

// kernelName returns the kernel's name of s, or "" if s is none of the constants.
func (s State) kernelName() string {
	names := stateNames[s.Protocol()]
	if typ := int(s & attribute); typ < len(names) {
		return names[typ]
	}
	return ""
}

// Protocol returns the number of the L4 protocol that s is of, or
// ProtocolGeneric.
func (s State) Protocol() uint8 { return uint8(s >> 8) }

// String returns the kernel's name without CTA_TIMEOUT_, such as
// TCP_ESTABLISHED.
func (s State) String() string {
	if name := s.kernelName(); name != "" {
		return strings.TrimPrefix(name, namePrefix)
	}
	return fmt.Sprintf("State(%#x)", uint16(s))
}

// ParseState returns the State of which name is the text form. Case does not
// matter, and the kernel's whole name will do. The error wraps ErrBadState.
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

// MarshalText returns the text form of s. If s is none of the constants, the
// error wraps ErrBadState.
func (s State) MarshalText() ([]byte, error) {
	if s.kernelName() == "" {
		return nil, fmt.Errorf("cttimeout: %s: %w", s, ErrBadState)
	}
	return []byte(s.String()), nil
}

// UnmarshalText sets s to what ParseState makes of text.
func (s *State) UnmarshalText(text []byte) error {
	state, err := ParseState(string(text))
	if err != nil {
		return err
	}
	*s = state
	return nil
}

// States returns the timeouts that a protocol has, in the kernel's order: none if
// the kernel has no tracker for it.
func States(protocol uint8) []State {
	var states []State
	for typ := 1; typ < len(stateNames[protocol]); typ++ {
		states = append(states, State(protocol)<<8|State(typ))
	}
	return states
}

// Timeouts are timeouts of one protocol. One that is left out is not zero, but
// the default or what it was: see the methods that take them. A timeout of zero
// ends flows at once.
//
// The kernel counts whole seconds: a fraction, or a timeout below zero or above
// MaxTimeout, gives ErrBadTimeout.
type Timeouts map[State]time.Duration

// MaxTimeout is the longest timeout that this package passes on. The kernel
// multiplies the seconds by the frequency of its timer, in 32 bits, and does not
// check the result: on kernels with 1000 Hz, flows with a timeout of more than 24.8
// days end at once, and one of 50 days is one of 25 seconds.
//
// A timeout that comes from the kernel may be longer, where other programs set it.
const MaxTimeout = 24 * 24 * time.Hour

// marshal appends t as a nested CTA_TIMEOUT_DATA.
func (t Timeouts) marshal(e *nfnl.Encoder, protocol uint8) error {
	nest := e.Nest(ctaTimeoutData)
	// Sorted, so that the same Timeouts give the same bytes and the same error.
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

// unmarshalTimeouts decodes what a CTA_TIMEOUT_DATA holds.
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
