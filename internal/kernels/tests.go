//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// slow is the number of seconds after which a test is listed as slow.
const slow = 5

// event is an event of "go tool test2json".
type event struct {
	Action  string
	Test    string // or "" for the package
	Output  string
	Elapsed float64 // in seconds, at the end of the test
}

// progress reports whether the output only says that a test starts or
// continues.
func (e event) progress() bool {
	return strings.HasPrefix(e.Output, "=== ")
}

// tests are the results of the tests of one package.
type tests struct {
	events []event
	names  []string         // in the order of their start
	last   map[string]event // last event of each test that is not output
}

// parse parses the output of a test binary, which may be cut off anywhere.
func parse(output []byte) (*tests, error) {
	cmd := exec.Command("go", "tool", "test2json", "-t") // without -t, Elapsed is missing
	cmd.Stdin = bytes.NewReader(output)
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cmd, err)
	}
	t := &tests{last: make(map[string]event)}
	for decoder := json.NewDecoder(bytes.NewReader(text)); ; {
		var e event
		if err := decoder.Decode(&e); errors.Is(err, io.EOF) {
			return t, nil
		} else if err != nil {
			return nil, err
		}
		t.add(e)
	}
}

func (t *tests) add(e event) {
	t.events = append(t.events, e)
	if e.Test == "" || e.Action == "output" {
		return
	}
	last, again := t.last[e.Test]
	if !again {
		t.names = append(t.names, e.Test)
	}
	if last.Action != "fail" { // with -count, any failure counts
		t.last[e.Test] = e
	}
}

// count counts tests, including subtests. A test that did not end counts as
// failed.
func (t *tests) count() (passed, failed, skipped int) {
	for _, name := range t.names {
		switch {
		case t.failed(name):
			failed++
		case t.last[name].Action == "skip":
			skipped++
		default:
			passed++
		}
	}
	return passed, failed, skipped
}

// failed reports whether a test failed or did not end.
func (t *tests) failed(name string) bool {
	action := t.last[name].Action
	return action != "pass" && action != "skip"
}

// print prints the relevant output. It lists the tests that did not end, that
// were skipped, with reasons, and that were slow.
func (t *tests) print(w io.Writer, all, failed bool) {
	for _, e := range t.events {
		relevant := failed && !e.progress() && (e.Test == "" || t.failed(e.Test))
		if e.Action == "output" && (all || relevant) {
			fmt.Fprint(w, "    ", e.Output)
		}
	}
	for _, name := range t.names {
		e := t.last[name]
		switch {
		case e.Action == "skip":
			fmt.Fprintf(w, "     skipped %s: %s\n", name, t.reason(name))
		case e.Action == "run", e.Action == "cont": // but not "pause", when they wait for others
			fmt.Fprintf(w, "     did not end: %s\n", name)
		case e.Elapsed >= slow:
			fmt.Fprintf(w, "     slow: %s, %.1f s\n", name, e.Elapsed)
		}
	}
}

// reason returns the output of a skipped test as one line.
func (t *tests) reason(name string) string {
	var reason []string
	for _, e := range t.events {
		if e.Test == name && !e.progress() && !strings.HasPrefix(strings.TrimSpace(e.Output), "--- ") {
			reason = append(reason, strings.Fields(e.Output)...)
		}
	}
	return strings.Join(reason, " ")
}
