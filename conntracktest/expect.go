package conntracktest

import (
	"net/netip"
	"slices"
	"time"

	"github.com/ti-mo/conntrack/netfilter"
)

// A Helper is the kernel's code for a protocol that opens further connections.
type Helper struct {
	Name     string
	Protocol uint8                 // such as conntrack.ProtocolTCP
	Family   netfilter.ProtoFamily // ProtoUnspec for both
	// MaxExpected is how many expectations a flow may have at a time, 0 for any
	// number: one too many takes the place of the oldest.
	MaxExpected int
	// Timeout is how long they last.
	Timeout time.Duration
}

// linuxHelpers are some of Linux's, with its policies for Class 0.
func linuxHelpers() []Helper {
	const patient = 5 * time.Minute
	return []Helper{
		{"ftp", protoTCP, netfilter.ProtoUnspec, 1, patient},
		{"tftp", protoUDP, netfilter.ProtoUnspec, 1, patient},
		{"irc", protoTCP, netfilter.ProtoIPv4, 8, patient},
		{"amanda", protoUDP, netfilter.ProtoUnspec, 3, 180 * time.Second},
		{"sip", protoUDP, netfilter.ProtoUnspec, 1, 3 * time.Minute},
		{"sip", protoTCP, netfilter.ProtoUnspec, 1, 3 * time.Minute},
		{"sane", protoTCP, netfilter.ProtoUnspec, 1, patient},
		{"pptp", protoTCP, netfilter.ProtoIPv4, 2, patient},
		{"netbios-ns", protoUDP, netfilter.ProtoIPv4, 1, 3 * time.Second},
	}
}

// helper returns the helper of that name for flows with that tuple, or nil.
func (k *Kernel) helper(name string, t *tuple) *Helper {
	i := slices.IndexFunc(k.opts.Helpers, func(h Helper) bool {
		return h.Name == name && h.Protocol == t.proto &&
			(h.Family == netfilter.ProtoUnspec || uint8(h.Family) == t.family())
	})
	if i < 0 {
		return nil
	}
	return &k.opts.Helpers[i]
}

// An expect is an expectation (struct nf_conntrack_expect).
type expect struct {
	id      uint32
	tuple   tuple
	mask    tuple // source alone
	master  *entry
	expires time.Time
	flags   uint32
	class   uint32
	fn      string
	nat     *tuple // source alone
	natDir  uint32
}

var expectPolicy = policy{
	ctaExpectMaster:   ruleNest,
	ctaExpectTuple:    ruleNest,
	ctaExpectMask:     ruleNest,
	ctaExpectTimeout:  ruleU32,
	ctaExpectID:       ruleU32,
	ctaExpectHelpName: {text, 15},
	ctaExpectZone:     ruleU16,
	ctaExpectFlags:    ruleU32,
	ctaExpectClass:    ruleU32,
	ctaExpectNAT:      ruleNest,
	ctaExpectFN:       {kind: text},
}

func (k *Kernel) expectHandler(typ uint16) func(*call) (bool, errno) {
	switch typ {
	case expNew:
		return plain(k.newExpect)
	case expGet:
		return k.getExpect
	case expDelete:
		return plain(k.deleteExpect)
	case expGetStatsCPU:
		return k.getStatsExpect
	}
	return nil
}

// maskedEqual reports whether a packet with tuple t is one that fulfils what expects
// want, of whose source the bits in mask count.
func maskedEqual(t, want, mask *tuple) bool {
	return t.proto == want.proto && t.dst == want.dst && t.dstPort == want.dstPort &&
		(t.srcPort^want.srcPort)&mask.srcPort == 0 && and(t.src, mask.src) == and(want.src, mask.src)
}

func and(a, b netip.Addr) netip.Addr {
	x, y := a.AsSlice(), b.AsSlice()
	if len(x) != len(y) {
		return netip.Addr{}
	}
	for i := range x {
		x[i] &= y[i]
	}
	r, _ := netip.AddrFromSlice(x)
	return r
}

// findExpect returns the expectation that a packet with tuple t would fulfil, or nil.
func (k *Kernel) findExpect(t *tuple, z zone) *expect {
	for _, x := range k.expects {
		if x.master.zone.id == z.id && maskedEqual(t, &x.tuple, &x.mask) {
			return x
		}
	}
	return nil
}

func (k *Kernel) newExpect(c *call) errno {
	a := c.attrs
	if !a.has(ctaExpectTuple) || !a.has(ctaExpectMask) || !a.has(ctaExpectMaster) {
		return einval
	}
	z := parseZone(a[ctaExpectZone])
	t, err := parseTuple(a[ctaExpectTuple], c.family, nil, zoneOrig)
	if err != 0 {
		return err
	}
	x := k.findExpect(&t, z)
	switch {
	case x == nil && c.flags&flagCreate != 0:
		return k.createExpect(c, t, z)
	case x == nil:
		return enoent
	case c.flags&flagExcl != 0:
		return eexist
	case a.has(ctaExpectTimeout):
		x.expires = k.now.Add(time.Duration(a[ctaExpectTimeout].u32()) * time.Second)
	}
	return 0
}

