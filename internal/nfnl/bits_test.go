package nfnl

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBits(t *testing.T) {
	b := make([]byte, 10)
	for _, n := range []int{0, 7, 31, 32, 63} {
		SetBit(b, n, true)
		require.True(t, Bit(b, n))
		require.Equal(t, uint32(1)<<(n%32), binary.NativeEndian.Uint32(b[n/32*4:]))
		SetBit(b, n, false)
		require.Equal(t, make([]byte, 10), b)
	}
	// Half a word has no room for a bit.
	for _, n := range []int{-1, 64, 1 << 30} {
		require.False(t, Bit(b, n))
		require.Panics(t, func() { SetBit(b, n, true) })
	}
}
