package main

import (
	"context"
	"errors"
	"os"
	"runtime"
	"runtime/pprof"
)

// A profile writes the requested profiles. Measured code has the label
// "measured", so that the preparations can be left out: go tool pprof
// -tagfocus=measured. The methods of a nil profile do nothing.
type profile struct {
	cpu, mem string
	file     *os.File
}

func newProfile(cpu, mem string) *profile {
	if cpu == "" && mem == "" {
		return nil
	}
	if mem != "" {
		runtime.MemProfileRate = 1
	}
	return &profile{cpu: cpu, mem: mem}
}

func (p *profile) start() {
	if p == nil || p.cpu == "" {
		return
	}
	file, err := os.Create(p.cpu)
	if err == nil {
		p.file = file
		err = pprof.StartCPUProfile(file)
	}
	if err != nil {
		fail(err)
	}
}

func (p *profile) on() {
	if p != nil {
		pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("clock", "measured")))
	}
}

func (p *profile) off() {
	if p != nil {
		pprof.SetGoroutineLabels(context.Background())
	}
}

// end writes the profiles.
func (p *profile) end() error {
	if p == nil {
		return nil
	}
	var err error
	if p.file != nil {
		pprof.StopCPUProfile()
		err = p.file.Close()
	}
	if p.mem == "" {
		return err
	}
	runtime.GC()
	file, createErr := os.Create(p.mem)
	if createErr != nil {
		return errors.Join(err, createErr)
	}
	return errors.Join(err, pprof.Lookup("allocs").WriteTo(file, 0), file.Close())
}
