package cttext

import (
	"strings"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/netfilter"
)

// A protocol is what conntrack(8) knows about an IP protocol.
type protocol struct {
	name  string
	words []tupleWord
	// states is the number of states with names. saved is how many of them -o
	// save knows.
	states, saved uint8
	stateName     func(state uint8) string
}

// protocols are the protocols that conntrack(8) has names for.
var protocols = [256]*protocol{
	conntrack.ProtocolICMP: {name: "icmp", words: icmpWords("--icmp")},
	conntrack.ProtocolTCP: {
		name: "tcp", words: portWords,
		states: conntrack.TCPStateSynSent2 + 1, saved: conntrack.TCPStateSynSent2 + 1,
		stateName: func(s uint8) string { return conntrack.TCPState(s).String() },
	},
	conntrack.ProtocolUDP: {name: "udp", words: portWords},
	conntrack.ProtocolDCCP: {
		name: "dccp", words: portWords,
		states: dccpStates, saved: dccpStates,
		stateName: func(s uint8) string {
			return conntrack.Flow{ProtoInfo: conntrack.ProtoInfo{DCCP: &conntrack.ProtoInfoDCCP{State: s}}}.State()
		},
	},
	conntrack.ProtocolGRE:    {name: "gre", words: keyWords},
	conntrack.ProtocolICMPv6: {name: "icmpv6", words: icmpWords("--icmpv6")},
	conntrack.ProtocolSCTP: {
		name: "sctp", words: portWords,
		states: conntrack.SCTPStateHeartbeatAcked + 1, saved: conntrack.SCTPStateHeartbeatSent,
		stateName: func(s uint8) string { return conntrack.SCTPState(s).String() },
	},
	conntrack.ProtocolUDPLite: {name: "udplite", words: portWords},
}

// dccpStates is the number of DCCP states (enum ct_dccp_states).
const dccpStates = 10

// dccpRoles are the names of the DCCP roles (enum ct_dccp_roles).
var dccpRoles = [...]string{"client", "server"}

// wordsOf returns the words in tuples of a protocol.
func wordsOf(number uint8) []tupleWord {
	if p := protocols[number]; p != nil {
		return p.words
	}
	return nil
}

// findState returns the state with the given name.
func (p *protocol) findState(name string) (state uint8, ok bool) {
	for s := range p.states {
		if p.stateName(s) == name {
			return s, true
		}
	}
	return 0, false
}

// A tupleWord is the word and the options for a field of a ProtoTuple.
type tupleWord struct {
	key   string
	field tupleField
	// hex is set if the word has a hexadecimal value.
	hex bool
	// options are those for the original and for the reply direction.
	options [2][]string
}

var (
	portWords = []tupleWord{
		{"sport=", sourcePort, false, [2][]string{{"--sport", "--orig-port-src"}, {"--reply-port-src"}}},
		{"dport=", destinationPort, false, [2][]string{{"--dport", "--orig-port-dst"}, {"--reply-port-dst"}}},
	}
	keyWords = []tupleWord{
		{"srckey=", sourcePort, true, [2][]string{{"--srckey", "--orig-key-src"}, {"--reply-key-src"}}},
		{"dstkey=", destinationPort, true, [2][]string{{"--dstkey", "--orig-key-dst"}, {"--reply-key-dst"}}},
	}
)

func icmpWords(option string) []tupleWord {
	return []tupleWord{
		{"type=", icmpType, false, [2][]string{{option + "-type"}}},
		{"code=", icmpCode, false, [2][]string{{option + "-code"}}},
		{"id=", icmpID, false, [2][]string{{option + "-id"}}},
	}
}

// A tupleField is a field of a ProtoTuple.
type tupleField uint8

const (
	sourcePort tupleField = iota
	destinationPort
	icmpType
	icmpCode
	icmpID
)

// size returns the size of f in bits.
func (f tupleField) size() int {
	if f == icmpType || f == icmpCode {
		return 8
	}
	return 16
}

// reversed returns the field that has f's value in the opposite direction.
func (f tupleField) reversed() tupleField {
	switch f {
	case sourcePort:
		return destinationPort
	case destinationPort:
		return sourcePort
	}
	return f
}

func (f tupleField) get(p *conntrack.ProtoTuple) uint16 {
	switch f {
	case sourcePort:
		return p.SourcePort
	case destinationPort:
		return p.DestinationPort
	case icmpType:
		return uint16(p.ICMPType)
	case icmpCode:
		return uint16(p.ICMPCode)
	default:
		return p.ICMPID
	}
}

