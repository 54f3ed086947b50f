package cttext

import (
	"errors"
	"slices"
	"strings"

	"github.com/ti-mo/conntrack"
)

// expectReader parses an expectation.
type expectReader struct {
	lineReader
	expect conntrack.Expect
	// tuples are in the order of expectTuples.
	tuples [3]tupleReader
	// current is the index of the tuple being read.
	current int
}

func newExpectReader(o *Options, line string) *expectReader {
	return &expectReader{lineReader: newLineReader(o, line)}
}

func (r *expectReader) read() error {
	if err := r.prefix(); err != nil {
		return err
	}
	if isNumber(r.peek()) {
		r.next()
		if err := readUint(r.word, &r.expect.Timeout); err != nil {
			return err
		}
	}
	if !r.next() {
		return errNoExpect
	}
	number, ok := strings.CutPrefix(r.word, protoKey)
	if !ok {
		return errors.New(protoKey + " expected")
	}
	protocol, err := parseUint(number, 8)
	if err != nil {
		return err
	}
	for i := range r.tuples {
		setProtocol(&r.tuples[i].Proto, uint8(protocol))
	}
	for r.next() {
		if err := r.readWord(); err != nil {
			return err
		}
	}
	return r.finish()
}

func (r *expectReader) readWord() error {
	if r.word == byProcess {
		return r.process()
	}
	key, value := cutKey(r.word)
	if handled, err := r.readTupleWord(key, value); handled {
		return err
	}
	word, err := r.readValue(key, value)
	if err != nil {
		return err
	}
	return r.seen.once(word)
}

// readValue reads the value of a word that does not belong to a tuple.
func (r *expectReader) readValue(key, value string) (word wordSet, err error) {
	switch key {
	case "zone=":
		return wordZone, readUint(value, &r.expect.Zone)
	case "class=":
		return wordClass, readUint(value, &r.expect.Class)
	case "helper=":
		return wordHelper, readText(value, &r.expect.HelpName)
	case r.word:
		return wordFlags, r.readFlags()
	}
	return 0, errUnknown
}

// readFlags reads a comma-separated list of flags.
func (r *expectReader) readFlags() error {
	for name := range strings.SplitSeq(r.word, ",") {
		i := slices.IndexFunc(expectFlags[:], func(f conntrack.ExpectFlags) bool { return f.String() == name })
		if i < 0 {
			return errUnknown
		}
		r.expect.Flags |= uint32(expectFlags[i])
	}
	return nil
}

// readTupleWord reads a word of one of the tuples. The words for the addresses
// of mask and master have a prefix, and start that tuple.
func (r *expectReader) readTupleWord(key, value string) (handled bool, err error) {
	for i, prefix := range tuplePrefixes {
		if short, ok := strings.CutPrefix(key, prefix); ok && prefix != "" {
			r.current, key = i, short
		}
	}
	t := &r.tuples[r.current]
	if r.current == masterTuple {
		t.guessProtocol(key)
	}
	return t.set(&r.lineReader, key, value)
}

// guessProtocol sets the protocol of t if key is the first word that only some
// protocols have.
func (t *tupleReader) guessProtocol(key string) {
	if t.seen >= wordField {
		return
	}
	for _, p := range []uint8{t.Proto.Protocol, conntrack.ProtocolTCP, conntrack.ProtocolGRE, conntrack.ProtocolICMP} {
		if findWord(p, key) != nil {
			setProtocol(&t.Proto, p)
			return
		}
	}
}

// helperProtocols maps each of the kernel's helpers that serves only one
// protocol to that protocol.
var helperProtocols = map[string]uint8{
	"RAS": conntrack.ProtocolUDP, "amanda": conntrack.ProtocolUDP, "netbios-ns": conntrack.ProtocolUDP,
	"snmp": conntrack.ProtocolUDP, "snmp_trap": conntrack.ProtocolUDP, "tftp": conntrack.ProtocolUDP,
	"H.245": conntrack.ProtocolTCP, "Q.931": conntrack.ProtocolTCP, "ftp": conntrack.ProtocolTCP,
	"irc": conntrack.ProtocolTCP, "pptp": conntrack.ProtocolTCP, "sane": conntrack.ProtocolTCP,
}

func (r *expectReader) finish() error {
	master := &r.tuples[masterTuple]
	if p, ok := helperProtocols[r.expect.HelpName]; ok && master.seen.has(wordField<<sourcePort) {
		setProtocol(&master.Proto, p)
	}
	for i, t := range expectTuples(&r.expect) {
		if !r.tuples[i].complete() {
			return errNoExpect
		}
		*t = r.tuples[i].Tuple
	}
	return nil
}
