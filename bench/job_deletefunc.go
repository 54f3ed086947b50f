package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/ti-mo/conntrack"
	"github.com/vishvananda/netlink"
)

// stale returns how many of the first n flows are stale.
func stale(n int) int {
	count := 0
	for i := range n {
		if f := flowAt(i); f.stale() {
			count++
		}
	}
	return count
}

// floorDeleteFunc dumps the whole table and then deletes the stale flows. It
// knows them beforehand, because finding them would be decoding.
func floorDeleteFunc(r *run) error {
	s, err := newSocket()
	if err != nil {
		return err
	}
	defer s.close()
	r.meter.start()
	err = s.dump()
	r.meter.stop()
	if err != nil {
		return err
	}
	b := floorBatches{message: func(m *requests, f *flow) { m.delete(f, 0) }}
	err = r.each(func(f *flow) bool { return !f.stale() }, b.prepare, func() error { return b.send(s) })
	r.meter.Flows = r.Table
	return err
}

// finish checks how many flows were deleted. It makes the results per flow of
// the table instead of per deleted flow.
func (r *run) finish(deleted int) error {
	if want := stale(r.Table); deleted != want {
		return fmt.Errorf("%d flows were deleted instead of %d", deleted, want)
	}
	r.meter.Flows = r.Table
	return nil
}

func libraryDeleteFunc(r *run) error {
	c, err := conntrack.Dial(nil)
	if err != nil {
		return err
	}
	defer c.Close()
	r.meter.start()
	deleted, err := c.DeleteFunc(context.Background(), conntrack.Filter{}, func(f *conntrack.Flow) bool {
		return isStale(f.TupleOrig.Proto.Protocol, f.TupleOrig.Proto.DestinationPort)
	})
	r.meter.stop()
	if err != nil {
		return err
	}
	return r.finish(deleted)
}

type staleFilter struct{}

func (staleFilter) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	return isStale(f.Forward.Protocol, f.Forward.DstPort)
}

type deleteFilters func(netlink.ConntrackTableType, netlink.InetFamily, ...netlink.CustomConntrackFilter) (uint, error)

// deleteStale measures one of the two ways to delete in vishvananda/netlink.
func deleteStale(r *run, do deleteFilters) error {
	deleted := 0
	r.meter.start()
	for _, family := range families {
		n, err := do(netlink.ConntrackTable, family, staleFilter{})
		if err != nil {
			return err
		}
		deleted += int(n)
	}
	r.meter.stop()
	return r.finish(deleted)
}

func vishvanandaDeleteFilters(r *run) error { return deleteStale(r, netlink.ConntrackDeleteFilters) }

func handleDeleteFilters(r *run) error {
	return withHandle(func(h *netlink.Handle) error { return deleteStale(r, h.ConntrackDeleteFilters) })
}

func commandDelete(r *run) error {
	want := stale(r.Table)
	if err := r.conntrack(want, "-D", "-p", "udp", "--orig-port-dst", strconv.Itoa(portDNS)); err != nil {
		return err
	}
	return r.finish(want)
}
