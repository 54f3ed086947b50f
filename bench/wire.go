package main

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// These are IPCTNL_MSG_CT_... in linux/netfilter/nfnetlink_conntrack.h, with
// the subsystem in the upper byte.
const (
	msgNew = unix.NFNL_SUBSYS_CTNETLINK<<8 + iota
	msgGet
	msgDelete
)

// These are the attributes of that header that the requests use.
const (
	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaStatus     = 3
	ctaProtoInfo  = 4
	ctaNATSrc     = 6
	ctaTimeout    = 7
	ctaMark       = 8
	ctaFilter     = 25

	ctaFilterOrigFlags  = 1
	ctaFilterReplyFlags = 2
	filterIPSrc         = 1 << 0

	ctaTupleIP    = 1
	ctaTupleProto = 2

	ctaIPv4Src = 1
	ctaIPv4Dst = 2
	ctaIPv6Src = 3
	ctaIPv6Dst = 4

	ctaProtoNum      = 1
	ctaProtoSrcPort  = 2
	ctaProtoDstPort  = 3
	ctaProtoICMPID   = 4
	ctaProtoICMPType = 5
	ctaProtoICMPCode = 6
	ctaProtoICMPv6   = 3 // added to the numbers of ICMP

	ctaProtoInfoTCP      = 1
	ctaTCPState          = 1
	ctaTCPWScaleOriginal = 2
	ctaTCPWScaleReply    = 3
	ctaTCPFlagsOriginal  = 4
	ctaTCPFlagsReply     = 5

	ctaNATv4MinIP  = 1
	ctaNATv4MaxIP  = 2
	ctaNATProto    = 3
	ctaNATProtoMin = 1
	ctaNATProtoMax = 2
)

const (
	nlmsgHeaderLen = 16
	nlmsgDoneLen   = nlmsgHeaderLen + 4 // with the error number
)

// These are the values of a typical established TCP connection.
const (
	tcpEstablished = 3
	tcpWindowScale = 7
	tcpFlags       = 0x0303 // window scaling and SACK, in value and mask
)

// These are bits of enum ip_conntrack_status.
const (
	statusSeenReply = 1 << 1
	statusAssured   = 1 << 2
	statusConfirmed = 1 << 3
)

// status returns the CTA_STATUS of the flow.
func (f *flow) status() uint32 {
	if f.assured {
		return statusSeenReply | statusAssured | statusConfirmed
	}
	return statusSeenReply | statusConfirmed
}

// requests is a buffer of messages for the kernel. The floor sends them, so
// they have only what is necessary.
type requests struct {
	buf   []byte
	start int // of the last message
	count int
}

func (r *requests) reset() { *r = requests{buf: r.buf[:0]} }

// begin starts a message. Messages are numbered 1, 2, ... in the buffer.
func (r *requests) begin(typ, flags uint16, v6 bool) {
	r.start = len(r.buf)
	r.count++
	r.buf = append(r.buf, 0, 0, 0, 0)
	r.buf = binary.NativeEndian.AppendUint16(r.buf, typ)
	r.buf = binary.NativeEndian.AppendUint16(r.buf, flags|unix.NLM_F_REQUEST)
	r.buf = binary.NativeEndian.AppendUint32(r.buf, uint32(r.count))
	family := byte(unix.AF_INET)
	if v6 {
		family = unix.AF_INET6
	}
	r.buf = append(r.buf, 0, 0, 0, 0, family, 0, 0, 0)
}

func (r *requests) end() {
	binary.NativeEndian.PutUint32(r.buf[r.start:], uint32(len(r.buf)-r.start))
}

func (r *requests) attr(typ uint16, value ...byte) {
	r.buf = binary.NativeEndian.AppendUint16(r.buf, uint16(len(value)+4))
	r.buf = binary.NativeEndian.AppendUint16(r.buf, typ)
	r.buf = append(r.buf, value...)
	for len(r.buf)%4 != 0 {
		r.buf = append(r.buf, 0)
	}
}

func (r *requests) attr16(typ, value uint16) { r.attr(typ, byte(value>>8), byte(value)) }

func (r *requests) attr32(typ uint16, value uint32) {
	r.attr(typ, byte(value>>24), byte(value>>16), byte(value>>8), byte(value))
}

func (r *requests) addr4(typ uint16, value netip.Addr) {
	b := value.As4()
	r.attr(typ, b[:]...)
}

func (r *requests) addr6(typ uint16, value netip.Addr) {
	b := value.As16()
	r.attr(typ, b[:]...)
}

