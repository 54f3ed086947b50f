package conntrack

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/internal/release"
	"github.com/ti-mo/conntrack/netfilter"
)

// A Feature is something that not every kernel can filter by. An older kernel
// ignores what it does not know, so that a selective flush would remove all flows:
// a request holds only what the running kernel is known to honour, and the rest
// of a Filter is done here. With all features that a Filter needs, a flush is one
// request, and a dump brings no flows that are not wanted.
//
// Whether the kernel has a feature is found out when it matters for the first
// time in the process: by a request that changes nothing, where there is one, or
// by the kernel's release.
type Feature uint8

const (
	// FeatureFlushMark: a flush by mark. Linux 4.1, by release.
	FeatureFlushMark Feature = iota
	// FeatureFlushFamily: a flush by address family. Linux 5.3, by release.
	FeatureFlushFamily
	// FeatureFilterTuple: a dump by fields of the tuples (CTA_FILTER). Linux
	// 5.10 (5.8 and 5.9 err about the reply tuple), by release and request.
	FeatureFilterTuple
	// FeatureFilterStatus: a dump and a flush by status (CTA_STATUS_MASK). Linux
	// 5.15, by request.
	FeatureFilterStatus
	// FeatureFilterZone: a dump and a flush by zone. Linux 6.8, by release.
	FeatureFilterZone
	// FeatureFlushTuple: a flush by fields of the tuples. Linux 6.12, by request.
	FeatureFlushTuple
	// FeatureFilterIPv6Address: IPv6 addresses among the fields of the tuples.
	// Linux up to 6.18 has the comparison the wrong way round, and selects all
	// other addresses, but for point releases from about November 2026 on, such
	// as 6.12.117. By request, which takes an IPv6 flow in the table: until one
	// was seen, the feature counts as missing.
	FeatureFilterIPv6Address
	featureCount
)

// A featureGate says how a feature is found out.
type featureGate struct {
	name  string
	since release.Release // zero if only the probe tells
	probe func(*Conn) (found, known bool, err error)
}

func (f Feature) gate() featureGate {
	return [featureCount]featureGate{
		FeatureFlushMark:         {name: "flush by mark", since: release.Release{Major: 4, Minor: 1}},
		FeatureFlushFamily:       {name: "flush by family", since: release.Release{Major: 5, Minor: 3}},
		FeatureFilterTuple:       {name: "filter by tuple", since: release.Release{Major: 5, Minor: 10}, probe: (*Conn).probeFilterTuple},
		FeatureFilterStatus:      {name: "filter by status", probe: (*Conn).probeFilterStatus},
		FeatureFilterZone:        {name: "filter by zone", since: release.Release{Major: 6, Minor: 8}},
		FeatureFlushTuple:        {name: "flush by tuple", probe: (*Conn).probeFlushTuple},
		FeatureFilterIPv6Address: {name: "filter by IPv6 address", probe: (*Conn).probeFilterIPv6Address},
	}[f]
}

// String returns what the feature is, such as "filter by zone".
func (f Feature) String() string {
	if f < featureCount {
		return f.gate().name
	}
	return fmt.Sprintf("Feature(%d)", uint8(f))
}

// Features returns all features that there are names for.
func Features() []Feature {
	all := make([]Feature, featureCount)
	for i := range all {
		all[i] = Feature(i)
	}
	return all
}

// knownFeatures are those that were found out, for the process: all Conns speak
// to the same kernel.
var knownFeatures struct {
	sync.Mutex
	found [featureCount]bool
	known [featureCount]bool
}

// HasFeature reports whether the running kernel has a feature. What it cannot
// find out, it reports as missing.
func (c *Conn) HasFeature(f Feature) (bool, error) {
	if f >= featureCount {
		return false, nil
	}
	has, err := c.findFeature(f)
	return has, opError("find out about "+f.String(), err)
}

// has is HasFeature for those who do without it if it cannot be found out.
func (c *Conn) has(f Feature) bool {
	has, err := c.findFeature(f)
	return has && err == nil
}

func (c *Conn) findFeature(f Feature) (bool, error) {
	knownFeatures.Lock()
	found, known := knownFeatures.found[f], knownFeatures.known[f]
	knownFeatures.Unlock()
	if known {
		return found, nil
	}
	found, known, err := c.probe(f)
	if err != nil || !known {
		return false, err
	}
	knownFeatures.Lock()
	knownFeatures.found[f], knownFeatures.known[f] = found, true
	knownFeatures.Unlock()
	return found, nil
}

