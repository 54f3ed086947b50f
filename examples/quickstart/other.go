//go:build !linux

// Command quickstart shows what the conntrack package does, on Linux.
package main

import (
	"fmt"
	"os"
	"runtime"
)

func main() {
	fmt.Fprintf(os.Stderr, "quickstart: connection tracking is a part of the Linux kernel, and this is %s\n", runtime.GOOS)
	os.Exit(1)
}
