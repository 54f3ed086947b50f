package conntrack

import (
	"github.com/ti-mo/conntrack/internal/nfnl"
)

// appendSaved appends the command that makes conntrack(8) do to its table what
// was done to f.
func (t *flowText) appendSaved(b []byte) []byte {
	command := eventTexts[0].command
	for _, e := range eventTexts {
		if e.event == t.event {
			command = e.command
		}
	}
	b = appendWord(b, "", command)
	if t.hasTimeout() {
		b = appendUint(b, "-t ", uint64(t.Timeout))
	}
	b = appendSavedStatus(b, t.Status.Value)
	for _, z := range [...]struct {
		option string
		zone   uint16
	}{{"-w ", t.Zone}, {"--orig-zone ", t.TupleOrig.Zone}, {"--reply-zone ", t.TupleReply.Zone}} {
		if z.zone != 0 {
			b = appendUint(b, z.option, uint64(z.zone))
		}
	}
	orig, reply := &t.TupleOrig, &t.TupleReply
	b = appendAddrWord(b, "", "-s ", orig.IP.SourceAddress)
	b = appendAddrWord(b, "", "-d ", orig.IP.DestinationAddress)
	// Only addresses make translations there.
	from, to := "-r ", "-q "
	if t.Status.DstNATDone() && reply.IP.SourceAddress != orig.IP.DestinationAddress {
		from = "-g "
	}
	if t.Status.SrcNATDone() && reply.IP.DestinationAddress != orig.IP.SourceAddress {
		to = "-n "
	}
	b = appendAddrWord(b, "", from, reply.IP.SourceAddress)
	b = appendAddrWord(b, "", to, reply.IP.DestinationAddress)
	return t.appendSavedProto(b)
}

func (t *flowText) appendSavedProto(b []byte) []byte {
	protocol := t.TupleOrig.Proto.Protocol
	if name := protocolName(protocol); name != "" {
		b = appendWord(b, "-p ", name)
	} else {
		b = appendUint(b, "-p ", uint64(protocol))
	}
	words := protoWordsOf(protocol)
	if t.withoutPorts() {
		words = nil
	}
	for direction, tuple := range [...]*Tuple{&t.TupleOrig, &t.TupleReply} {
		for _, w := range words {
			if option := w.options[direction]; option != "" && tuple.filled() {
				b = appendUint(append(append(b, option...), ' '), "", w.get(&tuple.Proto))
			}
		}
	}
	return t.appendSavedState(b, protocol)
}

// withoutPorts reports whether f is one of a protocol with ports that the kernel
// does not track, and so does not give the ports of: DCCP since Linux 6.17.
func (f *Flow) withoutPorts() bool {
	p := &f.TupleOrig.Proto
	return p.Protocol == ProtocolDCCP && f.ProtoInfo.DCCP == nil && p.SourcePort == 0 && p.DestinationPort == 0
}

// appendSavedState appends the state, and what else protocols have. The kernel
// does not give that of flows that were removed.
func (t *flowText) appendSavedState(b []byte, protocol uint8) []byte {
	p := &t.ProtoInfo
	for i := range protoStates {
		s := &protoStates[i]
		if state, ok := s.get(p); ok && s.protocol == protocol {
			name := unnamed
			if int(state) < s.saved {
				name = s.names[state]
			}
			b = appendWord(b, "--state ", name)
		}
	}
	switch gone := t.event == EventDestroy; {
	case protocol == ProtocolSCTP && p.SCTP != nil && (!gone || p.SCTP.VTagOriginal != 0 || p.SCTP.VTagReply != 0):
		b = appendUint(b, "--orig-vtag ", uint64(savedVTag(p.SCTP.VTagOriginal)))
		b = appendUint(b, "--reply-vtag ", uint64(savedVTag(p.SCTP.VTagReply)))
	case protocol == ProtocolDCCP && p.DCCP != nil && (!gone || p.DCCP.Role != 0):
		role := unnamed
		if int(p.DCCP.Role) < len(dccpRoleNames) {
			role = dccpRoleNames[p.DCCP.Role]
		}
		b = appendWord(b, "--role ", role)
	}
	return b
}

// savedVTag returns how conntrack(8) saves an SCTP verification tag, and the other
// way round: it takes the bytes, which are in network byte order, for those of a
// number of its machine.
func savedVTag(tag uint32) uint32 { return nfnl.Native(tag) }

// unnamed is what conntrack(8) saves for what it has no name for.
const unnamed = "(null)"

// savedStatus are the flags that -o save has.
const savedStatus = StatusExpected | StatusSeenReply | StatusAssured | StatusFixedTimeout

// noStatus is the name of no flag.
const noStatus = "UNSET"

func appendSavedStatus(b []byte, status StatusFlag) []byte {
	b = append(b, "-u "...)
	if status&savedStatus == 0 {
		return append(b, noStatus+" "...)
	}
	for bit, name := range statusNames {
		if status&savedStatus&(1<<bit) != 0 {
			b = append(append(b, name...), ',')
		}
	}
	b[len(b)-1] = ' '
	return b
}
