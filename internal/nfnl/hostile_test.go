//go:build linux

package nfnl

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"iter"
	"math"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"github.com/ti-mo/conntrack/netfilter"
	"golang.org/x/sys/unix"
)

// A hostile is the peer of a Conn that is connected to the test instead of the
// kernel. Sequence numbers start at 1, so a test can send replies before the
// request.
type hostile struct {
	t testing.TB
	*os.File
}

// dialHostile returns a Conn and the peer that plays the kernel.
func dialHostile(t testing.TB) (*Conn, hostile) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	require.NoError(t, err)
	ours, theirs := os.NewFile(uintptr(fds[0]), "conn"), os.NewFile(uintptr(fds[1]), "kernel")
	t.Cleanup(func() { theirs.Close() })
	c, err := newConn(netlink.NewConn(socket{File: ours}, 1), &netlink.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, theirs.SetDeadline(time.Now().Add(10*time.Second)))
	return c, hostile{t, theirs}
}

// A socket implements what netlink.NewConn needs, as far as a Conn uses it.
type socket struct{ *os.File }

func (socket) Send(netlink.Message) error                     { panic("unused") }
func (socket) SendMessages([]netlink.Message) error           { panic("unused") }
func (socket) Receive() ([]netlink.Message, error)            { panic("unused") }
func (socket) ReceiveIter() iter.Seq2[netlink.Message, error] { panic("unused") }

// send sends datagrams.
func (h hostile) send(datagrams ...[]byte) {
	h.t.Helper()
	for _, b := range datagrams {
		_, err := h.Write(b)
		require.NoError(h.t, err)
	}
}

// receive returns the next request.
func (h hostile) receive() []byte {
	h.t.Helper()
	b := make([]byte, 1<<16)
	n, err := h.Read(b)
	require.NoError(h.t, err)
	return b[:n]
}

// nlmsg returns a netlink message.
func nlmsg(typ netlink.HeaderType, flags netlink.HeaderFlags, seq uint32, body ...byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(nlmsgHeaderLen+len(body)))
	b = binary.NativeEndian.AppendUint16(b, uint16(typ))
	b = binary.NativeEndian.AppendUint16(b, uint16(flags))
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, body...)
	return append(b, make([]byte, align(len(b))-len(b))...)
}

// reply returns a message whose only attribute is n.
func reply(seq uint32, flags netlink.HeaderFlags, n byte) []byte {
	return nlmsg(0x100, flags, seq, append([]byte{2, 0, 0, 0}, attr(1, n)...)...)
}

// result returns an acknowledgement or an error with the given code, followed
// by rest.
func result(seq uint32, flags netlink.HeaderFlags, code unix.Errno, rest ...byte) []byte {
	body := binary.NativeEndian.AppendUint32(nil, uint32(-int32(code)))
	return nlmsg(netlink.Error, flags, seq, append(body, rest...)...)
}

func ack(seq uint32) []byte { return result(seq, netlink.Capped, 0, make([]byte, nlmsgHeaderLen)...) }

func refusal(seq uint32, code unix.Errno) []byte {
	return result(seq, netlink.Capped, code, make([]byte, nlmsgHeaderLen)...)
}

func done(seq uint32, flags netlink.HeaderFlags, code unix.Errno) []byte {
	return nlmsg(netlink.Done, flags|netlink.Multi, seq, binary.NativeEndian.AppendUint32(nil, uint32(-int32(code)))...)
}

// request returns n messages with the given flags.
func request(flags netlink.HeaderFlags, n int) *Encoder {
	e := new(Encoder)
	for range n {
		e.Message(Header{SubsystemID: NFSubsysCTNetlink, MessageType: 1, Flags: flags})
	}
	return e
}

// requireUsable asserts that c still carries out requests.
func requireUsable(t *testing.T, c *Conn, h hostile) {
	t.Helper()
	next := max(c.seq+1, 1) // 0 is skipped
	h.send(reply(next, 0, 42), ack(next))
	var got []byte
	require.NoError(t, c.Do(request(netlink.Acknowledge, 1), func(m Message) error {
		got = append(got, m.Attributes[attrHeaderLen])
		return nil
	}))
	require.Equal(t, []byte{42}, got)
}