func (r *requests) nest(typ uint16, attrs func()) {
	start := len(r.buf)
	r.attr(typ | unix.NLA_F_NESTED)
	attrs()
	binary.NativeEndian.PutUint16(r.buf[start:], uint16(len(r.buf)-start))
}

func (r *requests) tuple(typ uint16, f *flow, source, destination netip.AddrPort, icmpType uint8) {
	r.nest(typ, func() {
		r.nest(ctaTupleIP, func() {
			if f.ipv6() {
				r.addr6(ctaIPv6Src, source.Addr())
				r.addr6(ctaIPv6Dst, destination.Addr())
			} else {
				r.addr4(ctaIPv4Src, source.Addr())
				r.addr4(ctaIPv4Dst, destination.Addr())
			}
		})
		r.nest(ctaTupleProto, func() {
			r.attr(ctaProtoNum, f.proto)
			if !f.icmp() {
				r.attr16(ctaProtoSrcPort, source.Port())
				r.attr16(ctaProtoDstPort, destination.Port())
				return
			}
			var v6 uint16
			if f.ipv6() {
				v6 = ctaProtoICMPv6
			}
			r.attr16(ctaProtoICMPID+v6, f.id)
			r.attr(ctaProtoICMPType+v6, icmpType)
			r.attr(ctaProtoICMPCode+v6, 0)
		})
	})
}

func (r *requests) original(f *flow) {
	t, _ := f.icmpTypes()
	r.tuple(ctaTupleOrig, f, f.source, f.destination, t)
}

// create appends the message that creates f. If nat is set, the kernel
// translates the source. Otherwise the entry only looks translated.
func (r *requests) create(f *flow, nat bool, flags uint16) {
	r.begin(msgNew, flags|unix.NLM_F_CREATE|unix.NLM_F_EXCL, f.ipv6())
	r.original(f)
	_, reply := f.icmpTypes()
	nat = nat && f.nat()
	if nat {
		r.tuple(ctaTupleReply, f, f.destination, f.source, reply)
	} else {
		r.tuple(ctaTupleReply, f, f.destination, f.translated, reply)
	}
	r.attr32(ctaStatus, f.status())
	if f.proto == unix.IPPROTO_TCP {
		r.nest(ctaProtoInfo, func() {
			r.nest(ctaProtoInfoTCP, func() {
				r.attr(ctaTCPState, tcpEstablished)
				r.attr(ctaTCPWScaleOriginal, tcpWindowScale)
				r.attr(ctaTCPWScaleReply, tcpWindowScale)
				r.attr16(ctaTCPFlagsOriginal, tcpFlags)
				r.attr16(ctaTCPFlagsReply, tcpFlags)
			})
		})
	}
	r.attr32(ctaTimeout, f.timeout)
	if f.mark != 0 {
		r.attr32(ctaMark, f.mark)
	}
	if nat {
		r.nest(ctaNATSrc, func() {
			r.addr4(ctaNATv4MinIP, f.translated.Addr())
			r.addr4(ctaNATv4MaxIP, f.translated.Addr())
			r.nest(ctaNATProto, func() {
				r.attr16(ctaNATProtoMin, f.translated.Port())
				r.attr16(ctaNATProtoMax, f.translated.Port())
			})
		})
	}
	r.end()
}

// updatedMark returns the mark that the update jobs set.
func (f *flow) updatedMark() uint32 { return f.mark | 0x100 }

func (r *requests) update(f *flow, flags uint16) {
	r.begin(msgNew, flags, f.ipv6())
	r.original(f)
	r.attr32(ctaTimeout, f.timeout)
	r.attr32(ctaMark, f.updatedMark())
	r.end()
}

func (r *requests) get(f *flow) {
	r.begin(msgGet, 0, f.ipv6())
	r.original(f)
	r.end()
}

// delete appends the message that deletes f. It has only one tuple, because the
// kernel uses only one.
func (r *requests) delete(f *flow, flags uint16) {
	r.begin(msgDelete, flags, f.ipv6())
	r.original(f)
	r.end()
}

// dump appends the request for all flows.
func (r *requests) dump() {
	r.begin(msgGet, unix.NLM_F_DUMP, false)
	r.buf[r.start+nlmsgHeaderLen] = unix.AF_UNSPEC
	r.end()
}

// flush appends the request to delete all flows.
func (r *requests) flush() {
	r.begin(msgDelete, unix.NLM_F_ACK, false)
	r.buf[r.start+nlmsgHeaderLen] = unix.AF_UNSPEC
	r.end()
}

// acknowledgeLast requests an acknowledgement of the last message, which ends
// the replies to a batch.
func (r *requests) acknowledgeLast() {
	flags := r.buf[r.start+6:]
	binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|unix.NLM_F_ACK)
}
