package conntrack

import (
	"fmt"

	"github.com/ti-mo/conntrack/internal/nfnl"
)

// labelBits is how many labels a flow has room for, in labelBytes bytes.
const (
	labelBits  = 128
	labelBytes = labelBits / 8
)

// HasLabel reports whether label bit, from 0 to 127, is set in f.Labels.
func (f Flow) HasLabel(bit int) bool { return nfnl.Bit(f.Labels, bit) }

// SetLabel sets label bit, from 0 to 127, in f.Labels, so that an Update with f
// sets it in the kernel.
//
// It sees to it that f.LabelsMask covers bit and every other label that f has:
// the Update then sets these, clears those that were given to ClearLabel, and
// leaves all others as they are. It panics if there is no such bit.
func (f *Flow) SetLabel(bit int) { f.changeLabel(bit, true) }

// ClearLabel clears label bit, from 0 to 127, in f.Labels, so that an Update with
// f clears it in the kernel. It does to f.LabelsMask what SetLabel does, and panics
// as that does.
//
// An Update of a flow from a dump whose LabelsMask is empty sends all of its
// Labels instead, and so clears those that the flow got since.
func (f *Flow) ClearLabel(bit int) { f.changeLabel(bit, false) }

func (f *Flow) changeLabel(bit int, on bool) {
	if bit < 0 || bit >= labelBits {
		panic(fmt.Sprintf("conntrack: label %d, there are 0 to %d", bit, labelBits-1))
	}
	// Copies, since copies of f share the slices.
	f.Labels = labelSet(f.Labels)
	f.LabelsMask = labelSet(f.LabelsMask)
	nfnl.SetBit(f.Labels, bit, on)
	nfnl.SetBit(f.LabelsMask, bit, true)
	// The kernel would turn those over that are set but not in the mask.
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