func (k *Kernel) createExpect(c *call, t tuple, z zone) errno {
	a := c.attrs
	mask, err := parseTuple(a[ctaExpectMask], c.family, nil, zoneOrig)
	if err != 0 {
		return err
	}
	of, err := parseTuple(a[ctaExpectMaster], c.family, nil, zoneOrig)
	if err != 0 {
		return err
	}
	master := k.find(&of, z)
	if master == nil {
		return enoent
	}
	x := &expect{tuple: t, mask: mask, master: master}
	// The kernel does not look at CTA_EXPECT_HELP_NAME.
	if master.helper == nil {
		return eopnotsupp
	}
	if a.has(ctaExpectClass) && a[ctaExpectClass].u32() != 0 {
		return einval
	}
	if a.has(ctaExpectFlags) {
		const userSpace = 4
		x.flags = a[ctaExpectFlags].u32() &^ userSpace
	}
	if a.has(ctaExpectFN) {
		if x.fn = a[ctaExpectFN].str(); x.fn != "nat-follow-master" {
			return einval
		}
	}
	if a.has(ctaExpectNAT) {
		if err := x.parseNAT(a[ctaExpectNAT], master.tuples[0].family()); err != 0 {
			return err
		}
	}
	if err := k.makeRoom(x); err != 0 {
		return err
	}
	k.expectIDs++
	x.id = k.expectIDs
	if master.helper != nil {
		x.expires = k.now.Add(master.helper.Timeout)
	}
	k.expects = slices.Insert(k.expects, 0, x)
	master.expects = slices.Insert(master.expects, 0, x)
	k.stats.expectCreate++
	k.expectEvent(x, expNew, c.s.pid, c.reports())
	return 0
}

var expectNATPolicy = policy{ctaExpectNATDir: ruleU32, ctaExpectNATTuple: ruleNest}

func (x *expect) parseNAT(a attr, family uint8) errno {
	values, err := expectNATPolicy.parse(a.v)
	if err != 0 {
		return err
	}
	if !values.has(ctaExpectNATDir) || !values.has(ctaExpectNATTuple) {
		return einval
	}
	t, err := parseTuple(values[ctaExpectNATTuple], family, nil, zoneOrig)
	if err != 0 {
		return err
	}
	x.natDir = values[ctaExpectNATDir].u32()
	if !t.src.IsUnspecified() || t.srcPort != 0 {
		x.nat = &tuple{src: t.src, srcPort: t.srcPort, dst: zeroAddr(t.src), proto: 0}
	}
	return 0
}

