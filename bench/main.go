// The bench command compares the cost of this library with that of the bare
// system calls, of github.com/vishvananda/netlink and of the conntrack command:
//
//	go run .                 # everything, 200 000 flows
//	go run . -flows 2000     # in a few seconds, to see that it works
//	go run . -jobs flows,get -contenders floor,library -rounds 15
//	go run . -jobs rate      # not part of everything: it takes minutes
//
// It needs no set-up and runs as root or as an ordinary user. It creates a
// network namespace and fills the connection tracking table there.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/ti-mo/conntrack/internal/netns"
)

type options struct {
	flows, rounds, events  int
	rateSeconds            float64
	jobs, contenders       []string
	json, raiseMax, quiet  bool
	pin                    bool
	cpuProfile, memProfile string
}

func parse() (options, error) {
	var o options
	var jobs, who string
	flag.IntVar(&o.flows, "flows", 200_000, "how many `flows` the table holds")
	flag.IntVar(&o.rounds, "rounds", 0, "how many `times` each contender does each job, after a warm-up "+
		"(default 9, or 5 with so few flows that the limits are not for them)")
	flag.IntVar(&o.events, "events", 0, "how many `flows` the events job creates at once (default 100000, but half of -flows at most)")
	flag.Float64Var(&o.rateSeconds, "rate-seconds", 10, "for how many `seconds` the rate job holds each rate")
	flag.BoolVar(&o.pin, "pin", true, "in the jobs about events, keep a processor for the producer and the others for the listener")
	flag.StringVar(&jobs, "jobs", strings.Join(defaultJobs(), ","), "a `list` of jobs, of which "+rateJob+" is not in the default")
	flag.StringVar(&who, "contenders", strings.Join(contenders, ","), "a `list` of contenders")
	flag.BoolVar(&o.json, "json", false, "print JSON, with each sample")
	flag.BoolVar(&o.quiet, "quiet", false, "print no progress")
	flag.BoolVar(&o.raiseMax, "raise-max", false, "as root, for the memory job: raise the machine's nf_conntrack_max, "+
		"and put it back afterwards; without it, the table is dumped several times for the same number of flows")
	flag.StringVar(&o.cpuProfile, "cpuprofile", "", "write CPU profiles of this library to `prefix`-JOB-ROUND.pprof")
	flag.StringVar(&o.memProfile, "memprofile", "", "write allocation profiles of this library to `prefix`-JOB-ROUND.pprof; falsifies its times")
	flag.Parse()
	if flag.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if o.events == 0 {
		o.events = min(100_000, o.flows/2)
	}
	if o.rounds == 0 {
		o.rounds = 9
		if o.flows < limitFlows {
			o.rounds = 5
		}
	}
	if o.flows < 2000 || o.rounds < 1 || o.events < 1 || o.rateSeconds <= 0 {
		return o, fmt.Errorf("at least 2000 flows, 1 round, 1 event and some time, please")
	}
	o.jobs, o.contenders = strings.Split(jobs, ","), strings.Split(who, ",")
	for _, name := range o.jobs {
		if !slices.Contains(jobNames(), name) {
			_, err := findJob(name)
			return o, err
		}
	}
	for _, name := range o.contenders {
		if !slices.Contains(contenders, name) {
			return o, fmt.Errorf("no contender %q; there are: %s", name, strings.Join(contenders, ", "))
		}
	}
	if !haveCommand() {
		o.contenders = slices.DeleteFunc(o.contenders, func(c string) bool { return c == command })
	}
	return o, nil
}

func main() {
	if err := netns.Isolate(); err != nil {
		fail(err)
	}
	if len(os.Args) == 3 && os.Args[1] == runCommand {
		if err := runOne(os.Args[2]); err != nil {
			fail(err)
		}
		return
	}
	o, err := parse()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	r, err := o.run()
	if err != nil {
		fail(err)
	}
	if o.json {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "\t")
		err = encoder.Encode(r)
	} else {
		r.write(os.Stdout)
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}
