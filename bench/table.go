package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// batchSize is how many messages go in one send: as many as this library sends,
// see netfilter.Conn.MaxBatch.
const batchSize = 128

// A table is the connection tracking table of the namespace. It holds the flows
// of the mix from 0 on.
type table struct {
	s *socket
}

func newTable() (*table, error) {
	s, err := newSocket()
	if err != nil {
		return nil, err
	}
	// Flows have counters, as on most machines that look at their flows.
	if err := os.WriteFile(sysctl("nf_conntrack_acct"), []byte("1"), 0); err != nil {
		return nil, err
	}
	return &table{s: s}, nil
}

func sysctl(name string) string { return filepath.Join("/proc/sys/net/netfilter", name) }

func readSysctl(name string) (int, error) {
	b, err := os.ReadFile(sysctl(name))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// count returns how many flows there are.
func (t *table) count() (int, error) { return readSysctl("nf_conntrack_count") }

// limit returns how many flows there may be.
func (t *table) limit() (int, error) { return readSysctl("nf_conntrack_max") }

// require makes the table hold the first n flows of the mix. It does nothing if
// their number is right: jobs put back what they took.
func (t *table) require(n int) error {
	have, err := t.count()
	if err != nil || have == n {
		return err
	}
	if err := t.flush(); err != nil {
		return fmt.Errorf("flushing the table: %w", err)
	}
	if err := t.create(0, n, every); err != nil {
		return fmt.Errorf("filling the table: %w", err)
	}
	if have, err = t.count(); err == nil && have != n {
		err = fmt.Errorf("the table holds %d flows after %d were created in it", have, n)
	}
	return err
}

func (t *table) flush() error {
	var r requests
	r.flush()
	return t.s.do(r.buf)
}

// create creates those flows from lo up to hi that want selects. Where the source
// is translated, the kernel does it.
func (t *table) create(lo, hi int, want func(*flow) bool) error {
	return t.batches(lo, hi, want, func(r *requests, f *flow) { r.create(f, true, 0) })
}

// delete deletes the flows from lo up to hi. Those that are not there do not
// matter.
func (t *table) delete(lo, hi int) {
	_ = t.batches(lo, hi, every, func(r *requests, f *flow) { r.delete(f, 0) })
}

// batches sends what request makes of flows, and returns the first failure.
func (t *table) batches(lo, hi int, want func(*flow) bool, request func(*requests, *flow)) error {
	var failure error
	r := &t.s.out
	send := func() error {
		if r.count == 0 {
			return nil
		}
		r.acknowledgeLast()
		_, first, err := t.s.batch(r.buf, r.count)
		if failure == nil {
			failure = first
		}
		r.reset()
		return err
	}
	r.reset()
	var f flow // one for all: it is on the heap
	for i := lo; i < hi; i++ {
		f = flowAt(i)
		if !want(&f) {
			continue
		}
		request(r, &f)
		if r.count == batchSize {
			if err := send(); err != nil {
				return err
			}
		}
	}
	if err := send(); err != nil {
		return err
	}
	return failure
}

// setLimit sets how many flows a table may hold: on the whole machine, so that
// the one who calls this must put it back. The kernel allows it to root alone, and
// in the initial network namespace alone: in the one from which this command was
// started, if that is it.
func setLimit(n int) error {
	return inNamespaceOf(os.Getppid(), func() error {
		return os.WriteFile(sysctl("nf_conntrack_max"), strconv.AppendInt(nil, int64(n), 10), 0)
	})
}

// inNamespaceOf calls fn on a thread that is in the network namespace of the
// process with the given id.
func inNamespaceOf(pid int, fn func() error) error {
	result := make(chan error)
	go func() {
		result <- func() error {
			ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
			if err != nil {
				return fmt.Errorf("%w (only root can)", err)
			}
			defer ns.Close()
			runtime.LockOSThread() // and never unlock it: the thread ends with the goroutine
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return os.NewSyscallError("setns", err)
			}
			return fn()
		}()
	}()
	return <-result
}
