package conntrack

import (
	"time"

	"github.com/ti-mo/conntrack/internal/nfnl"
)

// A Helper is the kernel's code that follows a protocol which opens further
// connections, and whether a flow is under its care (CTA_HELP).
type Helper struct {
	// Name is the kernel's name of the helper, such as ftp.
	Name string
	// Info is private to the helper (CTA_HELP_INFO, Linux 3.5): to those in user
	// space; those of the kernel take and give none.
	Info []byte
}

// NoHelper is a Helper.Name with which [Conn.Update] takes a flow's helper away, and
// its expectations. Kernels from about 7.2 on refuse that: there a flow keeps its
// helper until it is deleted.
const NoHelper = "\x00"

// ProtoInfo is what connection tracking knows about the state of a protocol
// (CTA_PROTOINFO). At most one of its fields is not nil.
type ProtoInfo struct {
	TCP  *ProtoInfoTCP
	DCCP *ProtoInfoDCCP
	SCTP *ProtoInfoSCTP
}

// ProtoInfoTCP is the state of a TCP connection (CTA_PROTOINFO_TCP).
type ProtoInfoTCP struct {
	// State is a value of enum tcp_conntrack
	// (linux/netfilter/nf_conntrack_tcp.h).
	State uint8
	// The window scale of each direction (RFC 7323), a power of two. Both or
	// none are set, and take effect only with the flag 0x01 of that direction.
	OriginalWindowScale uint8
	ReplyWindowScale    uint8
	// The flags of each direction in the upper byte (struct nf_ct_tcp_flags,
	// TCPFlagWindowScale and so on). In the lower one is the mask of the flags that
	// are to be set, see TCPFlags; the kernel sends 0 there. An Update with 0
	// changes none, a Create with 0 sets them as they are.
	OriginalFlags uint16
	ReplyFlags    uint16
}

// ProtoInfoDCCP is the state of a DCCP connection (CTA_PROTOINFO_DCCP). Linux
// 6.17 and newer do not track DCCP.
type ProtoInfoDCCP struct {
	State, Role  uint8
	HandshakeSeq uint64
}

// ProtoInfoSCTP is the state of an SCTP association (CTA_PROTOINFO_SCTP).
type ProtoInfoSCTP struct {
	// State is a value of enum sctp_conntrack
	// (linux/netfilter/nf_conntrack_sctp.h).
	State                   uint8
	VTagOriginal, VTagReply uint32
}

// A Counter counts what passed in one direction of a flow (CTA_COUNTERS_ORIG,
// CTA_COUNTERS_REPLY), if the sysctl net.netfilter.nf_conntrack_acct was set when
// the flow began.
type Counter struct {
	// Direction is true for the reply direction.
	Direction bool

	Packets uint64
	// Bytes are those of the packets from the IP header on.
	Bytes uint64
}

// Timestamp says when a flow began and ended (CTA_TIMESTAMP, Linux 2.6.38), if the
// sysctl net.netfilter.nf_conntrack_timestamp was set when it began. A time that the
// kernel did not give is the zero Time; only the flow of an [EventDestroy] has a Stop.
// For a flow that timed out, the kernel subtracts how late it was reaped, some
// milliseconds, so that Stop may precede Start.
type Timestamp struct {
	Start time.Time
	Stop  time.Time
}

// Security is the security context of a flow's packets, as SELinux or another
// security module names it (CTA_SECCTX, Linux 2.6.37). It cannot be set.
type Security string

// SequenceAdjust says how TCP sequence numbers of one direction are shifted,
// since a helper changed the length of what was sent (CTA_SEQ_ADJ_ORIG,
// CTA_SEQ_ADJ_REPLY, Linux 2.6.24).
type SequenceAdjust struct {
	// Direction is true for the reply direction.
	Direction bool

	// Position is the sequence number where the last change was made.
	Position uint32
	// The shift before and from Position on, two's complement.
	OffsetBefore uint32
	OffsetAfter  uint32
}

