//go:build linux

package dropin

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"
)

// A dumper has the methods of Conn that a flow exporter needs.
type dumper interface {
	Dump(opts *conntrack.DumpOptions) ([]conntrack.Flow, error)
	DumpFilter(f conntrack.Filter, opts *conntrack.DumpOptions) ([]conntrack.Flow, error)
}

// A deleter has the methods of Conn that a proxy needs to forget flows.
type deleter interface {
	dumper
	Delete(f conntrack.Flow) error
}

var _ deleter = (*conntrack.Conn)(nil)

// A Record is what an exporter sends about a flow.
type Record struct {
	ID             uint32           `json:"id"`
	Status         conntrack.Status `json:"status"`
	Source         net.IP           `json:"source"`
	Destination    net.IP           `json:"destination"`
	SourcePort     uint16           `json:"source_port"`
	Protocol       uint8            `json:"protocol"`
	TCPState       uint8            `json:"tcp_state"`
	Packets, Bytes uint64
	Start          time.Time
	Text           string
}

// Records returns the flows of a zone that are translated, or those that are
// not.
func Records(d dumper, zone uint16, translated bool) ([]Record, error) {
	flows, err := d.DumpFilter(conntrack.Filter{}, &conntrack.DumpOptions{ZeroCounters: false})
	if err != nil {
		return nil, fmt.Errorf("dump: %w", err)
	}
	var records []Record
	for _, f := range flows {
		nat := f.Status.DstNAT() || f.Status.SrcNAT()
		if f.Zone != zone || nat != translated || f.Status.Dying() {
			continue
		}
		records = append(records, newRecord(&f))
	}
	return records, nil
}

func newRecord(f *conntrack.Flow) Record {
	r := Record{
		ID:          f.ID,
		Status:      f.Status,
		Source:      f.TupleOrig.IP.SourceAddress.AsSlice(),
		Destination: f.TupleOrig.IP.DestinationAddress.AsSlice(),
		SourcePort:  f.TupleOrig.Proto.SourcePort,
		Protocol:    f.TupleOrig.Proto.Protocol,
		Packets:     f.CountersOrig.Packets + f.CountersReply.Packets,
		Bytes:       f.CountersOrig.Bytes + f.CountersReply.Bytes,
		Start:       f.Timestamp.Start,
		Text:        fmt.Sprintf("%s %v %s", f.TupleOrig, f.Status, f.CountersOrig),
	}
	if f.ProtoInfo.TCP != nil {
		r.TCPState = f.ProtoInfo.TCP.State
	}
	return r
}

// ByTuple returns the flows with a mark, by original tuple.
func ByTuple(d dumper, mark, mask uint32) (map[conntrack.Tuple]*conntrack.Flow, error) {
	flows, err := d.DumpFilter(conntrack.Filter{Mark: mark, Mask: mask}, nil)
	if err != nil {
		return nil, err
	}
	byTuple := make(map[conntrack.Tuple]*conntrack.Flow, len(flows))
	for i := range flows {
		byTuple[flows[i].TupleOrig] = &flows[i]
	}
	return byTuple, nil
}

// Forget removes the flows of a protocol that have endpoint as their source in
// either direction. It returns their number.
func Forget(d deleter, proto uint8, endpoint netip.AddrPort) (int, error) {
	flows, err := d.Dump(nil)
	if err != nil {
		return 0, err
	}
	forgotten := 0
	for _, f := range flows {
		reply := f.TupleReply
		if reply.Proto.Protocol != proto || reply.IP.SourceAddress != endpoint.Addr() || reply.Proto.SourcePort != endpoint.Port() {
			continue
		}
		// Only the key is needed: other fields would be compared, or sent for
		// nothing.
		if err := d.Delete(conntrack.Flow{TupleOrig: f.TupleOrig, Zone: f.Zone}); err != nil {
			return forgotten, fmt.Errorf("delete %s: %w", f.TupleOrig, err)
		}
		forgotten++
	}
	return forgotten, nil
}

// Dial opens a Conn in a network namespace, with a large receive buffer.
func Dial(netns int) (*conntrack.Conn, error) {
	c, err := conntrack.Dial(&netlink.Config{NetNS: netns})
	if err != nil {
		return nil, err
	}
	if err := c.SetOption(netlink.ListenAllNSID, false); err != nil {
		return nil, err
	}
	if err := c.SetReadBuffer(2 << 20); err != nil {
		return nil, err
	}
	return c, c.SetWriteBuffer(1 << 16)
}

// Key returns a flow between two endpoints, as a key for Get, Update and
// Delete.
func Key(proto uint8, src, dst netip.AddrPort) conntrack.Flow {
	return conntrack.Flow{
		TupleOrig: conntrack.Tuple{
			IP: conntrack.IPTuple{
				SourceAddress:      src.Addr(),
				DestinationAddress: dst.Addr(),
			},
			Proto: conntrack.ProtoTuple{
				Protocol:        proto,
				SourcePort:      src.Port(),
				DestinationPort: dst.Port(),
			},
		},
	}
}

// Occupancy returns how full the table is, and how many packets all CPUs have
// dropped because it was full.
func Occupancy(c *conntrack.Conn) (ratio float64, dropped uint64, err error) {
	global, err := c.StatsGlobal()
	if err != nil {
		return 0, 0, err
	}
	perCPU, err := c.Stats()
	if err != nil {
		return 0, 0, err
	}
	for _, s := range perCPU {
		dropped += uint64(s.Drop) + uint64(s.EarlyDrop) + uint64(s.InsertFailed)
	}
	return float64(global.Entries) / float64(global.MaxEntries), dropped, nil
}
