//go:build linux

package main

import (
	"cmp"
	"slices"
	"time"

	"github.com/ti-mo/conntrack"
)

// printTable prints the results of all methods that read.
func printTable(print func(any)) error {
	c := dial()
	defer c.Close()
	flows, err := c.Dump(nil)
	if err != nil {
		return err
	}
	table := object{"Dump": describeFlows(flows)}
	for name, f := range map[string]conntrack.Filter{
		"all":            {},
		"mark":           {Mark: 0x17, Mask: 0xffffffff},
		"bits of a mark": {Mark: 0x10, Mask: 0xf0},
		"no mark":        {Mark: 0, Mask: 0xffffffff},
		"nobody":         {Mark: 0x99, Mask: 0xff},
	} {
		flows, err := c.DumpFilter(f, &conntrack.DumpOptions{})
		if err != nil {
			return err
		}
		table["DumpFilter "+name] = describeFlows(flows)
	}
	if err := addExpects(table, c); err != nil {
		return err
	}
	if err := addStats(table, c); err != nil {
		return err
	}
	addGet(table, c, flows)
	print(table)
	return nil
}

func describeFlows(flows []conntrack.Flow) []any {
	slices.SortFunc(flows, func(a, b conntrack.Flow) int { return cmp.Compare(a.ID, b.ID) })
	all := make([]any, len(flows))
	for i := range flows {
		all[i] = describeFlow(&flows[i])
	}
	return all
}

func describeFlow(f *conntrack.Flow) object {
	return object{
		"Flow":          fields(f),
		"Status":        textsOf(f.Status),
		"TupleOrig":     textsOf(f.TupleOrig),
		"TupleReply":    textsOf(f.TupleReply),
		"TupleMaster":   textsOf(f.TupleMaster),
		"CountersOrig":  textsOf(f.CountersOrig),
		"CountersReply": textsOf(f.CountersReply),
		"SeqAdjOrig":    textsOf(f.SeqAdjOrig),
		"SeqAdjReply":   textsOf(f.SeqAdjReply),
		"IsIPv6":        f.TupleOrig.IP.IsIPv6(),
	}
}

func describeExpect(ex *conntrack.Expect) object {
	return object{
		"Expect":      fields(ex),
		"TupleMaster": textsOf(ex.TupleMaster),
		"Tuple":       textsOf(ex.Tuple),
		"Mask":        textsOf(ex.Mask),
		"NAT":         textsOf(ex.NAT.Tuple),
	}
}

func addExpects(table object, c *conntrack.Conn) error {
	expects, err := c.DumpExpect()
	if err != nil {
		return err
	}
	slices.SortFunc(expects, func(a, b conntrack.Expect) int { return cmp.Compare(a.ID, b.ID) })
	all := make([]any, len(expects))
	for i := range expects {
		all[i] = describeExpect(&expects[i])
	}
	table["DumpExpect"] = all
	return nil
}

func addStats(table object, c *conntrack.Conn) error {
	global, err := c.StatsGlobal()
	if err != nil {
		return err
	}
	stats, err := c.Stats()
	if err != nil {
		return err
	}
	expect, err := c.StatsExpect()
	if err != nil {
		return err
	}
	table["StatsGlobal"] = fields(global)
	var perCPU, perCPUExpect []any
	for _, s := range stats {
		perCPU = append(perCPU, object{"Stats": fields(s), "Text": textsOf(s)})
	}
	for _, s := range expect {
		perCPUExpect = append(perCPUExpect, fields(s))
	}
	table["Stats"], table["StatsExpect"] = perCPU, perCPUExpect
	return nil
}

// addGet adds the result of Get for each flow of the table, by original tuple.
// It must come last, because a Get that hangs blocks the Conn.
func addGet(table object, c *conntrack.Conn, flows []conntrack.Flow) {
	var all []any
	for _, f := range flows {
		got := make(chan any, 1)
		go func() {
			flow, err := c.Get(conntrack.Flow{TupleOrig: f.TupleOrig, TupleReply: f.TupleReply, Zone: f.Zone})
			if err != nil {
				got <- err.Error()
				return
			}
			got <- describeFlow(&flow)
		}()
		select {
		case flow := <-got:
			all = append(all, flow)
		case <-time.After(patience):
			return // table lacks "Get"
		}
	}
	table["Get"] = all
}