func TestReplies(t *testing.T) {
	t.Parallel()
	const (
		dump  = netlink.Dump
		acked = netlink.Acknowledge
	)
	multi := func(seq uint32, n byte) []byte { return reply(seq, netlink.Multi, n) }
	tlvs := netlink.AcknowledgeTLVs
	text := slices.Concat(attr(extAckMessage, []byte("no such thing\x00")...), []byte{0, 0},
		attr(extAckOffset, binary.NativeEndian.AppendUint32(nil, 24)...))
	refused := slices.Concat(nlmsg(0x100, 0, 1, 2, 0, 0, 0, 5, 0, 1, 0, 9))[:nlmsgHeaderLen+12]

	tests := []struct {
		name      string
		flags     netlink.HeaderFlags
		datagrams [][]byte
		want      []byte // attributes of the replies
		err       error
		text      string // text of the error
	}{
		{name: "acknowledged", flags: acked, datagrams: [][]byte{ack(1)}},
		{name: "acknowledgement without body", flags: acked, datagrams: [][]byte{result(1, 0, 0)}},
		{name: "reply and acknowledgement", flags: acked, datagrams: [][]byte{multi(1, 7), ack(1)}, want: []byte{7}},
		{name: "single reply", datagrams: [][]byte{multi(1, 7)}, want: []byte{7}},
		{name: "empty dump", flags: dump, datagrams: [][]byte{done(1, 0, 0)}},
		{
			name: "dump", flags: dump,
			datagrams: [][]byte{slices.Concat(multi(1, 1), multi(1, 2)), multi(1, 3), slices.Concat(multi(1, 4), done(1, 0, 0))},
			want:      []byte{1, 2, 3, 4},
		},
		{
			name: "dump with another answer in between", flags: dump,
			datagrams: [][]byte{multi(1, 1), slices.Concat(multi(9, 8), refusal(9, unix.ENOENT), ack(9)), multi(1, 2), done(1, 0, 0)},
			want:      []byte{1, 2},
		},
		{
			name: "wrong sequence numbers", flags: acked,
			datagrams: [][]byte{ack(0), ack(2), ack(math.MaxUint32), done(0, 0, unix.EIO), reply(0, 0, 8), reply(2, 0, 8), reply(1, 0, 7), ack(1)},
			want:      []byte{7},
		},
		{name: "NOOP", flags: acked, datagrams: [][]byte{nlmsg(netlink.Noop, 0, 1), nlmsg(netlink.Noop, 0, 0), ack(1)}},
		{
			name: "without padding", flags: acked,
			datagrams: [][]byte{reply(1, 0, 7)[:nlmsgHeaderLen+nfgenmsgLen+attrHeaderLen+1], ack(1)},
			want:      []byte{7},
		},
		{name: "nothing after the acknowledgement", flags: acked, datagrams: [][]byte{slices.Concat(ack(1), []byte{1, 2, 3})}},
		{name: "empty datagram", flags: acked, datagrams: [][]byte{{}, ack(1)}},

		{name: "refused", flags: acked, datagrams: [][]byte{refusal(1, unix.ENOENT)}, err: fs.ErrNotExist},
		{name: "refused without having asked", datagrams: [][]byte{refusal(1, unix.EPERM)}, err: fs.ErrPermission},
		{name: "dump refused", flags: dump, datagrams: [][]byte{refusal(1, unix.EBUSY)}, err: unix.EBUSY},
		{name: "dump ended by an error", flags: dump, datagrams: [][]byte{multi(1, 1), done(1, 0, unix.ENOMEM)}, want: []byte{1}, err: unix.ENOMEM},
		{
			name: "dump with short DONE", flags: dump,
			datagrams: [][]byte{multi(1, 1), nlmsg(netlink.Done, netlink.Multi, 1)}, want: []byte{1},
		},
		{
			name: "dump interrupted", flags: dump,
			datagrams: [][]byte{multi(1, 1), reply(1, netlink.Multi|netlink.DumpInterrupted, 2), multi(1, 3), done(1, 0, 0)},
			want:      []byte{1, 2, 3}, err: ErrDumpInterrupted,
		},
		{name: "dump interrupted at its end", flags: dump, datagrams: [][]byte{multi(1, 1), done(1, netlink.DumpInterrupted, 0)}, want: []byte{1}, err: ErrDumpInterrupted},
		{
			name: "text, capped", flags: acked,
			datagrams: [][]byte{result(1, netlink.Capped|tlvs, unix.EINVAL, append(make([]byte, nlmsgHeaderLen), text...)...)},
			err:       unix.EINVAL, text: "netlink receive: invalid argument, offset: 24, message: \"no such thing\"",
		},
		{
			name: "text, not capped", flags: acked,
			datagrams: [][]byte{result(1, tlvs, unix.EINVAL, slices.Concat(refused, text)...)},
			err:       unix.EINVAL, text: "netlink receive: invalid argument, offset: 24, message: \"no such thing\"",
		},
		{
			name: "text, dump", flags: dump,
			datagrams: [][]byte{nlmsg(netlink.Done, netlink.Multi|tlvs, 1, slices.Concat(done(1, 0, unix.EINVAL)[nlmsgHeaderLen:], text)...)},
			err:       unix.EINVAL, text: "netlink receive: invalid argument, offset: 24, message: \"no such thing\"",
		},
		{
			name: "no text", flags: acked,
			datagrams: [][]byte{result(1, netlink.Capped, unix.EINVAL, append(make([]byte, nlmsgHeaderLen), text...)...)},
			err:       unix.EINVAL, text: "netlink receive: invalid argument",
		},
		{
			name: "refused message longer than its error", flags: acked,
			datagrams: [][]byte{result(1, tlvs, unix.EINVAL, binary.NativeEndian.AppendUint32(nil, math.MaxUint32)...)},
			err:       unix.EINVAL,
		},
		{
			name: "text of an unknown kind", flags: acked,
			datagrams: [][]byte{result(1, netlink.Capped|tlvs, unix.EINVAL, slices.Concat(make([]byte, nlmsgHeaderLen), attr(99, 1), []byte{0, 0, 0}, attr(extAckOffset, 1), []byte{9})...)},
			err:       unix.EINVAL, text: "netlink receive: invalid argument",
		},

		{name: "short header", flags: acked, datagrams: [][]byte{ack(1)[:nlmsgHeaderLen-1]}, err: ErrMalformed},
		{name: "one byte", flags: acked, datagrams: [][]byte{{0}}, err: ErrMalformed},
		{name: "length less than the header", flags: acked, datagrams: [][]byte{slices.Concat(binary.NativeEndian.AppendUint32(nil, nlmsgHeaderLen-1), ack(1)[4:])}, err: ErrMalformed},
		{name: "length 0", flags: acked, datagrams: [][]byte{slices.Concat(make([]byte, 4), ack(1)[4:])}, err: ErrMalformed},
		{name: "longer than the datagram", flags: acked, datagrams: [][]byte{ack(1)[:nlmsgHeaderLen+8]}, err: ErrMalformed},
		{name: "longest", flags: acked, datagrams: [][]byte{slices.Concat(binary.NativeEndian.AppendUint32(nil, math.MaxUint32), ack(1)[4:])}, err: ErrMalformed},
		{name: "short error number", flags: acked, datagrams: [][]byte{nlmsg(netlink.Error, 0, 1, 1, 2, 3)}, err: ErrMalformed},
		{name: "short nfnetlink header", flags: acked, datagrams: [][]byte{nlmsg(0x100, 0, 1, 2, 0, 0), ack(1)}, err: ErrMalformed},
		{
			name: "fault behind good messages", flags: dump,
			datagrams: [][]byte{slices.Concat(multi(1, 1), multi(1, 2), []byte{1})}, want: []byte{1, 2}, err: ErrMalformed,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, h := dialHostile(t)
			h.send(tt.datagrams...)
			var got []byte
			err := c.Do(request(tt.flags, 1), func(m Message) error {
				require.EqualValues(t, 1, m.Sequence)
				require.Equal(t, -1, m.NSID)
				require.Equal(t, Header{
					Flags: m.Flags, SubsystemID: NFSubsysCTNetlink, MessageType: 0, Family: netfilter.ProtoIPv4,
				}, m.Header)
				got = append(got, m.Attributes[attrHeaderLen])
				return nil
			})
			require.ErrorIs(t, err, tt.err)
			if tt.text != "" {
				require.EqualError(t, err, tt.text)
			}
			require.Equal(t, tt.want, got)
			requireUsable(t, c, h)
		})
	}
}

