//go:build linux

package nfnl

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// goldenMessages returns the messages in testdata at the top of the module.
func goldenMessages(tb testing.TB) (messages [][]byte) {
	tb.Helper()
	files, err := filepath.Glob("../../testdata/*/*.json")
	require.NoError(tb, err)
	require.NotEmpty(tb, files)
	for _, file := range files {
		b, err := os.ReadFile(file)
		require.NoError(tb, err)
		var record struct{ Message string }
		require.NoError(tb, json.Unmarshal(b, &record))
		message, err := hex.DecodeString(record.Message)
		require.NoError(tb, err)
		messages = append(messages, message)
	}
	return messages
}

// FuzzDecoder asserts that attributes lie within the message, and that they are
// the same after they were encoded again.
func FuzzDecoder(f *testing.F) {
	for _, m := range goldenMessages(f) {
		f.Add(m[nlmsgHeaderLen+nfgenmsgLen:])
	}
	f.Add(slices.Concat(attr(1), header(0, 3)))
	f.Add(header(0xffff, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		var d Decoder
		var e Encoder
		left := len(b)
		for typ, v := range d.Attributes(b) {
			left -= attrHeaderLen + len(v)
			require.GreaterOrEqual(t, left, 0)
			require.Equal(t, len(v), cap(v))
			e.Bytes(typ, v)
			d.Uint32(v)
		}
		err := d.Err(nil)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		require.NoError(t, e.Err())

		var before, after Decoder
		var values [][]byte
		for typ, v := range before.Attributes(b) {
			values = append(values, []byte{byte(typ >> 8), byte(typ)}, v)
		}
		i := 0
		for typ, v := range after.Attributes(e.buf) {
			require.Equal(t, values[i], []byte{byte(typ >> 8), byte(typ)})
			require.Equal(t, values[i+1], v)
			i += 2
		}
		require.NoError(t, after.Err(nil))
		require.Len(t, values, i)
	})
}

// FuzzReplies asserts that for any datagram, an exchange and a Receiver pass on
// only bytes within it, and return a known error.
func FuzzReplies(f *testing.F) {
	for _, m := range goldenMessages(f) {
		f.Add(m, uint8(0))
	}
	f.Add(slices.Concat(reply(0, netlink.Multi, 1), done(0, 0, 0)), uint8(0))
	f.Add(slices.Concat(refusal(0, unix.ENOENT), refusal(1, unix.EPERM), ack(2)), uint8(2))
	f.Add(result(0, netlink.AcknowledgeTLVs, unix.EINVAL, slices.Concat(reply(0, 0, 1), attr(extAckMessage, 'a'))...), uint8(0))
	f.Add(result(0, netlink.AcknowledgeTLVs|netlink.Capped, unix.EINVAL, slices.Concat(make([]byte, 16), attr(extAckOffset, 1, 2, 3, 4))...), uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, count uint8) {
		// Bytes after the datagram must not be read.
		b = append(b, 0xff)[:len(b):len(b)]
		left := len(b)
		seen := func(m Message) error {
			left -= nlmsgHeaderLen + nfgenmsgLen + len(m.Attributes)
			require.GreaterOrEqual(t, left, 0)
			require.Equal(t, len(m.Attributes), cap(m.Attributes))
			return nil
		}
		x := exchange{fn: seen, count: uint32(count) + 1}
		if count > 0 {
			x.failed = func(i int, err error) {
				require.Less(t, i, int(x.count))
				require.Error(t, err)
			}
		}
		requireKnown(t, x.datagram(b))

		left = len(b)
		new(Receiver).messages(b, -1, func(m Message, err error) bool {
			if err != nil {
				require.ErrorIs(t, err, ErrMalformed)
				return true
			}
			return seen(m) == nil
		})
	})
}

// requireKnown asserts that err is one that callers can identify.
func requireKnown(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	var opErr *netlink.OpError
	if !errors.As(err, &opErr) {
		require.ErrorIs(t, err, ErrMalformed)
	}
}
