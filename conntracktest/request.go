package conntracktest

import "encoding/binary"

var nestedU32s = policy{1: ruleU32, 2: ruleU32, 3: ruleU32}

// flowPolicy is what the kernel accepts of messages about flows, up to the attributes
// that it knows.
var flowPolicy = policy{
	ctaTupleOrig:      ruleNest,
	ctaTupleReply:     ruleNest,
	ctaStatus:         ruleU32,
	ctaProtoInfo:      ruleNest,
	ctaHelp:           ruleNest,
	ctaNATSrc:         ruleNest,
	ctaTimeout:        ruleU32,
	ctaMark:           ruleU32,
	ctaID:             ruleU32,
	ctaNATDst:         ruleNest,
	ctaTupleMaster:    ruleNest,
	ctaSeqAdjOrig:     ruleNest,
	ctaSeqAdjReply:    ruleNest,
	ctaZone:           ruleU16,
	ctaMarkMask:       ruleU32,
	ctaLabels:         {atMost, 16},
	ctaLabelsMask:     {atMost, 16},
	ctaFilter:         ruleNest,
	ctaStatusMask:     ruleU32,
	ctaTimestampEvent: {kind: reject},
}

func (k *Kernel) flowPolicy() policy {
	known := ctaSynProxy
	switch {
	case k.atLeast(6, 14):
		known = ctaTimestampEvent
	case k.atLeast(5, 15):
		known = ctaStatusMask
	case k.atLeast(5, 10):
		known = ctaFilter
	}
	return flowPolicy[:known+1]
}

// A call is a request on its way.
type call struct {
	header
	s     *socket
	attrs attrs
}

// reports reports whether the one who asks wants the events that the request causes.
func (c *call) reports() bool { return c.flags&flagEcho != 0 }

func (c *call) dumps() bool { return c.flags&flagDump != 0 }

// request carries out one request. A dump needs no acknowledgement.
func (k *Kernel) request(s *socket, b []byte) (acknowledged bool, err errno) {
	typ := binary.NativeEndian.Uint16(b[4:])
	c := &call{s: s, header: header{
		typ:     typ & 0xff,
		flags:   binary.NativeEndian.Uint16(b[6:]),
		seq:     binary.NativeEndian.Uint32(b[8:]),
		family:  b[16],
		version: b[17],
	}}
	var p policy
	var handle func(*call) (bool, errno)
	switch typ >> 8 {
	case subsysConntrack:
		handle = k.flowHandler(c.typ)
		if c.typ < ctGetStatsCPU {
			p = k.flowPolicy()
		}
	case subsysExpect:
		handle = k.expectHandler(c.typ)
		if c.typ < expGetStatsCPU {
			p = expectPolicy
		}
	}
	if typ == subsysHook<<8 && k.atLeast(5, 14) {
		handle = k.getHooks
	}
	if handle == nil {
		return false, einval
	}
	if c.attrs, err = p.parse(b[nlmsgHeaderLen+nfgenmsgLen:]); err != 0 {
		return false, err
	}
	if err := k.fault(c.op(typ >> 8)); err != 0 {
		return false, err
	}
	return handle(c)
}

// plain is a handler whose request is acknowledged as any other.
func plain(f func(*call) errno) func(*call) (bool, errno) {
	return func(c *call) (bool, errno) { return false, f(c) }
}

func (k *Kernel) flowHandler(typ uint16) func(*call) (bool, errno) {
	switch typ {
	case ctNew:
		return plain(k.newFlow)
	case ctGet, ctGetCtrZero:
		return k.getFlow
	case ctDelete:
		return plain(k.deleteFlow)
	case ctGetStatsCPU:
		return k.getStats
	case ctGetStats:
		return plain(k.getStatsGlobal)
	case ctGetDying:
		return k.getDying
	case ctGetUnconfirmed:
		return k.getUnconfirmed
	}
	return nil
}

