package conntrack

import (
	"fmt"

	"github.com/ti-mo/conntrack/internal/nfnl"
)

// A flow has labelBits labels, in labelBytes bytes.
const (
	labelBits  = 128
	labelBytes = labelBits / 8
)

// HasLabel reports whether label bit, from 0 to 127, is set in f.Labels.
func (f Flow) HasLabel(bit int) bool { return nfnl.Bit(f.Labels, bit) }

// SetLabel sets label bit, from 0 to 127, in f.Labels and f.LabelsMask, so that
// [Conn.Update] with f sets it in the kernel. It panics if bit is out of range.
//
// SetLabel also adds every label that f has to f.LabelsMask. The update then
// sets these, clears those given to [Flow.ClearLabel], and leaves all others as
// they are.
func (f *Flow) SetLabel(bit int) { f.changeLabel(bit, true) }

// ClearLabel clears label bit, from 0 to 127, in f.Labels and sets it in
// f.LabelsMask, so that [Conn.Update] with f clears it in the kernel. Otherwise
// it is like [Flow.SetLabel].
//
// An update without LabelsMask, as of a flow from a dump, replaces all labels,
// and so clears those that the flow got since.
func (f *Flow) ClearLabel(bit int) { f.changeLabel(bit, false) }

func (f *Flow) changeLabel(bit int, on bool) {
	if bit < 0 || bit >= labelBits {
		panic(fmt.Sprintf("conntrack: label %d, there are 0 to %d", bit, labelBits-1))
	}
	// Copies, since other copies of f share the slices.
	f.Labels = labelSet(f.Labels)
	f.LabelsMask = labelSet(f.LabelsMask)
	nfnl.SetBit(f.Labels, bit, on)
	nfnl.SetBit(f.LabelsMask, bit, true)
	// The kernel would flip bits that are set but not in the mask.
	for i, b := range f.Labels {
		f.LabelsMask[i] |= b
	}
}

// labelSet returns a copy of b with room for all labels.
func labelSet(b []byte) []byte {
	set := make([]byte, max(labelBytes, len(b)))
	copy(set, b)
	return set
}
