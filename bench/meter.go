package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A sample is the cost of one run of a job.
type sample struct {
	// Flows is the number of flows or events that the job handled.
	Flows int `json:"flows"`
	// Wall and CPU are in nanoseconds. CPU is the user and system time of all
	// threads of the process.
	Wall int64 `json:"wall_ns"`
	CPU  int64 `json:"cpu_ns"`
	// Allocs and Bytes count allocations on the Go heap.
	Allocs uint64 `json:"allocs"`
	Bytes  uint64 `json:"bytes"`
	// Peak is the peak resident memory of the process in bytes.
	Peak int64 `json:"peak_rss"`
	// Foreign is set for a program that is not in Go and has no Go heap.
	Foreign bool `json:"foreign,omitempty"`
	// Overruns is how often a listener was told that it lost events.
	Overruns int `json:"overruns,omitempty"`
}

// A meter measures the sum of the times between start and stop.
type meter struct {
	sample
	started bool
	profile *profile

	mem0 runtime.MemStats
	cpu0 int64
	t0   time.Time
}

func (m *meter) start() {
	if !m.started {
		m.started = true
		runtime.GC()
		m.profile.start()
		// This resets the peak before the measurement. If it fails, the peak
		// includes the preparations, which need little memory.
		_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
	}
	m.profile.on()
	runtime.ReadMemStats(&m.mem0)
	m.cpu0 = cpuTime()
	m.t0 = time.Now()
}

func (m *meter) stop() {
	wall := time.Since(m.t0)
	cpu := cpuTime()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	m.profile.off()

	m.Wall += wall.Nanoseconds()
	m.CPU += cpu - m.cpu0
	m.Allocs += mem.Mallocs - m.mem0.Mallocs
	m.Bytes += mem.TotalAlloc - m.mem0.TotalAlloc
}

func cpuTime() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// peakMemory returns the peak resident memory of the process (VmHWM). The value
// of getrusage is unsuitable, because a process inherits it from its parent.
func peakMemory(pid string) (int64, error) {
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(status) {
		if value, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			kib, err := strconv.ParseInt(string(bytes.TrimSuffix(bytes.TrimSpace(value), []byte(" kB"))), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no VmHWM in /proc/%s/status", pid)
}
