package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"
)

// The jobs about events are separate from the other jobs: they start with an
// empty table, and the main result is how many events were lost.
const (
	// eventsJob creates a burst of flows while the contender listens.
	eventsJob = "events"
	// rateJob finds the highest rate of new flows at which no event is lost.
	rateJob = "rate"
)

// These are the sizes of the receive buffers.
const (
	burstBuffer = 1 << 20
	rateBuffer  = 4 << 20
)

type events struct {
	Burst  int            `json:"burst"`
	Buffer int            `json:"buffer"`
	Pinned bool           `json:"pinned"`
	Rows   []*eventResult `json:"listeners"`
}

// An eventResult has the medians of its samples.
type eventResult struct {
	Name    string        `json:"name"`
	Samples []eventSample `json:"samples"` // one a round

	Received float64 `json:"received"`
	Dropped  float64 `json:"dropped"`
	Overruns float64 `json:"overruns"`
	// Lossless is the number of rounds in which no event was lost.
	Lossless int `json:"lossless"`
	// These are per event received.
	CPU    float64 `json:"cpu_ns"`
	Allocs float64 `json:"allocs"`
	Bytes  float64 `json:"bytes"`
	Peak   float64 `json:"peak_rss"`
	// CPURatio is relative to the floor. It is 0 if the floor did not run.
	CPURatio float64       `json:"cpu_ratio,omitempty"`
	Limits   []limitResult `json:"limits,omitempty"`

	listener *listener
}

// eventResults returns an empty result for each listener that takes part.
func (o *options) eventResults() []*eventResult {
	var rows []*eventResult
	for i := range listeners {
		if l := &listeners[i]; slices.Contains(o.contenders, l.contender) {
			rows = append(rows, &eventResult{Name: l.name, listener: l})
		}
	}
	return rows
}

// measureEvents lets the listeners take turns, like the contenders of other
// jobs.
func (o *options) measureEvents(t *table) (*events, error) {
	p, err := newProducer(t, o.events, o.pin)
	if err != nil {
		return nil, err
	}
	e := &events{Burst: o.events, Buffer: burstBuffer, Pinned: p.pins != nil, Rows: o.eventResults()}
	for round := 0; round <= o.rounds; round++ {
		o.progress("events, round %d of %d", round, o.rounds)
		for i := range e.Rows {
			row := e.Rows[(i+round)%len(e.Rows)]
			if err := t.require(0); err != nil {
				return nil, err
			}
			r := o.listenerRun(eventsJob, row, burstBuffer, round)
			s, err := p.listen(r, row.listener, p.burst)
			if err != nil {
				return nil, err
			}
			if round > 0 {
				row.Samples = append(row.Samples, s)
			}
		}
	}
	var base *eventResult
	if i := e.floor(); i >= 0 {
		base = e.Rows[i]
	}
	for _, row := range e.Rows {
		row.summarise(base)
	}
	return e, t.require(0)
}

// floor returns the index of the row that others are compared with, or -1.
func (e *events) floor() int {
	return slices.IndexFunc(e.Rows, func(row *eventResult) bool { return row.Name == floorListener })
}

func (o *options) listenerRun(job string, row *eventResult, buffer, round int) *run {
	r := &run{Job: job, Contender: row.Name, Buffer: buffer}
	if row.listener.contender == library {
		r.CPUProfile = profileName(o.cpuProfile, job+"-"+row.Name, round)
		r.MemProfile = profileName(o.memProfile, job+"-"+row.Name, round)
	}
	return r
}

// eventCPU returns the CPU time per event received. A listener that received
// none must not look cheap.
func eventCPU(s eventSample) float64 { return float64(s.CPU) / float64(max(1, s.Flows)) }

// summarise computes the medians, the ratio and the limits.
func (r *eventResult) summarise(base *eventResult) {
	perEvent := func(of func(eventSample) uint64) float64 {
		return median(r.Samples, func(s eventSample) float64 { return float64(of(s)) / float64(max(1, s.Flows)) })
	}
	r.Received = median(r.Samples, func(s eventSample) float64 { return float64(s.Flows) })
	r.Dropped = median(r.Samples, func(s eventSample) float64 { return float64(s.Dropped) })
	r.Overruns = median(r.Samples, func(s eventSample) float64 { return float64(s.Overruns) })
	r.Peak = median(r.Samples, func(s eventSample) float64 { return float64(s.Peak) })
	r.CPU = median(r.Samples, eventCPU)
	r.Allocs = perEvent(func(s eventSample) uint64 { return s.Allocs })
	r.Bytes = perEvent(func(s eventSample) uint64 { return s.Bytes })
	r.Lossless = 0
	for i := range r.Samples {
		if r.Samples[i].lossless() {
			r.Lossless++
		}
	}
	limits := r.listener.limits
	if limits.lossless {
		n := len(r.Samples)
		r.Limits = append(r.Limits, limitResult{"lossless", float64(r.Lossless), float64(n), r.Lossless == n})
	}
	most := func(what string, value, limit float64) {
		if limit > 0 {
			r.Limits = append(r.Limits, limitResult{what, value, limit, value <= limit})
		}
	}
	if base != nil {
		r.CPURatio = medianRatio(r.Samples, base.Samples, eventCPU)
		most("CPU", r.CPURatio, limits.cpu)
	}
	most("allocations", r.Allocs, limits.allocs)
}

