package conntrack

import (
	"net/netip"

	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/netfilter"
)

// A Flow is an entry of the connection tracking table.
//
// Fields that are zero are not sent to the kernel. What a Flow from this package
// points to is the caller's: it is shared with no other Flow and never
// overwritten.
type Flow struct {
	// ID is the kernel's number of the entry (CTA_ID). [Conn.Delete] removes no
	// entry with another one.
	//
	// It tells two entries that exist at the same time apart, and protects from
	// taking one for the other where zones let them have the same tuple. It hardly
	// tells an entry from a later one with the same tuples: the kernel computes it
	// from the tuples and the entry's place in memory, and a place that is free is
	// taken again at once. A flow that was deleted and began anew had the same ID
	// in 999 cases of 1000. Only Timestamp.Start, an [EventNew] or counters that
	// fall tell the two apart.
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
	// CTA_NAT_DST). TupleReply is then to be empty or TupleOrig.Reverse(): what the
	// replies are before that. It is for [Conn.Create] alone: the kernel does not
	// send it back, but shows what came of it in TupleReply and Status.
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

// unmarshal decodes the attributes in b into f, which must be zero.
func (f *Flow) unmarshal(b []byte, s *slab) error {
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
		case ctaUse:
			f.Use = d.Uint32(v)
		case ctaID:
			f.ID = d.Uint32(v)
		default:
			f.unmarshalOther(&d, typ, v, s)
		}
	}
	return d.Err(ctaNames)
}

// Counted reports whether the kernel counts f's packets and bytes. It is false
// for the flow of an [EventNew] or [EventUpdate], which carries no counters.
func (f Flow) Counted() bool {
	return f.CountedZero || f.CountersOrig.filled() || f.CountersReply.filled()
}

// unmarshalOther decodes an attribute that only some flows have.
func (f *Flow) unmarshalOther(d *nfnl.Decoder, typ uint16, v []byte, s *slab) {
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
	}
}

// marshalNew appends what a new flow has. The other methods append to the same
// message.
func (f *Flow) marshalNew(e *nfnl.Encoder) error {
	if orig, reply := f.TupleOrig.Zone, f.TupleReply.Zone; f.Zone != 0 && orig|reply != 0 || orig != 0 && reply != 0 {
		return ErrTwoZones
	}
	if f.NAT == nil && f.Status.Value&StatusNATMask == 0 {
		if err := f.marshalTuples(e, &f.TupleReply); err != nil {
			return err
		}
	} else if err := f.marshalTranslation(e); err != nil {
		return err
	}
	status := f.Status.Value
	if f.TupleMaster.filled() {
		f.TupleMaster.marshal(e, ctaTupleMaster)
		status &^= StatusExpected // the kernel sets it by itself, and refuses it
	}
	f.ProtoInfo.forNew().marshal(e)
	return f.marshal(e, status)
}

// marshalTuples appends f's tuples and zone, with another reply tuple.
func (f *Flow) marshalTuples(e *nfnl.Encoder, reply *Tuple) error {
	if !f.TupleOrig.filled() || !reply.filled() {
		return errNeedBothTuples
	}
	f.TupleOrig.marshal(e, ctaTupleOrig)
	reply.marshal(e, ctaTupleReply)
	f.marshalZone(e)
	return nil
}

// marshalUpdate appends what an update changes.
func (f *Flow) marshalUpdate(e *nfnl.Encoder, status StatusFlag) error {
	f.ProtoInfo.marshal(e)
	return f.marshal(e, status)
}

// changeStatus returns what marshalUpdate is to set where f, which was to be
// created, is there already: no flags that come from its creation, and nothing if
// there are no others.
func (f *Flow) changeStatus() StatusFlag {
	status := f.Status.Value &^ (StatusNATMask | StatusNATDoneMask)
	switch {
	case status&^(StatusConfirmed|StatusExpected) == 0:
		return 0
	case f.TupleMaster.filled():
		return status | StatusExpected
	}
	return status
}

func (f *Flow) marshalZone(e *nfnl.Encoder) {
	if f.Zone != 0 {
		e.Uint16(ctaZone, f.Zone)
	}
}

// marshal appends what both a new flow and an update may have, but for the tuples
// and the state of the protocol.
func (f *Flow) marshal(e *nfnl.Encoder, status StatusFlag) error {
	if err := f.checkLabels(); err != nil {
		return err
	}
	if f.Helper.Name == "" && f.Helper.filled() {
		return ErrNeedHelper
	}
	if status != 0 {
		e.Uint32(ctaStatus, uint32(status|StatusConfirmed)) // or the kernel answers EBUSY
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

// family returns the network family of f's tuples, or an error if they cannot
// be sent.
func (f *Flow) family() (netfilter.ProtoFamily, error) {
	if !f.TupleOrig.filled() && !f.TupleReply.filled() {
		return 0, ErrNeedTuples
	}
	return family(&f.TupleOrig, &f.TupleReply, &f.TupleMaster)
}