// TestNoFunction asserts that with a nil function, replies are ignored but
// errors are returned.
func TestNoFunction(t *testing.T) {
	t.Parallel()
	c, h := dialHostile(t)
	h.send(reply(1, 0, 7), ack(1), reply(2, 0, 7), refusal(2, unix.EBUSY))
	require.NoError(t, c.Do(request(netlink.Acknowledge, 1), nil))
	require.ErrorIs(t, c.Do(request(netlink.Acknowledge, 1), nil), unix.EBUSY)
}

// TestFunctionFails asserts that the unread rest of a reply is not mistaken for
// the next reply.
func TestFunctionFails(t *testing.T) {
	t.Parallel()
	c, h := dialHostile(t)
	h.send(slices.Concat(reply(1, 0, 1), reply(1, 0, 2)), reply(1, 0, 3), refusal(1, unix.EIO))
	errEnough := errors.New("enough")
	calls := 0
	require.ErrorIs(t, c.Do(request(netlink.Dump, 1), func(Message) error {
		calls++
		return errEnough
	}), errEnough)
	require.Equal(t, 1, calls)
	requireUsable(t, c, h)
}

func TestTooLongForBuffer(t *testing.T) {
	t.Parallel()
	c, h := dialHostile(t)
	const size = replyBufferSize + 1
	long := nlmsg(0x100, netlink.Multi, 1, make([]byte, size-nlmsgHeaderLen)...)
	h.send(long, done(1, 0, 0)) // skipped by the next dump
	require.ErrorIs(t, c.Do(request(netlink.Dump, 1), nil), ErrTruncated)

	long = nlmsg(0x100, netlink.Multi, 2, make([]byte, size-nlmsgHeaderLen)...)
	h.send(long, done(2, 0, 0))
	received := 0
	require.NoError(t, c.Do(request(netlink.Dump, 1), func(m Message) error {
		received = len(m.Attributes)
		return nil
	}))
	require.Equal(t, size-nlmsgHeaderLen-nfgenmsgLen, received)
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	c, h := dialHostile(t)
	require.NoError(t, c.SetDeadline(time.Unix(1, 0)))
	err := c.Do(request(netlink.Acknowledge, 1), nil)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NotErrorIs(t, err, fs.ErrClosed)

	require.NoError(t, c.SetDeadline(time.Time{}))
	h.send(reply(1, 0, 8), ack(1)) // a late answer
	requireUsable(t, c, h)
}

