//go:build linux

package conntrack

import (
	"path/filepath"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"github.com/ti-mo/conntrack/internal/nfnl"
)

// newestGolden returns the golden message of this name, that of the last
// directory.
func newestGolden(b *testing.B, name string) netlink.Message {
	b.Helper()
	files, err := filepath.Glob("testdata/*/" + name + ".json")
	require.NoError(b, err)
	require.NotEmpty(b, files)
	r := readRecord(b, files[len(files)-1])
	return r.message(b)
}

func BenchmarkDecode(b *testing.B) {
	for _, name := range []string{"flow-tcp-ipv4", "flow-tcp-ipv6", "flow-udp-ipv4", "flow-icmp", "flow-labels", "flow-helper"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			attributes := newestGolden(b, name).Data[sizeofNfgenmsg:]
			var s slab
			var f Flow
			for b.Loop() {
				f = Flow{}
				if err := f.unmarshal(attributes, &s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("expect-ftp-ipv4", func(b *testing.B) {
		b.ReportAllocs()
		attributes := newestGolden(b, "expect-ftp-ipv4").Data[sizeofNfgenmsg:]
		var s slab
		var ex Expect
		for b.Loop() {
			ex = Expect{}
			if err := ex.unmarshal(attributes, &s); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, name := range []string{"event-new-tcp", "event-destroy-tcp", "event-expect-new"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			h, attributes, err := nfnl.DecodeMessage(newestGolden(b, name))
			require.NoError(b, err)
			m := nfnl.Message{Header: h, Attributes: attributes, NSID: -1}
			var s slab
			var e Event
			for b.Loop() {
				if err := e.unmarshal(m, new(Flow), &s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("stats", func(b *testing.B) {
		b.ReportAllocs()
		attributes := newestGolden(b, "stats").Data[sizeofNfgenmsg:]
		var s Stats
		for b.Loop() {
			if err := s.unmarshal(attributes); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	for _, name := range []string{"flow-tcp-ipv4", "flow-tcp-ipv6", "flow-labels", "flow-helper", "flow-expected"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			v, err := flowKind.decode(newestGolden(b, name))
			require.NoError(b, err)
			f := v.(*Flow)
			var e nfnl.Encoder
			for b.Loop() {
				e.Reset()
				if err := (attempt{op: opCreate}).append(&e, f, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("expect-ftp-ipv4", func(b *testing.B) {
		b.ReportAllocs()
		v, err := expectKind.decode(newestGolden(b, "expect-ftp-ipv4"))
		require.NoError(b, err)
		ex := v.(*Expect)
		var e nfnl.Encoder
		for b.Loop() {
			e.Reset()
			e.Message(nfnl.Header{})
			ex.marshal(&e)
		}
	})
}
