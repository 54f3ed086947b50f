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

// A feature is something that not every kernel can filter by.
//
// An older kernel ignores what it does not know, so a selective flush would
// remove all flows. A request therefore holds only what the running kernel is
// known to honour; this package does the rest of a Filter.
//
// Whether the kernel has a feature is found out once per process, when it first
// matters: by a request that changes nothing or, for want of one, by the
// kernel's release.
type feature uint8

const (
	// featureFlushMark is a flush by mark: Linux 4.1, by release.
	featureFlushMark feature = iota
	// featureFlushFamily is a flush by address family: Linux 5.3, by release.
	featureFlushFamily
	// featureFilterTuple is a dump by fields of the tuples (CTA_FILTER): Linux
	// 5.10, by release and request. 5.8 and 5.9 treat the reply tuple wrongly.
	featureFilterTuple
	// featureFilterStatus is a dump and a flush by status (CTA_STATUS_MASK):
	// Linux 5.15, by request.
	featureFilterStatus
	// featureFilterZone is a dump and a flush by zone, including zone 0: Linux
	// 6.8, by release. The commit that introduced it (eff3c558bb7e, in 6.8-rc1)
	// treated zone 0 as no filter; fa173a1b4e3f, in 6.8-rc4, tells the two
	// apart.
	featureFilterZone
	// featureFlushTuple is a flush by fields of the tuples: Linux 6.12, by
	// request.
	featureFlushTuple
	// featureFilterIPv6Address is a filter by IPv6 addresses among the fields
	// of the tuples, by request. Linux up to 6.18 compares them the wrong way
	// round and selects all other addresses, except for point releases from
	// about November 2026 on, such as 6.12.117. The request needs an IPv6 flow
	// in the table; until one is seen, the feature counts as missing.
	featureFilterIPv6Address
	featureCount
)

// A featureGate says how to find out about a feature.
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
	sysctl  func(name string) (uint32, error) // nil: those of the Conn's namespace

	mu    sync.Mutex
	found [featureCount]bool // the features that it has
	known [featureCount]bool // those that were found out
}

// running is the kernel that all Conns of the process speak to, but for those on a
// test kit's.
var running = kernel{release: release.Running}

// has reports whether the running kernel has f. It returns false if that cannot
// be found out.
func (c *Conn) has(f feature) bool {
	has, err := c.findFeature(f)
	return has && err == nil
}

// findFeature is has, with the reason why it could not be found out.
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

// probe finds out about f. If known is false, a later probe may tell.
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

// probeFilterTuple asks for a dump with flags but without their tuple. A kernel
// that knows CTA_FILTER refuses that as a contradiction.
func (c *Conn) probeFilterTuple() (found, known bool, err error) {
	return c.probeDump(func(e *nfnl.Encoder) {
		filter := e.Nest(ctaFilter)
		e.NativeUint32(ctaFilterOrigFlags, filterProtoNum)
		e.End(filter)
	})
}

// probeFilterStatus asks for a dump with a CTA_STATUS_MASK of the wrong size. A
// kernel that knows CTA_STATUS_MASK refuses that as malformed.
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

// refusal interprets the answer to a request that only a kernel with some
// feature refuses as malformed. Any other error says nothing about the feature.
func refusal(err error) (refused, known bool, _ error) {
	switch {
	case err == nil:
		return false, true, nil
	case nfnl.IsInvalid(err):
		return true, true, nil
	}
	return false, false, err
}

// probeFlushTuple asks for a flush that contradicts itself if the kernel takes
// CTA_FILTER in a flush, and is not supported if the kernel knows CTA_FILTER in
// a dump only. A kernel that does not know it must not be asked: it would
// flush.
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
	// If a kernel carried it out after all, this mark would select nothing.
	r.enc.Uint32(ctaMark, 1)
	r.enc.Uint32(ctaMarkMask, 0)

	err = c.sockets.request.Do(&r.enc, nil)
	if errors.Is(err, errors.ErrUnsupported) {
		return false, true, nil
	}
	return refusal(err)
}

// probeFilterIPv6Address takes an IPv6 flow from the table, and asks for the
// flows from its source.
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
