package nfnl

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"github.com/ti-mo/conntrack/netfilter"
)

var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// TestEncoderBytes asserts the encoded bytes, on machines of either byte order.
func TestEncoderBytes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name        string
		encode      func(e *Encoder)
		little, big string
	}{
		{
			name: "message",
			encode: func(e *Encoder) {
				e.Message(Header{
					Flags:       netlink.Dump,
					SubsystemID: NFSubsysCTNetlinkExp,
					MessageType: 1,
					Family:      netfilter.ProtoIPv6,
					Version:     3,
					ResourceID:  0x0102,
				})
			},
			little: "14000000 0102 0103 00000000 00000000 0a 03 0102",
			big:    "00000014 0201 0301 00000000 00000000 0a 03 0102",
		},
		{
			name:   "Uint8",
			encode: func(e *Encoder) { e.Uint8(0x102, 0xab) },
			little: "0500 0201 ab000000",
			big:    "0005 0102 ab000000",
		},
		{
			name:   "Uint16",
			encode: func(e *Encoder) { e.Uint16(3, 0xabcd) },
			little: "0600 0300 abcd0000",
			big:    "0006 0003 abcd0000",
		},
		{
			name:   "Uint32",
			encode: func(e *Encoder) { e.Uint32(3, 0x01020304) },
			little: "0800 0300 01020304",
			big:    "0008 0003 01020304",
		},
		{
			name:   "NativeUint32",
			encode: func(e *Encoder) { e.NativeUint32(3, 0x01020304) },
			little: "0800 0300 04030201",
			big:    "0008 0003 01020304",
		},
		{
			name:   "Uint64",
			encode: func(e *Encoder) { e.Uint64(3, 0x0102030405060708) },
			little: "0c00 0300 0102030405060708",
			big:    "000c 0003 0102030405060708",
		},
		{
			name: "padding of bytes",
			encode: func(e *Encoder) {
				e.Bytes(1, nil)
				e.Bytes(1, []byte{1})
				e.Bytes(1, []byte{1, 2})
				e.Bytes(1, []byte{1, 2, 3})
				e.Bytes(1, []byte{1, 2, 3, 4})
			},
			little: "0400 0100  0500 0100 01000000  0600 0100 01020000  0700 0100 01020300  0800 0100 01020304",
			big:    "0004 0001  0005 0001 01000000  0006 0001 01020000  0007 0001 01020300  0008 0001 01020304",
		},
		{
			name: "strings end with NUL",
			encode: func(e *Encoder) {
				e.String(1, "")
				e.String(1, "ftp")
				e.String(1, "tftp")
			},
			little: "0500 0100 00000000  0800 0100 66747000  0900 0100 7466747000000000",
			big:    "0005 0001 00000000  0008 0001 66747000  0009 0001 7466747000000000",
		},
		{
			name: "nested",
			encode: func(e *Encoder) {
				outer := e.Nest(1)
				inner := e.Nest(2)
				e.Uint8(3, 0xab)
				e.End(inner)
				empty := e.Nest(4)
				e.End(empty)
				e.End(outer)
				e.Uint16(5, 0xabcd)
			},
			little: "1400 0180  0c00 0280  0500 0300 ab000000  0400 0480  0600 0500 abcd0000",
			big:    "0014 8001  000c 8002  0005 0003 ab000000  0004 8004  0006 0005 abcd0000",
		},
		{
			name: "two messages",
			encode: func(e *Encoder) {
				e.Message(Header{})
				e.Uint8(1, 0xab)
				e.Message(Header{})
			},
			little: "1c000000 0000 0100 00000000 00000000 00000000  0500 0100 ab000000" +
				"14000000 0000 0100 00000000 00000000 00000000",
			big: "0000001c 0000 0001 00000000 00000000 00000000  0005 0001 ab000000" +
				"00000014 0000 0001 00000000 00000000 00000000",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			want := tt.big
			if littleEndian {
				want = tt.little
			}
			var e Encoder
			tt.encode(&e)
			e.finish()
			require.NoError(t, e.Err())
			require.Equal(t, strings.ReplaceAll(want, " ", ""), hex.EncodeToString(e.buf))
			require.Equal(t, len(e.buf), e.Len())
		})
	}
}

