package conntrack

import (
	"net/netip"
	"time"

	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/netfilter"
)

// A Flow is an entry of the connection tracking table.
//
// Fields that are zero are not sent to the kernel. What a Flow from this package
// points to is the caller's: it is shared with no other Flow and never
// overwritten.
type Flow struct {
	// ID tells this entry from a later one with the same tuples (CTA_ID), unless
	// that one was put in the same place of the kernel's memory: the kernel
	// computes it from both. Delete removes no entry with another one.
	ID uint32
	// Timeout is the number of seconds until the entry expires (CTA_TIMEOUT).
	Timeout   uint32
	Timestamp Timestamp

	Status    Status
	ProtoInfo ProtoInfo
	Helper    Helper

	// Zone is the zone that holds for both directions (CTA_ZONE, Linux 2.6.34), 0
	// for the default zone.
	Zone uint16

	// CountedZero is set if the kernel counts the flow's packets and both
	// counters are still zero. Without it they are zero since it does not count
	// them. It cannot be set in the kernel.
	CountedZero bool

	CountersOrig, CountersReply Counter

	SecurityContext Security

	// TupleOrig is the direction of the first packet and TupleReply the other
	// one, as the packets of each come in: with NAT the one is not the
	// other turned round. TupleMaster is the original direction of the flow
	// that a helper expected this one for.
	TupleOrig, TupleReply, TupleMaster Tuple

	SeqAdjOrig, SeqAdjReply SequenceAdjust

	// Labels are a bit set of up to 16 bytes (CTA_LABELS, Linux 3.9), as the kernel
	// lays it out: 32-bit words in the machine's byte order. In an Update,
	// LabelsMask says which bits are to be changed (CTA_LABELS_MASK); without it
	// all are. Labels of 16 zero bytes clear them all. The kernel does not send
	// the mask, and sends no Labels where none is set.
	//
	// A flow has room for labels only if a rule of the network namespace used
	// labels when it began. Without, the error satisfies errors.Is(err,
	// unix.ENOSPC).
	Labels, LabelsMask []byte

	// Mark is the flow's mark (CTA_MARK), and Use the kernel's reference count
	// of the entry (CTA_USE).
	Mark, Use uint32

	SynProxy SynProxy

	// MarkMask says which bits of the mark an Update sets to those of Mark, also to
	// zero; the others stay (CTA_MARK_MASK, Linux 4.0). With 0xffffffff and a
	// Mark of 0 the mark becomes 0. If MarkMask is 0, a Mark of 0 leaves the mark
	// as it is, and another one replaces it. The kernel does not send MarkMask.
	MarkMask uint32

	// NAT, if not nil, says what a new flow is translated into (CTA_NAT_SRC,
	// CTA_NAT_DST). TupleReply is then to be empty or TupleOrig.Reverse(): what
	// the replies are before that. It is for Create alone: the kernel does not
	// send it, but has what came of it in TupleReply and Status.
	NAT *NAT
}

// NewFlow returns a Flow from srcAddr and srcPort to destAddr and destPort whose
// replies come the same way back: without NAT. The timeout is in seconds.
func NewFlow(proto uint8, status StatusFlag, srcAddr, destAddr netip.Addr,
	srcPort, destPort uint16, timeout, mark uint32,
) Flow {
	return Flow{
		Status:  Status{Value: status},
		Timeout: timeout,
		Mark:    mark,
		TupleOrig: Tuple{
			IP:    IPTuple{SourceAddress: srcAddr, DestinationAddress: destAddr},
			Proto: ProtoTuple{Protocol: proto, SourcePort: srcPort, DestinationPort: destPort},
		},
		TupleReply: Tuple{
			IP:    IPTuple{SourceAddress: destAddr, DestinationAddress: srcAddr},
			Proto: ProtoTuple{Protocol: proto, SourcePort: destPort, DestinationPort: srcPort},
		},
	}
}

