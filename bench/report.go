package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// A report has all measurements.
type report struct {
	Machine machine      `json:"machine"`
	Flows   int          `json:"flows"`
	Rounds  int          `json:"rounds"`
	Jobs    []*jobResult `json:"jobs"`
	Events  *events      `json:"events,omitempty"`
	Rate    *rate        `json:"rate,omitempty"`
	Memory  *memory      `json:"memory,omitempty"`
}

type machine struct {
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	System string `json:"system"`
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
}

type jobResult struct {
	Name       string             `json:"name"`
	Contenders []*contenderResult `json:"contenders"`
	Limits     []limitResult      `json:"limits,omitempty"`

	job *job
}

// A contenderResult has the medians of its samples, per flow.
type contenderResult struct {
	Name    string   `json:"name"`
	Samples []sample `json:"samples"` // one a round

	Wall   float64 `json:"wall_ns"`
	CPU    float64 `json:"cpu_ns"`
	Allocs float64 `json:"allocs"`
	Bytes  float64 `json:"bytes"`
	Peak   float64 `json:"peak_rss"`
	// WallRatio and CPURatio are relative to the floor. They are 0 if the floor
	// did not run.
	WallRatio float64 `json:"wall_ratio,omitempty"`
	CPURatio  float64 `json:"cpu_ratio,omitempty"`

	Foreign bool `json:"foreign,omitempty"`
}

// A limitResult says whether this library is within a limit.
type limitResult struct {
	What  string  `json:"what"`
	Value float64 `json:"value"`
	Limit float64 `json:"limit"`
	OK    bool    `json:"ok"`
}

func (r *jobResult) contender(name string) *contenderResult {
	for _, c := range r.Contenders {
		if c.Name == name {
			return c
		}
	}
	return nil
}

func (r *jobResult) add(contender string, s sample) {
	c := r.contender(contender)
	if c == nil {
		c = &contenderResult{Name: contender}
		r.Contenders = append(r.Contenders, c)
	}
	c.Samples = append(c.Samples, s)
	c.Foreign = s.Foreign
}

func wall(s sample) float64 { return float64(s.Wall) / float64(s.Flows) }
func cpu(s sample) float64  { return float64(s.CPU) / float64(s.Flows) }

// summarise computes the medians, the ratios and the limits.
func (r *jobResult) summarise() {
	slices.SortFunc(r.Contenders, func(a, b *contenderResult) int {
		return slices.Index(contenders, a.Name) - slices.Index(contenders, b.Name)
	})
	base := r.contender(floor)
	for _, c := range r.Contenders {
		c.Wall = median(c.Samples, wall)
		c.CPU = median(c.Samples, cpu)
		c.Allocs = median(c.Samples, func(s sample) float64 { return float64(s.Allocs) / float64(s.Flows) })
		c.Bytes = median(c.Samples, func(s sample) float64 { return float64(s.Bytes) / float64(s.Flows) })
		c.Peak = median(c.Samples, func(s sample) float64 { return float64(s.Peak) })
		if base != nil {
			c.WallRatio = medianRatio(c.Samples, base.Samples, wall)
			c.CPURatio = medianRatio(c.Samples, base.Samples, cpu)
		}
	}
	c := r.contender(library)
	if c == nil {
		return
	}
	most := func(what string, value, limit float64) {
		if limit > 0 {
			r.Limits = append(r.Limits, limitResult{what, value, limit, value <= limit})
		}
	}
	limits := r.job.limits
	if base != nil {
		most("time", c.WallRatio, limits.time)
	}
	most("allocations", c.Allocs, limits.allocs)
	most("bytes", c.Bytes, limits.bytes)
	faster := func(what, other string, limit float64) {
		if o := r.contender(other); o != nil && limit > 0 {
			times := medianRatio(o.Samples, c.Samples, wall)
			r.Limits = append(r.Limits, limitResult{what, times, limit, times >= limit})
		}
	}
	faster("advantage", vishvananda, limits.advantage)
	faster("advantage over the command", command, limits.command)
}

func median[S any](samples []S, of func(S) float64) float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	return medianOf(values)
}

// medianRatio returns the median of the ratios of the rounds, rather than the
// ratio of the medians. A disturbance that slows down a whole round does not
// affect it.
func medianRatio[S any](a, b []S, of func(S) float64) float64 {
	var ratios []float64
	for i := range min(len(a), len(b)) {
		ratios = append(ratios, of(a[i])/of(b[i]))
	}
	return medianOf(ratios)
}