// SynProxy is what a SYN proxy keeps of the connection that it answered
// (CTA_SYNPROXY, Linux 4.18).
type SynProxy struct {
	ISN   uint32 // initial sequence number
	ITS   uint32 // initial timestamp
	TSOff uint32 // timestamp offset
}

func (h *Helper) filled() bool { return h.Name != "" || len(h.Info) > 0 }

func (h *Helper) unmarshal(b []byte, s *slab) error {
	var d nfnl.Decoder
	for typ, v := range d.Attributes(b) {
		switch typ {
		case ctaHelpName:
			h.Name = s.str(nfnl.TrimNUL(v))
		case ctaHelpInfo:
			h.Info = s.copy(v)
		}
	}
	return d.Err(ctaHelpNames)
}

func (h *Helper) marshal(e *nfnl.Encoder) {
	name := h.Name
	if name == NoHelper {
		name = "" // as the kernel wants it
	}
	help := e.Nest(ctaHelp)
	e.String(ctaHelpName, name)
	if len(h.Info) > 0 {
		e.Bytes(ctaHelpInfo, h.Info)
	}
	e.End(help)
}

func (p ProtoInfo) filled() bool { return p.TCP != nil || p.DCCP != nil || p.SCTP != nil }

func (p *ProtoInfo) unmarshal(b []byte, s *slab) error {
	var d nfnl.Decoder
	for typ, v := range d.Attributes(b) {
		switch typ {
		case ctaProtoInfoTCP:
			p.TCP = s.newTCP()
			d.Fail(p.TCP.unmarshal(v))
		case ctaProtoInfoDCCP:
			p.DCCP = new(ProtoInfoDCCP)
			d.Fail(p.DCCP.unmarshal(v))
		case ctaProtoInfoSCTP:
			p.SCTP = new(ProtoInfoSCTP)
			d.Fail(p.SCTP.unmarshal(v))
		}
	}
	return d.Err(ctaProtoInfoNames)
}

// forNew returns p as a new flow is to have it. One that came from the kernel has
// its TCP flags without a mask: all of them are to be set.
func (p ProtoInfo) forNew() ProtoInfo {
	if p.TCP != nil {
		tcp := *p.TCP
		tcp.OriginalFlags = withMask(tcp.OriginalFlags)
		tcp.ReplyFlags = withMask(tcp.ReplyFlags)
		p.TCP = &tcp
	}
	return p
}

// withMask returns TCP flags with a mask of all of them if they have none.
func withMask(flags uint16) uint16 {
	if flags != 0 && uint8(flags) == 0 {
		flags |= 0xff
	}
	return flags
}

// marshal appends p, if it holds anything.
func (p ProtoInfo) marshal(e *nfnl.Encoder) {
	if !p.filled() {
		return
	}
	info := e.Nest(ctaProtoInfo)
	switch {
	case p.TCP != nil:
		p.TCP.marshal(e)
	case p.DCCP != nil:
		p.DCCP.marshal(e)
	case p.SCTP != nil:
		p.SCTP.marshal(e)
	}
	e.End(info)
}

