package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/netns"
)

func TestMain(m *testing.M) {
	if err := netns.Isolate(); err != nil {
		fail(err)
	}
	os.Exit(m.Run())
}

const testFlows = 2000

func newTestTable(t *testing.T) *table {
	t.Helper()
	table, err := newTable()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := table.flush(); err != nil {
			t.Error(err)
		}
		table.s.close()
	})
	return table
}

// contents returns the contents of the table, without the values that the
// kernel chooses.
func contents(t *testing.T) []string {
	t.Helper()
	c, err := conntrack.Dial(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	flows, err := c.Dump(nil)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, f := range flows {
		tcp := conntrack.ProtoInfoTCP{}
		if f.ProtoInfo.TCP != nil {
			tcp = *f.ProtoInfo.TCP
		}
		texts = append(texts, fmt.Sprintf("%v %v %v mark %x, about %d minutes, %+v",
			f.TupleOrig, f.TupleReply, f.Status, f.Mark, (f.Timeout+30)/60, tcp))
	}
	slices.Sort(texts)
	return texts
}

// TestSameWork asserts that the floor and this library, whose times are
// compared, leave the same table behind.
func TestSameWork(t *testing.T) {
	tests := []struct {
		job    string
		before int
	}{
		{"create", testFlows / 2}, {"createbatch", testFlows / 2},
		{"update", testFlows}, {"delete", testFlows}, {"deletebatch", testFlows}, {"deletefunc", testFlows},
	}
	for _, test := range tests {
		t.Run(test.job, func(t *testing.T) {
			table := newTestTable(t)
			job, err := findJob(test.job)
			if err != nil {
				t.Fatal(err)
			}
			left := map[string][]string{}
			for _, contender := range []string{floor, library} {
				if err := table.flush(); err != nil {
					t.Fatal(err)
				}
				if err := table.require(test.before); err != nil {
					t.Fatal(err)
				}
				r := run{Table: testFlows, Ops: testFlows / 2}
				if test.job == "deletefunc" {
					r.Ops = testFlows
				}
				if err := job.contenders[contender](&r); err != nil {
					t.Fatal(err)
				}
				if r.meter.Flows != r.Ops {
					t.Errorf("%s: %d flows, want %d", contender, r.meter.Flows, r.Ops)
				}
				left[contender] = contents(t)
			}
			if !slices.Equal(left[floor], left[library]) {
				t.Errorf("different tables: %d and %d flows", len(left[floor]), len(left[library]))
				for i := range min(len(left[floor]), len(left[library])) {
					if a, b := left[floor][i], left[library][i]; a != b {
						t.Fatalf("the first difference:\n%s\n%s", a, b)
					}
				}
			}
		})
	}
}

// TestFilterJobs asserts that all contenders delete exactly the flows of one
// address. Otherwise the restore would fail.
func TestFilterJobs(t *testing.T) {
	if filters, err := supportsFilters(); err != nil || !filters {
		t.Skipf("the kernel does not filter by address: %v", err)
	}
	table := newTestTable(t)
	for _, job := range jobs {
		if !job.filters {
			continue
		}
		for name := range job.contenders {
			if name == command && !haveCommand() {
				continue
			}
			t.Run(job.name+"/"+name, func(t *testing.T) {
				if err := table.require(testFlows); err != nil {
					t.Fatal(err)
				}
				r := run{Job: job.name, Contender: name, Table: testFlows, Ops: testFlows}
				if err := job.contenders[name](&r); err != nil {
					t.Fatal(err)
				}
				if job.restore == nil {
					return
				}
				if have, err := table.count(); err != nil || have != testFlows-busyFlows {
					t.Errorf("%d flows left, %v", have, err)
				}
				if err := job.restore(table, &r); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestWait asserts that a listener ends once it has received all events that
// were not dropped.
func TestWait(t *testing.T) {
	var l listening
	l.received.Store(7)
	start := time.Now()
	l.wait(strings.NewReader("end 10 3\n"))
	l.wait(strings.NewReader(""))
	if took := time.Since(start); took > idle/2 {
		t.Errorf("it waited for %v", took)
	}
}

// TestFill asserts that the table has the flows of the mix, with real NAT.
func TestFill(t *testing.T) {
	table := newTestTable(t)
	if err := table.require(testFlows); err != nil {
		t.Fatal(err)
	}
	c, err := conntrack.Dial(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range testFlows {
		f := flowAt(i)
		got, err := c.Get(f.libraryKey())
		if err != nil {
			t.Fatal(err)
		}
		want := f.libraryFlow()
		if got.TupleReply != want.TupleReply && !f.icmp() {
			t.Fatalf("flow %d: reply %v, want %v", i, got.TupleReply, want.TupleReply)
		}
		if got.Status.SrcNAT() != f.nat() || got.Status.Assured() != f.assured {
			t.Fatalf("flow %d: status %v", i, got.Status)
		}
	}
}

func TestMedianRatio(t *testing.T) {
	a := []sample{{Flows: 1, Wall: 110}, {Flows: 2, Wall: 480}, {Flows: 1, Wall: 100}}
	b := []sample{{Flows: 1, Wall: 100}, {Flows: 1, Wall: 200}, {Flows: 1, Wall: 50}}
	if got := medianRatio(a, b, wall); got != 1.2 {
		t.Errorf("got %v", got)
	}
}
