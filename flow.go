package conntrack

import (
	"cmp"
	"net/netip"

	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/netfilter"
)

// A Flow is an entry of the connection tracking table.
//
// Fields that are zero are not sent to the kernel. A Flow that this package
// returns, with all that it points to, is the caller's: it shares nothing with
// another Flow and is never overwritten.
type Flow struct {
	// ID is the kernel's number of the entry (CTA_ID). [Conn.Delete] with an ID
	// removes no entry with another one.
	//
	// IDs tell apart the entries that exist at the same time, for example two
	// in zones that let them have the same tuple. They hardly tell an entry
	// from a later one with the same tuples: the kernel computes the ID from
	// the tuples and the entry's place in memory, and it reuses a free place at
	// once. A flow that was deleted and created again had the same ID in 999 of
	// 1000 cases. Only Timestamp.Start, an [EventNew] or counters that fall
	// tell the two apart.
	ID uint32
	// Timeout is the number of seconds until the entry expires (CTA_TIMEOUT).
	Timeout   uint32
	Timestamp Timestamp

	Status    Status
	ProtoInfo ProtoInfo
	Helper    Helper

	// Zone is the zone of both directions (CTA_ZONE, Linux 2.6.34), or 0 for
	// the default zone. For a zone of one direction, see [Tuple].
	Zone uint16

	// CountedZero is set if the kernel counts the flow's packets and both
	// counters are still zero. If it is not set and both are zero, the kernel
	// does not count them. It cannot be set in the kernel.
	CountedZero bool

	CountersOrig, CountersReply Counter

	SecurityContext Security

	// TupleOrig is the direction of the flow's first packet and TupleReply the
	// other direction (CTA_TUPLE_ORIG, CTA_TUPLE_REPLY). Each shows the packets
	// as they arrive, before NAT, so with NAT TupleReply is not the reverse of
	// TupleOrig. TupleMaster is the original direction of the flow whose helper
	// expected this one (CTA_TUPLE_MASTER).
	TupleOrig, TupleReply, TupleMaster Tuple

	SeqAdjOrig, SeqAdjReply SequenceAdjust

	// Labels are a bit set of up to 16 bytes (CTA_LABELS, Linux 3.9), laid out
	// as in the kernel: 32-bit words in the machine's byte order.
	// [Flow.SetLabel] and [Flow.ClearLabel] change single bits. The kernel
	// sends no Labels if none is set, and never LabelsMask.
	//
	// LabelsMask says which bits [Conn.Update] changes (CTA_LABELS_MASK); if it
	// is empty, all of them. Labels of 16 zero bytes clear all.
	//
	// A flow has room for labels only if a rule of the network namespace used
	// labels when the flow began. Setting labels of another flow is an error
	// that satisfies errors.Is(err, unix.ENOSPC).
	Labels, LabelsMask []byte

	// Mark is the flow's mark (CTA_MARK), and Use the kernel's reference count
	// of the entry (CTA_USE), which cannot be set.
	Mark, Use uint32

	SynProxy SynProxy

	// MarkMask says which bits of the mark [Conn.Update] replaces by those of
	// Mark (CTA_MARK_MASK, Linux 4.0); the others stay. If MarkMask is 0, a
	// Mark other than 0 replaces the mark, and a Mark of 0 leaves it as it is:
	// to set the mark to 0, set MarkMask to ^uint32(0). The kernel never sends
	// MarkMask.
	MarkMask uint32

	// NAT, if not nil, says how [Conn.Create] translates the new flow
	// (CTA_NAT_SRC, CTA_NAT_DST). TupleReply must then be empty or
	// TupleOrig.Reverse(), the replies without NAT. The kernel never sends NAT:
	// TupleReply and Status show the result.
	NAT *NAT
}

// NewFlow returns a [Flow] from srcAddr and srcPort to destAddr and destPort
// without NAT: its replies take the same way back. The timeout is in seconds.
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
		// Only what most flows have: with all attributes, the loop would be too
		// long for the compiler to inline.
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

// marshalNew appends the attributes of a new flow. The methods below append to
// the same message.
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
		status &^= StatusExpected // the kernel refuses it, and sets it by itself
	}
	f.ProtoInfo.forNew().marshal(e)
	return f.marshal(e, status, f.Helper.forNew())
}

// marshalTuples appends f's original tuple, reply as its reply tuple, and its
// zone.
func (f *Flow) marshalTuples(e *nfnl.Encoder, reply *Tuple) error {
	if !f.TupleOrig.filled() || !reply.filled() {
		return errNeedBothTuples
	}
	f.TupleOrig.marshal(e, ctaTupleOrig)
	reply.marshal(e, ctaTupleReply)
	f.marshalZone(e)
	return nil
}

// marshalUpdate appends the attributes that an update changes.
func (f *Flow) marshalUpdate(e *nfnl.Encoder, status StatusFlag) error {
	f.ProtoInfo.marshal(e)
	return f.marshal(e, status, f.Helper)
}

// changeStatus returns the status to set if f was to be created and exists
// already: without the flags that come from its creation, or 0 if f has no
// others.
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

// marshal appends the attributes that both a new flow and an update may have,
// except tuples, zone and protocol state.
func (f *Flow) marshal(e *nfnl.Encoder, status StatusFlag, helper Helper) error {
	if err := cmp.Or(f.checkLabels(), f.Helper.check()); err != nil {
		return err
	}
	if status != 0 {
		e.Uint32(ctaStatus, uint32(status|StatusConfirmed)) // without it: EBUSY
	}
	if helper.filled() {
		helper.marshal(e)
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

// checkLabels returns an error if the kernel would refuse f's labels as
// malformed, or would ignore them.
func (f *Flow) checkLabels() error {
	n, mask := len(f.Labels), len(f.LabelsMask)
	if n%4 != 0 || mask != 0 && mask != n {
		return ErrBadLabels
	}
	return nil
}

// labelled reports whether f, as a new flow, gets labels.
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

// family returns the address family of f's tuples, or an error if they cannot
// be sent.
func (f *Flow) family() (netfilter.ProtoFamily, error) {
	if !f.TupleOrig.filled() && !f.TupleReply.filled() {
		return 0, ErrNeedTuples
	}
	return family(&f.TupleOrig, &f.TupleReply, &f.TupleMaster)
}
