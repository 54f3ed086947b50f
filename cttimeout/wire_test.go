package cttimeout

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/netfilter"
)

// attr returns an encoded attribute.
func attr(typ uint16, value ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, value...)
	return append(b, make([]byte, -len(b)&3)...)
}

func nest(typ uint16, attrs ...[]byte) []byte {
	const nested = 0x8000 // NLA_F_NESTED
	return attr(typ|nested, slices.Concat(attrs...)...)
}

// These are the attributes of a policy as the kernel sends it.
var (
	wireName   = attr(ctaTimeoutName, 'p', 'q', 0)
	wireFamily = attr(ctaTimeoutL3Proto, 0, 2)
	wireUDP    = attr(ctaTimeoutL4Proto, 17)
	wireUse    = attr(ctaTimeoutUse, 0, 0, 0, 3)
	wireData   = nest(ctaTimeoutData, attr(1, 0, 0, 0, 30), attr(2, 0, 0, 1, 4))
)

func wirePolicy() Policy {
	return Policy{
		Name:     "pq",
		Family:   netfilter.ProtoIPv4,
		Protocol: 17,
		Timeouts: Timeouts{UDPUnreplied: 30 * time.Second, UDPReplied: 260 * time.Second},
		Use:      3,
	}
}

func TestUnmarshal(t *testing.T) {
	t.Parallel()
	noName, noTimeouts, longest := wirePolicy(), wirePolicy(), wirePolicy()
	noName.Name = ""
	noTimeouts.Timeouts = Timeouts{}
	longest.Timeouts = Timeouts{UDPReplied: (1<<32 - 1) * time.Second}
	espPolicy := noTimeouts
	espPolicy.Protocol = 50

	tests := []struct {
		name string
		b    [][]byte
		want Policy
	}{
		{"as the kernel sends it", [][]byte{wireName, wireFamily, wireUDP, wireUse, wireData}, wirePolicy()},
		{"data before the protocol", [][]byte{wireData, wireUse, wireUDP, wireFamily, wireName}, wirePolicy()},
		{"unknown attributes", [][]byte{attr(0), attr(99, 1), wireName, wireFamily, wireUDP, wireUse, wireData}, wirePolicy()},
		{"unknown timeouts", [][]byte{wireName, wireFamily, wireUDP, wireUse, nest(ctaTimeoutData, attr(0, 1), attr(1, 0, 0, 0, 30), attr(2, 0, 0, 1, 4), attr(3, 1))}, wirePolicy()},
		{"unknown protocol", [][]byte{wireName, wireFamily, attr(ctaTimeoutL4Proto, 50), wireUse, wireData}, espPolicy},
		{"no NUL", [][]byte{attr(ctaTimeoutName, 'p', 'q'), wireFamily, wireUDP, wireUse, wireData}, wirePolicy()},
		{"empty name", [][]byte{attr(ctaTimeoutName), wireFamily, wireUDP, wireUse, wireData}, noName},
		{"no timeouts", [][]byte{wireName, wireFamily, wireUDP, wireUse, nest(ctaTimeoutData)}, noTimeouts},
		{"longest timeout", [][]byte{wireName, wireFamily, wireUDP, wireUse, nest(ctaTimeoutData, attr(2, 0xff, 0xff, 0xff, 0xff))}, longest},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var p Policy
			b := slices.Concat(tt.b...)
			require.NoError(t, p.unmarshal(b, inPolicy...))
			clear(b) // the Policy must not refer to it
			require.Equal(t, tt.want, p)
		})
	}
}

