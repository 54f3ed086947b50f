//go:build linux

// Command conntracktools gets the conntrack command of Debian's sid, and the newest
// test suite of conntrack-tools whose source the archive serves:
//
//	go run ./internal/debian/conntracktools directory
//
// In the directory, which it makes, "command" starts the one, with the libraries
// that it wants, and "source" has the other. The machine's own packages stay as they
// are.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ti-mo/conntrack/internal/debian"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: conntracktools directory")
		os.Exit(2)
	}
	if err := get(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "conntracktools:", err)
		os.Exit(1)
	}
}

func get(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return errors.Join(getCommand(dir), getSource(filepath.Join(dir, "source")))
}

// getCommand unpacks the command with its libraries, and makes a script that runs
// it with these.
func getCommand(dir string) error {
	sid, err := debian.Open("sid")
	if err != nil {
		return err
	}
	files := filepath.Join(dir, "files")
	if err := sid.Unpack(files, "conntrack", "libnetfilter-conntrack3", "libnfnetlink0", "libmnl0", "libc6"); err != nil {
		return err
	}
	libraries := filepath.Join(files, "usr/lib/x86_64-linux-gnu")
	script := fmt.Sprintf("#!/bin/sh\nexec %s/ld-linux-x86-64.so.2 --library-path %s %s/usr/sbin/conntrack \"$@\"\n",
		libraries, libraries, files)
	command := filepath.Join(dir, "command")
	if err := os.WriteFile(command, []byte(script), 0o755); err != nil {
		return err
	}
	version, err := debian.Output("", command, "--version")
	fmt.Printf("%s", version)
	return err
}

// getSource unpacks the source of conntrack-tools of the newest suite that has it.
func getSource(dir string) error {
	var errs error
	for _, name := range []string{"sid", "trixie"} {
		suite, err := debian.Open(name)
		if err == nil {
			err = suite.UnpackSource(dir, "conntrack-tools")
		}
		if err == nil {
			return nil
		}
		errs = errors.Join(errs, err)
	}
	return errs
}
