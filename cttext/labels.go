package cttext

import (
	"bufio"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/ti-mo/conntrack"
)

// labelBits is the number of labels that a flow has room for.
const labelBits = 128

// LabelNames are the names of labels, indexed by label number. A label without
// a name has an empty string.
type LabelNames []string

// LabelFile is the file from which conntrack(8) and the connlabel match of
// iptables read the names of labels.
const LabelFile = "/etc/xtables/connlabel.conf"

// LoadLabelNames reads the names in [LabelFile].
func LoadLabelNames() (LabelNames, error) {
	f, err := os.Open(LabelFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReadLabelNames(f)
}

// ReadLabelNames reads names of labels in the format of connlabel.conf. Each
// line has a number and a name:
//
//	0	eth0-in
//	1	eth0-out
//
// Like conntrack(8), it accepts decimal, octal (010) and hexadecimal (0x8)
// numbers, and names of ASCII letters, digits, blanks and minus signs. It skips
// lines of any other form, and those that repeat a number or a name. It returns
// an error only if reading from r fails.
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
	end := strings.IndexAny(line, blanks)
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

// known returns the names of the labels that a flow can have.
func (l LabelNames) known() LabelNames { return l[:min(len(l), labelBits)] }

// append appends the names of the labels that are set in f, separated by
// commas. It skips labels without a name.
func (l LabelNames) append(b []byte, f *conntrack.Flow) []byte {
	first := true
	for bit, name := range l.known() {
		if name == "" || !f.HasLabel(bit) {
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

// find returns the labels in text, which is a comma-separated list of names.
func (l LabelNames) find(text string) (bits []int, err error) {
	if l == nil {
		return nil, errNoLabelNames
	}
	for name := range strings.SplitSeq(text, ",") {
		bit := slices.Index(l.known(), name)
		if bit < 0 || name == "" {
			return nil, errUnknownLabel
		}
		if slices.Contains(bits, bit) {
			return nil, errTwice
		}
		bits = append(bits, bit)
	}
	return bits, nil
}

// cut returns the label whose name text begins with, and the text after it. If
// there are several, the longest name wins. A name ends at a comma, at a blank
// or at the end of text.
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