func (t *ProtoInfoTCP) unmarshal(b []byte) error {
	if len(b) == 40 && nfnl.Holds(b, 0, ctaProtoInfoTCPState, 1) &&
		nfnl.Holds(b, 8, ctaProtoInfoTCPWScaleOriginal, 1) && nfnl.Holds(b, 16, ctaProtoInfoTCPWScaleReply, 1) &&
		nfnl.Holds(b, 24, ctaProtoInfoTCPFlagsOriginal, 2) && nfnl.Holds(b, 32, ctaProtoInfoTCPFlagsReply, 2) {
		t.State = b[4]
		t.OriginalWindowScale, t.ReplyWindowScale = b[12], b[20]
		t.OriginalFlags, t.ReplyFlags = nfnl.Uint16(b[28:]), nfnl.Uint16(b[36:])
		return nil
	}
	var d nfnl.Decoder
	for typ, v := range d.Attributes(b) {
		switch typ {
		case ctaProtoInfoTCPState:
			t.State = d.Uint8(v)
		case ctaProtoInfoTCPWScaleOriginal:
			t.OriginalWindowScale = d.Uint8(v)
		case ctaProtoInfoTCPWScaleReply:
			t.ReplyWindowScale = d.Uint8(v)
		case ctaProtoInfoTCPFlagsOriginal:
			t.OriginalFlags = d.Uint16(v)
		case ctaProtoInfoTCPFlagsReply:
			t.ReplyFlags = d.Uint16(v)
		}
	}
	return d.Err(ctaProtoInfoTCPNames)
}

func (t *ProtoInfoTCP) marshal(e *nfnl.Encoder) {
	tcp := e.Nest(ctaProtoInfoTCP)
	e.Uint8(ctaProtoInfoTCPState, t.State)
	if t.OriginalWindowScale != 0 || t.ReplyWindowScale != 0 {
		e.Uint8(ctaProtoInfoTCPWScaleOriginal, t.OriginalWindowScale)
		e.Uint8(ctaProtoInfoTCPWScaleReply, t.ReplyWindowScale)
	}
	if t.OriginalFlags != 0 {
		e.Uint16(ctaProtoInfoTCPFlagsOriginal, t.OriginalFlags)
	}
	if t.ReplyFlags != 0 {
		e.Uint16(ctaProtoInfoTCPFlagsReply, t.ReplyFlags)
	}
	e.End(tcp)
}

func (p *ProtoInfoDCCP) unmarshal(b []byte) error {
	var d nfnl.Decoder
	for typ, v := range d.Attributes(b) {
		switch typ {
		case ctaProtoInfoDCCPState:
			p.State = d.Uint8(v)
		case ctaProtoInfoDCCPRole:
			p.Role = d.Uint8(v)
		case ctaProtoInfoDCCPHandshakeSeq:
			p.HandshakeSeq = d.Uint64(v)
		}
	}
	return d.Err(ctaProtoInfoDCCPNames)
}

func (p *ProtoInfoDCCP) marshal(e *nfnl.Encoder) {
	dccp := e.Nest(ctaProtoInfoDCCP)
	e.Uint8(ctaProtoInfoDCCPState, p.State)
	e.Uint8(ctaProtoInfoDCCPRole, p.Role)
	if p.HandshakeSeq != 0 {
		e.Uint64(ctaProtoInfoDCCPHandshakeSeq, p.HandshakeSeq)
	}
	e.End(dccp)
}

func (p *ProtoInfoSCTP) unmarshal(b []byte) error {
	var d nfnl.Decoder
	for typ, v := range d.Attributes(b) {
		switch typ {
		case ctaProtoInfoSCTPState:
			p.State = d.Uint8(v)
		case ctaProtoInfoSCTPVTagOriginal:
			p.VTagOriginal = d.Uint32(v)
		case ctaProtoInfoSCTPVTagReply:
			p.VTagReply = d.Uint32(v)
		}
	}
	return d.Err(ctaProtoInfoSCTPNames)
}

func (p *ProtoInfoSCTP) marshal(e *nfnl.Encoder) {
	sctp := e.Nest(ctaProtoInfoSCTP)
	e.Uint8(ctaProtoInfoSCTPState, p.State)
	e.Uint32(ctaProtoInfoSCTPVTagOriginal, p.VTagOriginal)
	e.Uint32(ctaProtoInfoSCTPVTagReply, p.VTagReply)
	e.End(sctp)
}

func (c *Counter) filled() bool { return c.Packets != 0 || c.Bytes != 0 }

