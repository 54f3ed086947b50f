package nfnl

import "encoding/binary"

// Bit reports whether bit n is set in b, which is a bit set as the kernel lays it
// out: 32-bit words in the machine's byte order. A bit that b has no room for is
// not set.
func Bit(b []byte, n int) bool {
	word, mask, ok := wordOf(b, n)
	return ok && binary.NativeEndian.Uint32(word)&mask != 0
}

// SetBit sets or clears bit n in b, which must have room for it.
func SetBit(b []byte, n int, on bool) {
	word, mask, ok := wordOf(b, n)
	if !ok {
		panic("nfnl: no room for the bit")
	}
	value := binary.NativeEndian.Uint32(word) &^ mask
	if on {
		value |= mask
	}
	binary.NativeEndian.PutUint32(word, value)
}

// wordOf returns the word that bit n is in, and the bit within it.
func wordOf(b []byte, n int) (word []byte, mask uint32, ok bool) {
	const bits, size = 32, 4
	if n < 0 || n/bits >= len(b)/size {
		return nil, 0, false
	}
	return b[n/bits*size:][:size], 1 << (n % bits), true
}
