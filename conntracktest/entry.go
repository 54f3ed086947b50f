package conntracktest

import (
	"encoding/binary"
	"hash/fnv"
	"slices"
	"time"
)

// An entry is a flow (struct nf_conn).
type entry struct {
	serial uint64 // of all that were in the table
	id     uint32
	slot   uint32 // its place in memory
	tuples [2]tuple
	zone   zone
	status uint32
	mark   uint32

	expires time.Time
	start   time.Time // zero without a timestamp
	stop    time.Time

	counted  bool
	counters [2]counter
	audible  bool // has events

	helpable bool // was created with a helper
	helper   *Helper
	labelled bool // has room for labels
	labels   [labelWords]uint32
	seqAdj   [2]seqAdj
	synProxy [3]uint32
	tcp      tcpInfo
	sctp     sctpInfo

	master   *entry
	children int // entries that have this one as master
	expects  []*expect
	gone     bool // no longer in the table
	buried   bool

	missed    events // that found no room
	destroyer uint32 // the port that an event that found no room is to tell
}

const labelWords = 4

type counter struct{ packets, bytes uint64 }

type seqAdj struct{ position, before, after uint32 }

type tcpInfo struct {
	state uint8
	scale [2]uint8
	flags [2]uint8
}

type sctpInfo struct {
	state uint8
	vtags [2]uint32
}

// A tupleKey is what an entry is found by in one direction.
type tupleKey struct {
	tuple
	zone uint16
}

// A half is one direction of an entry.
type half struct {
	entry *entry
	reply bool
}

func (h half) matches(z zone) bool {
	return h.entry.zone.in(h.reply) == z.in(h.reply)
}

// find returns the entry that has the tuple in either direction, or nil.
func (k *Kernel) find(t *tuple, z zone) *entry {
	for _, id := range []uint16{z.in(false), z.in(true)} {
		for _, h := range k.index[tupleKey{*t, id}] {
			if h.matches(z) {
				return h.entry
			}
		}
	}
	return nil
}

// taken reports whether another entry than e has the tuple where e would have it.
func (k *Kernel) taken(e *entry, t *tuple, reply bool) bool {
	for _, h := range k.index[tupleKey{*t, e.zone.in(reply)}] {
		if h.entry != e && h.matches(e.zone) {
			return true
		}
	}
	return false
}

// count returns how many entries count towards the size of the table: also those that
// somebody refers to when they have left it.
func (k *Kernel) count() int { return len(k.entries) - k.holes + k.unburied }

// insert puts e into the table.
func (k *Kernel) insert(e *entry) errno {
	if k.taken(e, &e.tuples[0], false) || k.taken(e, &e.tuples[1], true) {
		k.stats.insertFailed++
		return eexist
	}
	k.stats.insert++
	k.serials++
	e.serial = k.serials
	e.slot = k.slots.take()
	e.id = e.hash()
	k.entries = append(k.entries, e)
	for i, t := range e.tuples {
		key := tupleKey{t, e.zone.in(i == 1)}
		k.index[key] = slices.Insert(k.index[key], 0, half{e, i == 1})
	}
	if e.master != nil {
		e.master.children++
	}
	return 0
}

// hash returns the id, which the kernel computes from the entry's place in memory,
// its master and its tuple: a later entry with the same ones has the same id.
func (e *entry) hash() uint32 {
	h := fnv.New32a()
	var b [8]byte
	binary.BigEndian.PutUint32(b[:], e.slot)
	if e.master != nil {
		binary.BigEndian.PutUint32(b[4:], e.master.slot+1)
	}
	t := &e.tuples[0]
	_, _ = h.Write(b[:])
	_, _ = h.Write(t.src.AsSlice())
	_, _ = h.Write(t.dst.AsSlice())
	_, _ = h.Write([]byte{t.proto, byte(t.srcPort >> 8), byte(t.srcPort), byte(t.dstPort >> 8), byte(t.dstPort)})
	return max(h.Sum32(), 1)
}

// slots are places in memory. The one that was freed last is taken first.
type slots struct {
	used uint32
	free []uint32
}

func (s *slots) take() uint32 {
	if n := len(s.free); n > 0 {
		slot := s.free[n-1]
		s.free = s.free[:n-1]
		return slot
	}
	s.used++
	return s.used
}

// delete removes e from the table, on behalf of the socket with that port id.
func (k *Kernel) delete(e *entry, pid uint32, report bool) {
	if e.status&statusDying != 0 {
		return
	}
	e.status |= statusDying
	if !e.start.IsZero() {
		e.stop = k.now
	}
	delivered := k.event(e, evDestroy, pid, report)
	k.unlink(e)
	if !delivered {
		k.undelivered = append(k.undelivered, e)
		return
	}
	k.bury(e)
}

