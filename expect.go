package conntrack

import "github.com/ti-mo/conntrack/netfilter"

// An Expect is an entry of the expectation table: a connection that a helper, or
// a program like yours, waits for in connection with a flow that is there, its
// master. A packet that matches it begins a flow with StatusExpected and with
// TupleMaster set.
type Expect struct {
	// ID tells this entry from others (CTA_EXPECT_ID). The kernel chooses it.
	// Timeout is the number of seconds until the entry expires
	// (CTA_EXPECT_TIMEOUT). For a new entry the kernel takes it from the helper's
	// policy for Class.
	ID, Timeout uint32

	// TupleMaster is the original direction of the master, Tuple the direction
	// of the first packet to come. Only those bits of Tuple that Mask has set
	// are compared, of the source; the kernel compares all of the destination. A
	// Mask without protocol takes that of Tuple.
	TupleMaster, Tuple, Mask Tuple

	// Zone is the zone of the master, for CreateExpect. The kernel does not send
	// it.
	Zone uint16

	// HelpName is the master's helper; the kernel ignores it in CreateExpect.
	// Function is the kernel's function that is called for the expected flow's
	// first packet (CTA_EXPECT_FN), such as nat-follow-master.
	HelpName, Function string

	// Flags are those of linux/netfilter/nf_conntrack_common.h: 1 permanent
	// (NF_CT_EXPECT_PERMANENT), 2 inactive (NF_CT_EXPECT_INACTIVE), 4 of user
	// space (NF_CT_EXPECT_USERSPACE, which cannot be set). Class is the number of the helper's
	// policy, which limits how many expectations a master has and for how long.
	Flags, Class uint32

	NAT ExpectNAT
}

// ExpectNAT says how the expected flow is translated (CTA_EXPECT_NAT).
type ExpectNAT struct {
	// Direction is true if the expected flow goes in the master's reply
	// direction.
	Direction bool
	Tuple     Tuple
}

// unmarshal decodes the attributes in b into ex, which must be zero.
func (ex *Expect) unmarshal(b []byte, s *slab) error {
	var d netfilter.Decoder
	for typ, v := range d.Attributes(b) {
		switch typ {
		case ctaExpectMaster:
			d.Fail(ex.TupleMaster.unmarshal(v))
		case ctaExpectTuple:
			d.Fail(ex.Tuple.unmarshal(v))
		case ctaExpectMask:
			d.Fail(ex.Mask.unmarshal(v))
		case ctaExpectTimeout:
			ex.Timeout = d.Uint32(v)
		case ctaExpectID:
			ex.ID = d.Uint32(v)
		case ctaExpectHelpName:
			ex.HelpName = s.str(netfilter.TrimNUL(v))
		case ctaExpectZone:
			ex.Zone = d.Uint16(v)
		case ctaExpectFlags:
			ex.Flags = d.Uint32(v)
		case ctaExpectClass:
			ex.Class = d.Uint32(v)
		case ctaExpectNAT:
			d.Fail(ex.NAT.unmarshal(v))
		case ctaExpectFN:
			ex.Function = s.str(netfilter.TrimNUL(v))
		}
	}
	return d.Err(ctaExpectNames)
}

func (ex *Expect) marshal(e *netfilter.Encoder) {
	ex.TupleMaster.marshal(e, ctaExpectMaster)
	ex.Tuple.marshal(e, ctaExpectTuple)
	mask := ex.Mask
	if mask.Proto.Protocol == 0 {
		// The kernel would take the ports of a mask without protocol for absent.
		mask.Proto.Protocol = ex.Tuple.Proto.Protocol
	}
	mask.marshal(e, ctaExpectMask)
	if ex.Timeout != 0 {
		e.Uint32(ctaExpectTimeout, ex.Timeout)
	}
	if ex.HelpName != "" {
		e.String(ctaExpectHelpName, ex.HelpName)
	}
	if ex.Zone != 0 {
		e.Uint16(ctaExpectZone, ex.Zone)
	}
	if ex.Flags != 0 {
		e.Uint32(ctaExpectFlags, ex.Flags)
	}
	if ex.Class != 0 {
		e.Uint32(ctaExpectClass, ex.Class)
	}
	if ex.NAT.Tuple.filled() {
		ex.NAT.marshal(e)
	}
	if ex.Function != "" {
		e.String(ctaExpectFN, ex.Function)
	}
}

// family returns the network family of ex's tuples, or an error if they cannot
// be sent.
func (ex *Expect) family() (netfilter.ProtoFamily, error) {
	if !ex.TupleMaster.filled() || !ex.Tuple.filled() || !ex.Mask.filled() {
		return 0, ErrExpectNeedTuples
	}
	return family(&ex.TupleMaster, &ex.Tuple, &ex.Mask, &ex.NAT.Tuple)
}

func (n *ExpectNAT) unmarshal(b []byte) error {
	var d netfilter.Decoder
	for typ, v := range d.Attributes(b) {
		switch typ {
		case ctaExpectNATDir:
			n.Direction = d.Uint32(v) != 0
		case ctaExpectNATTuple:
			d.Fail(n.Tuple.unmarshal(v))
		}
	}
	return d.Err(ctaExpectNATNames)
}

func (n *ExpectNAT) marshal(e *netfilter.Encoder) {
	nat := e.Nest(ctaExpectNAT)
	var direction uint32
	if n.Direction {
		direction = 1
	}
	e.Uint32(ctaExpectNATDir, direction)
	n.Tuple.marshal(e, ctaExpectNATTuple)
	e.End(nat)
}
