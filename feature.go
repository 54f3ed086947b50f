package conntrack

import (
	"context"
	"errors"
	"sync"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/internal/release"
	"github.com/ti-mo/conntrack/netfilter"
)

// A feature is something that not every kernel can filter by. An older kernel
// ignores what it does not know, so that a selective flush would remove all flows:
// a request holds only what the running kernel is known to honour, and the rest
// of a Filter is done here.
//
// Whether the kernel has a feature is found out when it matters for the first
// time in the process: by a request that changes nothing, where there is one, or
// by the kernel's release.
type feature uint8

const (
	// featureFlushMark: a flush by mark. Linux 4.1, by release.
	featureFlushMark feature = iota
	// featureFlushFamily: a flush by address family. Linux 5.3, by release.
	featureFlushFamily
	// featureFilterTuple: a dump by fields of the tuples (CTA_FILTER). Linux
	// 5.10 (5.8 and 5.9 err about the reply tuple), by release and request.
	featureFilterTuple
	// featureFilterStatus: a dump and a flush by status (CTA_STATUS_MASK). Linux
	// 5.15, by request.
	featureFilterStatus
	// featureFilterZone: a dump and a flush by zone, zone 0 among them. Linux 6.8,
	// by release. The commit that brought it (eff3c558bb7e, in 6.8-rc1) took zone 0
	// for no filter; fa173a1b4e3f, in 6.8-rc4, tells the two apart.
	featureFilterZone
	// featureFlushTuple: a flush by fields of the tuples. Linux 6.12, by request.
	featureFlushTuple
	// featureFilterIPv6Address: IPv6 addresses among the fields of the tuples.
	// Linux up to 6.18 has the comparison the wrong way round, and selects all
	// other addresses, but for point releases from about November 2026 on, such
	// as 6.12.117. By request, which takes an IPv6 flow in the table: until one
	// was seen, the feature counts as missing.
	featureFilterIPv6Address
	featureCount
)

// A featureGate says how a feature is found out.
type featureGate struct {
	since release.Release // zero if only the probe tells
	probe func(*Conn) (found, known bool, err error)
}

func (f feature) gate() featureGate {
	return [featureCount]featureGate{
		featureFlushMark:         {since: release.Release{Major: 4, Minor: 1}},
		featureFlushFamily:       {since: release.Release{Major: 5, Minor: 3}},
		featureFilterTuple:       {since: release.Release{Major: 5, Minor: 10}, probe: (*Conn).probeFilterTuple},
		featureFilterStatus:      {probe: (*Conn).probeFilterStatus},
		featureFilterZone:        {since: release.Release{Major: 6, Minor: 8}},
		featureFlushTuple:        {probe: (*Conn).probeFlushTuple},
		featureFilterIPv6Address: {probe: (*Conn).probeFilterIPv6Address},
	}[f]
}

// A kernel is what Conns know of the kernel that they speak to.
type kernel struct {
	release func() (release.Release, error)

	mu    sync.Mutex
	found [featureCount]bool // the features that it has
	known [featureCount]bool // those that were found out
}

// running is the kernel that all Conns of the process speak to, but for those on a
// test kit's.
var running = kernel{release: release.Running}

// has reports whether the running kernel has a feature. What cannot be found out
// counts as missing.
func (c *Conn) has(f feature) bool {
	has, err := c.findFeature(f)
	return has && err == nil
}

// findFeature is has with the reason why something cannot be found out.
func (c *Conn) findFeature(f feature) (bool, error) {
	k := c.kernel
	k.mu.Lock()
	found, known := k.found[f], k.known[f]
	k.mu.Unlock()
	if known {
		return found, nil
	}
	found, known, err := c.probe(f)
	if err != nil || !known {
		return false, err
	}
	k.mu.Lock()
	k.found[f], k.known[f] = found, true
	k.mu.Unlock()
	return found, nil
}

// probe finds out about a feature. If it is not known, another attempt may tell.
func (c *Conn) probe(f feature) (found, known bool, err error) {
	gate := f.gate()
	if gate.since != (release.Release{}) {
		r, err := c.kernel.release()
		if err != nil {
			return false, false, err
		}
		if r.Less(gate.since) {
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
	if has, err := c.findFeature(featureFilterTuple); err != nil || !has {
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
	if has, err := c.findFeature(featureFilterTuple); err != nil || !has {
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
