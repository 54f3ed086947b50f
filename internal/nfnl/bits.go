package nfnl

import "encoding/binary"

// Bit reports whether bit n of b is set. The bits are laid out as the kernel
// does it: in 32-bit words in native byte order. Bits beyond the end of b are
// not set.
func Bit(b []byte, n int) bool {
	word, mask, ok := wordOf(b, n)
	return ok && binary.NativeEndian.Uint32(word)&mask != 0
}

// SetBit sets or clears bit n of b. It panics if b is too short.
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

// wordOf returns the word that contains bit n, and the mask of that bit.
func wordOf(b []byte, n int) (word []byte, mask uint32, ok bool) {
	const bits, size = 32, 4
	if n < 0 || n/bits >= len(b)/size {
		return nil, 0, false
	}
	return b[n/bits*size:][:size], 1 << (n % bits), true
}