func (c *Counter) unmarshal(b []byte) error {
	if len(b) == 24 && nfnl.Holds(b, 0, ctaCountersPackets, 8) && nfnl.Holds(b, 12, ctaCountersBytes, 8) {
		c.Packets, c.Bytes = nfnl.Uint64(b[4:]), nfnl.Uint64(b[16:])
		return nil
	}
	var d nfnl.Decoder
	for typ, v := range d.Attributes(b) {
		switch typ {
		case ctaCountersPackets:
			c.Packets = d.Uint64(v)
		case ctaCountersBytes:
			c.Bytes = d.Uint64(v)
		case ctaCounters32Packets:
			c.Packets = uint64(d.Uint32(v))
		case ctaCounters32Bytes:
			c.Bytes = uint64(d.Uint32(v))
		}
	}
	return d.Err(ctaCountersNames)
}

func (t *Timestamp) unmarshal(b []byte) error {
	var d nfnl.Decoder
	for typ, v := range d.Attributes(b) {
		switch typ {
		case ctaTimestampStart:
			t.Start = time.Unix(0, int64(d.Uint64(v)))
		case ctaTimestampStop:
			t.Stop = time.Unix(0, int64(d.Uint64(v)))
		}
	}
	return d.Err(ctaTimestampNames)
}

func (s *Security) unmarshal(b []byte, sl *slab) error {
	var d nfnl.Decoder
	for typ, v := range d.Attributes(b) {
		if typ == ctaSecCtxName {
			*s = Security(sl.str(nfnl.TrimNUL(v)))
		}
	}
	return d.Err(ctaSecCtxNames)
}

func (seq *SequenceAdjust) filled() bool {
	return seq.Position != 0 || seq.OffsetBefore != 0 || seq.OffsetAfter != 0
}

func (seq *SequenceAdjust) unmarshal(b []byte) error {
	var d nfnl.Decoder
	for typ, v := range d.Attributes(b) {
		switch typ {
		case ctaSeqAdjCorrectionPos:
			seq.Position = d.Uint32(v)
		case ctaSeqAdjOffsetBefore:
			seq.OffsetBefore = d.Uint32(v)
		case ctaSeqAdjOffsetAfter:
			seq.OffsetAfter = d.Uint32(v)
		}
	}
	return d.Err(ctaSeqAdjNames)
}

func (seq *SequenceAdjust) marshal(e *nfnl.Encoder, typ uint16) {
	adj := e.Nest(typ)
	e.Uint32(ctaSeqAdjCorrectionPos, seq.Position)
	e.Uint32(ctaSeqAdjOffsetBefore, seq.OffsetBefore)
	e.Uint32(ctaSeqAdjOffsetAfter, seq.OffsetAfter)
	e.End(adj)
}

func (p *SynProxy) unmarshal(b []byte) error {
	if len(b) == 24 && nfnl.Holds(b, 0, ctaSynProxyISN, 4) &&
		nfnl.Holds(b, 8, ctaSynProxyITS, 4) && nfnl.Holds(b, 16, ctaSynProxyTSOff, 4) {
		p.ISN, p.ITS = nfnl.Uint32(b[4:]), nfnl.Uint32(b[12:])
		p.TSOff = nfnl.Uint32(b[20:])
		return nil
	}
	var d nfnl.Decoder
	for typ, v := range d.Attributes(b) {
		switch typ {
		case ctaSynProxyISN:
			p.ISN = d.Uint32(v)
		case ctaSynProxyITS:
			p.ITS = d.Uint32(v)
		case ctaSynProxyTSOff:
			p.TSOff = d.Uint32(v)
		}
	}
	return d.Err(ctaSynProxyNames)
}

func (p *SynProxy) marshal(e *nfnl.Encoder) {
	proxy := e.Nest(ctaSynProxy)
	e.Uint32(ctaSynProxyISN, p.ISN)
	e.Uint32(ctaSynProxyITS, p.ITS)
	e.Uint32(ctaSynProxyTSOff, p.TSOff)
	e.End(proxy)
}
