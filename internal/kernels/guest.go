//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// reportTTY is the serial port for the report of the virtual machine. The
// kernel's messages use the first one.
const reportTTY = "/dev/ttyS1"

// inGuest reports whether the process is the init process of the virtual
// machine.
func inGuest() bool {
	return os.Getpid() == 1 && os.Args[0] == "/init"
}

// guest carries out the plan and powers off the machine. If all went well, the
// report ends with the line "done".
func guest() {
	if err := carryOut(); err != nil {
		fmt.Println("init:", err) // on the console
	}
	fmt.Println("init:", unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
}

func carryOut() error {
	if err := mountAll(); err != nil {
		return err
	}
	report, err := openReport()
	if err != nil {
		return err
	}
	p, err := readPlan()
	if err != nil {
		return err
	}
	if err := loadModules(p.Modules); err != nil {
		return err
	}
	if err := setLimits(); err != nil {
		return err
	}
	for _, pkg := range p.Packages {
		test(report, p, pkg)
	}
	mark(report, markDone)
	return unix.IoctlSetInt(int(report.Fd()), unix.TCSBRK, 1) // wait until everything is sent
}

func mountAll() error {
	for _, m := range []struct{ fstype, target string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"},
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fstype, m.target, m.fstype, 0, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", m.target, err)
		}
	}
	return nil
}

// openReport opens the serial port and sets it to pass bytes unchanged.
func openReport() (*os.File, error) {
	report, err := os.OpenFile(reportTTY, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	settings, err := unix.IoctlGetTermios(int(report.Fd()), unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("settings of %s: %w", reportTTY, err)
	}
	settings.Oflag &^= unix.OPOST
	return report, unix.IoctlSetTermios(int(report.Fd()), unix.TCSETS, settings)
}

func readPlan() (p plan, err error) {
	content, err := os.ReadFile(planFile)
	if err == nil {
		err = json.Unmarshal(content, &p)
	}
	return p, err
}

func loadModules(names []string) error {
	for _, name := range names {
		file, err := os.Open(filepath.Join(moduleDir, name))
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(file.Fd()), "", 0)
		file.Close()
		if err != nil {
			return fmt.Errorf("loading module %s: %w", name, err)
		}
	}
	return nil
}

// setLimits gives connection tracking the limits of a machine with more memory.
func setLimits() error {
	const flows = "262144"
	for _, parameter := range []string{"nf_conntrack_buckets", "nf_conntrack_max", "nf_conntrack_expect_max"} {
		path := filepath.Join("/proc/sys/net/netfilter", parameter)
		if err := os.WriteFile(path, []byte(flows), 0); err != nil {
			return err
		}
	}
	return nil
}

// test runs the tests of a package and writes their output to the report.
func test(report *os.File, p plan, pkg string) {
	dir := filepath.Join(sourceDir, pkg)
	args := append([]string{"-test.v=test2json", "-test.paniconexit0"}, p.Args...)
	cmd := exec.Command(filepath.Join(dir, testBinary), args...)
	cmd.Dir = dir
	cmd.Env = p.Env
	cmd.Stdout, cmd.Stderr = report, report

	mark(report, markBegin, pkg)
	start := time.Now()
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(report, err)
	}
	mark(report, markEnd, cmd.ProcessState.ExitCode(), time.Since(start).Milliseconds())
}