func (f tupleField) set(p *conntrack.ProtoTuple, v uint16) {
	switch f {
	case sourcePort:
		p.SourcePort = v
	case destinationPort:
		p.DestinationPort = v
	case icmpType:
		p.ICMPType = uint8(v)
	case icmpCode:
		p.ICMPCode = uint8(v)
	default:
		p.ICMPID = v
	}
}

// meanZero makes a Filter select by f although its value is zero.
func (f tupleField) meanZero(fields *conntrack.TupleFields) {
	*[...]*bool{&fields.SourcePort, &fields.DestinationPort, &fields.ICMPType, &fields.ICMPCode, &fields.ICMPID}[f] = true
}

// setProtocol sets the protocol of p.
func setProtocol(p *conntrack.ProtoTuple, number uint8) {
	p.Protocol = number
	p.ICMPv4 = number == conntrack.ProtocolICMP
	p.ICMPv6 = number == conntrack.ProtocolICMPv6
}

// unknownName is the name of protocols that have none.
const unknownName = "unknown"

// isName reports whether name may precede the number of a protocol.
func isName(name string, number uint8) bool {
	if p := protocols[number]; p != nil && p.name == name {
		return true
	}
	return name == unknownName || !isNumber(name) && name == conntrack.Protocol(number).String()
}

// findProtocol returns the protocol with the given name, ignoring case.
func findProtocol(name string) (number uint8, ok bool) {
	for n := range 256 {
		other := conntrack.Protocol(n).String()
		if p := protocols[n]; p != nil && strings.EqualFold(p.name, name) ||
			strings.EqualFold(other, name) && !isNumber(other) {
			return uint8(n), true
		}
	}
	return 0, false
}

// stateOf returns the state in p and its protocol.
func stateOf(p *conntrack.ProtoInfo) (number, state uint8, ok bool) {
	switch {
	case p.TCP != nil:
		return conntrack.ProtocolTCP, p.TCP.State, true
	case p.DCCP != nil:
		return conntrack.ProtocolDCCP, p.DCCP.State, true
	case p.SCTP != nil:
		return conntrack.ProtocolSCTP, p.SCTP.State, true
	}
	return 0, 0, false
}

// setState sets the state in p. It also makes TCP liberal: without the window
// scales, strict tracking would regard most segments as invalid.
func setState(p *conntrack.ProtoInfo, number, state uint8) {
	switch number {
	case conntrack.ProtocolTCP:
		const liberal = conntrack.TCPFlagBeLiberal << 8
		p.TCP = &conntrack.ProtoInfoTCP{State: state, OriginalFlags: liberal, ReplyFlags: liberal}
	case conntrack.ProtocolDCCP:
		if p.DCCP == nil {
			p.DCCP = new(conntrack.ProtoInfoDCCP)
		}
		p.DCCP.State = state
	case conntrack.ProtocolSCTP:
		if p.SCTP == nil {
			p.SCTP = new(conntrack.ProtoInfoSCTP)
		}
		p.SCTP.State = state
	}
}

// statusWords are the flags that a line shows, except for that of a reply. Only
// the first that is set is shown.
var statusWords = []struct {
	word string
	flag conntrack.StatusFlag
}{
	{"[HW_OFFLOAD]", conntrack.StatusHWOffload},
	{"[OFFLOAD]", conntrack.StatusOffload},
	{"[ASSURED]", conntrack.StatusAssured},
}

// eventWords are the names of event types.
var eventWords = []struct {
	event conntrack.EventType
	word  string
}{
	{conntrack.EventNew, "[NEW]"},
	{conntrack.EventUpdate, "[UPDATE]"},
	{conntrack.EventDestroy, "[DESTROY]"},
	{conntrack.EventExpNew, "[NEW]"},
	{conntrack.EventExpDestroy, "[DESTROY]"},
}

var familyNames = [...]struct {
	name   string
	family netfilter.ProtoFamily
}{{"ipv4", netfilter.ProtoIPv4}, {"ipv6", netfilter.ProtoIPv6}}

// familyOf returns the family that both addresses have, or ProtoUnspec.
func familyOf(ip *conntrack.IPTuple) netfilter.ProtoFamily {
	src, dst := ip.SourceAddress, ip.DestinationAddress
	switch {
	case src.Is4() && dst.Is4():
		return netfilter.ProtoIPv4
	case src.Is6() && dst.Is6():
		return netfilter.ProtoIPv6
	}
	return netfilter.ProtoUnspec
}

// expectFlags are the expectation flags that have names.
var expectFlags = [...]conntrack.ExpectFlags{
	conntrack.ExpectPermanent, conntrack.ExpectInactive, conntrack.ExpectUserSpace,
}

// These words end the line of a flow's event that a process caused.
const (
	byProcess   = "[USERSPACE]"
	portIDKey   = "portid="
	progNameKey = "progname="
)
