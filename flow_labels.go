package conntrack

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

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

// LabelNames are the names of a flow's labels: that of label n is at index n, and
// is empty if it has none.
type LabelNames []string

// LabelFile is where conntrack(8) and the connlabel match of iptables have the
// names of labels from.
const LabelFile = "/etc/xtables/connlabel.conf"

// LoadLabelNames reads the names in the file LabelFile.
func LoadLabelNames() (LabelNames, error) {
	f, err := os.Open(LabelFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReadLabelNames(f)
}

// ReadLabelNames reads names of labels in the format of connlabel.conf: lines
// with a number and a name, such as
//
//	0	eth0-in
//	1	eth0-out
//
// As for conntrack(8), the number may be decimal, octal (010) or hexadecimal
// (0x8), a name consists of ASCII letters, digits, blanks and minus signs, and
// what is no such line, or repeats a number or a name, is skipped. The only
// errors are those of r.
func ReadLabelNames(r io.Reader) (LabelNames, error) {
	names := make(LabelNames, labelBits)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		bit, name, ok := parseLabelLine(lines.Text())
		if ok && names[bit] == "" && !slices.Contains(names, name) {
			names[bit] = name
		}
	}
	return names, lines.Err()
}

func parseLabelLine(line string) (bit int, name string, ok bool) {
	line = strings.TrimSpace(line)
	end := strings.IndexAny(line, " \t")
	if end < 0 {
		return 0, "", false
	}
	n, err := strconv.ParseUint(line[:end], 0, 8)
	name = strings.TrimSpace(line[end:])
	if err != nil || n >= labelBits || strings.ContainsFunc(name, func(r rune) bool { return !inLabelName(r) }) {
		return 0, "", false
	}
	return int(n), name, true
}

func inLabelName(r rune) bool {
	return r == '-' || r == ' ' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}

// known returns the names of labels that there can be.
func (l LabelNames) known() LabelNames { return l[:min(len(l), labelBits)] }

// append appends the names of those labels that are set in f and have one, with a
// comma between them.
func (l LabelNames) append(b []byte, f *Flow) []byte {
	first := true
	for bit, name := range l.known() {
		if name == "" || !nfnl.Bit(f.Labels, bit) {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, name...)
	}
	return b
}

// cut returns the label whose name text begins with, the longest if there are
// several, and what follows it. A name ends with the text, at a comma or at a
// blank.
func (l LabelNames) cut(text string) (bit int, rest string, ok bool) {
	longest := 0
	for n, name := range l.known() {
		if len(name) <= longest || !strings.HasPrefix(text, name) {
			continue
		}
		if end := text[len(name):]; end == "" || strings.IndexByte(","+blanks, end[0]) >= 0 {
			bit, rest, longest = n, end, len(name)
		}
	}
	return bit, rest, longest > 0
}
