// Command mutate checks that the tests notice errors. It makes small edits to
// the code, one at a time. Each edit removes something that matters, and mutate
// runs the test that should then fail:
//
//	go run ./internal/mutate [-quick] [-run pattern] [-v]
//
// It fails if a test passes in spite of an edit, or if the text of an edit is
// no longer in the code: then adapt the edit. The source tree is not changed.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
)

func main() {
	o := options{run: regexp.MustCompile("")}
	flag.BoolVar(&o.quick, "quick", false, "make only the edits that are marked as quick")
	flag.BoolVar(&o.verbose, "v", false, "print the output of the tests")
	flag.Func("run", "make only the edits whose names match the `pattern`", func(pattern string) (err error) {
		o.run, err = regexp.Compile(pattern)
		return err
	})
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, &o); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

type options struct {
	quick, verbose bool
	run            *regexp.Regexp
}

// An edit is a change of the code that a test must notice.
type edit struct {
	name     string
	dir      string // directory of the package, from the module's root
	old, new string // old must occur exactly once in the package
	test     string // a pattern for go test -run
	quick    bool   // part of the quick run
}

// errSurvived means that no test noticed an edit.
var errSurvived = errors.New("the tests pass all the same")

func run(ctx context.Context, o *options) error {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	r := runner{options: o, root: strings.TrimSpace(string(root)), tmp: tmp}

	chosen := edits[:0:0]
	for _, e := range edits {
		if o.run.MatchString(e.name) && (e.quick || !o.quick) {
			chosen = append(chosen, e)
		}
	}
	if err := r.unedited(ctx, chosen); err != nil {
		return err
	}
	var failed []error
	for _, e := range chosen {
		err := r.edited(ctx, &e)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", e.name, err))
			fmt.Printf("FAIL  %s: %v\n", e.name, err)
			continue
		}
		fmt.Printf("ok    %s\n", e.name)
	}
	if len(failed) > 0 {
		return fmt.Errorf("%d of %d edits were not noticed or cannot be made", len(failed), len(chosen))
	}
	return nil
}

// A runner builds and runs tests.
type runner struct {
	*options
	root, tmp string
}

// unedited runs all the tests on the unchanged code. If they fail there, their
// failures prove nothing.
func (r *runner) unedited(ctx context.Context, edits []edit) error {
	patterns := make(map[string][]string) // by directory
	for _, e := range edits {
		patterns[e.dir] = append(patterns[e.dir], e.test)
	}
	for dir, tests := range patterns {
		if err := r.build(ctx, dir, ""); err != nil {
			return err
		}
		if err := r.test(ctx, dir, strings.Join(tests, "|")); err != nil {
			return fmt.Errorf("without an edit, the tests of %s: %w", dir, err)
		}
	}
	return nil
}

// edited makes an edit and returns an error unless the test fails.
func (r *runner) edited(ctx context.Context, e *edit) error {
	overlay, err := r.overlay(e)
	if err != nil {
		return err
	}
	if err := r.build(ctx, e.dir, overlay); err != nil {
		return err
	}
	if r.test(ctx, e.dir, e.test) == nil {
		return errSurvived
	}
	return nil
}

// overlay writes the edited file, and the overlay that makes the go command use
// it instead of the original. It returns the path of the overlay.
func (r *runner) overlay(e *edit) (string, error) {
	file, code, err := r.find(e)
	if err != nil {
		return "", err
	}
	edited := filepath.Join(r.tmp, "edited.go")
	if err := os.WriteFile(edited, []byte(strings.Replace(code, e.old, e.new, 1)), 0o644); err != nil {
		return "", err
	}
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{file: edited}})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(r.tmp, "overlay.json")
	return overlay, os.WriteFile(overlay, replace, 0o644)
}

// find returns the only file of the package that contains the edit's old text,
// and the contents of that file.
func (r *runner) find(e *edit) (file, code string, err error) {
	files, err := filepath.Glob(filepath.Join(r.root, e.dir, "*.go"))
	if err != nil {
		return "", "", err
	}
	times := 0
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			return "", "", err
		}
		if n := strings.Count(string(b), e.old); n > 0 && !strings.HasSuffix(name, "_test.go") {
			times += n
			file, code = name, string(b)
		}
	}
	if times != 1 {
		return "", "", fmt.Errorf("its old text stands %d times in %s, not once", times, e.dir)
	}
	return file, code, nil
}

func (r *runner) binary() string { return filepath.Join(r.tmp, "tests") }

// build builds the tests of a package.
func (r *runner) build(ctx context.Context, dir, overlay string) error {
	out, err := r.command(ctx, r.root, "go", "test", "-c", "-vet=off", "-overlay="+overlay, "-o", r.binary(), "./"+dir)
	if err != nil {
		return fmt.Errorf("building the tests: %w\n%s", err, out)
	}
	return nil
}

// test runs the tests of the last build. It returns nil if they pass.
func (r *runner) test(ctx context.Context, dir, pattern string) error {
	out, err := r.command(ctx, filepath.Join(r.root, dir), r.binary(), "-test.run=^("+pattern+")$", "-test.timeout=2m", "-test.failfast")
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

func (r *runner) command(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CI=true") // makes tests fail rather than skip, as a skipped test notices nothing
	out, err := cmd.CombinedOutput()
	if r.verbose {
		os.Stdout.Write(out)
	}
	return out, err
}
