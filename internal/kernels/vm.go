//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// boot runs a virtual machine until it powers off, and passes its report to
// read. An error contains the kernel's last messages on the console.
func boot(ctx context.Context, o options, tmp string, k kernel, initramfs []byte, read func(io.Reader) error) error {
	initrd, console := filepath.Join(tmp, "initramfs"), filepath.Join(tmp, "console")
	if err := os.WriteFile(initrd, initramfs, 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-accel", "tcg", "-cpu", "max", "-smp", strconv.Itoa(o.cpus), "-m", "2G",
		"-nodefaults", "-display", "none", "-no-reboot",
		"-kernel", k.image, "-initrd", initrd,
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off",
		"-serial", "file:"+console, // ttyS0: the kernel's messages
		"-serial", "stdio") // ttyS1: the report
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	report, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = errors.Join(read(report), cmd.Wait())
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("stopped after %s: %w", o.timeout, err)
	}
	if err != nil {
		err = fmt.Errorf("%w\n%s%s", err, &stderr, end(console))
	}
	return err
}

// end returns the last lines of a file, or the reason why it cannot.
func end(file string) []byte {
	const enough = 4096
	content, err := os.ReadFile(file)
	if err != nil {
		return []byte(err.Error())
	}
	return content[max(0, len(content)-enough):]
}