// probe finds out about a feature. If it is not known, another attempt may tell.
func (c *Conn) probe(f Feature) (found, known bool, err error) {
	gate := f.gate()
	if gate.since != (release.Release{}) {
		running, err := release.Running()
		if err != nil {
			return false, false, err
		}
		if running.Less(gate.since) {
			return false, true, nil
		}
	}
	if gate.probe == nil {
		return true, true, nil
	}
	return gate.probe(c)
}

// probeFilterTuple asks for a dump that is contradictory if the kernel knows of
// CTA_FILTER: flags without the tuple that they are of.
func (c *Conn) probeFilterTuple() (found, known bool, err error) {
	return c.probeDump(func(e *nfnl.Encoder) {
		filter := e.Nest(ctaFilter)
		e.NativeUint32(ctaFilterOrigFlags, filterProtoNum)
		e.End(filter)
	})
}

// probeFilterStatus asks for a dump that is malformed if the kernel knows of
// CTA_STATUS_MASK.
func (c *Conn) probeFilterStatus() (found, known bool, err error) {
	return c.probeDump(func(e *nfnl.Encoder) { e.Uint8(ctaStatusMask, 0) })
}

// probeDump reports whether the kernel refuses a dump with the attributes that
// marshal appends.
func (c *Conn) probeDump(marshal func(*nfnl.Encoder)) (refused, known bool, err error) {
	r := dumpRequest(nfnl.Header{
		SubsystemID: nfnl.NFSubsysCTNetlink,
		MessageType: ctGet,
		Family:      netfilter.ProtoIPv4,
	})
	defer r.free()
	marshal(&r.enc)
	err = c.dump(context.Background(), r, func(nfnl.Message) error { return errStop })
	return refusal(err)
}

// refusal interprets the answer to a request that a kernel with some feature
// refuses as malformed. Any other error says nothing about the feature.
func refusal(err error) (refused, known bool, _ error) {
	switch {
	case err == nil:
		return false, true, nil
	case nfnl.IsInvalid(err):
		return true, true, nil
	}
	return false, false, err
}

// probeFlushTuple asks for a flush that is contradictory if the kernel takes
// CTA_FILTER in a flush, and not supported if it knows it in a dump alone. A
// kernel that does not know it at all must not be asked: it would flush.
func (c *Conn) probeFlushTuple() (found, known bool, err error) {
	if has, err := c.findFeature(FeatureFilterTuple); err != nil || !has {
		return false, err == nil, err
	}
	r := newRequest()
	defer r.free()
	r.enc.Message(nfnl.Header{
		SubsystemID: nfnl.NFSubsysCTNetlink,
		MessageType: ctDelete,
		Family:      netfilter.ProtoIPv4,
		Flags:       netlink.Acknowledge,
	})
	filter := r.enc.Nest(ctaFilter)
	r.enc.NativeUint32(ctaFilterOrigFlags, filterProtoNum)
	r.enc.End(filter)
	// Should it be carried out after all, it selects nothing.
	r.enc.Uint32(ctaMark, 1)
	r.enc.Uint32(ctaMarkMask, 0)

	err = c.sockets.request.Do(&r.enc, nil)
	if errors.Is(err, errors.ErrUnsupported) {
		return false, true, nil
	}
	return refusal(err)
}

// probeFilterIPv6Address takes an IPv6 flow from the table and asks for the flows
// from its source.
func (c *Conn) probeFilterIPv6Address() (found, known bool, err error) {
	if has, err := c.findFeature(FeatureFilterTuple); err != nil || !has {
		return false, err == nil, err
	}
	k := kernelFilter{filter: &Filter{}, family: netfilter.ProtoIPv6}
	example, ok, err := c.firstFlow(&k)
	if err != nil || !ok {
		return false, false, err
	}
	source := example.TupleOrig.IP.SourceAddress
	k.filter.Orig.IP.SourceAddress = source
	k.flags[0] = filterIPSrc
	got, ok, err := c.firstFlow(&k)
	if err != nil || !ok {
		return false, false, err
	}
	return got.TupleOrig.IP.SourceAddress == source, true, nil
}

// firstFlow returns the first flow of a dump that only the kernel filters.
func (c *Conn) firstFlow(k *kernelFilter) (flow Flow, ok bool, err error) {
	r := k.dumpRequest(ctGet)
	defer r.free()
	err = c.dump(context.Background(), r, func(m nfnl.Message) error {
		ok = true
		if err := flow.unmarshal(m.Attributes, nil); err != nil {
			return err
		}
		return errStop
	})
	return flow, ok, err
}
