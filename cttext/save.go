package cttext

import (
	"encoding/binary"

	"github.com/ti-mo/conntrack"
)

// appendSaved appends the command that makes conntrack(8) repeat on its table
// what happened to the flow.
func (l *flowLine) appendSaved(b []byte) []byte {
	op := OpAdd
	switch l.event {
	case conntrack.EventUpdate:
		op = OpUpdate
	case conntrack.EventDestroy:
		op = OpDelete
	}
	b = appendWord(b, "", op.String())
	if l.hasTimeout() {
		b = appendUint(b, "-t ", uint64(l.Timeout))
	}
	b = appendSavedStatus(b, l.Status.Value)
	b = appendSavedZone(b, "-w ", l.Zone)
	b = appendSavedZone(b, "--orig-zone ", l.TupleOrig.Zone)
	b = appendSavedZone(b, "--reply-zone ", l.TupleReply.Zone)
	b = l.appendSavedAddrs(b)
	return l.appendSavedProto(b)
}

func appendSavedZone(b []byte, option string, zone uint16) []byte {
	if zone == 0 {
		return b
	}
	return appendUint(b, option, uint64(zone))
}

// appendSavedAddrs appends the addresses of both directions. In this format,
// only addresses show NAT.
func (l *flowLine) appendSavedAddrs(b []byte) []byte {
	orig, reply := &l.TupleOrig.IP, &l.TupleReply.IP
	if orig.SourceAddress.IsValid() {
		b = appendAddr(b, "-s ", orig.SourceAddress)
	}
	if orig.DestinationAddress.IsValid() {
		b = appendAddr(b, "-d ", orig.DestinationAddress)
	}
	from, to := "-r ", "-q "
	if l.Status.DstNATDone() && reply.SourceAddress != orig.DestinationAddress {
		from = "-g "
	}
	if l.Status.SrcNATDone() && reply.DestinationAddress != orig.SourceAddress {
		to = "-n "
	}
	if reply.SourceAddress.IsValid() {
		b = appendAddr(b, from, reply.SourceAddress)
	}
	if reply.DestinationAddress.IsValid() {
		b = appendAddr(b, to, reply.DestinationAddress)
	}
	return b
}

func (l *flowLine) appendSavedProto(b []byte) []byte {
	number := l.TupleOrig.Proto.Protocol
	of := protocols[number]
	if of == nil {
		return appendUint(b, "-p ", uint64(number))
	}
	b = appendWord(b, "-p ", of.name)
	words := of.words
	if withoutPorts(l.Flow) {
		words = nil
	}
	for direction, t := range [...]*conntrack.Tuple{&l.TupleOrig, &l.TupleReply} {
		if familyOf(&t.IP) == 0 {
			continue
		}
		for _, w := range words {
			if options := w.options[direction]; options != nil {
				b = append(append(b, options[0]...), ' ')
				b = appendUint(b, "", uint64(w.field.get(&t.Proto)))
			}
		}
	}
	if n, state, ok := stateOf(&l.ProtoInfo); ok && n == number {
		name := unnamed
		if state < of.saved {
			name = of.stateName(state)
		}
		b = appendWord(b, "--state ", name)
	}
	return l.appendSavedInfo(b, number)
}

// withoutPorts reports whether f has a protocol with ports that the kernel does
// not track, so that it does not send the ports.
func withoutPorts(f *conntrack.Flow) bool {
	p := &f.TupleOrig.Proto
	return mayLackPorts(p.Protocol) && f.ProtoInfo.DCCP == nil && p.SourcePort == 0 && p.DestinationPort == 0
}

// mayLackPorts reports whether not all kernels give the ports of a protocol that has
// them: Linux does not track DCCP since 6.17, and UDP-Lite in 7.2.
func mayLackPorts(protocol uint8) bool {
	return protocol == conntrack.ProtocolDCCP || protocol == conntrack.ProtocolUDPLite
}

// appendSavedInfo appends the protocol's data other than the state. The kernel
// does not send it for removed flows.
func (l *flowLine) appendSavedInfo(b []byte, number uint8) []byte {
	gone := l.event == conntrack.EventDestroy
	switch sctp, dccp := l.ProtoInfo.SCTP, l.ProtoInfo.DCCP; {
	case number == conntrack.ProtocolSCTP && sctp != nil && (!gone || sctp.VTagOriginal != 0 || sctp.VTagReply != 0):
		b = appendUint(b, "--orig-vtag ", uint64(savedVTag(sctp.VTagOriginal)))
		b = appendUint(b, "--reply-vtag ", uint64(savedVTag(sctp.VTagReply)))
	case number == conntrack.ProtocolDCCP && dccp != nil && (!gone || dccp.Role != 0):
		role := unnamed
		if int(dccp.Role) < len(dccpRoles) {
			role = dccpRoles[dccp.Role]
		}
		b = appendWord(b, "--role ", role)
	}
	return b
}

// savedVTag converts an SCTP verification tag to the number that conntrack(8)
// saves, and back. conntrack(8) prints the bytes, which are in network byte
// order, as a number in native byte order.
func savedVTag(tag uint32) uint32 {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], tag)
	return binary.NativeEndian.Uint32(b[:])
}

// unnamed is what conntrack(8) saves for a value that it has no name for.
const unnamed = "(null)"

// savedStatus are the flags that -o save prints, in its order.
var savedStatus = [...]conntrack.StatusFlag{
	conntrack.StatusExpected, conntrack.StatusSeenReply, conntrack.StatusAssured, conntrack.StatusFixedTimeout,
}

// noStatus stands for no flags.
const noStatus = "UNSET"

// flagName returns the name of one flag.
func flagName(f conntrack.StatusFlag) string { return conntrack.Status{Value: f}.String() }

func appendSavedStatus(b []byte, status conntrack.StatusFlag) []byte {
	b = append(b, "-u "...)
	start := len(b)
	for _, flag := range savedStatus {
		if status&flag != 0 {
			b = append(append(b, flagName(flag)...), ',')
		}
	}
	if len(b) == start {
		return append(b, noStatus+" "...)
	}
	b[len(b)-1] = ' '
	return b
}
