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

// batchSize is how many messages are sent at once. It is what this library
// sends: see nfnl.Conn.MaxBatch.
const batchSize = 128

// A table is the connection tracking table of the namespace. It has the first
// flows of the mix.
type table struct {
	s *socket
}

func newTable() (*table, error) {
	s, err := newSocket()
	if err != nil {
		return nil, err
	}
	// Flows have counters, as on most machines where programs read flows.
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

// count returns the number of flows.
func (t *table) count() (int, error) { return readSysctl("nf_conntrack_count") }

// limit returns the maximum number of flows.
func (t *table) limit() (int, error) { return readSysctl("nf_conntrack_max") }

// require puts the first n flows of the mix into the table. It does nothing if
// their number is right, because jobs restore what they remove.
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

// create creates the flows from lo up to hi that want selects. The kernel
// translates sources.
func (t *table) create(lo, hi int, want func(*flow) bool) error {
	return t.batches(lo, hi, want, func(r *requests, f *flow) { r.create(f, true, 0) })
}

// delete deletes the flows from lo up to hi. It ignores missing ones.
func (t *table) delete(lo, hi int) {
	_ = t.batches(lo, hi, every, func(r *requests, f *flow) { r.delete(f, 0) })
}

// batches sends the message that request makes for each flow. It returns the
// first error.
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
	var f flow // declared once because it escapes to the heap
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

// setLimit sets the maximum number of flows in a table of the whole machine, so
// the caller must restore it. The kernel only allows this to root in the
// initial network namespace. setLimit enters the namespace from which this
// command was started, which may be the initial one.
func setLimit(n int) error {
	return inNamespaceOf(os.Getppid(), func() error {
		return os.WriteFile(sysctl("nf_conntrack_max"), strconv.AppendInt(nil, int64(n), 10), 0)
	})
}

// inNamespaceOf calls fn on a thread in the network namespace of a process.
func inNamespaceOf(pid int, fn func() error) error {
	result := make(chan error)
	go func() {
		result <- func() error {
			ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
			if err != nil {
				return fmt.Errorf("%w (only root can)", err)
			}
			defer ns.Close()
			runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return os.NewSyscallError("setns", err)
			}
			return fn()
		}()
	}()
	return <-result
}
