package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/ti-mo/conntrack"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// These jobs select the few flows of one address in a large table. Their
// results are per call, not per flow.

// ofBusyClient reports whether f has the address that the jobs filter by.
func (f *flow) ofBusyClient() bool { return f.source.Addr() == busyAddress() }

// busyAddress is the IPv4 address of the client with the most flows.
func busyAddress() netip.Addr { return ipv4(10, 0) }

// busyFlows is the number of IPv4 flows of that client.
const busyFlows = 50

// call makes the results per call.
func (r *run) call(found int) error {
	if found != busyFlows {
		return fmt.Errorf("%d flows instead of %d", found, busyFlows)
	}
	r.meter.Flows = 1
	return nil
}

// calls measures a dump, after a warm-up.
func (r *run) calls(dump func() (int, error)) error {
	if err := r.whole(busyFlows, dump); err != nil {
		return err
	}
	return r.call(r.meter.Flows)
}

// selectAddress restricts the last message of r to flows with one original
// source address.
func (r *requests) selectAddress(addr netip.Addr) {
	r.nest(ctaFilter, func() {
		var flags [4]byte
		binary.NativeEndian.PutUint32(flags[:], filterIPSrc)
		r.attr(ctaFilterOrigFlags, flags[:]...)
		r.attr(ctaFilterReplyFlags, 0, 0, 0, 0)
	})
	r.nest(ctaTupleOrig, func() {
		r.nest(ctaTupleIP, func() { r.addr4(ctaIPv4Src, addr) })
	})
}

func floorDumpAddress(r *run) error {
	s, err := newSocket()
	if err != nil {
		return err
	}
	defer s.close()
	return r.calls(func() (int, error) {
		s.out.reset()
		s.out.begin(msgGet, unix.NLM_F_DUMP, false)
		s.out.selectAddress(busyAddress())
		s.out.end()
		return busyFlows, s.dumpWith(s.out.buf)
	})
}

func floorFlushAddress(r *run) error {
	s, err := newSocket()
	if err != nil {
		return err
	}
	defer s.close()
	r.meter.start()
	s.out.reset()
	s.out.begin(msgDelete, unix.NLM_F_ACK, false)
	s.out.selectAddress(busyAddress())
	s.out.end()
	err = s.do(s.out.buf)
	r.meter.stop()
	if err != nil {
		return err
	}
	return r.call(busyFlows)
}

// floorDeleteAddress dumps the flows to delete and then deletes them.
func floorDeleteAddress(r *run) error {
	s, err := newSocket()
	if err != nil {
		return err
	}
	defer s.close()
	r.meter.start()
	s.out.reset()
	s.out.begin(msgGet, unix.NLM_F_DUMP, false)
	s.out.selectAddress(busyAddress())
	s.out.end()
	err = s.dumpWith(s.out.buf)
	r.meter.stop()
	if err != nil {
		return err
	}
	b := floorBatches{message: func(m *requests, f *flow) { m.delete(f, 0) }}
	for i := range busyIndices {
		if f := flowAt(i); f.ofBusyClient() {
			b.prepare(&f)
		}
	}
	r.meter.start()
	err = b.send(s)
	r.meter.stop()
	if err != nil {
		return err
	}
	return r.call(busyFlows)
}

func libraryAddressFilter() conntrack.Filter {
	return conntrack.Filter{Orig: conntrack.Tuple{IP: conntrack.IPTuple{SourceAddress: busyAddress()}}}
}

func libraryDumpAddress(r *run) error {
	c, err := conntrack.Dial(nil)
	if err != nil {
		return err
	}
	defer c.Close()
	return r.calls(func() (int, error) {
		flows, err := c.DumpFilter(libraryAddressFilter(), nil)
		return len(flows), err
	})
}

// libraryFlushAddress runs first in its process, so that the time includes
// finding out what the kernel supports.
func libraryFlushAddress(r *run) error {
	c, err := conntrack.Dial(nil)
	if err != nil {
		return err
	}
	defer c.Close()
	r.meter.start()
	err = c.FlushFilter(libraryAddressFilter())
	r.meter.stop()
	if err != nil {
		return err
	}
	return r.call(busyFlows)
}

// libraryDeleteAddress deletes without a flush.
func libraryDeleteAddress(r *run) error {
	c, err := conntrack.Dial(nil)
	if err != nil {
		return err
	}
	defer c.Close()
	r.meter.start()
	n, err := c.DeleteFunc(context.Background(), libraryAddressFilter(), func(*conntrack.Flow) bool { return true })
	r.meter.stop()
	if err != nil {
		return err
	}
	return r.call(n)
}

func vishvanandaAddressFilter() (*netlink.ConntrackFilter, error) {
	f := new(netlink.ConntrackFilter)
	return f, f.AddIP(netlink.ConntrackOrigSrcIP, net.IP(busyAddress().AsSlice()))
}

func vishvanandaDumpAddress(r *run) error {
	filter, err := vishvanandaAddressFilter()
	if err != nil {
		return err
	}
	return r.calls(func() (int, error) {
		all, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		var flows []*netlink.ConntrackFlow
		for _, f := range all {
			if filter.MatchConntrackFlow(f) {
				flows = append(flows, f)
			}
		}
		return len(flows), err
	})
}

// flushAddress measures one of the two ways to delete in vishvananda/netlink.
func flushAddress(r *run, do deleteFilters) error {
	filter, err := vishvanandaAddressFilter()
	if err != nil {
		return err
	}
	r.meter.start()
	n, err := do(netlink.ConntrackTable, unix.AF_INET, filter)
	r.meter.stop()
	if err != nil {
		return err
	}
	return r.call(int(n))
}

func vishvanandaFlushAddress(r *run) error { return flushAddress(r, netlink.ConntrackDeleteFilters) }

func handleFlushAddress(r *run) error {
	return withHandle(func(h *netlink.Handle) error { return flushAddress(r, h.ConntrackDeleteFilters) })
}

func commandDumpAddress(r *run) error { return commandAddress(r, "-L") }

func commandFlushAddress(r *run) error { return commandAddress(r, "-D") }

func commandAddress(r *run, what string) error {
	if err := r.conntrack(busyFlows, what, "-s", busyAddress().String()); err != nil {
		return err
	}
	return r.call(busyFlows)
}

// createAddressAgain restores the flows of the address. It fails if they still
// exist or if others are missing.
func createAddressAgain(t *table, r *run) error {
	n := min(r.Table, busyIndices)
	if err := t.create(0, n, (*flow).ofBusyClient); err != nil {
		return fmt.Errorf("%s, %s: after it, putting the flows of %v back: %w", r.Job, r.Contender, busyAddress(), err)
	}
	have, err := t.count()
	if err == nil && have != r.Table {
		err = fmt.Errorf("%s, %s: %d flows of other addresses have gone", r.Job, r.Contender, r.Table-have)
	}
	return err
}

// supportsFilters reports whether the kernel filters dumps and flushes by
// address. A kernel that does not would flush too much.
func supportsFilters() (bool, error) {
	c, err := conntrack.Dial(nil)
	if err != nil {
		return false, err
	}
	defer c.Close()
	dump, flush, err := c.KernelFilters(libraryAddressFilter())
	return dump && flush, err
}
