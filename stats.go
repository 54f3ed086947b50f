package conntrack

import (
	"context"

	"github.com/ti-mo/conntrack/internal/nfnl"
)

// Stats are the counters of one CPU for what happened in the network namespace
// since it was created (CTA_STATS_*, Linux 3.6). They wrap around.
type Stats struct {
	CPUID         uint16
	Found         uint32 // lookups that found an entry
	Invalid       uint32 // packets that cannot be tracked
	Ignore        uint32 // packets that were tracked already (not counted since Linux 5.9)
	Insert        uint32 // entries added (since Linux 5.9 only by Create)
	InsertFailed  uint32 // packets whose new entry was not added, mostly because one existed already
	Drop          uint32 // packets dropped because no entry could be made or added
	EarlyDrop     uint32 // entries removed to make room in a full table
	Error         uint32 // packets with errors, such as ICMP for an unknown flow
	SearchRestart uint32 // lookups restarted because the table was resized
	ClashResolve  uint32 // packets whose new entry was merged with one added meanwhile (Linux 5.10)
	ChainTooLong  uint32 // entries not added because too many have the same hash (Linux 5.15)

	// Counters of old kernels. Newer ones leave them 0.
	Searched   uint32 // lookups (before Linux 4.9)
	New        uint32 // entries made (before Linux 4.9)
	Delete     uint32 // entries removed (before Linux 4.9)
	DeleteList uint32 // entries moved to the dying list (before Linux 4.9)
}

// StatsExpect are the counters of one CPU for expectations (CTA_STATS_EXP_*,
// Linux 3.6).
type StatsExpect struct {
	CPUID uint16
	// New counts flows that were expected, Create expectations that were added,
	// and Delete expectations that were removed.
	New, Create, Delete uint32
}

// StatsGlobal says how full the table is (CTA_STATS_GLOBAL_*, Linux 3.6).
type StatsGlobal struct {
	// Entries is the number of flows in the network namespace.
	Entries uint32
	// MaxEntries is the limit of Entries, the sysctl
	// net.netfilter.nf_conntrack_max. It is 0 before Linux 4.18, which does not
	// send it.
	MaxEntries uint32
}

// unmarshal decodes the attributes in b into s. The number of the CPU is not
// among them, but in the header.
func (s *Stats) unmarshal(b []byte) error {
	var d nfnl.Decoder
	for typ, v := range d.Attributes(b) {
		switch typ {
		case ctaStatsFound:
			s.Found = d.Uint32(v)
		case ctaStatsInvalid:
			s.Invalid = d.Uint32(v)
		case ctaStatsIgnore:
			s.Ignore = d.Uint32(v)
		case ctaStatsInsert:
			s.Insert = d.Uint32(v)
		case ctaStatsInsertFailed:
			s.InsertFailed = d.Uint32(v)
		case ctaStatsDrop:
			s.Drop = d.Uint32(v)
		case ctaStatsEarlyDrop:
			s.EarlyDrop = d.Uint32(v)
		case ctaStatsError:
			s.Error = d.Uint32(v)
		case ctaStatsSearchRestart:
			s.SearchRestart = d.Uint32(v)
		case ctaStatsClashResolve:
			s.ClashResolve = d.Uint32(v)
		case ctaStatsChainTooLong:
			s.ChainTooLong = d.Uint32(v)
		case ctaStatsSearched:
			s.Searched = d.Uint32(v)
		case ctaStatsNew:
			s.New = d.Uint32(v)
		case ctaStatsDelete:
			s.Delete = d.Uint32(v)
		case ctaStatsDeleteList:
			s.DeleteList = d.Uint32(v)
		}
	}
	return d.Err(ctaStatsNames)
}

func (s *StatsExpect) unmarshal(b []byte) error {
	var d nfnl.Decoder
	for typ, v := range d.Attributes(b) {
		switch typ {
		case ctaStatsExpNew:
			s.New = d.Uint32(v)
		case ctaStatsExpCreate:
			s.Create = d.Uint32(v)
		case ctaStatsExpDelete:
			s.Delete = d.Uint32(v)
		}
	}
	return d.Err(ctaStatsExpNames)
}

func (s *StatsGlobal) unmarshal(b []byte) error {
	var d nfnl.Decoder
	for typ, v := range d.Attributes(b) {
		switch typ {
		case ctaStatsGlobalEntries:
			s.Entries = d.Uint32(v)
		case ctaStatsGlobalMaxEntries:
			s.MaxEntries = d.Uint32(v)
		}
	}
	return d.Err(ctaStatsGlobalNames)
}

// Stats returns the kernel's counters for each CPU.
func (c *Conn) Stats() ([]Stats, error) {
	h := nfnl.Header{SubsystemID: nfnl.NFSubsysCTNetlink, MessageType: ctGetStatsCPU}
	return dumpAll(c, "get statistics", h, func(s *Stats, m nfnl.Message) error {
		s.CPUID = m.ResourceID
		return s.unmarshal(m.Attributes)
	})
}

// StatsExpect returns the kernel's counters of expectations for each CPU.
func (c *Conn) StatsExpect() ([]StatsExpect, error) {
	h := nfnl.Header{SubsystemID: nfnl.NFSubsysCTNetlinkExp, MessageType: expGetStatsCPU}
	return dumpAll(c, "get expectation statistics", h, func(s *StatsExpect, m nfnl.Message) error {
		s.CPUID = m.ResourceID
		return s.unmarshal(m.Attributes)
	})
}

// dumpAll returns the entries of a short dump.
func dumpAll[T any](c *Conn, name string, h nfnl.Header, decode func(*T, nfnl.Message) error) ([]T, error) {
	r := dumpRequest(h)
	defer r.free()
	var all []T
	err := stream(context.Background(), c, r, decode, func(entry T, _ error) bool {
		all = append(all, entry)
		return true
	})
	if err != nil {
		return nil, tableError(name, err)
	}
	return all, nil
}

// StatsGlobal returns how many flows the network namespace has and may have. It
// costs one short request, whatever the size of the table.
func (c *Conn) StatsGlobal() (StatsGlobal, error) {
	s, err := c.statsGlobal()
	return s, tableError("get global statistics", err)
}

func (c *Conn) statsGlobal() (StatsGlobal, error) {
	r := newRequest()
	defer r.free()
	r.enc.Message(nfnl.Header{
		SubsystemID: nfnl.NFSubsysCTNetlink,
		MessageType: ctGetStats,
	})
	var s StatsGlobal
	err := c.sockets.request.Do(&r.enc, func(m nfnl.Message) error {
		return s.unmarshal(m.Attributes)
	})
	return s, err
}
