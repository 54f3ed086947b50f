//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/ti-mo/conntrack/internal/debian"
)

const (
	planFile   = "/plan.json"
	moduleDir  = "/modules"
	sourceDir  = "/src"
	testBinary = "package.test"
)

// plan says what the virtual machine must do.
type plan struct {
	Modules  []string // names, in the order in which to load them
	Packages []string // in the order in which to test them
	Args     []string // for the test binaries
	Env      []string
}

// makeInitramfs creates the root directory of the virtual machine. It contains
// the kernel's modules, the packages with their tests, an init process that
// runs them, and the commands that tests compare with and set rules by.
func makeInitramfs(o options, k kernel, b binaries) ([]byte, error) {
	modules, err := k.modules()
	if err != nil {
		return nil, err
	}
	p := plan{Args: o.args, Env: environment()}
	a := newArchive()
	for _, m := range modules {
		p.Modules = append(p.Modules, m.name)
		a.file(filepath.Join(moduleDir, m.name), m.code)
	}
	for _, s := range b.suites {
		p.Packages = append(p.Packages, s.pkg)
		if err := addSuite(a, s); err != nil {
			return nil, err
		}
	}
	content, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	a.file(planFile, content)
	if err := copyFile(a, "/init", b.init); err != nil {
		return nil, err
	}
	for _, name := range []string{"conntrack", "nft"} {
		if err := addCommand(a, name); err != nil {
			return nil, err
		}
	}
	// The commands know protocols by name from it.
	const protocols = "/etc/protocols"
	if err := copyFile(a, protocols, protocols); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return a.bytes(), nil
}

// environment returns the environment variables of the tests. Property tests do
// fewer rounds than on real hardware, unless the user sets their number.
func environment() []string {
	env := []string{"CI=true", "HOME=/", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "CONNTRACK_TEST_ROUNDS=10"}
	for _, variable := range os.Environ() {
		if strings.HasPrefix(variable, "CONNTRACK_TEST_") {
			env = append(env, variable) // the last of two with the same name counts
		}
	}
	return env
}

// addSuite adds the tests of a package, in a directory with the files that
// tests may read: the package's own and those below testdata.
func addSuite(a *archive, s suite) error {
	target := filepath.Join(sourceDir, s.pkg)
	err := filepath.WalkDir(s.dir, func(path string, entry fs.DirEntry, err error) error {
		name, _ := filepath.Rel(s.dir, path)
		switch {
		case err != nil:
			return err
		case entry.Type().IsRegular():
			return copyFile(a, filepath.Join(target, name), path)
		case entry.IsDir() && name != "." && name != "testdata" && !strings.HasPrefix(name, "testdata/"):
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		return err
	}
	return copyFile(a, filepath.Join(target, testBinary), s.binary)
}

// addCommand adds a command of the host and its libraries, at their paths on
// the host. It skips commands that the host lacks; the tests that need them
// skip.
func addCommand(a *archive, name string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil
	}
	libraries, err := debian.Output("", "ldd", path)
	if err != nil {
		return err
	}
	for _, file := range append(strings.Fields(string(libraries)), path) {
		if !filepath.IsAbs(file) {
			continue
		}
		if err := copyFile(a, file, file); err != nil {
			return err
		}
	}
	return nil
}

// copyFile adds a file of the host as target.
func copyFile(a *archive, target, source string) error {
	content, err := os.ReadFile(source)
	if err == nil {
		a.file(target, content)
	}
	return err
}
