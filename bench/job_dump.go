package main

import (
	"context"
	"errors"
	"unsafe"

	"github.com/ti-mo/conntrack"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const sizeofFlow = float64(unsafe.Sizeof(conntrack.Flow{}))

func floorDump(r *run) error {
	s, err := newSocket()
	if err != nil {
		return err
	}
	defer s.close()
	return r.whole(r.Table, func() (int, error) { return r.Table, s.dump() })
}

func libraryFlows(r *run) error {
	c, err := conntrack.Dial(nil)
	if err != nil {
		return err
	}
	defer c.Close()
	return r.whole(r.Table, func() (int, error) {
		n := 0
		for _, err := range c.Flows(context.Background(), conntrack.Filter{}, nil) {
			if err != nil {
				return n, err
			}
			n++
		}
		return n, nil
	})
}

func libraryDump(r *run) error {
	c, err := conntrack.Dial(nil)
	if err != nil {
		return err
	}
	defer c.Close()
	return r.whole(r.Table, func() (int, error) {
		flows, err := c.Dump(nil)
		return len(flows), err
	})
}

// families are the families that vishvananda/netlink dumps one by one.
var families = []netlink.InetFamily{unix.AF_INET, unix.AF_INET6}

func vishvanandaList(r *run) error {
	return r.whole(r.Table, func() (int, error) {
		var lists [][]*netlink.ConntrackFlow
		n := 0
		for _, family := range families {
			flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
			if err != nil {
				return n, err
			}
			n += len(flows)
			lists = append(lists, flows)
		}
		if len(lists) == 0 {
			return n, errors.New("no list")
		}
		return n, nil
	})
}

func commandList(r *run) error { return r.conntrack(r.Table, "-L") }
