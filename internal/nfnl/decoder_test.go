package nfnl

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"github.com/ti-mo/conntrack/netfilter"
)

// attr returns an attribute without final padding.
func attr(typ uint16, value ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(len(value)+attrHeaderLen))
	b = binary.NativeEndian.AppendUint16(b, typ)
	return append(b, value...)
}

// header returns only the header of an attribute.
func header(n, typ uint16) []byte {
	b := binary.NativeEndian.AppendUint16(nil, n)
	return binary.NativeEndian.AppendUint16(b, typ)
}

var testNames = []string{1: "FIRST", 3: "THIRD"}

func TestDecoder(t *testing.T) {
	t.Parallel()
	type pair struct {
		typ   uint16
		value []byte
	}
	tests := []struct {
		name  string
		bytes []byte
		want  []pair
		err   string
	}{
		{name: "nothing"},
		{
			name:  "flags are no part of the type",
			bytes: slices.Concat(attr(0x8001), attr(0x4001), attr(0xc001), attr(0x3fff)),
			want:  []pair{{1, nil}, {1, nil}, {1, nil}, {0x3fff, nil}},
		},
		{
			name:  "padding",
			bytes: slices.Concat(attr(1, 1), []byte{9, 9, 9}, attr(2, 1, 2), []byte{9, 9}, attr(3, 1, 2, 3), []byte{9}, attr(4, 1, 2, 3, 4)),
			want:  []pair{{1, []byte{1}}, {2, []byte{1, 2}}, {3, []byte{1, 2, 3}}, {4, []byte{1, 2, 3, 4}}},
		},
		{
			name:  "last without padding",
			bytes: slices.Concat(attr(1, 1, 2, 3, 4), attr(3, 1)),
			want:  []pair{{1, []byte{1, 2, 3, 4}}, {3, []byte{1}}},
		},
		{
			name:  "last with part of its padding",
			bytes: slices.Concat(attr(3, 1), []byte{0}),
			want:  []pair{{3, []byte{1}}},
		},
		{name: "length 0", bytes: header(0, 1), err: "FIRST: malformed message: attribute of 0 bytes where its header has 4 and there are 4"},
		{name: "length 1", bytes: header(1, 1), err: "FIRST: malformed message: attribute of 1 bytes where its header has 4 and there are 4"},
		{name: "length 2", bytes: header(2, 2), err: "attribute 2: malformed message: attribute of 2 bytes where its header has 4 and there are 4"},
		{name: "length 3", bytes: header(3, 9), err: "attribute 9: malformed message: attribute of 3 bytes where its header has 4 and there are 4"},
		{
			name:  "longer than what is there",
			bytes: slices.Concat(attr(1, 1, 2, 3, 4), header(9, 0x8003), []byte{1, 2, 3, 4}),
			want:  []pair{{1, []byte{1, 2, 3, 4}}},
			err:   "THIRD: malformed message: attribute of 9 bytes where its header has 4 and there are 8",
		},
		{name: "longest", bytes: header(0xffff, 1), err: "FIRST: malformed message: attribute of 65535 bytes where its header has 4 and there are 4"},
		{
			name:  "no room for a header",
			bytes: slices.Concat(attr(1, 1, 2, 3, 4), []byte{0, 0, 0}),
			want:  []pair{{1, []byte{1, 2, 3, 4}}},
			err:   "attribute 0: malformed message: 3 bytes after the last attribute",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var d Decoder
			var got []pair
			for typ, v := range d.Attributes(tt.bytes) {
				require.Equal(t, len(v), cap(v), "appending to a value would write into the message")
				got = append(got, pair{typ, slices.Clip(append([]byte(nil), v...))})
			}
			require.Equal(t, tt.want, got)
			err := d.Err(testNames)
			if tt.err == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, tt.err)
			require.ErrorIs(t, err, ErrMalformed)
		})
	}
}

func TestDecoderValues(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		size   int
		want   any
		decode func(d *Decoder, v []byte) any
	}{
		{"Uint8", 1, uint8(0x01), func(d *Decoder, v []byte) any { return d.Uint8(v) }},
		{"Uint16", 2, uint16(0x0102), func(d *Decoder, v []byte) any { return d.Uint16(v) }},
		{"Uint32", 4, uint32(0x01020304), func(d *Decoder, v []byte) any { return d.Uint32(v) }},
		{"Uint64", 8, uint64(0x0102030405060708), func(d *Decoder, v []byte) any { return d.Uint64(v) }},
		{"Addr4", 4, netip.MustParseAddr("1.2.3.4"), func(d *Decoder, v []byte) any { return d.Addr4(v) }},
		{"Addr6", 16, netip.MustParseAddr("102:304:506:708:90a:b0c:d0e:f10"), func(d *Decoder, v []byte) any { return d.Addr6(v) }},
	}
	value := []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for size := range value {
				var d Decoder
				got := tt.decode(&d, value[:size])
				if size == tt.size {
					require.NoError(t, d.Err(nil))
					require.Equal(t, tt.want, got)
				} else {
					require.ErrorIs(t, d.Err(nil), ErrMalformed, "%d bytes", size)
					require.Zero(t, got)
				}
			}
		})
	}
}

