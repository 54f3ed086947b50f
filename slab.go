package conntrack

// A slab is where what a decoded entry points to is carved from, so that many
// entries share an allocation. What it hands out belongs to the entry alone, and
// is handed out again only if it was given back. A nil slab allocates each by
// itself.
type slab struct {
	tcp     []ProtoInfoTCP
	bytes   []byte
	strings map[string]string
}

// A slab that is kept alive by one entry alone should cost little.
const (
	slabTCP     = 64
	slabBytes   = 1 << 10
	slabStrings = 256
)

// mark returns what s can hand out without allocating, for release.
func (s *slab) mark() slab { return *s }

// release makes s hand out again what it has handed out since mark, but for what
// it has allocated since then.
func (s *slab) release(mark slab) {
	if len(mark.tcp) > len(s.tcp) {
		s.tcp = mark.tcp
	}
	if len(mark.bytes) > len(s.bytes) {
		s.bytes = mark.bytes
	}
}

func (s *slab) newTCP() *ProtoInfoTCP {
	if s == nil {
		return new(ProtoInfoTCP)
	}
	if len(s.tcp) == 0 {
		s.tcp = make([]ProtoInfoTCP, slabTCP)
	}
	p := &s.tcp[0]
	s.tcp = s.tcp[1:]
	*p = ProtoInfoTCP{}
	return p
}

// copy returns a copy of b.
func (s *slab) copy(b []byte) []byte {
	if s == nil || len(b) > slabBytes/8 {
		return append([]byte(nil), b...)
	}
	if len(s.bytes) < len(b) {
		s.bytes = make([]byte, slabBytes)
	}
	c := s.bytes[:len(b):len(b)]
	s.bytes = s.bytes[len(b):]
	copy(c, b)
	return c
}

// str returns b as a string: the same one for the same b, as long as there are
// not too many.
func (s *slab) str(b []byte) string {
	if s == nil {
		return string(b)
	}
	if known, ok := s.strings[string(b)]; ok {
		return known
	}
	if s.strings == nil || len(s.strings) >= slabStrings {
		s.strings = make(map[string]string)
	}
	known := string(b)
	s.strings[known] = known
	return known
}
