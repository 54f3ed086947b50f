package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"

	"golang.org/x/sys/unix"
)

// memoryJob is separate from the other jobs: it compares the memory of two runs
// of the same job, with a small and a large table.
const memoryJob = "memory"

// maxGrowth limits how much more resident memory this library may use for the
// large table than for the small one. The kernel does the work of a flush, so
// for that job the limit is only the variation between equal runs.
const (
	maxGrowth      = 4 << 20
	maxGrowthFlush = 1 << 20
)

func (row *memoryRow) maxGrowth() float64 {
	if row.Job == "flushaddress" {
		return maxGrowthFlush
	}
	return maxGrowth
}

type memory struct {
	Small int `json:"small"` // flows
	Large int `json:"large"` // flows
	// Table is how many flows of Large the table held at once. If it is less
	// than Large, the table was dumped several times.
	Table int          `json:"table"`
	Rows  []*memoryRow `json:"rows"`
	OK    bool         `json:"ok"`
}

type memoryRow struct {
	Job       string `json:"job"`
	Contender string `json:"contender"`
	// Small and Large are medians of the peak resident memory. Often is that of
	// dumping the small table as often as needed to see as many flows as in
	// Large. So the garbage of flows is the same, whatever the size of the
	// table.
	Small  float64 `json:"small_peak_rss"`
	Often  float64 `json:"often_peak_rss,omitempty"`
	Large  float64 `json:"large_peak_rss"`
	Growth float64 `json:"growth"`
}

// repeatable reports whether a process can repeat the row's job. It cannot if
// the job deletes flows or runs another program.
func (row *memoryRow) repeatable() bool { return row.Job == "flows" && row.Contender != command }

// measureMemory compares a twentieth of the flows with five times as many. For
// 200 000 flows, these are 10 000 and 1 000 000.
func (o *options) measureMemory(t *table) (*memory, error) {
	m := &memory{Small: o.flows / 20, Large: o.flows * 5}
	dump, err := findJob("flows")
	if err != nil {
		return nil, err
	}
	for _, name := range contenders {
		if dump.contenders[name] != nil && slices.Contains(o.contenders, name) {
			m.Rows = append(m.Rows, &memoryRow{Job: "flows", Contender: name})
		}
	}
	if slices.Contains(o.contenders, library) {
		m.Rows = append(m.Rows, &memoryRow{Job: "deletefunc", Contender: library})
		filters, err := supportsFilters()
		if err != nil {
			return nil, err
		}
		if filters {
			m.Rows = append(m.Rows, &memoryRow{Job: "flushaddress", Contender: library})
		}
	}

	limit, err := t.limit()
	if err != nil {
		return nil, err
	}
	m.Table = m.Large
	if m.Large > limit && limit > 0 {
		if o.raiseMax {
			back, err := raiseLimit(limit, m.Large)
			if err != nil {
				return nil, fmt.Errorf("-raise-max: %w", err)
			}
			defer back()
		} else {
			m.Table = limit
		}
	}
	// Other jobs may have left the last flows in the table.
	if err := t.require(m.Small); err != nil {
		return nil, err
	}
	for _, row := range m.Rows {
		if row.Small, err = row.peak(t, m.Small, 1); err != nil {
			return nil, err
		}
		if row.repeatable() {
			if row.Often, err = row.peak(t, m.Small, m.Large/m.Small); err != nil {
				return nil, err
			}
		}
	}
	m.OK = true
	for _, row := range m.Rows {
		repeat := 1
		if row.repeatable() {
			repeat = (m.Large + m.Table - 1) / m.Table
		}
		if row.Large, err = row.peak(t, m.Table, repeat); err != nil {
			return nil, err
		}
		row.Growth = row.Large - row.Small
		m.OK = m.OK && (row.Contender != library || row.Growth <= row.maxGrowth())
	}
	// A million flows cost the kernel time and memory.
	return m, t.flush()
}

// peak returns the peak memory of the row's job with a table of n flows. For
// this library, it is the median of several runs, because it varies with the
// garbage collector.
func (row *memoryRow) peak(t *table, n, repeat int) (float64, error) {
	j, err := findJob(row.Job)
	if err != nil {
		return 0, err
	}
	times := 1
	if row.Contender == library {
		times = 3
	}
	var samples []sample
	for range times {
		r := run{Job: j.name, Contender: row.Contender, Table: n, Ops: n, Repeat: repeat, Cold: true}
		s, err := j.measure(t, &r)
		if err != nil {
			return 0, err
		}
		samples = append(samples, s)
	}
	return median(samples, func(s sample) float64 { return float64(s.Peak) }), nil
}

// raiseLimit changes the machine's nf_conntrack_max from old to n. The returned
// function restores it, and so does an interrupt.
func raiseLimit(old, n int) (back func(), err error) {
	if err := setLimit(n); err != nil {
		return nil, err
	}
	restore := func() {
		if err := setLimit(old); err != nil {
			fmt.Fprintf(os.Stderr, "bench: nf_conntrack_max stays at %d, it was %d: %v\n", n, old, err)
		}
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGHUP)
	go func() {
		if s, ok := <-signals; ok {
			restore()
			fail(fmt.Errorf("%v", s))
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		restore()
	}, nil
}

func (m *memory) write(w io.Writer) {
	if m == nil {
		return
	}
	fmt.Fprintf(w, "\nPeak resident memory with %d flows in the table, dumped once and %d times, and with %d",
		m.Small, m.Large/m.Small, m.Large)
	if m.Table < m.Large {
		fmt.Fprintf(w, " (that is %d, dumped several times or deleted from once: see -raise-max)", m.Table)
	}
	fmt.Fprint(w, ".\n\n")
	t := newMarkdown(w, "job", "contender", fmt.Sprintf(">%d flows", m.Small), fmt.Sprintf(">%d times", m.Large/m.Small),
		fmt.Sprintf(">%d flows", m.Large), ">growth", "limit")
	for _, row := range m.Rows {
		title, limit, often := "", "", ""
		if j, err := findJob(row.Job); err == nil {
			title = j.title
		}
		if row.Contender == library {
			limit = describe([]limitResult{{
				What: "growth", Value: row.Growth, Limit: row.maxGrowth(), OK: row.Growth <= row.maxGrowth(),
			}})
		}
		if row.Often > 0 {
			often = mebibytes(row.Often)
		}
		t.row(title, label(row.Job, row.Contender), mebibytes(row.Small), often, mebibytes(row.Large), mebibytes(row.Growth), limit)
	}
	t.flush()
}
