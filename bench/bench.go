package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// run does everything that the options ask for.
func (o *options) run() (*report, error) {
	t, err := newTable()
	if err != nil {
		return nil, err
	}
	defer t.s.close()
	r := &report{Machine: thisMachine(), Flows: o.flows, Rounds: o.rounds}
	if limit, err := t.limit(); err != nil {
		return nil, err
	} else if n := max(o.flows, o.events); limit > 0 && n > limit {
		return nil, fmt.Errorf("%d flows: the kernel allows %d (net.netfilter.nf_conntrack_max)", n, limit)
	}
	filters, err := supportsFilters()
	if err != nil {
		return nil, err
	}
	for _, name := range o.jobs {
		if j, err := findJob(name); err == nil && (filters || !j.filters) {
			r.Jobs = append(r.Jobs, &jobResult{Name: name, job: j})
		}
	}
	// The first round only warms up the kernel's caches, the processor and the
	// page cache. It does not count.
	for round := 0; round <= o.rounds && len(r.Jobs) > 0; round++ {
		o.progress("round %d of %d", round, o.rounds)
		for _, j := range r.Jobs {
			if err := o.round(t, j, round); err != nil {
				return nil, err
			}
		}
	}
	for _, j := range r.Jobs {
		j.summarise()
	}
	if slices.Contains(o.jobs, eventsJob) {
		if r.Events, err = o.measureEvents(t); err != nil {
			return nil, err
		}
	}
	if slices.Contains(o.jobs, rateJob) {
		if r.Rate, err = o.measureRate(t); err != nil {
			return nil, err
		}
	}
	if slices.Contains(o.jobs, memoryJob) {
		o.progress("memory")
		if r.Memory, err = o.measureMemory(t); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (o *options) progress(format string, args ...any) {
	if !o.quiet {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}
}

// round lets each contender do the job once. Taking turns spreads any
// disturbance of the machine over all of them. Each round starts with a
// different contender.
func (o *options) round(t *table, result *jobResult, round int) error {
	j := result.job
	var names []string
	for _, name := range contenders {
		if j.contenders[name] != nil && slices.Contains(o.contenders, name) {
			names = append(names, name)
		}
	}
	for i := range names {
		name := names[(i+round)%len(names)]
		r := run{Job: j.name, Contender: name, Table: o.flows, Ops: j.ops(o.flows), Cold: j.cold}
		if name == library {
			r.CPUProfile = profileName(o.cpuProfile, j.name, round)
			r.MemProfile = profileName(o.memProfile, j.name, round)
		}
		s, err := j.measure(t, &r)
		if err != nil {
			return err
		}
		if round > 0 {
			result.add(name, s)
		}
	}
	return nil
}

// measure prepares the table, measures a run, and restores what the run
// removed.
func (j *job) measure(t *table, r *run) (sample, error) {
	if err := t.require(j.before(r.Table)); err != nil {
		return sample{}, err
	}
	s, err := r.measure()
	if err == nil && j.restore != nil {
		err = j.restore(t, r)
	}
	return s, err
}

func profileName(prefix, job string, round int) string {
	if prefix == "" {
		return ""
	}
	return fmt.Sprintf("%s-%s-%d.pprof", prefix, job, round)
}

func thisMachine() machine {
	m := machine{Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU(), CPU: "CPU"}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	return m
}