func TestUnmarshalMalformed(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		b    [][]byte
		text string
	}{
		{"nothing", nil, "it has no CTA_TIMEOUT_NAME"},
		{"no name", [][]byte{wireFamily, wireUDP, wireData}, "it has no CTA_TIMEOUT_NAME"},
		{"no family", [][]byte{wireName, wireUDP, wireData}, "it has no CTA_TIMEOUT_L3PROTO"},
		{"no protocol", [][]byte{wireName, wireFamily, wireData}, "it has no CTA_TIMEOUT_L4PROTO"},
		{"no data", [][]byte{wireName, wireFamily, wireUDP}, "it has no CTA_TIMEOUT_DATA"},
		{"family of 1 byte", [][]byte{wireName, attr(ctaTimeoutL3Proto, 2), wireUDP, wireData}, "CTA_TIMEOUT_L3PROTO: "},
		{"family above 255", [][]byte{wireName, attr(ctaTimeoutL3Proto, 1, 2), wireUDP, wireData}, "CTA_TIMEOUT_L3PROTO: malformed message: family 258"},
		{"protocol of 2 bytes", [][]byte{wireName, wireFamily, attr(ctaTimeoutL4Proto, 0, 17), wireData}, "CTA_TIMEOUT_L4PROTO: "},
		{"empty protocol", [][]byte{wireName, wireFamily, attr(ctaTimeoutL4Proto), wireData}, "CTA_TIMEOUT_L4PROTO: "},
		{"use of 8 bytes", [][]byte{wireName, wireFamily, wireUDP, attr(ctaTimeoutUse, 0, 0, 0, 0, 0, 0, 0, 1), wireData}, "CTA_TIMEOUT_USE: "},
		{"timeout of 2 bytes", [][]byte{wireName, wireFamily, wireUDP, nest(ctaTimeoutData, attr(2, 0, 1))}, "CTA_TIMEOUT_DATA: CTA_TIMEOUT_UDP_REPLIED: "},
		{"timeout of 8 bytes", [][]byte{nest(ctaTimeoutData, attr(1, 0, 0, 0, 0, 0, 0, 0, 1)), wireName, wireFamily, wireUDP}, "CTA_TIMEOUT_DATA: CTA_TIMEOUT_UDP_UNREPLIED: "},
		{"rest in the data", [][]byte{wireName, wireFamily, wireUDP, attr(ctaTimeoutData, 1, 2)}, "CTA_TIMEOUT_DATA: "},
		{"rest", [][]byte{wireName, wireFamily, wireUDP, wireData, {1}}, "1 bytes after the last attribute"},
		{"attribute longer than the message", [][]byte{wireName, wireFamily, wireUDP, wireData, attr(ctaTimeoutUse, 0, 0, 0, 1)[:6]}, "CTA_TIMEOUT_USE: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var p Policy
			err := p.unmarshal(slices.Concat(tt.b...), inPolicy...)
			require.ErrorIs(t, err, nfnl.ErrMalformed)
			require.ErrorContains(t, err, tt.text)
		})
	}
}

// TestUnmarshalTruncated asserts that a truncated message is refused.
func TestUnmarshalTruncated(t *testing.T) {
	t.Parallel()
	b := slices.Concat(wireName, wireFamily, wireUDP, wireUse, wireData)
	for n := range b {
		var p Policy
		require.ErrorIs(t, p.unmarshal(b[:n:n], inPolicy...), nfnl.ErrMalformed, "%d bytes", n)
	}
}

// FuzzPolicy asserts that any message is either refused as malformed, or
// decoded to a policy that can be sent back.
func FuzzPolicy(f *testing.F) {
	f.Add(slices.Concat(wireName, wireFamily, wireUDP, wireUse, wireData))
	f.Add(slices.Concat(wireName, wireFamily, attr(ctaTimeoutL4Proto, 6), nest(ctaTimeoutData, attr(11, 0, 0, 0, 1), attr(12, 0))))
	f.Add(slices.Concat(wireName, attr(ctaTimeoutL3Proto, 1, 2)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Policy
		if err := p.unmarshal(b, inPolicy...); err != nil {
			require.ErrorIs(t, err, nfnl.ErrMalformed)
			return
		}
		require.LessOrEqual(t, len(p.Name)+4*len(p.Timeouts), len(b))
		for state, timeout := range p.Timeouts {
			require.Contains(t, States(p.Protocol), state)
			require.GreaterOrEqual(t, timeout, time.Duration(0))
			require.Zero(t, timeout%time.Second)
		}

		var e nfnl.Encoder
		e.Message(nfnl.Header{})
		err := p.marshal(&e)
		known := []error{ErrBadName, ErrBadFamily, ErrBadTimeout}
		if err != nil && !slices.ContainsFunc(known, func(k error) bool { return errors.Is(err, k) }) {
			t.Fatal(err)
		}
		require.NoError(t, e.Err())
	})
}

func TestHints(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"name", &OpError{Op: opGet, Name: "x", Err: fs.ErrNotExist}, `cttimeout: get policy "x": file does not exist`},
		{"no name", &OpError{Op: opFlush, Err: fs.ErrClosed}, `cttimeout: flush policies: file already closed`},
		{"protocol", &OpError{Op: opDefaults, Err: errors.ErrUnsupported}, `cttimeout: get default timeouts: unsupported operation (the kernel does not track this protocol)`},
		{"system", &OpError{Op: opDial, Err: errors.ErrUnsupported}, `cttimeout: dial: unsupported operation`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			require.EqualError(t, tt.err, tt.want)
		})
	}
}