// newFlow adds a flow, or changes one.
func (k *Kernel) newFlow(c *call) errno {
	z := parseZone(c.attrs.get(ctaZone))
	var tuples [2]tuple
	var err errno
	found := (*entry)(nil)
	for i, typ := range []int{ctaTupleOrig, ctaTupleReply} {
		if !c.attrs.has(typ) {
			continue
		}
		if tuples[i], err = parseTuple(c.attrs[typ], c.family, &z, zoneOrig<<i); err != 0 {
			return err
		}
	}
	switch {
	case c.attrs.has(ctaTupleOrig):
		found = k.find(&tuples[0], z)
	case c.attrs.has(ctaTupleReply):
		found = k.find(&tuples[1], z)
	}
	switch {
	case found == nil && c.flags&flagCreate != 0:
		if !c.attrs.has(ctaTupleOrig) || !c.attrs.has(ctaTupleReply) || tuples[0].proto != tuples[1].proto {
			return einval
		}
		return k.create(c, tuples, z)
	case found == nil:
		return enoent
	case c.flags&flagExcl != 0:
		return eexist
	}
	return k.update(c, found)
}

func (k *Kernel) create(c *call, tuples [2]tuple, z zone) errno {
	if k.opts.MaxEntries > 0 && k.count() >= k.opts.MaxEntries {
		return enomem
	}
	e := &entry{tuples: tuples, zone: z}
	if err := k.fill(e, c); err != 0 {
		return err
	}
	if err := k.insert(e); err != 0 {
		return err
	}
	ev := evNew
	if e.status&statusExpected != 0 {
		ev = evRelated
	}
	if c.attrs.has(ctaLabels) && e.changeLabels(c.attrs) == 0 {
		ev |= evLabel
	}
	ev |= evRequested
	if c.s.pid == 0 {
		ev = k.beginTraffic(e, ev)
	}
	k.event(e, ev, c.s.pid, c.reports())
	return 0
}

// fill makes e what the request says, in the kernel's order.
func (k *Kernel) fill(e *entry, c *call) errno {
	a := c.attrs
	if !a.has(ctaTimeout) {
		return einval
	}
	if a.has(ctaHelp) {
		name, err := parseHelp(a[ctaHelp])
		if err != 0 {
			return err
		}
		e.helper = k.helper(name, &e.tuples[0])
		if e.helper == nil {
			return eopnotsupp
		}
		e.helpable = true
		e.status |= statusHelper
	}
	if err := k.setupNAT(e, a); err != 0 {
		return err
	}
	e.counted = k.opts.Accounting
	e.audible = k.opts.Events == EventsAlways || k.opts.Events == EventsHeard && k.heard()
	e.labelled = !k.opts.NoLabels
	e.status |= statusConfirmed
	e.setTimeout(k, a[ctaTimeout].u32())
	if a.has(ctaStatus) {
		if err := e.changeStatus(a[ctaStatus].u32()); err != 0 {
			return err
		}
	}
	if err := e.changeSeqAdj(a); err != 0 {
		return err
	}
	if a.has(ctaProtoInfo) {
		if err := e.changeProtoInfo(a[ctaProtoInfo]); err != 0 {
			return err
		}
	}
	if a.has(ctaSynProxy) {
		if err := e.changeSynProxy(a[ctaSynProxy]); err != 0 {
			return err
		}
	}
	e.changeMark(a)
	if a.has(ctaTupleMaster) {
		master, err := parseTuple(a[ctaTupleMaster], c.family, nil, zoneOrig)
		if err != 0 {
			return err
		}
		if e.master = k.find(&master, e.zone); e.master == nil {
			return enoent
		}
		e.status |= statusExpected
	}
	if k.opts.Timestamps {
		e.start = k.now
	}
	return 0
}

// heard reports whether somebody listens to events.
func (k *Kernel) heard() bool {
	for _, s := range k.sockets {
		if s.groups != 0 {
			return true
		}
	}
	return false
}

// update changes e as the request says, in the kernel's order.
func (k *Kernel) update(c *call, e *entry) errno {
	a := c.attrs
	before := *e
	if a.has(ctaNATSrc) || a.has(ctaNATDst) || a.has(ctaTupleMaster) {
		return eopnotsupp
	}
	if a.has(ctaHelp) {
		if err := k.changeHelper(e, a[ctaHelp]); err != 0 {
			return err
		}
	}
	if a.has(ctaTimeout) {
		if e.status&statusFixed != 0 {
			return eperm
		}
		e.setTimeout(k, a[ctaTimeout].u32())
	}
	if a.has(ctaStatus) {
		if err := e.changeStatus(a[ctaStatus].u32()); err != 0 {
			return err
		}
	}
	if a.has(ctaProtoInfo) {
		if err := e.changeProtoInfo(a[ctaProtoInfo]); err != 0 {
			return err
		}
	}
	e.changeMark(a)
	if err := e.changeSeqAdj(a); err != 0 {
		return err
	}
	if a.has(ctaSynProxy) {
		if err := e.changeSynProxy(a[ctaSynProxy]); err != 0 {
			return err
		}
	}
	if a.has(ctaLabels) {
		if err := e.changeLabels(a); err != 0 {
			return err
		}
	}
	ev := evRequested | evLabel
	if c.s.pid == 0 {
		ev = e.changes(&before)
	}
	if ev != 0 {
		k.event(e, ev, c.s.pid, c.reports())
	}
	return 0
}