func (k *Kernel) unlink(e *entry) {
	e.gone = true
	k.holes++
	k.unburied++
	for i, t := range e.tuples {
		key := tupleKey{t, e.zone.in(i == 1)}
		k.index[key] = slices.DeleteFunc(k.index[key], func(h half) bool { return h == half{e, i == 1} })
		if len(k.index[key]) == 0 {
			delete(k.index, key)
		}
	}
	if k.holes > 64 && k.holes > len(k.entries)/2 {
		k.entries = slices.DeleteFunc(k.entries, func(e *entry) bool { return e.gone })
		k.holes = 0
	}
}

// bury does what happens when nobody refers to e any more, if nobody does.
func (k *Kernel) bury(e *entry) {
	if !e.gone || e.children > 0 || e.buried || slices.Contains(k.undelivered, e) {
		return
	}
	e.buried = true
	k.unburied--
	k.removeExpects(e)
	k.slots.free = append(k.slots.free, e.slot)
	if e.master != nil {
		e.master.children--
		k.bury(e.master)
	}
}

// retryDestroys repeats the destroy events that found no room.
func (k *Kernel) retryDestroys() {
	for len(k.undelivered) > 0 {
		e := k.undelivered[0]
		if !k.event(e, evDestroy, e.destroyer, false) {
			return
		}
		k.undelivered = k.undelivered[1:]
		k.bury(e)
	}
}

// live calls f for the entries of the table, from a serial number on, until it
// returns false.
func (k *Kernel) live(from uint64, f func(*entry) bool) {
	start, _ := slices.BinarySearchFunc(k.entries, from, func(e *entry, serial uint64) int {
		switch {
		case e.serial < serial:
			return -1
		case e.serial > serial:
			return 1
		}
		return 0
	})
	for _, e := range slices.Clone(k.entries[start:]) {
		if !e.gone && !f(e) {
			return
		}
	}
}

// events is a set of what has happened to an entry (enum ip_conntrack_events).
type events uint16

const (
	evNew events = 1 << iota
	evRelated
	evDestroy
	evReply
	evAssured
	evProtoInfo
	evHelper
	evMark
	evSeqAdj
	evLabel
	evSynProxy

	// evRequested is what a request may have changed.
	evRequested = evReply | evAssured | evHelper | evProtoInfo | evSeqAdj | evMark | evSynProxy
)

// event tells of what has happened to e, and reports whether all that want to be sure
// know. A report goes to the socket that asked for it even if it has joined no group.
func (k *Kernel) event(e *entry, ev events, pid uint32, report bool) bool {
	if !e.audible {
		return true
	}
	if e.destroyer != 0 {
		pid = e.destroyer
	} else {
		ev |= e.missed
	}
	var w writer
	group := k.writeEvent(&w, e, ev, pid)
	var except uint32
	if report {
		except = pid
	}
	reached := k.broadcast(group, w.b, except)
	if report {
		if s := k.socketOf(pid); s != nil {
			s.unicast(w.b)
		}
	}
	switch {
	case reached:
		e.missed = 0
	case ev&evDestroy != 0:
		e.destroyer = pid
	default:
		e.missed |= ev
	}
	return reached
}

// writeEvent writes an event and returns the group that it is for.
func (k *Kernel) writeEvent(w *writer, e *entry, ev events, pid uint32) (group uint32) {
	typ, flags := uint16(ctNew), uint16(0)
	switch {
	case ev&evDestroy != 0:
		typ, group = ctDelete, groupDestroy
	case ev&(evNew|evRelated) != 0:
		flags, group = flagCreate|flagExcl, groupNew
	default:
		group = groupUpdate
	}
	w.message(messageType(subsysConntrack, typ), flags, 0, pid, e.tuples[0].family(), 0)
	e.writeTuples(w)
	w.u32(ctaID, e.id)
	w.u32(ctaStatus, e.status)
	if ev&evDestroy != 0 {
		if e.timeout(k.now) > 0 {
			w.u32(ctaTimeout, e.timeout(k.now))
		}
		e.writeCounters(w)
		e.writeTimestamp(w)
		e.writeProtoInfo(w, true)
	} else {
		w.u32(ctaTimeout, e.timeout(k.now))
		if ev&evProtoInfo != 0 {
			e.writeProtoInfo(w, false)
		}
		e.writeHelper(w)
		if ev&evLabel != 0 {
			e.writeLabels(w)
		}
		if ev&evRelated != 0 {
			e.writeMaster(w)
		}
		if ev&evSeqAdj != 0 {
			e.writeSeqAdj(w)
		}
		if ev&evSynProxy != 0 {
			e.writeSynProxy(w)
		}
	}
	if e.mark != 0 || ev&evMark != 0 {
		w.u32(ctaMark, e.mark)
	}
	if !e.start.IsZero() && k.atLeast(6, 14) {
		w.u64(ctaTimestampEvent, uint64(k.now.UnixNano()))
	}
	w.end()
	return group
}

