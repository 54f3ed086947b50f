package conntracktest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack/internal/netns"
	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/internal/release"
)

// A raw is a netlink socket of the running kernel's.
type raw int

func dialRaw(t *testing.T) raw {
	t.Helper()
	if testing.Short() {
		t.Skip("no tests on the kernel with -short")
	}
	if running, err := release.Running(); err != nil || running != (release.Release{Major: 6, Minor: 18}) {
		t.Skipf("a Kernel is like Linux 6.18, this is %v", running)
	}
	ns, err := netns.New()
	if err != nil {
		t.Skipf("no network namespace: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, ns.Close()) })
	fd := -1
	require.NoError(t, ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		return err
	}))
	t.Cleanup(func() { unix.Close(fd) })
	return raw(fd)
}

func (r raw) Send(b []byte) error {
	return unix.Sendto(int(r), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

func (r raw) Receive(bool) ([]byte, error) {
	b := make([]byte, 1<<16)
	n, _, err := unix.Recvfrom(int(r), b, unix.MSG_DONTWAIT)
	if err == unix.EAGAIN {
		err = nfnl.ErrWouldBlock
	}
	return b[:max(n, 0)], err
}

// ask sends a request and returns what answers it: the number of messages and the
// error at their end.
func ask(s interface {
	Send(b []byte) error
	Receive(wait bool) ([]byte, error)
}, request []byte) string {
	if err := s.Send(request); err != nil {
		return err.Error()
	}
	replies, end := 0, "none"
	for {
		b, err := s.Receive(false)
		if err != nil {
			return fmt.Sprintf("%d messages, end %s", replies, end)
		}
		for len(b) >= nlmsgHeaderLen {
			switch binary.NativeEndian.Uint16(b[4:]) {
			case nlmsgDone:
				end = "done"
			case nlmsgError:
				end = fmt.Sprint(-int32(binary.NativeEndian.Uint32(b[nlmsgHeaderLen:])))
			default:
				replies++
			}
			b = b[min(align(messageLen(b)), len(b)):]
		}
	}
}

// A shape is what an attribute may hold.
type shape struct {
	typ   uint16
	value []byte
	parts []shape
}

func leaf(typ uint16, v ...byte) shape { return shape{typ: typ, value: v} }

func tupleShape(typ uint16) shape {
	return shape{typ: typ, parts: []shape{
		{typ: ctaTupleIP, parts: []shape{
			leaf(ctaIPv4Src, 10, 0, 0, 1), leaf(ctaIPv4Dst, 10, 0, 0, 2),
			leaf(ctaIPv6Src, make([]byte, 16)...), leaf(ctaIPv6Dst, make([]byte, 16)...),
		}},
		{typ: ctaTupleProto, parts: []shape{
			leaf(ctaProtoNum, protoTCP), leaf(ctaProtoSrcPort, 0, 1), leaf(ctaProtoDstPort, 0, 2),
			leaf(ctaProtoICMPID, 0, 1), leaf(ctaProtoICMPType, 8), leaf(ctaProtoICMPCode, 0),
		}},
	}}
}

var flowShapes = []shape{
	tupleShape(ctaTupleOrig), tupleShape(ctaTupleReply), leaf(ctaTimeout, 0, 0, 1, 0), leaf(ctaStatus, 0, 0, 0, 8),
	leaf(ctaMark, 0, 0, 0, 1), leaf(ctaMarkMask, 0, 0, 0, 1), leaf(ctaZone, 0, 1), leaf(ctaLabels, 1, 2, 3, 4), leaf(ctaLabelsMask, 1, 2, 3, 4),
	{typ: ctaProtoInfo, parts: []shape{{typ: ctaProtoInfoTCP, parts: []shape{
		leaf(ctaTCPState, 3), leaf(ctaTCPWScaleOrig, 1), leaf(ctaTCPWScaleReply, 1), leaf(ctaTCPFlagsOrig, 1, 1), leaf(ctaTCPFlagsReply, 1, 1),
	}}}},
	{typ: ctaHelp, parts: []shape{leaf(ctaHelpName, 'f', 't', 'p', 0), leaf(ctaHelpInfo, 1)}},
	{typ: ctaSeqAdjOrig, parts: []shape{leaf(1, 0, 0, 0, 1), leaf(2, 0, 0, 0, 1), leaf(3, 0, 0, 0, 1)}},
	{typ: ctaSynProxy, parts: []shape{leaf(1, 0, 0, 0, 1), leaf(2, 0, 0, 0, 1), leaf(3, 0, 0, 0, 1)}},
	{typ: ctaNATSrc, parts: []shape{leaf(ctaNATv4MinIP, 9, 9, 9, 9), {typ: ctaNATProto, parts: []shape{leaf(ctaProtoNATPortMin, 9, 9)}}}},
	{typ: ctaFilter, parts: []shape{leaf(ctaFilterOrigFlags, 1, 0, 0, 0), leaf(ctaFilterReplyFlags, 8, 0, 0, 0)}},
	leaf(ctaStatusMask, 0, 0, 0, 1), leaf(ctaID, 1, 2, 3, 4), leaf(ctaTimestampEvent, 1), leaf(40, 1),
}

var expectShapes = []shape{
	tupleShape(ctaExpectMaster), tupleShape(ctaExpectTuple), tupleShape(ctaExpectMask), leaf(ctaExpectTimeout, 0, 0, 1, 0),
	leaf(ctaExpectID, 1, 2, 3, 4), leaf(ctaExpectHelpName, 'f', 't', 'p', 0), leaf(ctaExpectZone, 0, 1), leaf(ctaExpectFlags, 0, 0, 0, 1),
	{typ: ctaExpectNAT, parts: []shape{leaf(ctaExpectNATDir, 0, 0, 0, 1), tupleShape(ctaExpectNATTuple)}},
	leaf(ctaExpectFN, 'x', 0),
}

// write writes most of the shapes, and spoils some of them.
func write(w *writer, r *rand.Rand, shapes []shape, spoil int) {
	for _, s := range shapes {
		if r.IntN(spoil) == 0 {
			continue // missing
		}
		start := len(w.b)
		typ := s.typ
		if s.parts != nil {
			w.nest(typ, func() { write(w, r, s.parts, 2*spoil) })
		} else {
			v := s.value
			if r.IntN(4*spoil) == 0 {
				v = append([]byte(nil), v[:r.IntN(len(v)+1)]...)
			}
			if r.IntN(8*spoil) == 0 {
				v = append(append([]byte(nil), v...), 0)
			}
			w.attr(typ, v...)
		}
		if r.IntN(16*spoil) == 0 {
			binary.NativeEndian.PutUint16(w.b[start:], uint16(r.IntN(12)))
		}
		if r.IntN(16*spoil) == 0 {
			w.b[start+3] ^= 0x80 // the nested flag, on little-endian machines
		}
	}
}

// TestMalformed asserts that requests that are not as they should be are answered as by
// the running kernel.
func TestMalformed(t *testing.T) {
	t.Parallel()
	kernel := dialRaw(t)
	k := NewKernel(&Options{NoLabels: true})
	kit := k.newSocket()
	const seed = 1
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	seen := make(map[string]int)
	for range 5000 {
		typ, shapes := uint16(subsysConntrack<<8), flowShapes
		kinds := []uint16{ctNew, ctNew, ctNew, ctNew, ctGet, ctGet, ctDelete, ctGetStats, ctMessages}
		if r.IntN(4) == 0 {
			typ, shapes = subsysExpect<<8, expectShapes
			kinds = []uint16{expNew, expNew, expGet, expDelete, expMessages}
		}
		typ |= kinds[r.IntN(len(kinds))]
		flags := []uint16{0, flagAck, flagAck | flagCreate, flagAck | flagCreate | flagExcl}[r.IntN(4)]
		if r.IntN(50) == 0 {
			flags |= flagDump
		}
		family := []uint8{afInet, afInet, afInet, afInet6, afUnspec, 7}[r.IntN(6)]
		var w writer
		w.message(typ, flags|flagRequest, 1, 0, family, 0)
		var kept []shape
		for i, s := range shapes {
			if i < 3 || r.IntN(6) == 0 {
				kept = append(kept, s)
			}
		}
		write(&w, r, kept, []int{4, 12, 50}[r.IntN(3)])
		binary.NativeEndian.PutUint32(w.b, uint32(len(w.b)))
		want := ask(kernel, w.b)
		require.Equal(t, want, ask(kit, w.b), "request %x", w.b)
		seen[want]++
	}
	t.Log(seen)
	require.Greater(t, len(seen), 8)
}