// TestNoReply asserts that a request does not block if its answer is lost. The
// kernel sends the answer before the system call returns, so none can come
// later.
func TestNoReply(t *testing.T) {
	t.Parallel()
	c, h := dialHostile(t)
	err := c.Do(request(netlink.Acknowledge, 1), nil)
	require.ErrorIs(t, err, ErrNoReply)
	require.ErrorIs(t, err, unix.ENOBUFS)
	h.receive()
	h.send(reply(2, netlink.Multi, 8)) // but the rest of the dump is missing
	require.ErrorIs(t, c.Do(request(netlink.Dump, 1), nil), ErrNoReply)
	h.receive()
	h.send(refusal(4, unix.EEXIST))
	var failed []int
	require.ErrorIs(t, c.DoBatch(request(0, 3), func(i int, err error) {
		require.ErrorIs(t, err, unix.EEXIST)
		failed = append(failed, i)
	}), ErrNoReply)
	require.Equal(t, []int{1}, failed)
	h.receive()
	h.send(ack(2), refusal(5, unix.EIO)) // late answers
	requireUsable(t, c, h)
}

// TestDenied asserts that if the first message is refused for lack of
// privilege, that error is reported for all messages. The kernel does not look
// at the others.
func TestDenied(t *testing.T) {
	t.Parallel()
	c, h := dialHostile(t)
	h.send(refusal(1, unix.EPERM))
	var failed []int
	require.NoError(t, c.DoBatch(request(0, 3), func(i int, err error) {
		require.ErrorIs(t, err, unix.EPERM)
		failed = append(failed, i)
	}))
	require.Equal(t, []int{0, 1, 2}, failed)

	h.receive()
	h.send(refusal(4, unix.EPERM), ack(5)) // refused for another reason
	failed = nil
	require.NoError(t, c.DoBatch(request(0, 2), func(i int, _ error) { failed = append(failed, i) }))
	require.Equal(t, []int{0}, failed)
	h.receive()
	requireUsable(t, c, h)
}