// write writes all of e, as the answer to a request.
func (e *entry) write(w *writer, now time.Time, s *socket, h header, use int, flags uint16) {
	if s.pid != 0 {
		flags |= flagMulti
	}
	w.message(messageType(subsysConntrack, ctNew), flags, h.seq, s.pid, e.tuples[0].family(), 0)
	e.writeTuples(w)
	w.u32(ctaStatus, e.status)
	w.u32(ctaMark, e.mark)
	w.u32(ctaID, e.id)
	w.u32(ctaUse, uint32(use+e.children))
	e.writeMaster(w)
	w.u32(ctaTimeout, e.timeout(now))
	e.writeProtoInfo(w, false)
	e.writeCounters(w)
	e.writeTimestamp(w)
	e.writeHelper(w)
	e.writeLabels(w)
	e.writeSeqAdj(w)
	e.writeSynProxy(w)
	w.end()
}

// timeout returns the seconds that are left.
func (e *entry) timeout(now time.Time) uint32 {
	return uint32(max(e.expires.Sub(now), 0) / time.Second)
}

func (e *entry) writeTuples(w *writer) {
	for i, typ := range []uint16{ctaTupleOrig, ctaTupleReply} {
		w.tuple(typ, &e.tuples[i], func() {
			if e.zone.id != 0 && e.zone.dir == zoneOrig<<i {
				w.u16(ctaTupleZone, e.zone.id)
			}
		})
	}
	if e.zone.id != 0 && e.zone.dir == zoneBoth {
		w.u16(ctaZone, e.zone.id)
	}
}

func (e *entry) writeMaster(w *writer) {
	if e.status&statusExpected != 0 {
		w.tuple(ctaTupleMaster, &e.master.tuples[0], func() {})
	}
}

func (e *entry) writeProtoInfo(w *writer, destroyed bool) {
	switch e.tuples[0].proto {
	case protoTCP:
		w.nest(ctaProtoInfo, func() {
			w.nest(ctaProtoInfoTCP, func() {
				w.u8(ctaTCPState, e.tcp.state)
				if destroyed {
					return
				}
				w.u8(ctaTCPWScaleOrig, e.tcp.scale[0])
				w.u8(ctaTCPWScaleReply, e.tcp.scale[1])
				w.attr(ctaTCPFlagsOrig, e.tcp.flags[0], 0)
				w.attr(ctaTCPFlagsReply, e.tcp.flags[1], 0)
			})
		})
	case protoSCTP:
		w.nest(ctaProtoInfo, func() {
			w.nest(ctaProtoInfoSCTP, func() {
				w.u8(ctaSCTPState, e.sctp.state)
				if destroyed {
					return
				}
				w.u32(ctaSCTPVTagOrig, e.sctp.vtags[0])
				w.u32(ctaSCTPVTagReply, e.sctp.vtags[1])
			})
		})
	}
}

func (e *entry) writeCounters(w *writer) {
	if !e.counted {
		return
	}
	for i, typ := range []uint16{ctaCountersOrig, ctaCountersReply} {
		w.nest(typ, func() {
			w.u64(ctaCountersPackets, e.counters[i].packets)
			w.u64(ctaCountersBytes, e.counters[i].bytes)
		})
	}
}

func (e *entry) writeTimestamp(w *writer) {
	if e.start.IsZero() {
		return
	}
	w.nest(ctaTimestamp, func() {
		w.u64(ctaTimestampStart, uint64(e.start.UnixNano()))
		if !e.stop.IsZero() {
			w.u64(ctaTimestampStop, uint64(e.stop.UnixNano()))
		}
	})
}

func (e *entry) writeHelper(w *writer) {
	if e.helper != nil {
		w.nest(ctaHelp, func() { w.text(ctaHelpName, e.helper.Name) })
	}
}

func (e *entry) writeLabels(w *writer) {
	if e.labels == [labelWords]uint32{} {
		return
	}
	var b []byte
	for _, word := range e.labels {
		b = binary.NativeEndian.AppendUint32(b, word)
	}
	w.attr(ctaLabels, b...)
}

func (e *entry) writeSeqAdj(w *writer) {
	if e.status&statusSeqAdjust == 0 {
		return
	}
	for i, typ := range []uint16{ctaSeqAdjOrig, ctaSeqAdjReply} {
		w.nest(typ, func() {
			w.u32(ctaSeqAdjPosition, e.seqAdj[i].position)
			w.u32(ctaSeqAdjBefore, e.seqAdj[i].before)
			w.u32(ctaSeqAdjAfter, e.seqAdj[i].after)
		})
	}
}

func (e *entry) writeSynProxy(w *writer) {
	w.nest(ctaSynProxy, func() {
		w.u32(ctaSynProxyISN, e.synProxy[0])
		w.u32(ctaSynProxyITS, e.synProxy[1])
		w.u32(ctaSynProxyTSOff, e.synProxy[2])
	})
}
