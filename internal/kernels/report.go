//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// A report is the output of all tests on one kernel, divided by lines that
// start with markPrefix. "begin PACKAGE" precedes the output of a package, "end
// STATUS MILLISECONDS" follows it, and "done" ends the report.
const (
	markPrefix = "\x10kernels "
	markBegin  = "begin"
	markEnd    = "end"
	markDone   = "done"
)

// mark writes a line that divides a report. The text before it may lack a
// newline.
func mark(w io.Writer, words ...any) {
	fmt.Fprint(w, "\n", markPrefix, fmt.Sprintln(words...))
}

// report reads a report and summarizes it.
type report struct {
	out     io.Writer
	verbose bool

	done                    bool // the report is complete
	passed, failed, skipped int  // tests
	broken                  int  // packages that failed

	pkg    string       // the current package, or ""
	output bytes.Buffer // of the package, so far
}

// read reads a report. An incomplete report is an error.
func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if words, ok := strings.CutPrefix(line, markPrefix); ok {
			err = errors.Join(err, r.mark(words))
		} else {
			r.output.WriteString(line)
		}
		switch {
		case errors.Is(err, io.EOF) && r.done:
			return nil
		case errors.Is(err, io.EOF):
			return r.breakOff()
		case err != nil:
			return err
		}
	}
}

// breakOff reports the package whose tests did not end, if any.
func (r *report) breakOff() error {
	var err error
	if r.pkg != "" {
		err = r.end("did not end", 0)
	}
	return errors.Join(err, errors.New("the report is not complete"))
}

// mark reads a line that divides the report.
func (r *report) mark(line string) error {
	kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	switch kind {
	case markBegin:
		r.pkg = rest
		r.output.Reset()
	case markEnd:
		var status, ms int
		if _, err := fmt.Sscan(rest, &status, &ms); err != nil {
			return fmt.Errorf("%s %q: %w", kind, rest, err)
		}
		var problem string
		if status != 0 {
			problem = fmt.Sprint("exit status ", status)
		}
		return r.end(problem, time.Duration(ms)*time.Millisecond)
	case markDone:
		r.done = true
	}
	return nil
}

// end prints how the tests of a package ended. The problem is an error of the
// package as a whole, or "".
func (r *report) end(problem string, took time.Duration) error {
	tests, err := parse(r.output.Bytes())
	if err != nil {
		return err
	}
	passed, failed, skipped := tests.count()
	r.passed += passed
	r.failed += failed
	r.skipped += skipped

	state := "ok  "
	if problem != "" || failed > 0 {
		state = "FAIL"
		r.broken++
	}
	fmt.Fprintf(r.out, "%s %s: %d passed, %d failed, %d skipped in %.1f s", state, r.pkg, passed, failed, skipped, took.Seconds())
	if problem != "" {
		fmt.Fprint(r.out, ", ", problem)
	}
	fmt.Fprintln(r.out)
	tests.print(r.out, r.verbose, state != "ok  ")
	r.pkg = ""
	return nil
}

// verdict returns a one-line summary, or an error that says what failed.
func (r *report) verdict() (string, error) {
	line := fmt.Sprintf("%d passed, %d failed, %d skipped", r.passed, r.failed, r.skipped)
	switch {
	case r.broken > 0:
		return "", fmt.Errorf("packages that failed: %d; tests: %s", r.broken, line)
	case r.passed == 0:
		return "", fmt.Errorf("no test ran: %s", line)
	}
	return line, nil
}
