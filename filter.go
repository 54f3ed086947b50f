package conntrack

import "github.com/ti-mo/conntrack/netfilter"

// A Filter selects flows: those with mark & Mask == Mark. Its zero value selects
// all of them.
type Filter struct {
	Mark, Mask uint32
}

func (f *Filter) marshal(e *netfilter.Encoder) {
	if *f == (Filter{}) {
		return
	}
	e.Uint32(ctaMark, f.Mark)
	e.Uint32(ctaMarkMask, f.Mask)
}
