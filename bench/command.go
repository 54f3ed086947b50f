package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// conntrack measures the conntrack command, which must report that it handled
// want flows. Its standard output goes to /dev/null.
func (r *run) conntrack(want int, args ...string) error {
	cmd := exec.Command("conntrack", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	t0 := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	ended, peak := make(chan struct{}), make(chan int64)
	go func() { peak <- watchPeak(strconv.Itoa(cmd.Process.Pid), ended) }()
	err := cmd.Wait()
	wall := time.Since(t0)
	close(ended)

	r.meter.Foreign = true
	r.meter.Flows += want
	r.meter.Wall += wall.Nanoseconds()
	r.meter.CPU += (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Nanoseconds()
	r.meter.Peak = max(r.meter.Peak, <-peak)
	if err != nil {
		return fmt.Errorf("conntrack %s: %w\n%s", args[0], err, tail(stderr.Bytes()))
	}
	// It ends with "conntrack v1.4.7 (conntrack-tools): 42 flow entries have
	// been shown.", or prints nothing (-R).
	if stderr.Len() > 0 && !bytes.Contains(stderr.Bytes(), fmt.Appendf(nil, ": %d flow entries have been", want)) {
		return fmt.Errorf("conntrack %s: instead of %d flows: %s", args[0], want, tail(stderr.Bytes()))
	}
	return nil
}

func tail(b []byte) []byte { return bytes.TrimSpace(b[max(0, len(b)-500):]) }

// watchPeak polls the peak memory of a process, because it is not available
// after the process ends.
func watchPeak(pid string, ended <-chan struct{}) (peak int64) {
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ended:
			return peak
		case <-ticker.C:
			if p, err := peakMemory(pid); err == nil {
				peak = max(peak, p)
			}
		}
	}
}

// haveCommand reports whether the conntrack command is installed.
func haveCommand() bool {
	_, err := exec.LookPath("conntrack")
	return !errors.Is(err, exec.ErrNotFound)
}

// commandRestore reads a file in the format of conntrack -L -o save.
func commandRestore(r *run) error {
	file, err := os.CreateTemp("", "conntrack-save-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	w := bufio.NewWriter(file)
	for i := r.Table - r.Ops; i < r.Table; i++ {
		f := flowAt(i)
		f.writeSaved(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return r.conntrack(r.Ops, "-R", file.Name())
}

func (f *flow) writeSaved(w *bufio.Writer) {
	status := "SEEN_REPLY"
	if f.assured {
		status = "SEEN_REPLY,ASSURED"
	}
	fmt.Fprintf(w, "-A -t %d -u %s -s %s -d %s -r %s -q %s ", f.timeout, status,
		f.source.Addr(), f.destination.Addr(), f.destination.Addr(), f.translated.Addr())
	t, _ := f.icmpTypes()
	switch f.proto {
	case unix.IPPROTO_TCP:
		fmt.Fprintf(w, "-p tcp %s --state ESTABLISHED", f.savedPorts())
	case unix.IPPROTO_UDP:
		fmt.Fprintf(w, "-p udp %s", f.savedPorts())
	case unix.IPPROTO_ICMP:
		fmt.Fprintf(w, "-p icmp --icmp-type %d --icmp-code 0 --icmp-id %d", t, f.id)
	case unix.IPPROTO_ICMPV6:
		fmt.Fprintf(w, "-p icmpv6 --icmpv6-type %d --icmpv6-code 0 --icmpv6-id %d", t, f.id)
	}
	if f.mark != 0 {
		fmt.Fprintf(w, " -m %d", f.mark)
	}
	w.WriteByte('\n')
}

func (f *flow) savedPorts() string {
	return fmt.Sprintf("--sport %d --dport %d --reply-port-src %d --reply-port-dst %d",
		f.source.Port(), f.destination.Port(), f.destination.Port(), f.translated.Port())
}