// deleteFlow removes a flow, or those that a filter selects.
func (k *Kernel) deleteFlow(c *call) errno {
	z := parseZone(c.attrs.get(ctaZone))
	var t tuple
	var err errno
	filtered := c.attrs.has(ctaFilter)
	switch {
	case c.attrs.has(ctaTupleOrig) && !filtered:
		t, err = parseTuple(c.attrs[ctaTupleOrig], c.family, &z, zoneOrig)
	case c.attrs.has(ctaTupleReply) && !filtered:
		t, err = parseTuple(c.attrs[ctaTupleReply], c.family, &z, zoneReply)
	default:
		return k.flush(c)
	}
	if err != 0 {
		return err
	}
	e := k.find(&t, z)
	if e == nil || c.attrs.has(ctaID) && c.attrs[ctaID].u32() != e.id {
		return enoent
	}
	k.delete(e, c.s.pid, c.reports())
	return 0
}

func (k *Kernel) flush(c *call) errno {
	family := uint8(afUnspec)
	if k.atLeast(5, 3) && c.version != 0 || c.attrs.has(ctaFilter) {
		family = c.family
	}
	a := c.attrs
	if a.has(ctaFilter) && !k.atLeast(6, 12) {
		return eopnotsupp
	}
	f, err := k.filter(a, family, k.atLeast(4, 1))
	if err != 0 {
		return err
	}
	k.live(0, func(e *entry) bool {
		if f.match(e) {
			k.delete(e, c.s.pid, c.reports())
		}
		return true
	})
	return 0
}

// filter returns the filter of a request, as far as the kernel's release has it.
func (k *Kernel) filter(a attrs, family uint8, byMark bool) (*filter, errno) {
	known := make(attrs, len(a))
	copy(known, a)
	if !byMark {
		known[ctaMark], known[ctaMarkMask] = attr{}, attr{}
	}
	if !k.atLeast(5, 15) {
		known[ctaStatus] = attr{}
	}
	if !k.atLeast(6, 8) {
		known[ctaZone] = attr{}
	}
	f, err := parseFilter(known, family)
	if f != nil {
		f.wrongIPv6Match = !k.atLeast(7, 0)
	}
	return f, err
}

// getFlow answers with one flow, or with those that a filter selects.
func (k *Kernel) getFlow(c *call) (acknowledged bool, err errno) {
	if c.dumps() {
		return k.dumpFlows(c)
	}
	z := parseZone(c.attrs.get(ctaZone))
	var t tuple
	switch {
	case c.attrs.has(ctaTupleOrig):
		t, err = parseTuple(c.attrs[ctaTupleOrig], c.family, &z, zoneOrig)
	case c.attrs.has(ctaTupleReply):
		t, err = parseTuple(c.attrs[ctaTupleReply], c.family, &z, zoneReply)
	default:
		err = einval
	}
	if err != 0 {
		return false, err
	}
	e := k.find(&t, z)
	if e == nil {
		return false, enoent
	}
	var w writer
	e.write(&w, k.now, c.s, c.header, 2, 0)
	if c.typ == ctGetCtrZero {
		e.counters = [2]counter{}
	}
	c.s.unicast(w.b)
	return false, 0
}

func (k *Kernel) dumpFlows(c *call) (acknowledged bool, err errno) {
	f, err := k.filter(c.attrs, c.family, true)
	if err != 0 {
		return false, err
	}
	var flags uint16
	if f != nil {
		flags = flagDumpFiltered
	}
	missing := k.missing
	k.missing = nil
	next := uint64(0)
	d := &dump{header: c.header, flows: true}
	d.next = func(room int) []byte {
		return k.part(room, func(add func(write func(*writer)) bool) {
			k.live(next, func(e *entry) bool {
				if !f.match(e) || missing[e] {
					return true
				}
				if !add(func(w *writer) { e.write(w, k.now, c.s, c.header, 1, flags) }) {
					return false
				}
				next = e.serial + 1
				if c.typ == ctGetCtrZero {
					e.counters = [2]counter{}
				}
				return true
			})
		})
	}
	return c.start(d)
}