// unmarshal decodes the attributes in b into f, which must be zero, and what is
// of the event that they belong to into ev, which is nil if they belong to none.
func (f *Flow) unmarshal(b []byte, s *slab, ev *Event) error {
	var d nfnl.Decoder
	for typ, v := range d.Attributes(b) {
		// What most flows have. With the others the loop would be too long for
		// the compiler to inline.
		switch typ {
		case ctaTupleOrig:
			d.Fail(f.TupleOrig.unmarshal(v))
		case ctaTupleReply:
			d.Fail(f.TupleReply.unmarshal(v))
		case ctaStatus:
			f.Status.Value = StatusFlag(d.Uint32(v))
		case ctaProtoInfo:
			d.Fail(f.ProtoInfo.unmarshal(v, s))
		case ctaTimeout:
			f.Timeout = d.Uint32(v)
		case ctaMark:
			f.Mark = d.Uint32(v)
			if ev != nil {
				ev.ZeroMark = f.Mark == 0
			}
		case ctaUse:
			f.Use = d.Uint32(v)
		case ctaID:
			f.ID = d.Uint32(v)
		default:
			f.unmarshalOther(&d, typ, v, s, ev)
		}
	}
	return d.Err(ctaNames)
}

// Counted reports whether the kernel counts f's packets and bytes: in Counters,
// or by CountedZero.
func (f *Flow) Counted() bool {
	return f.CountedZero || f.CountersOrig.filled() || f.CountersReply.filled()
}

// unmarshalOther decodes an attribute that only some flows have.
func (f *Flow) unmarshalOther(d *nfnl.Decoder, typ uint16, v []byte, s *slab, ev *Event) {
	switch typ {
	case ctaCountersOrig:
		d.Fail(f.CountersOrig.unmarshal(v))
		f.CountedZero = !f.CountersOrig.filled()
	case ctaCountersReply:
		f.CountersReply.Direction = true
		d.Fail(f.CountersReply.unmarshal(v))
		f.CountedZero = f.CountedZero && !f.CountersReply.filled()
	case ctaTupleMaster:
		d.Fail(f.TupleMaster.unmarshal(v))
	case ctaHelp:
		d.Fail(f.Helper.unmarshal(v, s))
	case ctaSeqAdjOrig:
		d.Fail(f.SeqAdjOrig.unmarshal(v))
	case ctaSeqAdjReply:
		f.SeqAdjReply.Direction = true
		d.Fail(f.SeqAdjReply.unmarshal(v))
	case ctaZone:
		f.Zone = d.Uint16(v)
	case ctaSecCtx:
		d.Fail(f.SecurityContext.unmarshal(v, s))
	case ctaTimestamp:
		d.Fail(f.Timestamp.unmarshal(v))
	case ctaLabels:
		f.Labels = s.copy(v)
	case ctaLabelsMask:
		f.LabelsMask = s.copy(v)
	case ctaSynProxy:
		d.Fail(f.SynProxy.unmarshal(v))
	case ctaMarkMask:
		f.MarkMask = d.Uint32(v)
	case ctaNATSrc:
		d.Fail(f.newNAT().Source.unmarshal(v))
	case ctaNATDst:
		d.Fail(f.newNAT().Destination.unmarshal(v))
	case ctaTimestampEvent:
		if ev != nil {
			ev.Time = time.Unix(0, int64(d.Uint64(v)))
		}
	}
}

// marshalNew appends what a new flow has. The other methods append to the same
// message.
func (f *Flow) marshalNew(e *nfnl.Encoder, family netfilter.ProtoFamily) error {
	if orig, reply := f.TupleOrig.Zone, f.TupleReply.Zone; f.Zone != 0 && orig|reply != 0 || orig != 0 && reply != 0 {
		return ErrTwoZones
	}
	if f.NAT == nil && f.Status.Value&StatusNATMask == 0 {
		f.marshalTuples(e, &f.TupleReply)
	} else if err := f.marshalTranslation(e, family); err != nil {
		return err
	}
	if f.TupleMaster.filled() {
		f.TupleMaster.marshal(e, ctaTupleMaster)
	}
	// A flow that came from the kernel has its TCP flags without a mask.
	return f.marshal(e, 0xff)
}

// marshalUpdate appends what an update changes.
func (f *Flow) marshalUpdate(e *nfnl.Encoder) error {
	f.marshalTuples(e, &f.TupleReply)
	return f.marshal(e, 0)
}

// marshalTuples appends f's tuples and zone, with another reply tuple.
func (f *Flow) marshalTuples(e *nfnl.Encoder, reply *Tuple) {
	if f.TupleOrig.filled() {
		f.TupleOrig.marshal(e, ctaTupleOrig)
	}
	if reply.filled() {
		reply.marshal(e, ctaTupleReply)
	}
	if f.Zone != 0 {
		e.Uint16(ctaZone, f.Zone)
	}
}

