package main

import (
	"fmt"
	"slices"
	"strings"
)

// These are the contenders.
const (
	floor       = "floor"       // the bare system calls
	library     = "library"     // this library
	vishvananda = "vishvananda" // the functions of github.com/vishvananda/netlink
	handle      = "handle"      // the same as methods of a Handle, which keeps its socket
	command     = "command"     // the conntrack command
)

var contenders = []string{floor, library, vishvananda, handle, command}

// A job is an operation that programs do with a table, and how each contender
// does it. Contenders that cannot do it are missing.
type job struct {
	name, title string
	contenders  map[string]func(*run) error

	// ops returns how many flows of a table of n a run handles. They are the
	// last ones.
	ops func(n int) int
	// creates is set if the table must not have these flows before the run.
	creates bool
	// cold is set if each run must be the first in its process.
	cold bool
	// filters is set if the job needs a kernel that filters by address.
	filters bool
	// restore, if not nil, restores the table to its state before the run.
	restore func(t *table, r *run) error

	limits limits
}

// The limits are what this library must achieve, as set by issues 3 and 5. A
// limit of 0 means none.
type limits struct {
	time      float64 // multiple of the floor's
	allocs    float64 // per flow
	bytes     float64 // per flow
	advantage float64 // speed as a multiple of vishvananda's
	command   float64 // speed as a multiple of the conntrack command's
}

// limitFlows is the table size that the limits apply to.
const limitFlows = 200_000

// These return how many flows a job handles. A quarter is enough for jobs that
// handle flows one by one.
func all(n int) int     { return n }
func quarter(n int) int { return n / 4 }

var jobs = []job{
	{
		name: "flows", title: "range over Flows", ops: all,
		contenders: map[string]func(*run) error{
			floor: floorDump, library: libraryFlows, vishvananda: vishvanandaList, command: commandList,
		},
		limits: limits{time: 1.10, allocs: 0.05},
	},
	{
		name: "dump", title: "Dump", ops: all,
		contenders: map[string]func(*run) error{
			floor: floorDump, library: libraryDump, vishvananda: vishvanandaList,
		},
		limits: limits{time: 1.25, bytes: 1.1 * sizeofFlow},
	},
	{
		name: "firstdump", title: "Dump, the first of a process", ops: all, cold: true,
		contenders: map[string]func(*run) error{
			floor: floorDump, library: libraryDump, vishvananda: vishvanandaList,
		},
		limits: limits{time: 1.25, bytes: 1.1 * sizeofFlow},
	},
	{
		name: "create", title: "Create", ops: quarter, creates: true, restore: deleteAgain,
		contenders: map[string]func(*run) error{
			floor: floorCreate, library: libraryCreate,
			vishvananda: vishvanandaCreate, handle: handleCreate, command: commandRestore,
		},
		limits: limits{time: 1.15, allocs: 1},
	},
	{
		name: "get", title: "Get", ops: quarter,
		contenders: map[string]func(*run) error{
			floor: floorGet, library: libraryGet,
		},
		limits: limits{time: 1.20, allocs: 2},
	},
	{
		name: "update", title: "Update", ops: quarter,
		contenders: map[string]func(*run) error{
			floor: floorUpdate, library: libraryUpdate, vishvananda: vishvanandaUpdate, handle: handleUpdate,
		},
	},
	{
		name: "delete", title: "Delete", ops: quarter, restore: createAgain,
		contenders: map[string]func(*run) error{
			floor: floorDelete, library: libraryDelete,
		},
		limits: limits{time: 1.15, allocs: 1},
	},
	{
		name: "createbatch", title: "CreateBatch", ops: quarter, creates: true, restore: deleteAgain,
		contenders: map[string]func(*run) error{
			floor: floorCreateBatch, library: libraryCreateBatch,
		},
		limits: limits{time: 1.15, allocs: 0.05},
	},
	{
		name: "deletebatch", title: "DeleteBatch", ops: quarter, restore: createAgain,
		contenders: map[string]func(*run) error{
			floor: floorDeleteBatch, library: libraryDeleteBatch,
		},
		limits: limits{time: 1.15, allocs: 0.05},
	},
	{
		name: "deletefunc", title: "DeleteFunc, a quarter", ops: all, restore: createStaleAgain,
		contenders: map[string]func(*run) error{
			floor: floorDeleteFunc, library: libraryDeleteFunc,
			vishvananda: vishvanandaDeleteFilters, handle: handleDeleteFilters, command: commandDelete,
		},
		limits: limits{time: 1.15, allocs: 0.05, advantage: 3.5},
	},
	{
		name: "dumpaddress", title: "DumpFilter, 50 flows of one address: a call", ops: all, filters: true,
		contenders: map[string]func(*run) error{
			floor: floorDumpAddress, library: libraryDumpAddress, vishvananda: vishvanandaDumpAddress, command: commandDumpAddress,
		},
	},
	{
		name: "flushaddress", title: "FlushFilter, 50 flows of one address: a call", ops: all, filters: true,
		restore: createAddressAgain,
		contenders: map[string]func(*run) error{
			floor: floorFlushAddress, library: libraryFlushAddress,
			vishvananda: vishvanandaFlushAddress, handle: handleFlushAddress, command: commandFlushAddress,
		},
		limits: limits{time: 1.10, advantage: 12, command: 7},
	},
	{
		name: "deleteaddress", title: "DeleteFunc, 50 flows of one address: a call", ops: all, filters: true,
		restore: createAddressAgain,
		contenders: map[string]func(*run) error{
			floor: floorDeleteAddress, library: libraryDeleteAddress,
		},
	},
}

func findJob(name string) (*job, error) {
	i := slices.IndexFunc(jobs, func(j job) bool { return j.name == name })
	if i < 0 {
		return nil, fmt.Errorf("no job %q; there are: %s", name, strings.Join(jobNames(), ", "))
	}
	return &jobs[i], nil
}

func jobNames() []string {
	names := []string{}
	for _, j := range jobs {
		names = append(names, j.name)
	}
	return append(names, memoryJob, eventsJob, rateJob)
}

// defaultJobs are the jobs that do not take minutes.
func defaultJobs() []string {
	return slices.DeleteFunc(jobNames(), func(name string) bool { return name == rateJob })
}

// before returns how many flows the table must have before the job.
func (j *job) before(n int) int {
	if j.creates {
		return n - j.ops(n)
	}
	return n
}

func deleteAgain(t *table, r *run) error {
	t.delete(r.Table-r.Ops, r.Table)
	return nil
}

func createAgain(t *table, r *run) error { return t.create(r.Table-r.Ops, r.Table, every) }

func createStaleAgain(t *table, r *run) error { return t.create(0, r.Table, (*flow).stale) }
