package cttimeout

import (
	"fmt"
	"strings"

	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/netfilter"
)

// A Policy is a named set of timeouts for one address family and one protocol.
type Policy struct {
	// Name has 1 to 31 bytes, none of them NUL.
	Name string
	// Family is netfilter.ProtoIPv4 or netfilter.ProtoIPv6. Only rules for that
	// family can use the policy.
	Family netfilter.ProtoFamily
	// Protocol is the number of the L4 protocol, such as unix.IPPROTO_TCP, or
	// ProtocolGeneric.
	Protocol uint8
	// Timeouts has a timeout for each of States(Protocol). A Policy from the
	// kernel has all that the kernel has and this package knows, and the caller
	// owns the map. A Policy for the kernel may leave out any of them.
	Timeouts Timeouts
	// Use counts the policy itself and its references, so it is 1 for an unused
	// policy. References are rules and, on kernels of late 2026, flows, some of
	// which count more than once. Only the kernel sets it.
	Use uint32
}

// checkName returns an error for a name that the kernel would refuse or, at a
// NUL byte, cut off.
func checkName(name string) error {
	if name == "" || len(name) >= nameMax || strings.IndexByte(name, 0) >= 0 {
		return ErrBadName
	}
	return nil
}

// marshal appends all of p except Use.
func (p *Policy) marshal(e *nfnl.Encoder) error {
	if err := checkName(p.Name); err != nil {
		return err
	}
	if p.Family != netfilter.ProtoIPv4 && p.Family != netfilter.ProtoIPv6 {
		return ErrBadFamily
	}
	e.String(ctaTimeoutName, p.Name)
	marshalProtocol(e, p.Family, p.Protocol)
	return p.Timeouts.marshal(e, p.Protocol)
}

func marshalProtocol(e *nfnl.Encoder, family netfilter.ProtoFamily, protocol uint8) {
	e.Uint16(ctaTimeoutL3Proto, uint16(family))
	e.Uint8(ctaTimeoutL4Proto, protocol)
}

// unmarshal decodes the attributes in b into p, which must be zero. Attributes
// of the required types must be present.
func (p *Policy) unmarshal(b []byte, required ...uint16) error {
	var (
		d    nfnl.Decoder
		data []byte
		seen [ctaTimeoutUse + 1]bool
	)
	for typ, v := range d.Attributes(b) {
		switch typ {
		case ctaTimeoutName:
			p.Name = string(nfnl.TrimNUL(v))
		case ctaTimeoutL3Proto:
			family := d.Uint16(v)
			if family > 0xff {
				d.Fail(fmt.Errorf("%w: family %d", nfnl.ErrMalformed, family))
			}
			p.Family = netfilter.ProtoFamily(family)
		case ctaTimeoutL4Proto:
			p.Protocol = d.Uint8(v)
		case ctaTimeoutData:
			data = v
		case ctaTimeoutUse:
			p.Use = d.Uint32(v)
		}
		if int(typ) < len(seen) {
			seen[typ] = true
		}
	}
	if err := d.Err(ctaTimeoutNames); err != nil {
		return err
	}
	for _, typ := range required {
		if !seen[typ] {
			return fmt.Errorf("%w: it has no %s", nfnl.ErrMalformed, ctaTimeoutNames[typ])
		}
	}
	// The meaning of the data depends on the protocol, which may come after it.
	timeouts, err := unmarshalTimeouts(data, p.Protocol)
	if err != nil {
		return &nfnl.AttributeError{Name: ctaTimeoutNames[ctaTimeoutData], Err: err}
	}
	p.Timeouts = timeouts
	return nil
}
