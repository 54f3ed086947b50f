package conntracktest

import (
	"encoding/binary"
	"math"
	"time"
)

// The frequency of the kernel's timer, in which it keeps timeouts.
const hz = 250

func (e *entry) setTimeout(k *Kernel, seconds uint32) {
	const longest = math.MaxInt32
	ticks := min(uint64(seconds)*hz, longest)
	e.expires = k.now.Add(time.Duration(ticks) * (time.Second / hz))
}

// changeStatus sets the flags that may be set, and refuses to change those that may
// not be.
func (e *entry) changeStatus(status uint32) errno {
	const setOnly = statusSeenReply | statusAssured
	if (e.status^status)&(statusExpected|statusConfirmed|statusDying) != 0 || e.status&^status&setOnly != 0 {
		return ebusy
	}
	e.status |= status & statusAll &^ statusUnchangable
	return 0
}

func (e *entry) changeMark(a attrs) {
	if !a.has(ctaMark) {
		return
	}
	var keep uint32
	if a.has(ctaMarkMask) {
		keep = ^a[ctaMarkMask].u32()
	}
	e.mark = e.mark&keep ^ a[ctaMark].u32()
}

func (e *entry) changeSeqAdj(a attrs) errno {
	for i, typ := range []int{ctaSeqAdjOrig, ctaSeqAdjReply} {
		if !a.has(typ) {
			continue
		}
		values, err := nestedU32s.parse(a[typ].v)
		if err != 0 {
			return err
		}
		adj := &e.seqAdj[i]
		for _, field := range []struct {
			typ int
			to  *uint32
		}{{ctaSeqAdjPosition, &adj.position}, {ctaSeqAdjBefore, &adj.before}, {ctaSeqAdjAfter, &adj.after}} {
			if !values.has(field.typ) {
				return einval
			}
			*field.to = values[field.typ].u32()
		}
		e.status |= statusSeqAdjust
	}
	return 0
}

func (e *entry) changeSynProxy(a attr) errno {
	values, err := nestedU32s.parse(a.v)
	if err != 0 {
		return err
	}
	if !values.has(ctaSynProxyISN) || !values.has(ctaSynProxyITS) || !values.has(ctaSynProxyTSOff) {
		return einval
	}
	e.synProxy = [3]uint32{values[1].u32(), values[2].u32(), values[3].u32()}
	return 0
}

// changeLabels sets the labels under the mask. As the kernel, it clears those behind the
// end of a short set.
func (e *entry) changeLabels(a attrs) errno {
	labels, mask := a[ctaLabels].v, a.get(ctaLabelsMask)
	if len(labels)%4 != 0 || mask.present && (len(mask.v) == 0 || len(mask.v) != len(labels)) {
		return einval
	}
	if !e.labelled {
		return enospc
	}
	for i := range e.labels {
		var keep, word uint32
		if at := 4 * i; at < len(labels) {
			word = binary.NativeEndian.Uint32(labels[at:])
			if mask.present {
				keep = ^binary.NativeEndian.Uint32(mask.v[at:])
			}
		}
		e.labels[i] = e.labels[i]&keep ^ word
	}
	return 0
}

var (
	protoInfoPolicy = policy{ctaProtoInfoTCP: ruleNest, 2: {}, ctaProtoInfoSCTP: ruleNest}
	tcpPolicy       = policy{
		ctaTCPState:       {upTo, 9},
		ctaTCPWScaleOrig:  {upTo, 14},
		ctaTCPWScaleReply: {upTo, 14},
		ctaTCPFlagsOrig:   ruleU16,
		ctaTCPFlagsReply:  ruleU16,
	}
	sctpPolicy = policy{ctaSCTPState: {upTo, 8}, ctaSCTPVTagOrig: ruleU32, ctaSCTPVTagReply: ruleU32}
)

func (e *entry) changeProtoInfo(a attr) errno {
	info, err := protoInfoPolicy.parse(a.v)
	if err != 0 {
		return err
	}
	switch proto := e.tuples[0].proto; {
	case proto == protoTCP && info.has(ctaProtoInfoTCP):
		return e.tcp.change(info[ctaProtoInfoTCP])
	case proto == protoSCTP && info.has(ctaProtoInfoSCTP):
		return e.sctp.change(info[ctaProtoInfoSCTP])
	}
	return 0
}

func (t *tcpInfo) change(a attr) errno {
	const flagWindowScale = 1
	values, err := tcpPolicy.parse(a.v)
	if err != 0 {
		return err
	}
	if values.has(ctaTCPState) {
		t.state = values[ctaTCPState].u8()
	}
	for i, typ := range []int{ctaTCPFlagsOrig, ctaTCPFlagsReply} {
		if values.has(typ) {
			flags, mask := values[typ].v[0], values[typ].v[1]
			t.flags[i] = t.flags[i]&^mask | flags&mask
		}
	}
	if values.has(ctaTCPWScaleOrig) && values.has(ctaTCPWScaleReply) && t.flags[0]&t.flags[1]&flagWindowScale != 0 {
		t.scale = [2]uint8{values[ctaTCPWScaleOrig].u8(), values[ctaTCPWScaleReply].u8()}
	}
	return 0
}

func (s *sctpInfo) change(a attr) errno {
	values, err := sctpPolicy.parse(a.v)
	if err != 0 {
		return err
	}
	if !values.has(ctaSCTPState) || !values.has(ctaSCTPVTagOrig) || !values.has(ctaSCTPVTagReply) {
		return einval
	}
	s.state = values[ctaSCTPState].u8()
	s.vtags = [2]uint32{values[ctaSCTPVTagOrig].u32(), values[ctaSCTPVTagReply].u32()}
	return 0
}

var helpPolicy = policy{ctaHelpName: {text, 15}, ctaHelpInfo: {}}

func parseHelp(a attr) (name string, err errno) {
	values, err := helpPolicy.parse(a.v)
	if err != 0 {
		return "", err
	}
	if !values.has(ctaHelpName) {
		return "", einval
	}
	return values[ctaHelpName].str(), 0
}

func (k *Kernel) changeHelper(e *entry, a attr) errno {
	name, err := parseHelp(a)
	switch {
	case err != 0:
		return err
	case e.master != nil && (e.helper == nil || e.helper.Name != name):
		return ebusy
	case e.master != nil:
		return 0
	case name == "":
		if e.helper != nil {
			k.removeExpects(e)
			e.helper = nil
		}
		return 0
	}
	helper := k.helper(name, &e.tuples[0])
	switch {
	case helper == nil || !e.helpable:
		return eopnotsupp
	case helper != e.helper:
		return ebusy
	}
	return 0
}

// changes returns what has changed in e since it was before, as packets would have
// told.
func (e *entry) changes(before *entry) events {
	var ev events
	add := func(changed bool, event events) {
		if changed {
			ev |= event
		}
	}
	set := e.status &^ before.status
	add(set&statusSeenReply != 0, evReply)
	add(set&statusAssured != 0, evAssured)
	add(e.tcp != before.tcp || e.sctp != before.sctp, evProtoInfo)
	add(e.mark != before.mark, evMark)
	add(e.labels != before.labels, evLabel)
	add(e.helper != before.helper, evHelper)
	add(e.seqAdj != before.seqAdj, evSeqAdj)
	add(e.synProxy != before.synProxy, evSynProxy)
	return ev
}