func (e *events) write(w io.Writer) {
	if e == nil {
		return
	}
	fmt.Fprintf(w, "\n%d new flows at once, with a receive buffer of %s%s.\n\n",
		e.Burst, mebibytes(float64(e.Buffer)), pinned(e.Pinned))
	t := newMarkdown(w, "listener", ">events received", ">dropped by the kernel", ">overruns seen", ">nothing lost",
		">CPU an event", ">x floor", ">allocs an event", ">bytes an event", ">peak memory", "limits")
	for _, r := range e.Rows {
		n, allocs, bytes := len(r.Samples), number(r.Allocs), number(r.Bytes)
		if slices.ContainsFunc(r.Samples, func(s eventSample) bool { return s.Foreign }) {
			allocs, bytes = "", ""
		}
		t.row(r.listener.title, number(r.Received), number(r.Dropped), number(r.Overruns),
			fmt.Sprintf("%d of %d rounds", r.Lossless, n),
			duration(r.CPU), ratio(r.CPURatio), allocs, bytes, mebibytes(r.Peak), describe(r.Limits))
	}
	t.flush()
	if i := e.floor(); i >= 0 && e.Rows[i].Lossless < len(e.Rows[i].Samples) {
		fmt.Fprintf(w, "\nThe floor lost some too: the machine was too busy with other things to tell what a listener can do.\n")
	}
}

func pinned(on bool) string {
	if on {
		return ", the producer on a processor of its own"
	}
	return ""
}

type rate struct {
	Seconds float64       `json:"seconds"`
	Buffer  int           `json:"buffer"`
	Pinned  bool          `json:"pinned"`
	Rows    []*rateResult `json:"listeners"`
}

type rateResult struct {
	Name string `json:"name"`
	// Rate is the highest rate at which no event was lost, in flows per second.
	// If Producer is set, it is all that the producer can do, and the listener
	// may be able to handle more.
	Rate     float64 `json:"rate"`
	Producer bool    `json:"producer_limit"`
	// Lost is the lowest rate that was too high, or 0.
	Lost  float64     `json:"lossy_rate,omitempty"`
	CPU   float64     `json:"cpu_ns"` // an event at Rate
	Steps []*rateStep `json:"steps"`

	listener *listener
}

// A rateStep is a rate that was tried. It is good if the last of its samples
// lost nothing.
type rateStep struct {
	Wanted   float64       `json:"wanted"` // 0 for as many as possible
	Rate     float64       `json:"rate"`
	Lossless bool          `json:"lossless"`
	Samples  []eventSample `json:"samples"`
}

func (s *rateStep) last() eventSample { return s.Samples[len(s.Samples)-1] }

const (
	// rateFlows is how many flows the rate job alternately creates and deletes.
	rateFlows = 64 * batchSize
	// rateSteps is how often it bisects between a good rate and a bad one.
	rateSteps = 6
	// rateTries is how often it tries a rate at most.
	rateTries = 2
)

// measureRate finds the highest rate of each listener: the highest rate of the
// producer if the listener can handle it, otherwise by bisection.
func (o *options) measureRate(t *table) (*rate, error) {
	if err := t.require(0); err != nil {
		return nil, err
	}
	p, err := newProducer(t, rateFlows, o.pin)
	if err != nil {
		return nil, err
	}
	result := &rate{Seconds: o.rateSeconds, Buffer: rateBuffer, Pinned: p.pins != nil}
	for _, row := range o.eventResults() {
		r := &rateResult{Name: row.Name, listener: row.listener}
		result.Rows = append(result.Rows, r)
		wanted := 0.0
		for range rateSteps + 1 {
			step, err := o.measureStep(p, row, wanted)
			if err != nil {
				return nil, err
			}
			r.Steps = append(r.Steps, step)
			if !step.Lossless {
				r.Lost = step.Rate
			} else {
				r.Rate, r.CPU, r.Producer = step.Rate, eventCPU(step.last()), wanted == 0
			}
			if r.Producer {
				break
			}
			wanted = (r.Rate + r.Lost) / 2
		}
	}
	return result, nil
}

// measureStep tries a rate. If events were lost, it tries again, because the
// machine may have been busy with other things.
func (o *options) measureStep(p *producer, row *eventResult, wanted float64) (*rateStep, error) {
	step := &rateStep{Wanted: wanted}
	for len(step.Samples) < rateTries && !step.Lossless {
		if wanted == 0 {
			o.progress("rate, %s, as many as possible", row.Name)
		} else {
			o.progress("rate, %s, %s a second", row.Name, thousands(wanted))
		}
		r := o.listenerRun(rateJob, row, rateBuffer, len(step.Samples))
		s, err := p.listen(r, row.listener, func() (int, error) {
			return p.pace(wanted, time.Duration(o.rateSeconds*float64(time.Second)))
		})
		if err != nil {
			return nil, err
		}
		step.Samples = append(step.Samples, s)
		step.Rate = float64(s.Sent) / float64(s.Took) * 1e9
		step.Lossless = s.lossless()
	}
	return step, nil
}

func (r *rate) write(w io.Writer) {
	if r == nil {
		return
	}
	fmt.Fprintf(w, "\nThe highest rate of new flows of which nothing was lost for %s s, with a receive buffer of %s%s.\n\n",
		number(r.Seconds), mebibytes(float64(r.Buffer)), pinned(r.Pinned))
	t := newMarkdown(w, "listener", ">flows a second", ">lost some at", ">CPU an event")
	for _, row := range r.Rows {
		text, lost := thousands(row.Rate), ""
		if row.Producer {
			text = ">= " + text
		}
		if row.Lost > 0 {
			lost = thousands(row.Lost)
		}
		t.row(row.listener.title, text, lost, duration(row.CPU))
	}
	t.flush()
	fmt.Fprint(w, "\n\">=\": the producer could not create them any faster.\n")
}

// thousands formats n, rounded down to hundreds.
func thousands(n float64) string { return strconv.Itoa(int(n/100) * 100) }