func TestEncoderSeal(t *testing.T) {
	t.Parallel()
	var e Encoder
	require.Error(t, e.seal(1, false), "nothing to send")
	e.Message(Header{Flags: netlink.Dump})
	e.Uint8(1, 1)
	e.Message(Header{Flags: netlink.Create})
	require.Equal(t, 2, e.Count())
	require.NoError(t, e.seal(7, true))

	first, rest, err := nextMessage(e.buf)
	require.NoError(t, err)
	require.Len(t, first, 28)
	require.Equal(t, netlink.Request|netlink.Dump, first.flags())
	require.EqualValues(t, 7, first.sequence())
	second, rest, err := nextMessage(rest)
	require.NoError(t, err)
	require.Len(t, second, 20)
	require.Equal(t, netlink.Request|netlink.Create|netlink.Acknowledge, second.flags())
	require.EqualValues(t, 8, second.sequence())
	require.Empty(t, rest)
}

// TestEncoderCancel asserts that a cancelled message leaves no trace.
func TestEncoderCancel(t *testing.T) {
	t.Parallel()
	spoiled := func(e *Encoder) {
		e.Message(Header{Flags: netlink.Dump})
		e.Bytes(9, make([]byte, 1<<16))
	}
	for _, cancelled := range [][]int{{0}, {1}, {2}, {0, 2}, {0, 0, 1, 3}} {
		var e, want Encoder
		for i := range 3 {
			for range slices.DeleteFunc(slices.Clone(cancelled), func(n int) bool { return n != i }) {
				spoiled(&e)
				require.Error(t, e.Err())
				e.Cancel()
				require.NoError(t, e.Err())
			}
			for _, enc := range []*Encoder{&e, &want} {
				enc.Message(Header{MessageType: MessageType(i)})
				enc.Uint8(1, uint8(i))
			}
		}
		if slices.Contains(cancelled, 3) {
			spoiled(&e)
			e.Cancel()
		}
		require.NoError(t, e.seal(1, true))
		require.NoError(t, want.seal(1, true))
		require.Equal(t, want.buf, e.buf, "%v", cancelled)
		require.Equal(t, 3, e.Count())
	}

	var e Encoder
	spoiled(&e)
	e.Cancel()
	require.Zero(t, e.Count())
	require.Error(t, e.seal(1, true), "nothing is left")
}

// TestEncoderTooLong asserts that a value too long for an attribute is an
// error, and that the next request is not affected.
func TestEncoderTooLong(t *testing.T) {
	t.Parallel()
	const most = 65535 - 4
	tests := []struct {
		name   string
		encode func(e *Encoder)
		fits   bool
	}{
		{"bytes that fit", func(e *Encoder) { e.Bytes(1, make([]byte, most)) }, true},
		{"bytes", func(e *Encoder) { e.Bytes(1, make([]byte, most+1)) }, false},
		{"string that fits", func(e *Encoder) { e.String(1, strings.Repeat("a", most-1)) }, true},
		{"string", func(e *Encoder) { e.String(1, strings.Repeat("a", most)) }, false},
		{"nested", func(e *Encoder) {
			mark := e.Nest(1)
			e.Bytes(2, make([]byte, 40_000))
			e.Bytes(2, make([]byte, 40_000))
			e.End(mark)
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var e Encoder
			e.Message(Header{})
			tt.encode(&e)
			if tt.fits {
				require.NoError(t, e.Err())
				require.NoError(t, e.seal(1, false))
				return
			}
			require.Error(t, e.Err())
			require.Equal(t, e.Err(), e.seal(1, false))
			e.Reset()
			require.NoError(t, e.Err())
			require.Zero(t, e.Len())
			require.Zero(t, e.Count())
		})
	}
}

func TestEncoderAllocations(t *testing.T) {
	var e Encoder
	value := make([]byte, 16)
	encode := func() {
		e.Reset()
		for range 8 {
			e.Message(Header{})
			mark := e.Nest(1)
			e.Uint8(1, 1)
			e.Uint16(1, 1)
			e.Uint32(1, 1)
			e.NativeUint32(1, 1)
			e.Uint64(1, 1)
			e.Bytes(1, value)
			e.String(1, "ftp")
			e.End(mark)
		}
		if err := e.seal(1, true); err != nil {
			panic(err)
		}
	}
	require.Zero(t, testing.AllocsPerRun(100, encode))
}

func BenchmarkEncoder(b *testing.B) {
	b.ReportAllocs()
	var e Encoder
	for b.Loop() {
		e.Reset()
		e.Message(Header{})
		mark := e.Nest(1)
		e.Uint8(1, 1)
		e.Uint16(1, 1)
		e.Uint32(1, 1)
		e.End(mark)
	}
}