func TestClose(t *testing.T) {
	t.Parallel()
	c, _ := dialHostile(t)
	require.NoError(t, c.Close())
	require.ErrorIs(t, c.Do(request(netlink.Acknowledge, 1), nil), fs.ErrClosed)
	require.ErrorIs(t, c.DoBatch(request(0, 2), func(int, error) { t.Error("called") }), fs.ErrClosed)
	require.ErrorIs(t, c.SetDeadline(time.Time{}), fs.ErrClosed)
	require.ErrorIs(t, c.JoinGroup(netfilter.GroupCTNew), fs.ErrClosed)
}

func TestEmptyRequest(t *testing.T) {
	t.Parallel()
	c, h := dialHostile(t)
	require.Error(t, c.Do(new(Encoder), nil))
	require.Error(t, c.DoBatch(new(Encoder), nil))
	requireUsable(t, c, h)
}

func TestBatch(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		first     uint32 // sequence number
		count     int
		datagrams [][]byte
		failed    map[int]error
		err       error
	}{
		{name: "all succeed", first: 1, count: 3, datagrams: [][]byte{ack(3)}},
		{name: "one", first: 1, count: 1, datagrams: [][]byte{ack(1)}},
		{name: "one fails", first: 1, count: 1, datagrams: [][]byte{refusal(1, unix.EEXIST)}, failed: map[int]error{0: unix.EEXIST}},
		{
			name: "first and middle fail", first: 1, count: 4,
			datagrams: [][]byte{refusal(1, unix.EEXIST), slices.Concat(refusal(3, unix.EINVAL), ack(4))},
			failed:    map[int]error{0: unix.EEXIST, 2: unix.EINVAL},
		},
		{name: "last fails", first: 1, count: 3, datagrams: [][]byte{refusal(3, unix.ENOENT)}, failed: map[int]error{2: unix.ENOENT}},
		{
			name: "all fail", first: 1, count: 3,
			datagrams: [][]byte{refusal(1, unix.ENOENT), refusal(2, unix.EPERM), refusal(3, unix.EBUSY)},
			failed:    map[int]error{0: unix.ENOENT, 1: unix.EPERM, 2: unix.EBUSY},
		},
		{
			name: "acknowledged one by one", first: 1, count: 3,
			datagrams: [][]byte{ack(1), ack(2), refusal(3, unix.EBUSY)}, failed: map[int]error{2: unix.EBUSY},
		},
		{
			name: "late answers to an earlier one", first: 100, count: 2,
			datagrams: [][]byte{refusal(98, unix.EIO), refusal(99, unix.EIO), refusal(102, unix.EIO), refusal(100, unix.ENOENT), ack(101)},
			failed:    map[int]error{0: unix.ENOENT},
		},
		{
			name: "malformed error", first: 1, count: 2,
			datagrams: [][]byte{refusal(1, unix.ENOENT), nlmsg(netlink.Error, 0, 2, 1)},
			failed:    map[int]error{0: unix.ENOENT}, err: ErrMalformed,
		},
		{name: "truncated", first: 1, count: 2, datagrams: [][]byte{ack(2)[:18]}, err: ErrMalformed},
		{
			name: "up to the last sequence number", first: math.MaxUint32 - 2, count: 3,
			datagrams: [][]byte{refusal(math.MaxUint32-2, unix.ENOENT), refusal(math.MaxUint32, unix.EBUSY)},
			failed:    map[int]error{0: unix.ENOENT, 2: unix.EBUSY},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, h := dialHostile(t)
			c.seq = tt.first - 1
			h.send(tt.datagrams...)
			failed := make(map[int]error)
			err := c.DoBatch(request(0, tt.count), func(i int, err error) {
				require.NotContains(t, failed, i)
				failed[i] = err
			})
			require.ErrorIs(t, err, tt.err)
			require.Len(t, failed, len(tt.failed))
			for i, want := range tt.failed {
				require.ErrorIs(t, failed[i], want, "message %d", i)
			}

			b := h.receive()
			for i := range tt.count {
				m, rest, err := nextMessage(b)
				require.NoError(t, err)
				require.Equal(t, tt.first+uint32(i), m.sequence())
				require.Equal(t, i == tt.count-1, m.flags()&netlink.Acknowledge != 0, "message %d", i)
				b = rest
			}
			require.Empty(t, b)
			requireUsable(t, c, h)
		})
	}
}

