//go:build linux

// Package compat compares this library with github.com/ti-mo/conntrack v0.5.0.
// It builds one program with each of them, and compares what both read from the
// same kernel and print.
package compat

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ti-mo/conntrack/internal/nstest"
)

func TestMain(m *testing.M) {
	nstest.Main(m)
}

// programs are the paths of the program built with v0.5.0 and with this
// library.
type programs struct{ v050, ours string }

// TestCompat asserts that both programs behave alike, except for the
// exceptions. Building them needs modules, and the namespace of the tests has
// no network to download them:
//
//	go mod download && go build -modfile=v050.mod -o /dev/null ./program
func TestCompat(t *testing.T) {
	nstest.Require(t)
	dir := t.TempDir()
	p := programs{filepath.Join(dir, "v050"), filepath.Join(dir, "ours")}
	build(t, "-modfile=v050.mod", "-o", p.v050)
	build(t, "-o", p.ours)

	t.Run("texts", p.testTexts)
	t.Run("table", p.testTable)
	t.Run("events", p.testEvents)
	t.Run("habits", p.testHabits)
	t.Run("requests", p.testRequests)
}

func build(t *testing.T, args ...string) {
	t.Helper()
	args = append(append([]string{"build"}, args...), "./program")
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		t.Fatalf("go %v: %v\n%s", args, err, out)
	}
}

func (p programs) testTexts(t *testing.T) {
	compare(t, run(t, nstest.New(t), p.v050, "texts"), run(t, nstest.New(t), p.ours, "texts"), differentTexts)
}

// testTable compares a table made by real traffic.
func (p programs) testTable(t *testing.T) {
	ns := nstest.New(t, nstest.Accounting(), nstest.Timestamps())
	makeRules(ns)
	makeTraffic(t, ns)
	makeFlows(t, ns)
	old, ours := run(t, ns, p.v050, "table"), run(t, ns, p.ours, "table")
	if flows := len(old[0].(object)["Dump"].([]any)); flows < 25 {
		t.Errorf("%d flows, want more of them", flows)
	}
	if expects := len(old[0].(object)["DumpExpect"].([]any)); expects != 2 {
		t.Errorf("%d expectations, want one of IPv4 and one of IPv6", expects)
	}
	for _, table := range []any{old[0], ours[0]} {
		// v0.5.0 hangs in Get with a newer netlink library than the one it
		// requires.
		if table.(object)["Get"] == nil {
			t.Error("Get hangs")
		}
	}
	compare(t, old, ours, differentTables)
}

// testEvents compares the events of real traffic and of the end of all flows.
func (p programs) testEvents(t *testing.T) {
	ns := nstest.New(t, nstest.Accounting(), nstest.Timestamps())
	makeRules(ns)
	old, ours := listen(t, ns, p.v050), listen(t, ns, p.ours)
	makeTraffic(t, ns)
	makeFlows(t, ns)
	endFlows(t, ns)
	oldEvents, ourEvents := old(), ours()
	types := map[any]int{}
	for _, ev := range oldEvents {
		types[ev.(object)["Type"]]++
	}
	if len(types) != 5 || len(oldEvents) < 80 {
		t.Errorf("%v events, want more of them, of five types", types)
	}
	compare(t, oldEvents, ourEvents, differentEvents)
}

func (p programs) testHabits(t *testing.T) {
	compare(t, run(t, nstest.New(t), p.v050, "habits"), run(t, nstest.New(t), p.ours, "habits"), differentHabits)
}

// testRequests compares the effect of the same requests on two tables.
func (p programs) testRequests(t *testing.T) {
	var got [2][]any
	for i, program := range []string{p.v050, p.ours} {
		ns := nstest.New(t, nstest.Accounting())
		ns.Labels()
		got[i] = run(t, ns, program, "requests")
	}
	compare(t, got[0], got[1], differentRequests)
}

// run runs a program inside the namespace and returns its output.
func run(t *testing.T, ns *nstest.NS, program, command string) []any {
	t.Helper()
	cmd := exec.Command(program, command)
	cmd.Stderr = os.Stderr
	var out bytes.Buffer
	cmd.Stdout = &out
	ns.Do(cmd.Run)
	return decode(t, &out)
}

// listen starts a program that prints events, and returns once it listens. The
// returned function waits for the program to end and returns the events.
func listen(t *testing.T, ns *nstest.NS, program string) func() []any {
	t.Helper()
	cmd := exec.Command(program, "events")
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	ns.Do(cmd.Start)
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	out := bufio.NewReader(pipe)
	if line, err := out.ReadString('\n'); err != nil || line != "\"listening\"\n" {
		t.Fatalf("%s says %q, %v", program, line, err)
	}
	events := make(chan []any, 1)
	go func() { events <- decode(t, out) }()
	return func() []any {
		t.Helper()
		all := <-events
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		return all
	}
}

// decode reads JSON values until the end.
func decode(t *testing.T, r io.Reader) (values []any) {
	d := json.NewDecoder(r)
	for {
		var v any
		if err := d.Decode(&v); errors.Is(err, io.EOF) {
			return values
		} else if err != nil {
			t.Error(err)
			return values
		}
		values = append(values, v)
	}
}
