//go:build linux

package conntrack

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"github.com/ti-mo/conntrack/internal/nfnl"
)

// seed adds the attributes of the golden messages of some types.
func seed(f *testing.F, types ...string) {
	f.Helper()
	for _, file := range goldenFiles(f) {
		if r := readRecord(f, file); slices.Contains(types, r.Type) {
			f.Add(r.message(f).Data[sizeofNfgenmsg:])
		}
	}
}

// requireOwn decodes b and requires that the result shares memory neither with b
// nor with what else is decoded, or that the error says that b is malformed. It
// returns nil in the latter case.
func requireOwn[T any](t *testing.T, b []byte, decode func(v *T, b []byte, s *slab) error) *T {
	t.Helper()
	var want T
	if err := decode(&want, b, nil); err != nil {
		require.ErrorIs(t, err, nfnl.ErrMalformed)
		return nil
	}
	require.LessOrEqual(t, owned(reflect.ValueOf(want)), len(b))

	var before, v, after T
	input := bytes.Clone(b)
	s := new(slab)
	for _, v := range []*T{&before, &v, &after} {
		require.NoError(t, decode(v, input, s))
		require.Equal(t, &want, v)
	}
	clear(input)
	overwrite(reflect.ValueOf(&before).Elem())
	overwrite(reflect.ValueOf(&after).Elem())
	require.Equal(t, want, v)
	return &want
}

// overwrite overwrites all that v has in memory of its own.
func overwrite(v reflect.Value) {
	switch {
	case v.Type() == reflect.TypeFor[[]byte]():
		b := v.Bytes()
		for i := range b[:cap(b)] {
			b[:cap(b)][i]++
		}
	case isOurs(v.Type()):
		for i := range v.NumField() {
			overwrite(v.Field(i))
		}
	case v.Kind() == reflect.Pointer && isOurs(v.Type().Elem()) && !v.IsNil():
		overwrite(v.Elem())
		v.Elem().SetZero()
	}
}

// isOurs reports whether t is a struct of this package.
func isOurs(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t.PkgPath() == reflect.TypeFor[Flow]().PkgPath()
}

// owned returns how many bytes the strings and byte slices of v hold.
func owned(v reflect.Value) (n int) {
	switch {
	case v.Kind() == reflect.String, v.Kind() == reflect.Slice:
		return v.Len()
	case isOurs(v.Type()):
		for i := range v.NumField() {
			n += owned(v.Field(i))
		}
	case v.Kind() == reflect.Pointer && isOurs(v.Type().Elem()) && !v.IsNil():
		return owned(v.Elem())
	}
	return n
}

// encoded returns the attributes of the one message in e.
func encoded(e *nfnl.Encoder) []byte {
	const header = 20 // with struct nfgenmsg
	return bytes.Clone(reflect.ValueOf(e).Elem().FieldByName("buf").Bytes()[header:])
}

func FuzzFlow(f *testing.F) {
	seed(f, "*conntrack.Flow", "*conntrack.Event")
	for _, field := range flowFields {
		f.Add(nested(field.types, make([]byte, field.size)))
	}
	decode := func(f *Flow, b []byte, s *slab) error { return f.unmarshal(b, s) }
	f.Fuzz(func(t *testing.T, b []byte) {
		flow := requireOwn(t, b, decode)
		if flow == nil {
			return
		}
		_ = flow.describe()
		once := encodeFlow(flow)
		if once == nil {
			return
		}
		var again Flow
		require.NoError(t, decode(&again, once, nil))
		require.Equal(t, once, encodeFlow(&again))
	})
}

// encodeFlow returns what is sent to create flow, or nil where it cannot be.
func encodeFlow(flow *Flow) []byte {
	if _, err := flow.family(); err != nil {
		return nil
	}
	var e nfnl.Encoder
	e.Message(nfnl.Header{})
	if flow.marshalNew(&e) != nil || e.Err() != nil {
		return nil
	}
	return encoded(&e)
}

