package conntracktest

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack/internal/nfnl"
)

// FuzzRequests sends arbitrary bytes, behind the headers of each kind of request. There
// is an answer to each, and the Kernel stays whole.
func FuzzRequests(f *testing.F) {
	t4 := tuple{src: loopback4, dst: loopback4, proto: protoTCP, srcPort: 1, dstPort: 2}
	var w writer
	w.tuple(ctaTupleOrig, &t4, func() { w.u16(ctaTupleZone, 3) })
	inverse := t4.inverse()
	w.tuple(ctaTupleReply, &inverse, func() {})
	w.u32(ctaTimeout, 100)
	w.u32(ctaStatus, statusConfirmed)
	w.nest(ctaProtoInfo, func() { w.nest(ctaProtoInfoTCP, func() { w.u8(ctaTCPState, 3) }) })
	w.nest(ctaHelp, func() { w.text(ctaHelpName, "ftp") })
	w.nest(ctaNATSrc, func() { w.attr(ctaNATv4MinIP, 1, 2, 3, 4) })
	w.nest(ctaFilter, func() { w.attr(ctaFilterOrigFlags, 1, 0, 0, 1) })
	w.attr(ctaLabels, 1, 2, 3, 4)
	for _, subsystem := range []uint16{subsysConntrack, subsysExpect} {
		for typ := range uint16(ctMessages + 1) {
			for _, flags := range []uint16{0, flagDump, flagCreate, flagEcho | flagAck} {
				f.Add(subsystem<<8|typ, flags, uint8(afInet), uint8(0), w.b)
			}
		}
	}
	f.Fuzz(func(t *testing.T, typ, flags uint16, family, version uint8, attrs []byte) {
		k := NewKernel(&Options{DumpPart: 1})
		s := k.newSocket()
		for range 2 {
			var m writer
			m.message(typ, flags|flagRequest|flagAck, 7, 0, family, 0)
			m.b[17] = version
			m.b = append(m.b, attrs...)
			binary.NativeEndian.PutUint32(m.b, uint32(len(m.b)))
			require.NoError(t, s.Send(m.b))
			requireAnswer(t, s)
		}
		s.pid = 0 // as packets do
		require.NoError(t, s.Send(attrs))
		for _, e := range k.entries {
			if !e.gone {
				k.flow(e)
			}
		}
	})
}

var loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// requireAnswer requires that what was sent has an answer that ends: an
// acknowledgement, an error, or a dump.
func requireAnswer(t *testing.T, s *socket) {
	t.Helper()
	for {
		b, err := s.Receive(false)
		require.NotErrorIs(t, err, nfnl.ErrWouldBlock, "no answer")
		require.NoError(t, err)
		for len(b) > 0 {
			require.GreaterOrEqual(t, len(b), nlmsgHeaderLen)
			n := messageLen(b)
			require.True(t, nlmsgHeaderLen <= n && n <= len(b))
			switch binary.NativeEndian.Uint16(b[4:]) {
			case nlmsgDone:
				return
			case nlmsgError:
				code := -int32(binary.NativeEndian.Uint32(b[nlmsgHeaderLen:]))
				require.True(t, 0 <= code && code < 200, "%d", code)
				return
			}
			b = b[align(n):]
		}
	}
}
