//go:build linux

package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/ti-mo/conntrack/internal/debian"
)

const (
	thisModule  = "github.com/ti-mo/conntrack"
	thisCommand = thisModule + "/internal/kernels"
)

// binaries are the programs that run in the virtual machine. They are
// statically linked.
type binaries struct {
	init   string
	suites []suite
}

// suite is the tests of one package.
type suite struct {
	pkg    string // import path
	dir    string // directory of the package's files
	binary string
}

// build makes the binaries, in the directory tmp.
func build(tmp string) (b binaries, err error) {
	b.init = filepath.Join(tmp, "init")
	if err := compile(b.init, "build", thisCommand); err != nil {
		return b, err
	}
	const format = "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}}{{end}}"
	list, err := debian.Output("", "go", "list", "-f", format, thisModule+"/...")
	if err != nil {
		return b, err
	}
	for line := range strings.Lines(string(list)) {
		pkg, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
		if pkg == thisCommand {
			continue // its tests are about the host
		}
		binary := filepath.Join(tmp, fmt.Sprint("test", len(b.suites)))
		if err := compile(binary, "test", "-c", "-vet=off", pkg); err != nil {
			return b, err
		}
		b.suites = append(b.suites, suite{pkg, dir, binary})
	}
	return b, nil
}

// compile runs a go command that builds a binary.
func compile(binary, command string, args ...string) error {
	args = append([]string{"CGO_ENABLED=0", "GOARCH=amd64", "go", command, "-o", binary, "-ldflags=-s -w"}, args...)
	_, err := debian.Output("", "env", args...)
	return err
}