// TestDoReplies asserts that each answer and each error comes with the index of
// its request, in any order.
func TestDoReplies(t *testing.T) {
	t.Parallel()
	c, h := dialHostile(t)
	h.send(reply(1, netlink.Multi, 11), slices.Concat(refusal(2, unix.ENOENT), reply(3, netlink.Multi, 33)),
		reply(99, 0, 99), reply(4, netlink.Multi, 44), ack(4))
	got, failed := make(map[int]byte), make(map[int]error)
	require.NoError(t, c.DoReplies(request(0, 4), func(i int, m Message) error {
		got[i] = m.Attributes[attrHeaderLen]
		return nil
	}, func(i int, err error) { failed[i] = err }))
	require.Equal(t, map[int]byte{0: 11, 2: 33, 3: 44}, got)
	require.Len(t, failed, 1)
	require.ErrorIs(t, failed[1], unix.ENOENT)
	requireUsable(t, c, h)

	h.send(reply(6, 0, 1))
	stop := errors.New("stop")
	require.ErrorIs(t, c.DoReplies(request(0, 2), func(int, Message) error { return stop }, nil), stop)
}

// TestLast asserts which replies are the last of their datagram.
func TestLast(t *testing.T) {
	t.Parallel()
	c, h := dialHostile(t)
	multi := func(n byte) []byte { return reply(1, netlink.Multi, n) }
	h.send(slices.Concat(multi(1), multi(2)), multi(3), slices.Concat(multi(4), done(1, 0, 0)))
	var last []bool
	require.NoError(t, c.Do(request(netlink.Dump, 1), func(m Message) error {
		last = append(last, m.Last)
		return nil
	}))
	require.Equal(t, []bool{false, true, true, false}, last)
}

// TestSequenceWrap asserts that sequence numbers start over before they exceed
// 32 bits, and are never 0, which is the number of events.
func TestSequenceWrap(t *testing.T) {
	t.Parallel()
	for before := range uint32(6) {
		c, h := dialHostile(t)
		c.seq = math.MaxUint32 - before
		const count = 3
		last := uint32(count)
		if before >= count {
			last = c.seq + count
		}
		h.send(ack(last))
		require.NoError(t, c.DoBatch(request(0, count), func(int, error) {}), "%d before the last", before)
		m, _, err := nextMessage(h.receive())
		require.NoError(t, err)
		require.Equal(t, last-count+1, m.sequence())
	}
}