// TestDecoderFirstFault asserts that the loop ends at the first fault, and that
// later faults do not replace it.
func TestDecoderFirstFault(t *testing.T) {
	t.Parallel()
	var d Decoder
	seen := 0
	for typ, v := range d.Attributes(slices.Concat(attr(3, 1, 2, 3, 4), attr(1, 1, 2, 3, 4))) {
		seen++
		if typ == 3 {
			d.Uint8(v)
			d.Uint64(v)
		}
	}
	require.Equal(t, 1, seen)
	require.EqualError(t, d.Err(testNames), "THIRD: malformed message: 4 bytes, want 1")
}

// TestDecoderPath asserts that an error names the enclosing attributes.
func TestDecoderPath(t *testing.T) {
	t.Parallel()
	inner := func(b []byte) error {
		var d Decoder
		for typ, v := range d.Attributes(b) {
			if typ == 1 {
				d.Uint16(v)
			}
		}
		return d.Err(testNames)
	}
	var d Decoder
	for _, v := range d.Attributes(attr(0x8003, attr(1, 1, 2, 3)...)) {
		d.Fail(inner(v))
		d.Fail(nil)
	}
	err := d.Err(testNames)
	require.EqualError(t, err, "THIRD: FIRST: malformed message: 3 bytes, want 2")
	require.ErrorIs(t, err, ErrMalformed)
	var attrErr *AttributeError
	require.ErrorAs(t, err, &attrErr)
	require.Equal(t, "THIRD", attrErr.Name)
	require.ErrorAs(t, attrErr.Err, &attrErr)
	require.Equal(t, "FIRST", attrErr.Name)
}

func TestDecoderLeftEarly(t *testing.T) {
	t.Parallel()
	var d Decoder
	for range d.Attributes(slices.Concat(attr(1), header(0, 3))) {
		break
	}
	require.NoError(t, d.Err(testNames))
}

func TestTrimNUL(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		{"", ""}, {"\x00", ""}, {"ftp", "ftp"}, {"ftp\x00", "ftp"}, {"ftp\x00\x00", "ftp\x00"}, {"f\x00tp", "f\x00tp"},
	} {
		require.Equal(t, tt.want, string(TrimNUL([]byte(tt.in))), "%q", tt.in)
	}
}

func TestDecodeMessage(t *testing.T) {
	t.Parallel()
	m := netlink.Message{
		Header: netlink.Header{Type: 0x0102, Flags: netlink.Multi},
		Data:   []byte{10, 1, 0x03, 0x04, 5, 6, 7},
	}
	h, attrs, err := DecodeMessage(m)
	require.NoError(t, err)
	require.Equal(t, Header{
		Flags: netlink.Multi, SubsystemID: NFSubsysCTNetlink, MessageType: 2,
		Family: netfilter.ProtoIPv6, Version: 1, ResourceID: 0x0304,
	}, h)
	require.Equal(t, []byte{5, 6, 7}, attrs)

	for n := range 4 {
		m.Data = m.Data[:n]
		_, _, err := DecodeMessage(m)
		require.ErrorIs(t, err, ErrMalformed, "%d bytes", n)
	}
	m.Data = []byte{2, 0, 0, 0}
	_, attrs, err = DecodeMessage(m)
	require.NoError(t, err)
	require.Empty(t, attrs)
}

func TestDecoderAllocations(t *testing.T) {
	b := slices.Concat(attr(1, 1, 2, 3, 4), attr(0x8003, attr(1, 1, 2, 3, 4)...))
	require.Zero(t, testing.AllocsPerRun(100, func() { decodeTestMessage(b) }))
}

func decodeTestMessage(b []byte) (sum uint32, err error) {
	var d Decoder
	for typ, v := range d.Attributes(b) {
		switch typ {
		case 1:
			sum += d.Uint32(v)
		case 3:
			n, err := decodeTestMessage(v)
			d.Fail(err)
			sum += n
		}
	}
	return sum, d.Err(testNames)
}

func BenchmarkDecoder(b *testing.B) {
	b.ReportAllocs()
	bytes := slices.Concat(attr(1, 1, 2, 3, 4), attr(0x8003, attr(1, 1, 2, 3, 4)...))
	for b.Loop() {
		if _, err := decodeTestMessage(bytes); err != nil {
			b.Fatal(err)
		}
	}
}