// marshal appends what both a new flow and an update may have, but for the
// tuples. TCP flags without a mask get tcpMask.
//
// A status without StatusConfirmed gives EBUSY. So does one with StatusExpected
// in a Create with a master, which sets that flag by itself.
func (f *Flow) marshal(e *nfnl.Encoder, tcpMask uint8) error {
	if err := f.checkLabels(); err != nil {
		return err
	}
	if f.Helper.Name == "" && f.Helper.filled() {
		return ErrNeedHelper
	}
	if status := f.Status.Value; status != 0 {
		if f.TupleMaster.filled() {
			status &^= StatusExpected
		}
		e.Uint32(ctaStatus, uint32(status|StatusConfirmed))
	}
	if f.ProtoInfo.filled() {
		f.ProtoInfo.marshal(e, tcpMask)
	}
	if f.Helper.filled() {
		f.Helper.marshal(e)
	}
	if f.Timeout != 0 {
		e.Uint32(ctaTimeout, f.Timeout)
	}
	switch {
	case f.MarkMask != 0:
		// Kernels differ in what they do with bits outside the mask.
		e.Uint32(ctaMark, f.Mark&f.MarkMask)
		e.Uint32(ctaMarkMask, f.MarkMask)
	case f.Mark != 0:
		e.Uint32(ctaMark, f.Mark)
	}
	if f.SeqAdjOrig.filled() {
		f.SeqAdjOrig.marshal(e, ctaSeqAdjOrig)
	}
	if f.SeqAdjReply.filled() {
		f.SeqAdjReply.marshal(e, ctaSeqAdjReply)
	}
	if len(f.Labels) > 0 {
		e.Bytes(ctaLabels, f.Labels)
	}
	if len(f.LabelsMask) > 0 {
		e.Bytes(ctaLabelsMask, f.LabelsMask)
	}
	if f.SynProxy != (SynProxy{}) {
		f.SynProxy.marshal(e)
	}
	return nil
}

// checkLabels returns an error if the kernel would take f's labels for
// malformed, or would leave them out without a word.
func (f *Flow) checkLabels() error {
	n, mask := len(f.Labels), len(f.LabelsMask)
	if n%4 != 0 || mask != 0 && mask != n {
		return ErrBadLabels
	}
	return nil
}

// labelled reports whether a new flow will have labels.
func (f *Flow) labelled() bool {
	for i, b := range f.Labels {
		if len(f.LabelsMask) > 0 {
			b &= f.LabelsMask[i]
		}
		if b != 0 {
			return true
		}
	}
	return false
}

// marshalKey appends what the kernel finds an entry by: one tuple, the original
// one if there are both.
func (f *Flow) marshalKey(e *nfnl.Encoder) {
	if f.TupleOrig.filled() {
		f.TupleOrig.marshal(e, ctaTupleOrig)
	} else {
		f.TupleReply.marshal(e, ctaTupleReply)
	}
	if f.Zone != 0 {
		e.Uint16(ctaZone, f.Zone)
	}
}

// unusedZone is a zone that no flow is taken to be in.
const unusedZone = 0xfffe

// marshalKeyInOneDirection appends what the kernel finds an entry by where it
// found another one by marshalKey.
//
// The kernel looks a tuple up among those of both directions. A zone that holds
// for one direction leaves the other one to the default zone. So where zones
// differ by direction, the original tuple may be the reply tuple of another flow
// that is in the default zone in that direction. If the original direction is in
// the default zone, a zone for the other direction that nobody is in leaves the
// original tuple alone to be found; and the other way round. If both are in the
// same zone, the zone for one direction excludes what the zone for both found.
func (f *Flow) marshalKeyInOneDirection(e *nfnl.Encoder) {
	orig, reply := f.TupleOrig, f.TupleReply
	switch uint16(0) {
	case f.Zone | orig.Zone:
		orig.Zone = unusedZone
		orig.marshal(e, ctaTupleReply)
	case f.Zone | reply.Zone:
		reply.Zone = unusedZone
		reply.marshal(e, ctaTupleOrig)
	default:
		orig.Zone = f.Zone
		orig.marshal(e, ctaTupleOrig)
	}
}

// family returns the network family of f's tuples, or an error if they cannot
// be sent.
func (f *Flow) family() (netfilter.ProtoFamily, error) {
	if !f.TupleOrig.filled() && !f.TupleReply.filled() {
		return 0, ErrNeedTuples
	}
	return family(&f.TupleOrig, &f.TupleReply, &f.TupleMaster)
}