func (c *call) start(d *dump) (acknowledged bool, err errno) {
	err = c.s.startDump(d)
	return err == 0, err
}

// part returns as many of the messages that walk adds as have room in a part of a
// dump. Its add reports whether there was room.
func (k *Kernel) part(room int, walk func(add func(write func(*writer)) bool)) []byte {
	var w writer
	n := 0
	walk(func(write func(*writer)) bool {
		before := len(w.b)
		if k.opts.DumpPart > 0 && n == k.opts.DumpPart {
			return false
		}
		write(&w)
		if len(w.b) > room && before > 0 {
			w.b = w.b[:before]
			return false
		}
		n++
		return true
	})
	return w.b
}

// getDying answers with the entries whose destroy events found no room.
func (k *Kernel) getDying(c *call) (acknowledged bool, err errno) {
	if !c.dumps() {
		return false, eopnotsupp
	}
	list := append([]*entry(nil), k.undelivered...)
	d := &dump{header: c.header}
	d.next = func(room int) []byte {
		return k.part(room, func(add func(write func(*writer)) bool) {
			for len(list) > 0 {
				e := list[0]
				if (c.family == afUnspec || c.family == e.tuples[0].family()) &&
					!add(func(w *writer) { e.write(w, k.now, c.s, c.header, 1, 0) }) {
					return
				}
				list = list[1:]
			}
		})
	}
	return c.start(d)
}

// getHooks answers with the function that tracks the packets of a family: all are
// tracked.
func (k *Kernel) getHooks(c *call) (acknowledged bool, err errno) {
	name := map[uint8]string{afInet: "ipv4_conntrack_in", afInet6: "ipv6_conntrack_in"}[c.family]
	if !c.dumps() || name == "" {
		return false, einval
	}
	done := false
	return c.start(&dump{header: c.header, next: func(int) []byte {
		var w writer
		if !done {
			w.message(subsysHook<<8, flagMulti, c.seq, c.s.pid, c.family, 0)
			w.text(hookFunctionName, name)
			w.end()
		}
		done = true
		return w.b
	}})
}

// getUnconfirmed answers with nothing: the list is gone since Linux 6.3.
func (k *Kernel) getUnconfirmed(c *call) (acknowledged bool, err errno) {
	if !c.dumps() {
		return false, eopnotsupp
	}
	return c.start(&dump{header: c.header, next: func(int) []byte { return nil }})
}

func (k *Kernel) getStats(c *call) (acknowledged bool, err errno) {
	s := k.stats
	return k.dumpStats(c, messageType(subsysConntrack, ctGetStatsCPU), func(w *writer) {
		w.u32(ctaStatsFound, 0)
		w.u32(ctaStatsInvalid, 0)
		w.u32(ctaStatsInsert, s.insert)
		w.u32(ctaStatsInsertFailed, s.insertFailed)
		w.u32(ctaStatsDrop, 0)
		w.u32(ctaStatsEarlyDrop, 0)
		w.u32(ctaStatsError, 0)
		w.u32(ctaStatsSearchRestart, 0)
		w.u32(ctaStatsClashResolve, 0)
		w.u32(ctaStatsChainTooLong, 0)
	})
}

// dumpStats answers with what write writes, for the one CPU that there is.
func (k *Kernel) dumpStats(c *call, typ uint16, write func(*writer)) (acknowledged bool, err errno) {
	if !c.dumps() {
		return false, 0
	}
	done := false
	return c.start(&dump{header: c.header, next: func(int) []byte {
		var w writer
		if !done {
			w.message(typ, flagMulti, c.seq, c.s.pid, afUnspec, 0)
			write(&w)
			w.end()
		}
		done = true
		return w.b
	}})
}

func (k *Kernel) getStatsGlobal(c *call) errno {
	var w writer
	w.message(messageType(subsysConntrack, ctGetStats), flagMulti, c.seq, c.s.pid, afUnspec, 0)
	w.u32(ctaStatsGlobalEntries, uint32(k.count()))
	if k.atLeast(4, 18) {
		w.u32(ctaStatsGlobalMaxEntries, uint32(k.opts.MaxEntries))
	}
	w.end()
	c.s.unicast(w.b)
	return 0
}
