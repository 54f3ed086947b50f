package main

import (
	"github.com/ti-mo/conntrack"
)

// floorBatch prepares batches of messages and sends them unchanged.
func floorBatch(r *run, message func(*requests, *flow)) error {
	s, err := newSocket()
	if err != nil {
		return err
	}
	defer s.close()
	b := floorBatches{message: message}
	return r.each(nil, b.prepare, func() error { return b.send(s) })
}

// floorBatches are messages in batches. Their buffers are reused.
type floorBatches struct {
	message func(*requests, *flow)
	batches []requests
}

func (b *floorBatches) prepare(f *flow) {
	n := len(b.batches)
	if n == 0 || b.batches[n-1].count == batchSize {
		if n < cap(b.batches) {
			b.batches = b.batches[:n+1]
			b.batches[n].reset()
		} else {
			b.batches = append(b.batches, requests{})
		}
		n++
	}
	b.message(&b.batches[n-1], f)
}

func (b *floorBatches) send(s *socket) error {
	for i := range b.batches {
		m := &b.batches[i]
		m.acknowledgeLast()
		if _, failure, err := s.batch(m.buf, m.count); err != nil || failure != nil {
			if err == nil {
				err = failure
			}
			return err
		}
	}
	b.batches = b.batches[:0]
	return nil
}

func floorCreateBatch(r *run) error {
	return floorBatch(r, func(m *requests, f *flow) { m.create(f, false, 0) })
}

func floorDeleteBatch(r *run) error {
	return floorBatch(r, func(m *requests, f *flow) { m.delete(f, 0) })
}

func libraryCreateBatch(r *run) error {
	return libraryEach(r, (*flow).libraryFlow, (*conntrack.Conn).CreateBatch)
}

func libraryDeleteBatch(r *run) error {
	return libraryEach(r, (*flow).libraryFlow, (*conntrack.Conn).DeleteBatch)
}
