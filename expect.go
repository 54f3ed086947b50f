package conntrack

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"iter"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/netfilter"
)

// An Expect is an entry of the expectation table: a connection that a helper, or
// a program like yours, waits for in connection with a flow that is there, its
// master. A packet that matches it begins a flow with StatusExpected and with
// TupleMaster set.
type Expect struct {
	// ID tells this entry from others (CTA_EXPECT_ID). The kernel chooses it.
	// Timeout is the number of seconds until the entry expires, 24 days at most
	// (CTA_EXPECT_TIMEOUT). If it is 0 for a new entry, the kernel takes it from
	// the helper's policy for Class.
	ID, Timeout uint32

	// TupleMaster is the original direction of the master, Tuple the direction
	// of the first packet to come. Only those bits of Tuple that Mask has set
	// are compared, of the source; the kernel compares all of the destination. A
	// Mask without protocol takes that of Tuple.
	TupleMaster, Tuple, Mask Tuple

	// Zone is the zone of the master (CTA_EXPECT_ZONE, Linux 2.6.34). The kernel
	// does not send it: what GetExpect and ExpectsOf return has the zone that was
	// asked for, what DumpExpect and events have none, and DeleteExpect needs it.
	// A master that has its zone for one direction alone is found by the Zone of
	// TupleMaster too.
	Zone uint16

	// HelpName is the master's helper; kernels ignore it in CreateExpect (seen
	// from 6.1 to 6.18).
	// Function is the kernel's function that is called for the expected flow's
	// first packet (CTA_EXPECT_FN, Linux 3.4), such as nat-follow-master.
	HelpName, Function string

	// Flags are ExpectPermanent and the like. Class is the number of the helper's
	// policy (Linux 3.4), which limits how many expectations a master has and for
	// how long: one too many takes the place of the oldest.
	Flags, Class uint32

	NAT ExpectNAT
}

// ExpectNAT says how the expected flow is translated (CTA_EXPECT_NAT, Linux 3.4).
type ExpectNAT struct {
	// Direction is true if the expected flow goes in the master's reply
	// direction.
	Direction bool
	Tuple     Tuple
}

// unmarshal decodes the attributes in b into ex, which must be zero.
func (ex *Expect) unmarshal(b []byte, s *slab) error {
	var d nfnl.Decoder
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
			ex.HelpName = s.str(nfnl.TrimNUL(v))
		case ctaExpectZone:
			ex.Zone = d.Uint16(v)
		case ctaExpectFlags:
			ex.Flags = d.Uint32(v)
		case ctaExpectClass:
			ex.Class = d.Uint32(v)
		case ctaExpectNAT:
			d.Fail(ex.NAT.unmarshal(v))
		case ctaExpectFN:
			ex.Function = s.str(nfnl.TrimNUL(v))
		}
	}
	return d.Err(ctaExpectNames)
}