// TestReceiverFaults asserts that a Receiver passes unusable messages as errors
// and continues.
func TestReceiverFaults(t *testing.T) {
	t.Parallel()
	c, h := dialHostile(t)
	r, err := c.NewReceiver()
	require.NoError(t, err)
	h.send(
		slices.Concat(reply(0, netlink.Create, 1), reply(5, 0, 2)),
		[]byte{1, 2, 3},
		nlmsg(0x100, 0, 0, 2, 0, 0),
		nlmsg(0x100, 0, 0, make([]byte, eventBufferSize-nlmsgHeaderLen+1)...),
		slices.Concat(reply(0, 0, 3), []byte{1}),
		reply(0, 0, 4),
	)
	var got []byte
	var faults []error
	require.NoError(t, r.Receive(func(m Message, err error) bool {
		if err != nil {
			faults = append(faults, err)
		} else {
			got = append(got, m.Attributes[attrHeaderLen])
		}
		return true
	}))
	require.Equal(t, []byte{1, 2, 3, 4}, got)
	require.Len(t, faults, 4)
	require.ErrorIs(t, faults[0], ErrMalformed)
	require.ErrorIs(t, faults[1], ErrMalformed)
	require.ErrorIs(t, faults[2], ErrTruncated)
	require.ErrorIs(t, faults[3], ErrMalformed)
}

// TestReceiverGrows asserts that an event too long for the buffer fits the next
// time.
func TestReceiverGrows(t *testing.T) {
	t.Parallel()
	c, h := dialHostile(t)
	r, err := c.NewReceiver()
	require.NoError(t, err)
	for _, size := range []int{eventBufferSize, 2 * eventBufferSize, 4 * eventBufferSize} {
		fits := func(body int) (err error) {
			h.send(nlmsg(0x100, 0, 0, make([]byte, body)...))
			require.NoError(t, r.Receive(func(m Message, fault error) bool {
				require.True(t, fault != nil || len(m.Attributes) == body-nfgenmsgLen)
				err = fault
				return true
			}))
			return err
		}
		require.NoError(t, fits(size-nlmsgHeaderLen))
		require.ErrorIs(t, fits(size-nlmsgHeaderLen+align(1)), ErrTruncated)
		require.NoError(t, fits(size-nlmsgHeaderLen+align(1)))
	}
}

func TestReceiverEnds(t *testing.T) {
	t.Parallel()
	c, h := dialHostile(t)
	r, err := c.NewReceiver()
	require.NoError(t, err)

	calls := 0
	h.send(slices.Concat(reply(0, 0, 1), reply(0, 0, 2)), []byte{1}, reply(0, 0, 3))
	require.NoError(t, r.Receive(func(Message, error) bool {
		calls++
		return false
	}))
	require.Equal(t, 1, calls)

	none := func(Message, error) bool {
		t.Error("called")
		return false
	}
	require.NoError(t, c.SetDeadline(time.Unix(1, 0)))
	require.ErrorIs(t, r.Receive(none), os.ErrDeadlineExceeded)
	require.NoError(t, c.SetDeadline(time.Time{}))

	ended := make(chan error)
	go func() { ended <- r.Receive(none) }()
	require.NoError(t, c.Close())
	require.ErrorIs(t, <-ended, fs.ErrClosed)
}

// TestAcknowledgementForAnswer asserts that an acknowledgement instead of an
// answer is an error.
func TestAcknowledgementForAnswer(t *testing.T) {
	t.Parallel()
	c, h := dialHostile(t)
	h.send(ack(1))
	err := c.Do(request(0, 1), func(Message) error {
		t.Error("no message was sent")
		return nil
	})
	require.ErrorIs(t, err, ErrMalformed)
	requireUsable(t, c, h)
}
