package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
)

// A run is one contender doing one job once. It has its own process, so that
// its CPU time and memory are its own: this program again, in the same
// namespace, with the run as its argument.
type run struct {
	Job       string
	Contender string
	// Table is how many flows of the mix the table has or will have. The job
	// handles the last Ops of them, or all if it reads the whole table.
	Table, Ops int
	// Repeat is how often a run repeats a job that reads the whole table. 0
	// means once.
	Repeat int
	// Cold omits the warm-up in the process.
	Cold bool
	// Buffer is the size of a listener's receive buffer. The kernel doubles it.
	Buffer int
	// CPUProfile and MemProfile are the files to write, if not empty.
	CPUProfile, MemProfile string

	meter meter
}

// runCommand is the first argument of a process that does one run.
const runCommand = "run-one"

// measure does the run in its own process.
func (r *run) measure() (sample, error) {
	arg, err := json.Marshal(r)
	if err != nil {
		return sample{}, err
	}
	cmd := exec.Command("/proc/self/exe", runCommand, string(arg))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return sample{}, fmt.Errorf("%s, %s: %w", r.Job, r.Contender, err)
	}
	var s sample
	if err := json.Unmarshal(out, &s); err != nil {
		return s, fmt.Errorf("%s, %s: %w", r.Job, r.Contender, err)
	}
	return s, nil
}

// runOne does the run described by arg and prints its sample.
func runOne(arg string) error {
	var r run
	if err := json.Unmarshal([]byte(arg), &r); err != nil {
		return err
	}
	r.meter.profile = newProfile(r.CPUProfile, r.MemProfile)
	do := (*run).listenOne
	if r.Job != eventsJob && r.Job != rateJob {
		job, err := findJob(r.Job)
		if err != nil {
			return err
		}
		do = job.contenders[r.Contender]
	}
	err := do(&r)
	if err != nil {
		return err
	}
	if !r.meter.Foreign {
		if r.meter.Peak, err = peakMemory("self"); err != nil {
			return err
		}
	}
	if err := r.meter.profile.end(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r.meter.sample)
}

// whole measures fn, which reads the whole table and returns how many flows it
// found. It must find all. Unless the run is cold, fn first runs once
// unmeasured: programs usually dump the table again and again, and reuse
// memory.
func (r *run) whole(want int, fn func() (int, error)) error {
	if !r.Cold {
		if _, err := fn(); err != nil {
			return err
		}
	}
	for range max(1, r.Repeat) {
		r.meter.start()
		n, err := fn()
		r.meter.stop()
		if err == nil && n != want {
			err = fmt.Errorf("%d flows instead of %d", n, want)
		}
		if err != nil {
			return err
		}
		r.meter.Flows += n
	}
	return nil
}

// each measures work on the last flows of the table. It prepares a few at a
// time outside the measurement, so that the cost of preparing does not count:
// it calls prepare for each flow, then work. skip, which may be nil, excludes
// flows.
func (r *run) each(skip func(*flow) bool, prepare func(*flow), work func() error) error {
	const stretch = 8 * batchSize
	n := 0
	do := func() error {
		r.meter.start()
		err := work()
		r.meter.stop()
		r.meter.Flows += n
		n = 0
		return err
	}
	var f flow // declared once because it escapes to the heap
	for i := r.Table - r.Ops; i < r.Table; i++ {
		f = flowAt(i)
		if skip != nil && skip(&f) {
			continue
		}
		prepare(&f)
		if n++; n == stretch {
			if err := do(); err != nil {
				return err
			}
		}
	}
	if n == 0 {
		return nil
	}
	return do()
}