func (ex *Expect) marshal(e *nfnl.Encoder) {
	ex.TupleMaster.marshalUnzoned(e, ctaExpectMaster)
	ex.Tuple.marshalUnzoned(e, ctaExpectTuple)
	mask := ex.Mask
	if mask.Proto.Protocol == 0 {
		// The kernel would take the ports of a mask without protocol for absent.
		mask.Proto.Protocol = ex.Tuple.Proto.Protocol
	}
	mask.marshalUnzoned(e, ctaExpectMask)
	if ex.Timeout != 0 {
		e.Uint32(ctaExpectTimeout, ex.Timeout)
	}
	if ex.HelpName != "" {
		e.String(ctaExpectHelpName, ex.HelpName)
	}
	ex.marshalZone(e)
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

// marshalZone appends the zone of the master.
func (ex *Expect) marshalZone(e *nfnl.Encoder) {
	if zone := cmp.Or(ex.Zone, ex.TupleMaster.Zone); zone != 0 {
		e.Uint16(ctaExpectZone, zone)
	}
}

// marshalUnzoned appends t without its zone, which the kernel refuses in an
// expectation.
func (t *Tuple) marshalUnzoned(e *nfnl.Encoder, typ uint16) { t.marshalIn(e, typ, 0) }

// maxExpectTimeout is 24 days. The kernel multiplies seconds by the frequency of
// its timer, in 32 bits: with 1000 Hz, what has more than 24.8 days ends at once.
const maxExpectTimeout = 24 * 24 * 3600

// family returns the network family of ex's tuples, or an error if they cannot
// be sent.
func (ex *Expect) family() (netfilter.ProtoFamily, error) {
	if !ex.TupleMaster.filled() || !ex.Tuple.filled() || !ex.Mask.IP.filled() {
		return 0, ErrExpectNeedTuples
	}
	return family(&ex.TupleMaster, &ex.Tuple, &ex.Mask, &ex.NAT.Tuple)
}

func (n *ExpectNAT) unmarshal(b []byte) error {
	var d nfnl.Decoder
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

func (n *ExpectNAT) marshal(e *nfnl.Encoder) {
	nat := e.Nest(ctaExpectNAT)
	var direction uint32
	if n.Direction {
		direction = 1
	}
	e.Uint32(ctaExpectNATDir, direction)
	n.Tuple.marshal(e, ctaExpectNATTuple)
	e.End(nat)
}

// CreateExpect adds an expectation. Its master must be in the table and be
// under the care of a helper.
//
// The kernel gives a new expectation the timeout of its helper's policy: another
// one is set by a second request.
func (c *Conn) CreateExpect(ex Expect) error {
	return c.expectError("create expectation", &ex, func(r *request) error {
		err := c.putExpect(r, &ex, netlink.Create|netlink.Excl)
		if err != nil || ex.Timeout == 0 {
			return err
		}
		r.enc.Reset()
		err = c.putExpect(r, &ex, 0)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was fulfilled in between
		}
		return err
	})
}

// UpdateExpect gives the expectation with ex's Tuple, and its master's Zone, the
// Timeout of ex: there is nothing else that the kernel changes. It wants Mask and
// TupleMaster too, and does not look at what they are. If there is none, the error
// satisfies errors.Is(err, unix.ENOENT).
func (c *Conn) UpdateExpect(ex Expect) error {
	return c.expectError("update expectation", &ex, func(r *request) error {
		if ex.Timeout == 0 {
			return ErrExpectTimeout
		}
		return c.putExpect(r, &ex, 0)
	})
}

func (c *Conn) putExpect(r *request, ex *Expect, flags netlink.HeaderFlags) error {
	if ex.Timeout > maxExpectTimeout {
		return ErrExpectTimeout
	}
	family, err := ex.family()
	if err != nil {
		return err
	}
	r.expectMessage(expNew, netlink.Acknowledge|flags, family)
	ex.marshal(&r.enc)
	return c.sockets.request.Do(&r.enc, nil)
}

// GetExpect returns the expectation that expects the Tuple of ex, in its Zone:
// that of its master. A packet with that tuple would fulfil it, so the parts of
// it that the Mask leaves out do not matter. If ex.ID is not 0, the entry must
// have that ID. If there is none, the error satisfies errors.Is(err,
// unix.ENOENT).
func (c *Conn) GetExpect(ex Expect) (Expect, error) {
	var got Expect
	err := c.expectError("get expectation", &ex, func(r *request) error {
		// Without NLM_F_ACK the reply is all that comes.
		if err := r.expectKey(expGet, 0, &ex); err != nil {
			return err
		}
		err := c.sockets.request.Do(&r.enc, func(m nfnl.Message) error {
			return got.unmarshal(m.Attributes, &r.slab)
		})
		if err == nil {
			got.Zone = ex.Zone
		}
		return err
	})
	return got, err
}

// DeleteExpect removes the expectation that GetExpect would return.
func (c *Conn) DeleteExpect(ex Expect) error {
	return c.expectError("delete expectation", &ex, func(r *request) error {
		if err := r.expectKey(expDelete, netlink.Acknowledge, &ex); err != nil {
			return err
		}
		return c.sockets.request.Do(&r.enc, nil)
	})
}

// FlushExpect removes all expectations, IPv4 and IPv6, in all zones.
func (c *Conn) FlushExpect() error { return c.flushExpect("flush expectations", "") }

// FlushExpectHelper removes all expectations of the helper with that name, such
// as ftp.
func (c *Conn) FlushExpectHelper(name string) error {
	const op = "flush expectations of a helper"
	if name == "" {
		return opError(op, ErrNeedHelper)
	}
	return c.flushExpect(op, name)
}

func (c *Conn) flushExpect(op, helper string) error {
	r := newRequest()
	defer r.free()
	r.expectMessage(expDelete, netlink.Acknowledge, netfilter.ProtoUnspec)
	if helper != "" {
		r.enc.String(ctaExpectHelpName, helper)
	}
	return opError(op, c.sockets.request.Do(&r.enc, nil))
}

// ExpectsOf returns an iterator over the expectations whose master is the flow with
// the tuples and the zone of master, in the manner of [Conn.Flows]. One tuple is
// enough, but with both no other flow is taken for it. If there is no such flow, the
// error satisfies errors.Is(err, unix.ENOENT).
func (c *Conn) ExpectsOf(ctx context.Context, master Flow) iter.Seq2[Expect, error] {
	return func(yield func(Expect, error) bool) {
		if err := c.expectsOf(ctx, &master, yield); err != nil {
			yield(Expect{}, flowError(opExpects, &master, err))
		}
	}
}

func (c *Conn) expectsOf(ctx context.Context, master *Flow, yield func(Expect, error) bool) error {
	family, err := master.family()
	if err != nil {
		return err
	}
	tuple, err := c.masterTuple(master)
	if err != nil {
		return err
	}
	r := newRequest()
	defer r.free()
	// A flow without a helper has no answer but the acknowledgement.
	r.expectMessage(expGet, netlink.Dump|netlink.Acknowledge, family)
	of := Expect{TupleMaster: tuple, Zone: master.Zone}
	of.TupleMaster.marshalUnzoned(&r.enc, ctaExpectMaster)
	of.marshalZone(&r.enc)
	return c.walkExpects(ctx, r, func(ex Expect, err error) bool {
		ex.Zone = master.Zone
		return yield(ex, err)
	})
}

// masterTuple returns that tuple of master by which the kernel finds it. It looks for
// masters in both directions, and takes no zone that holds for one alone.
func (c *Conn) masterTuple(master *Flow) (Tuple, error) {
	if !master.hasBothTuples() {
		return master.tuple(), nil
	}
	for _, t := range []Tuple{master.TupleOrig, master.TupleReply} {
		key := Flow{TupleOrig: t, Zone: cmp.Or(master.Zone, t.Zone)}
		key.TupleOrig.Zone = 0
		got, _, err := c.find(&key, looseKey)
		switch {
		case err != nil:
			return Tuple{}, err
		case got.FiveTuple() == master.FiveTuple():
			return t, nil
		}
	}
	return Tuple{}, errHidden
}

// Expects returns an iterator over the expectations, in the manner of Flows.
func (c *Conn) Expects(ctx context.Context) iter.Seq2[Expect, error] {
	return func(yield func(Expect, error) bool) {
		r := newRequest()
		defer r.free()
		r.expectMessage(expGet, netlink.Dump, netfilter.ProtoUnspec)
		if err := c.walkExpects(ctx, r, yield); err != nil {
			yield(Expect{}, tableError("dump expectations", err))
		}
	}
}

// walkExpects carries out the dump of expectations that r asks for.
func (c *Conn) walkExpects(ctx context.Context, r *request, yield func(Expect, error) bool) error {
	return stream(ctx, c, r, func(ex *Expect, m nfnl.Message) error { return ex.unmarshal(m.Attributes, &r.slab) }, yield)
}

// DumpExpect returns all expectations, IPv4 and IPv6.
func (c *Conn) DumpExpect() ([]Expect, error) {
	var expects []Expect
	for ex, err := range c.Expects(context.Background()) {
		if err != nil {
			return nil, err
		}
		expects = append(expects, ex)
	}
	return expects, nil
}

// expectMessage begins a message about expectations.
func (r *request) expectMessage(typ nfnl.MessageType, flags netlink.HeaderFlags, family netfilter.ProtoFamily) {
	r.enc.Message(nfnl.Header{
		SubsystemID: nfnl.NFSubsysCTNetlinkExp,
		MessageType: typ,
		Flags:       flags,
		Family:      family,
	})
}

// expectKey begins a message with what the kernel finds an expectation by.
func (r *request) expectKey(typ nfnl.MessageType, flags netlink.HeaderFlags, ex *Expect) error {
	if !ex.Tuple.filled() {
		return ErrExpectNeedTuples
	}
	family, err := family(&ex.Tuple)
	if err != nil {
		return err
	}
	r.expectMessage(typ, flags, family)
	ex.Tuple.marshalUnzoned(&r.enc, ctaExpectTuple)
	ex.marshalZone(&r.enc)
	if ex.ID != 0 {
		r.enc.Uint32(ctaExpectID, ex.ID)
	}
	return nil
}

// expectError carries out an operation on one expectation, and says in its error
// which one.
func (c *Conn) expectError(name string, ex *Expect, do func(*request) error) error {
	r := newRequest()
	defer r.free()
	if err := do(r); err != nil {
		return &OpError{Op: name, Tuple: ex.Tuple, Err: err, entity: "expectation", hint: privilegeHint(err)}
	}
	return nil
}