func zeroAddr(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// makeRoom removes what a new expectation replaces, or says why it cannot be added
// (__nf_ct_expect_check).
func (k *Kernel) makeRoom(x *expect) errno {
	for _, other := range slices.Clone(k.expects) {
		if other.master.zone.id != x.master.zone.id {
			continue
		}
		both := tuple{srcPort: x.mask.srcPort & other.mask.srcPort, src: and(x.mask.src, other.mask.src)}
		same := other.tuple == x.tuple && other.mask.src == x.mask.src && other.mask.srcPort == x.mask.srcPort
		switch {
		case same && other.master == x.master:
			if other.class != x.class {
				return ealready
			}
			k.removeExpect(other, 0, false)
		case both.src.IsValid() && maskedEqual(&x.tuple, &other.tuple, &both):
			return ebusy
		}
	}
	h := x.master.helper
	if h == nil || h.MaxExpected == 0 {
		return 0
	}
	var oldest *expect
	n := 0
	for _, other := range x.master.expects {
		if other.class == x.class {
			oldest = other
			n++
		}
	}
	if n >= h.MaxExpected {
		k.removeExpect(oldest, 0, false)
	}
	return 0
}

func (k *Kernel) removeExpect(x *expect, pid uint32, report bool) {
	is := func(o *expect) bool { return o == x }
	if !slices.ContainsFunc(k.expects, is) {
		return
	}
	k.expects = slices.DeleteFunc(k.expects, is)
	x.master.expects = slices.DeleteFunc(x.master.expects, is)
	k.stats.expectDelete++
	k.expectEvent(x, expDelete, pid, report)
}

// removeExpects removes all expectations of a master.
func (k *Kernel) removeExpects(master *entry) {
	for _, x := range slices.Clone(master.expects) {
		k.removeExpect(x, 0, false)
	}
}

func (k *Kernel) expectEvent(x *expect, typ uint16, pid uint32, report bool) {
	if !x.master.audible {
		return
	}
	var w writer
	group, flags := uint32(groupExpNew), uint16(flagCreate|flagExcl)
	if typ == expDelete {
		group, flags = groupExpDestroy, 0
	}
	w.message(messageType(subsysExpect, typ), flags, 0, pid, x.tuple.family(), 0)
	x.write(&w, k.now)
	w.end()
	var except uint32
	if report {
		except = pid
	}
	k.broadcast(group, w.b, except)
	if s := k.socketOf(pid); report && s != nil {
		s.unicast(w.b)
	}
}

// write writes the attributes of x.
func (x *expect) write(w *writer, now time.Time) {
	none := func() {}
	w.tuple(ctaExpectTuple, &x.tuple, none)
	mask := tuple{
		src: x.mask.src, srcPort: x.mask.srcPort, dst: ones(x.mask.src), dstPort: 0xffff, proto: x.tuple.proto,
	}
	w.tuple(ctaExpectMask, &mask, none)
	w.tuple(ctaExpectMaster, &x.master.tuples[0], none)
	if x.nat != nil {
		w.nest(ctaExpectNAT, func() {
			w.u32(ctaExpectNATDir, x.natDir)
			nat := *x.nat
			nat.proto = x.master.tuples[0].proto
			w.tuple(ctaExpectNATTuple, &nat, none)
		})
	}
	w.u32(ctaExpectTimeout, uint32(max(x.expires.Sub(now), 0)/time.Second))
	w.u32(ctaExpectID, x.id)
	w.u32(ctaExpectFlags, x.flags)
	w.u32(ctaExpectClass, x.class)
	if x.master.helper != nil {
		w.text(ctaExpectHelpName, x.master.helper.Name)
	}
	if x.fn != "" {
		w.text(ctaExpectFN, x.fn)
	}
}

func ones(like netip.Addr) netip.Addr {
	b := like.AsSlice()
	for i := range b {
		b[i] = 0xff
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (x *expect) answer(w *writer, c *call, now time.Time) {
	w.message(messageType(subsysExpect, expNew), flagMulti, c.seq, c.s.pid, x.tuple.family(), 0)
	x.write(w, now)
	w.end()
}

func (k *Kernel) getExpect(c *call) (acknowledged bool, err errno) {
	a := c.attrs
	if c.dumps() {
		return k.dumpExpects(c)
	}
	z := parseZone(a[ctaExpectZone])
	var t tuple
	switch {
	case a.has(ctaExpectTuple):
		t, err = parseTuple(a[ctaExpectTuple], c.family, nil, zoneOrig)
	case a.has(ctaExpectMaster):
		t, err = parseTuple(a[ctaExpectMaster], c.family, nil, zoneOrig)
	default:
		err = einval
	}
	if err != 0 {
		return false, err
	}
	x := k.findExpect(&t, z)
	if x == nil || a.has(ctaExpectID) && a[ctaExpectID].u32() != x.id {
		return false, enoent
	}
	var w writer
	x.answer(&w, c, k.now)
	c.s.unicast(w.b)
	return false, 0
}

func (k *Kernel) dumpExpects(c *call) (acknowledged bool, err errno) {
	list := k.expects
	if c.attrs.has(ctaExpectMaster) {
		t, err := parseTuple(c.attrs[ctaExpectMaster], c.family, nil, zoneOrig)
		if err != 0 {
			return false, err
		}
		master := k.find(&t, parseZone(c.attrs[ctaExpectZone]))
		switch {
		case master == nil:
			return false, enoent
		case !master.helpable:
			return false, 0
		}
		list = master.expects
	}
	list = slices.Clone(list)
	d := &dump{header: c.header}
	d.next = func(room int) []byte {
		return k.part(room, func(add func(write func(*writer)) bool) {
			for len(list) > 0 {
				x := list[0]
				if (c.family == afUnspec || c.family == x.tuple.family()) && slices.Contains(k.expects, x) &&
					!add(func(w *writer) { x.answer(w, c, k.now) }) {
					return
				}
				list = list[1:]
			}
		})
	}
	return c.start(d)
}

func (k *Kernel) deleteExpect(c *call) errno {
	a := c.attrs
	if !a.has(ctaExpectTuple) {
		for _, x := range slices.Clone(k.expects) {
			if a.has(ctaExpectHelpName) && (x.master.helper == nil || x.master.helper.Name != a[ctaExpectHelpName].str()) {
				continue
			}
			k.removeExpect(x, c.s.pid, c.reports())
		}
		return 0
	}
	t, err := parseTuple(a[ctaExpectTuple], c.family, nil, zoneOrig)
	if err != 0 {
		return err
	}
	x := k.findExpect(&t, parseZone(a[ctaExpectZone]))
	if x == nil || a.has(ctaExpectID) && a[ctaExpectID].u32() != x.id {
		return enoent
	}
	k.removeExpect(x, c.s.pid, c.reports())
	return 0
}

func (k *Kernel) getStatsExpect(c *call) (acknowledged bool, err errno) {
	s := k.stats
	return k.dumpStats(c, messageType(subsysConntrack, expGetStatsCPU), func(w *writer) {
		w.u32(ctaStatsExpNew, s.expectNew)
		w.u32(ctaStatsExpCreate, s.expectCreate)
		w.u32(ctaStatsExpDelete, s.expectDelete)
	})
}
