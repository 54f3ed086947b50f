//go:build linux

package conntrack

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// What the kernel always lays out alike is decoded without a walk over its
// attributes. Behind an unknown attribute it is not, and must come to the same.
func TestKnownLayouts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	join := func(parts ...[]byte) (b []byte) {
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	for name, test := range map[string]struct {
		bytes  func() []byte
		decode func([]byte) (any, error)
		zero   any
	}{
		"IPv4": {
			func() []byte { return join(attr(ctaIPv4Src, random(4)...), attr(ctaIPv4Dst, random(4)...)) },
			func(b []byte) (any, error) { var v IPTuple; err := v.unmarshal(b); return v, err }, IPTuple{},
		},
		"IPv6": {
			func() []byte { return join(attr(ctaIPv6Src, random(16)...), attr(ctaIPv6Dst, random(16)...)) },
			func(b []byte) (any, error) { var v IPTuple; err := v.unmarshal(b); return v, err }, IPTuple{},
		},
		"ports": {
			func() []byte {
				return join(attr(ctaProtoNum, random(1)...), attr(ctaProtoSrcPort, random(2)...), attr(ctaProtoDstPort, random(2)...))
			},
			func(b []byte) (any, error) { var v ProtoTuple; err := v.unmarshal(b); return v, err }, ProtoTuple{},
		},
		"TCP": {
			func() []byte {
				return join(attr(ctaProtoInfoTCPState, random(1)...),
					attr(ctaProtoInfoTCPWScaleOriginal, random(1)...), attr(ctaProtoInfoTCPWScaleReply, random(1)...),
					attr(ctaProtoInfoTCPFlagsOriginal, random(2)...), attr(ctaProtoInfoTCPFlagsReply, random(2)...))
			},
			func(b []byte) (any, error) { var v ProtoInfoTCP; err := v.unmarshal(b); return v, err }, ProtoInfoTCP{},
		},
		"counter": {
			func() []byte {
				return join(attr(ctaCountersPackets, random(8)...), attr(ctaCountersBytes, random(8)...))
			},
			func(b []byte) (any, error) { var v Counter; err := v.unmarshal(b); return v, err }, Counter{},
		},
		"SYN proxy": {
			func() []byte {
				return join(attr(ctaSynProxyISN, random(4)...), attr(ctaSynProxyITS, random(4)...), attr(ctaSynProxyTSOff, random(4)...))
			},
			func(b []byte) (any, error) { var v SynProxy; err := v.unmarshal(b); return v, err }, SynProxy{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for range 1000 {
				b := test.bytes()
				quick, err := test.decode(b)
				require.NoError(t, err)
				require.NotEqual(t, test.zero, quick)
				walked, err := test.decode(append(attr(999), b...))
				require.NoError(t, err)
				require.Equal(t, walked, quick)
			}
		})
	}
}

// Addresses of both families have a quick way of their own.
func TestKnownLayoutAddresses(t *testing.T) {
	var ip IPTuple
	require.NoError(t, ip.unmarshal(append(attr(ctaIPv4Src, 1, 2, 3, 4), attr(ctaIPv4Dst, 5, 6, 7, 8)...)))
	require.Equal(t, IPTuple{netip.MustParseAddr("1.2.3.4"), netip.MustParseAddr("5.6.7.8")}, ip)
}
