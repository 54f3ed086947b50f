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

// An Expect is an entry of the expectation table: a connection that a helper,
// or a program through [Conn.CreateExpect], expects in connection with a flow,
// its master. A packet that matches it begins a flow with [StatusExpected] and
// with TupleMaster.
type Expect struct {
	// ID is the kernel's number of the entry (CTA_EXPECT_ID). Timeout is the
	// number of seconds until the entry expires, at most 24 days
	// (CTA_EXPECT_TIMEOUT). A new entry with a Timeout of 0 gets that of the
	// helper's policy for Class.
	ID, Timeout uint32

	// TupleMaster is the original direction of the master (CTA_EXPECT_MASTER),
	// and Tuple the direction of the first packet to come (CTA_EXPECT_TUPLE).
	// Of the packet's source, the kernel compares the bits that are set in Mask
	// (CTA_EXPECT_MASK); it always compares the whole destination. A Mask
	// without protocol gets that of Tuple.
	TupleMaster, Tuple, Mask Tuple

	// Zone is the zone of the master (CTA_EXPECT_ZONE, Linux 2.6.34). If the
	// master has a zone for one direction only, TupleMaster.Zone may hold it
	// instead.
	//
	// The kernel never sends it: [Conn.GetExpect] and [Conn.ExpectsOf] fill in
	// the zone that was asked for, while entries of [Conn.DumpExpect] and of
	// events have none. [Conn.DeleteExpect] needs it.
	Zone uint16

	// HelpName is the name of the master's helper (CTA_EXPECT_HELP_NAME). Linux
	// 6.1 to 6.18, and perhaps others, ignore it in [Conn.CreateExpect].
	// Function is the kernel's function to call for the first packet of the
	// expected flow, such as nat-follow-master (CTA_EXPECT_FN, Linux 3.4).
	HelpName, Function string

	// Flags are [ExpectPermanent] and the like (CTA_EXPECT_FLAGS, Linux
	// 2.6.37). Class is the number of the helper's policy (CTA_EXPECT_CLASS,
	// Linux 3.4). The policy limits how many expectations a master has and for
	// how long; one too many replaces the oldest. Linux 5.10 ignores
	// Class in an expectation without HelpName.
	Flags, Class uint32

	NAT ExpectNAT
}

// ExpectNAT says how to translate the expected flow (CTA_EXPECT_NAT, Linux
// 3.4).
type ExpectNAT struct {
	// Direction is true if the expected flow goes in the reply direction of its
	// master (CTA_EXPECT_NAT_DIR).
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
		// Without a protocol, the kernel would ignore the ports of the mask.
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

// maxExpectTimeout is 24 days in seconds. The kernel multiplies the seconds by
// its timer frequency in 32 bits: at 1000 Hz, more than 24.8 days expire at
// once.
const maxExpectTimeout = 24 * 24 * 3600

// family returns the address family of ex's tuples, or an error if they cannot
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

// CreateExpect adds an expectation. It needs Tuple, Mask and TupleMaster. The
// master must be in the table and have a helper. If ex.Timeout is not 0, a
// second request sets it, since the kernel gives a new expectation the timeout
// of its helper's policy.
func (c *Conn) CreateExpect(ex Expect) error {
	return c.expectError("create expectation", &ex, func(r *request) error {
		err := c.putExpect(r, &ex, netlink.Create|netlink.Excl)
		if err != nil || ex.Timeout == 0 {
			return err
		}
		r.enc.Reset()
		err = c.putExpect(r, &ex, 0)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // fulfilled since
		}
		return err
	})
}

// UpdateExpect sets the timeout of the expectation with the Tuple of ex, in the
// zone of its master. The kernel changes nothing else. It needs Mask and
// TupleMaster, but does not compare them. If no such expectation exists, the
// error satisfies errors.Is(err, unix.ENOENT).
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

// GetExpect returns the expectation that a packet with ex.Tuple would fulfil,
// and whose master is in the zone ex.Zone. So the parts of ex.Tuple that the
// expectation's own mask leaves out do not matter. If ex.ID is not 0, the
// expectation must have that ID. If no such expectation exists, the error
// satisfies errors.Is(err, unix.ENOENT).
func (c *Conn) GetExpect(ex Expect) (Expect, error) {
	var got Expect
	err := c.expectError("get expectation", &ex, func(r *request) error {
		// Without NLM_F_ACK only the reply comes.
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

// DeleteExpect removes the expectation that [Conn.GetExpect] would return. If
// no such expectation exists, the error satisfies errors.Is(err, unix.ENOENT).
func (c *Conn) DeleteExpect(ex Expect) error {
	err := c.deleteExpect(ex)
	if ex.ID == 0 || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Linux 5.10 gives one ID, and compares with another when it deletes.
	if _, err := c.GetExpect(ex); err == nil {
		ex.ID = 0
		return c.deleteExpect(ex)
	}
	return err
}

func (c *Conn) deleteExpect(ex Expect) error {
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

// ExpectsOf returns an iterator over the expectations of one flow: the one with
// the tuples and the zone of master. One tuple is enough; with both, no other
// flow can be taken for it. If no such flow exists, the error satisfies
// errors.Is(err, unix.ENOENT). Otherwise it is like [Conn.Expects].
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
	// If the flow has no helper, the acknowledgement is the only answer.
	r.expectMessage(expGet, netlink.Dump|netlink.Acknowledge, family)
	of := Expect{TupleMaster: tuple, Zone: master.Zone}
	of.TupleMaster.marshalUnzoned(&r.enc, ctaExpectMaster)
	of.marshalZone(&r.enc)
	return c.walkExpects(ctx, r, func(ex Expect, err error) bool {
		ex.Zone = master.Zone
		return yield(ex, err)
	})
}

// masterTuple returns the tuple of master by which the kernel finds it. The
// kernel looks for masters in both directions, and takes no zone of one
// direction.
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

// Expects returns an iterator over all expectations, IPv4 and IPv6, in all
// zones. Each range over it is a new dump. Errors, ctx and changes during the
// dump are as for [Conn.Flows].
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

// walkExpects makes the dump of expectations that r asks for.
func (c *Conn) walkExpects(ctx context.Context, r *request, yield func(Expect, error) bool) error {
	return stream(ctx, c, r, func(ex *Expect, m nfnl.Message) error { return ex.unmarshal(m.Attributes, &r.slab) }, yield)
}

// DumpExpect returns all expectations, IPv4 and IPv6, in all zones.
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

// expectError calls do for one expectation, and returns its error with the
// operation and the expectation's tuple.
func (c *Conn) expectError(name string, ex *Expect, do func(*request) error) error {
	r := newRequest()
	defer r.free()
	if err := do(r); err != nil {
		return &OpError{Op: name, Tuple: ex.Tuple, Err: err, entity: "expectation", hint: privilegeHint(err)}
	}
	return nil
}
