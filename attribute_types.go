package conntrack

import (
	"fmt"
	"time"

	"github.com/ti-mo/conntrack/internal/nfnl"
)

// A Helper is the helper of a flow (CTA_HELP): code of the kernel, or a
// program, that follows a protocol which opens further connections. It is zero
// for a flow without one.
type Helper struct {
	// Name is the kernel's name of the helper, such as ftp (CTA_HELP_NAME).
	Name string
	// Info is private data of a helper in user space, at most 32 bytes
	// (CTA_HELP_INFO, Linux 3.5). Helpers in the kernel have none.
	Info []byte
}

// NoHelper is a Helper.Name with which [Conn.Update] removes a flow's helper,
// and its expectations. Kernels from about 7.2 on refuse that: a flow then
// keeps its helper until it is deleted.
const NoHelper = "\x00"

// ProtoInfo is the protocol's own state of a flow (CTA_PROTOINFO). At most one
// of its fields is not nil; all are nil for protocols without a state, such as
// UDP.
type ProtoInfo struct {
	TCP  *ProtoInfoTCP
	DCCP *ProtoInfoDCCP
	SCTP *ProtoInfoSCTP
}

// ProtoInfoTCP is the state of a TCP connection (CTA_PROTOINFO_TCP).
type ProtoInfoTCP struct {
	// State is the connection's state, a [TCPState] (enum tcp_conntrack).
	State uint8
	// The window scale of each direction (RFC 7323), as an exponent of two. Set
	// both or neither. A scale takes effect only with [TCPFlagWindowScale] in
	// the flags of its direction.
	OriginalWindowScale uint8
	ReplyWindowScale    uint8
	// The flags of each direction, such as [TCPFlagWindowScale], in the upper
	// byte, and in the lower byte a mask of the flags to set (struct
	// nf_ct_tcp_flags): see [TCPFlags]. The kernel sends a mask of 0. With it,
	// [Conn.Update] changes no flag, while [Conn.Create] sets all flags to
	// those given.
	OriginalFlags uint16
	ReplyFlags    uint16
}

// ProtoInfoDCCP is the state of a DCCP connection (CTA_PROTOINFO_DCCP). Linux
// 6.17 and later do not track DCCP.
type ProtoInfoDCCP struct {
	// State is the connection's state (enum ct_dccp_states), and Role the role
	// of the source of the original direction (enum ct_dccp_roles).
	State, Role  uint8
	HandshakeSeq uint64
}

// ProtoInfoSCTP is the state of an SCTP association (CTA_PROTOINFO_SCTP).
type ProtoInfoSCTP struct {
	// State is the association's state, an [SCTPState] (enum sctp_conntrack).
	State                   uint8
	VTagOriginal, VTagReply uint32
}

// A Counter counts the packets of one direction of a flow (CTA_COUNTERS_ORIG,
// CTA_COUNTERS_REPLY). The kernel counts only if the sysctl
// net.netfilter.nf_conntrack_acct was set when the flow began: see
// [Flow.Counted].
type Counter struct {
	// Direction is true for the reply direction.
	Direction bool

	Packets uint64
	// Bytes counts from the IP header on.
	Bytes uint64
}

// A Timestamp says when a flow began and ended (CTA_TIMESTAMP, Linux 2.6.38).
// The kernel keeps it only if the sysctl net.netfilter.nf_conntrack_timestamp
// was set when the flow began; a time that it did not give is the zero Time.
// Only the flow of an [EventDestroy] has a Stop. For a flow that timed out, the
// kernel subtracts how late it was reaped, some milliseconds, so Stop may
// precede Start.
type Timestamp struct {
	Start time.Time
	Stop  time.Time
}

// Security is the security context of a flow's packets, as SELinux or another
// security module names it (CTA_SECCTX, Linux 2.6.37). It cannot be set.
type Security string

// SequenceAdjust says by how much the TCP sequence numbers of one direction are
// shifted because a helper changed the length of the data (CTA_SEQ_ADJ_ORIG,
// CTA_SEQ_ADJ_REPLY, Linux 2.6.24).
type SequenceAdjust struct {
	// Direction is true for the reply direction.
	Direction bool

	// Position is the sequence number of the last change.
	Position uint32
	// The shift before Position and from Position on, in two's complement.
	OffsetBefore uint32
	OffsetAfter  uint32
}

// SynProxy is what a SYN proxy remembers of a connection that it answered
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

// check returns an error if the kernel would refuse h, or cut it short without a
// word.
func (h *Helper) check() error {
	const maxInfo = 32 // in struct nf_conn_help
	switch n := len(h.Info); {
	case n > 0 && h.Name == "":
		return ErrNeedHelper
	case n > maxInfo:
		return fmt.Errorf("Helper.Info has %d bytes, the kernel keeps %d", n, maxInfo)
	}
	return nil
}

// forNew returns what a new flow is made with. The kernel has no use for Info then:
// it drops it, and Linux 5.10 crashes if the helper is one in user space.
func (h *Helper) forNew() Helper { return Helper{Name: h.Name} }

func (h *Helper) marshal(e *nfnl.Encoder) {
	name := h.Name
	if name == NoHelper {
		name = "" // which the kernel takes for none
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

// forNew returns p for a new flow. TCP flags from the kernel have no mask: all
// of them are to be set.
func (p ProtoInfo) forNew() ProtoInfo {
	if p.TCP != nil {
		tcp := *p.TCP
		tcp.OriginalFlags = withMask(tcp.OriginalFlags)
		tcp.ReplyFlags = withMask(tcp.ReplyFlags)
		p.TCP = &tcp
	}
	return p
}

// withMask returns TCP flags with a mask of all flags, if they have no mask.
func withMask(flags uint16) uint16 {
	if flags != 0 && uint8(flags) == 0 {
		flags |= 0xff
	}
	return flags
}

// marshal appends p unless it is empty.
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