func medianOf(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// write prints the report in Markdown.
func (r *report) write(w io.Writer) {
	m := r.Machine
	fmt.Fprintf(w, "Linux %s, %s, %s, %d x %s.\n", m.Kernel, m.Go, m.System, m.CPUs, m.CPU)
	if len(r.Jobs) > 0 {
		fmt.Fprintf(w, "\n%d flows in the table, medians of %d rounds.\n\n", r.Flows, r.Rounds)
		t := newMarkdown(w, "job", "contender", ">time a flow", ">x floor", ">CPU a flow", ">x floor",
			">allocs a flow", ">bytes a flow", ">peak memory", "limits")
		for _, j := range r.Jobs {
			title := j.job.title
			for _, c := range j.Contenders {
				allocs, bytes := number(c.Allocs), number(c.Bytes)
				if c.Foreign {
					allocs, bytes = "", ""
				}
				limits := ""
				if c.Name == library {
					limits = describe(j.Limits)
				}
				t.row(title, j.label(c.Name), duration(c.Wall), ratio(c.WallRatio), duration(c.CPU), ratio(c.CPURatio),
					allocs, bytes, mebibytes(c.Peak), limits)
				title = ""
			}
		}
		t.flush()
		if r.Flows < limitFlows {
			fmt.Fprintf(w, "\nThe limits are for %d flows: with fewer, the constant part of a job weighs more.\n", limitFlows)
		}
	}
	if r.busy() {
		fmt.Fprintf(w, "\nThe machine was busy with other things: the CPU columns say more than the time columns.\n")
	}
	r.Events.write(w)
	r.Rate.write(w)
	r.Memory.write(w)
}

// busy reports whether the floor waited for a processor. It waits for little
// else, so its time should equal its CPU time.
func (r *report) busy() bool {
	var waited []float64
	for _, j := range r.Jobs {
		if c := j.contender(floor); c != nil {
			waited = append(waited, c.Wall/c.CPU)
		}
	}
	return len(waited) > 0 && medianOf(waited) > 1.15
}

// label returns the name of a contender in the table.
func (r *jobResult) label(contender string) string { return label(r.Name, contender) }

func label(job, contender string) string {
	switch contender {
	case floor:
		return "floor"
	case library:
		return "**this library**"
	case vishvananda:
		return "vishvananda/netlink"
	case handle:
		return "vishvananda/netlink, Handle"
	}
	return map[string]string{
		"flows": "`conntrack -L`", "create": "`conntrack -R`", "deletefunc": "`conntrack -D`", memoryJob: "`conntrack -L`",
		"dumpaddress": "`conntrack -L -s`", "flushaddress": "`conntrack -D -s`",
	}[job]
}

func describe(limits []limitResult) string {
	var texts []string
	for _, l := range limits {
		var text string
		switch l.What {
		case "time":
			text = fmt.Sprintf("time <= %.2f x", l.Limit)
		case "allocations":
			text = fmt.Sprintf("<= %s allocs", number(l.Limit))
		case "bytes":
			text = fmt.Sprintf("<= %s bytes", number(l.Limit))
		case "advantage":
			text = fmt.Sprintf(">= %s x vishvananda's speed (%.1f)", number(l.Limit), l.Value)
		case "advantage over the command":
			text = fmt.Sprintf(">= %s x the command's speed (%.1f)", number(l.Limit), l.Value)
		case "CPU":
			text = fmt.Sprintf("CPU <= %.2f x", l.Limit)
		case "lossless":
			text = "nothing lost"
		case "growth":
			text = "<= " + mebibytes(l.Limit)
		}
		verdict := "ok"
		if !l.OK {
			verdict = "**over**"
		}
		texts = append(texts, text+": "+verdict)
	}
	return strings.Join(texts, "; ")
}

func duration(ns float64) string {
	switch {
	case ns >= 1_000_000:
		return fmt.Sprintf("%.2f ms", ns/1e6)
	case ns >= 100_000:
		return fmt.Sprintf("%.0f us", ns/1000)
	case ns >= 10_000:
		return fmt.Sprintf("%.1f us", ns/1000)
	case ns >= 1_000:
		return fmt.Sprintf("%.2f us", ns/1000)
	}
	return fmt.Sprintf("%.0f ns", ns)
}

func ratio(x float64) string {
	if x == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", x)
}

func number(x float64) string {
	switch {
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 1:
		return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.1f", x), "0"), ".")
	case x < 0.0005:
		return "0"
	}
	return strings.TrimRight(fmt.Sprintf("%.3f", x), "0")
}

func mebibytes(b float64) string { return fmt.Sprintf("%.1f MiB", b/(1<<20)) }

// markdown is a Markdown table with aligned columns.
type markdown struct {
	w *tabwriter.Writer
}

// newMarkdown starts a table. Columns whose name starts with ">" are aligned
// right.
func newMarkdown(w io.Writer, columns ...string) *markdown {
	m := &markdown{tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)}
	var names, rules []string
	for _, c := range columns {
		name, right := strings.CutPrefix(c, ">")
		names = append(names, name)
		if right {
			rules = append(rules, "---:")
		} else {
			rules = append(rules, "---")
		}
	}
	m.row(names...)
	m.row(rules...)
	return m
}

func (m *markdown) row(cells ...string) {
	fmt.Fprintf(m.w, "| %s\t|\n", strings.Join(cells, "\t| "))
}

func (m *markdown) flush() { _ = m.w.Flush() }
