package cttimeout

import (
	"fmt"
	"strings"

	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/netfilter"
)

// A Policy is a set of timeouts with a name, for one family and one protocol.
type Policy struct {
	// Name has 1 to 31 bytes.
	Name string
	// Family is netfilter.ProtoIPv4 or netfilter.ProtoIPv6: the packets that rules
	// may use the policy for.
	Family netfilter.ProtoFamily
	// Protocol is the number of the L4 protocol, as in unix.IPPROTO_TCP, or
	// ProtocolGeneric.
	Protocol uint8
	// Timeouts are those of States(Protocol). From the kernel come all that it has
	// and this package knows; the map is then the caller's own. On the way to the
	// kernel some or all may be left out.
	Timeouts Timeouts
	// Use counts the policy itself and what refers to it: rules and, on kernels
	// of late 2026, flows, some of these more than once. It is 1 for a policy that
	// nothing uses. It comes from the kernel alone.
	Use uint32
}

// checkName returns an error if the kernel would refuse name, or, at a NUL byte,
// take a part of it for the whole.
func checkName(name string) error {
	if name == "" || len(name) >= nameMax || strings.IndexByte(name, 0) >= 0 {
		return ErrBadName
	}
	return nil
}

// marshal appends all of p but for Use.
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

// unmarshal decodes the attributes in b into p, which is zero. The attributes of
// the required types must be there.
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
	// What it means depends on the protocol, wherever that stands.
	timeouts, err := unmarshalTimeouts(data, p.Protocol)
	if err != nil {
		return &nfnl.AttributeError{Name: ctaTimeoutNames[ctaTimeoutData], Err: err}
	}
	p.Timeouts = timeouts
	return nil
}
