package conntrack

// A slab allocates the TCP states, byte slices and strings of decoded entries
// in bulk. What it hands out belongs to one entry alone, and is reused only
// after release. A nil slab allocates each by itself.
type slab struct {
	tcp     []ProtoInfoTCP
	bytes   []byte
	strings map[string]string
}

// One entry may keep a whole slab alive, so these are small.
const (
	slabTCP     = 64
	slabBytes   = 1 << 10
	slabStrings = 256
)

// mark returns the state of s, for release.
func (s *slab) mark() slab { return *s }

// release takes back what s has handed out since mark, except what it has
// allocated since.
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

// str returns b as a string. Equal strings share memory, unless there are too
// many different ones.
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