func FuzzExpect(f *testing.F) {
	seed(f, "*conntrack.Expect", "*conntrack.Event")
	for _, field := range expectFields {
		f.Add(nested(field.types, make([]byte, field.size)))
	}
	decode := func(ex *Expect, b []byte, s *slab) error { return ex.unmarshal(b, s) }
	f.Fuzz(func(t *testing.T, b []byte) {
		ex := requireOwn(t, b, decode)
		if ex == nil {
			return
		}
		_ = ex.describe()
		once := encodeExpect(ex)
		if once == nil {
			return
		}
		var again Expect
		require.NoError(t, decode(&again, once, nil))
		require.Equal(t, once, encodeExpect(&again))
	})
}

func encodeExpect(ex *Expect) []byte {
	if _, err := ex.family(); err != nil {
		return nil
	}
	var e nfnl.Encoder
	e.Message(nfnl.Header{})
	ex.marshal(&e)
	if e.Err() != nil {
		return nil
	}
	return encoded(&e)
}

func FuzzEvent(f *testing.F) {
	for _, file := range goldenFiles(f) {
		m := readRecord(f, file)
		message := m.message(f)
		f.Add(uint16(message.Header.Type), uint16(message.Header.Flags), message.Data)
	}
	f.Fuzz(func(t *testing.T, typ, flags uint16, b []byte) {
		header := netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.HeaderFlags(flags)}
		input := bytes.Clone(b)
		var got, want Event
		err := got.Unmarshal(netlink.Message{Header: header, Data: input})
		if err != nil {
			require.True(t, errors.Is(err, nfnl.ErrMalformed) || errors.Is(err, ErrUnknownEvent), "%v", err)
			return
		}
		require.True(t, (got.Flow == nil) != (got.Expect == nil))
		_ = got.String()
		clear(input)
		require.NoError(t, want.Unmarshal(netlink.Message{Header: header, Data: b}))
		require.Equal(t, want, got)
	})
}

func FuzzStats(f *testing.F) {
	seed(f, "*conntrack.Stats", "*conntrack.StatsExpect", "*conntrack.StatsGlobal")
	f.Fuzz(func(t *testing.T, b []byte) {
		requireOwn(t, b, func(s *Stats, b []byte, _ *slab) error { return s.unmarshal(b) })
		requireOwn(t, b, func(s *StatsExpect, b []byte, _ *slab) error { return s.unmarshal(b) })
		requireOwn(t, b, func(s *StatsGlobal, b []byte, _ *slab) error { return s.unmarshal(b) })
	})
}

// TestGoldenEncoding asserts that of what the kernel sent, all that can be set
// is sent to it: a flow or expectation that was decoded, encoded and decoded is
// the same but for what the kernel alone decides.
func TestGoldenEncoding(t *testing.T) {
	t.Parallel()
	for _, file := range goldenFiles(t) {
		r := readRecord(t, file)
		v, err := kindOf(r.Type).decode(r.message(t))
		require.NoError(t, err)
		if e, ok := v.(*Event); ok && e.Flow != nil {
			v = e.Flow
		} else if ok {
			v = e.Expect
		}
		switch want := v.(type) {
		case *Flow:
			var got Flow
			require.NoError(t, got.unmarshal(encodeFlow(want), nil))
			want.ID, want.Use, want.Timestamp = 0, 0, Timestamp{}
			if want.TupleMaster.filled() {
				want.Status.Value &^= StatusExpected
			}
			want.CountersOrig, want.CountersReply = Counter{}, Counter{}
			want.CountedZero = false
			if tcp := want.ProtoInfo.TCP; tcp != nil {
				for _, flags := range []*uint16{&tcp.OriginalFlags, &tcp.ReplyFlags} {
					if *flags != 0 {
						*flags |= 0xff
					}
				}
			}
			if nat, reply := want.translated(); nat != (NAT{}) {
				want.NAT, want.TupleReply = &nat, reply
			}
			if want.SeqAdjReply == (SequenceAdjust{Direction: true}) {
				want.SeqAdjReply.Direction = false
			}
			require.Equal(t, want, &got, file)
		case *Expect:
			var got Expect
			require.NoError(t, got.unmarshal(encodeExpect(want), nil))
			want.ID = 0
			require.Equal(t, want, &got, file)
		}
	}
}
