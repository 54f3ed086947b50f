package conntrack

import (
	"fmt"
	"math/bits"
	"strings"
)

// Status is what the kernel knows about a flow's stage and treatment, as a set
// of flags (enum ip_conntrack_status, linux/netfilter/nf_conntrack_common.h).
type Status struct {
	Value StatusFlag
}

// A StatusFlag is one of the flags of a Status, or several of them.
type StatusFlag uint32

// The flags of enum ip_conntrack_status.
const (
	// StatusExpected: the flow was expected by a helper (IPS_EXPECTED). It
	// cannot be changed.
	StatusExpected StatusFlag = 1
	// StatusSeenReply: packets were seen in both directions (IPS_SEEN_REPLY). It
	// can be set and not cleared.
	StatusSeenReply StatusFlag = 1 << 1
	// StatusAssured: the flow is not dropped early when the table is full
	// (IPS_ASSURED). It can be set and not cleared.
	StatusAssured StatusFlag = 1 << 2
	// StatusConfirmed: the flow's first packet has left the machine, the flow is
	// in the table (IPS_CONFIRMED). Each flow of the table has it; Create and
	// Update add it.
	StatusConfirmed StatusFlag = 1 << 3
	// StatusSrcNAT: the source is translated in the original direction
	// (IPS_SRC_NAT).
	StatusSrcNAT StatusFlag = 1 << 4
	// StatusDstNAT: the destination is translated in the original direction
	// (IPS_DST_NAT).
	StatusDstNAT StatusFlag = 1 << 5

	// StatusNATMask: either translation (IPS_NAT_MASK).
	StatusNATMask = StatusDstNAT | StatusSrcNAT

	// StatusSeqAdjust: TCP sequence numbers are adjusted (IPS_SEQ_ADJUST).
	StatusSeqAdjust StatusFlag = 1 << 6
	// StatusSrcNATDone: it was decided whether the source is translated
	// (IPS_SRC_NAT_DONE).
	StatusSrcNATDone StatusFlag = 1 << 7
	// StatusDstNATDone: it was decided whether the destination is translated
	// (IPS_DST_NAT_DONE).
	StatusDstNATDone StatusFlag = 1 << 8

	// StatusNATDoneMask: both decisions (IPS_NAT_DONE_MASK).
	StatusNATDoneMask = StatusDstNATDone | StatusSrcNATDone

	// StatusDying: the flow was removed from the table (IPS_DYING).
	StatusDying StatusFlag = 1 << 9
	// StatusFixedTimeout: packets do not refresh the timeout
	// (IPS_FIXED_TIMEOUT).
	StatusFixedTimeout StatusFlag = 1 << 10
	// StatusTemplate: not a flow but the template of one (IPS_TEMPLATE).
	StatusTemplate StatusFlag = 1 << 11
	// StatusUntracked: not tracked, on request of a rule (IPS_UNTRACKED); since
	// Linux 4.12 the bit means that the flow clashed with another one
	// (IPS_NAT_CLASH).
	StatusUntracked StatusFlag = 1 << 12
	// StatusHelper: a rule assigned the helper (IPS_HELPER, Linux 3.5).
	StatusHelper StatusFlag = 1 << 13
	// StatusOffload: the flow is in a flow table, its packets pass by
	// connection tracking (IPS_OFFLOAD, Linux 4.16).
	StatusOffload StatusFlag = 1 << 14
	// StatusHWOffload: the flow is offloaded to hardware (IPS_HW_OFFLOAD, Linux
	// 5.7).
	StatusHWOffload StatusFlag = 1 << 15
)

var statusNames = []string{
	"EXPECTED",
	"SEEN_REPLY",
	"ASSURED",
	"CONFIRMED",
	"SRC_NAT",
	"DST_NAT",
	"SEQ_ADJUST",
	"SRC_NAT_DONE",
	"DST_NAT_DONE",
	"DYING",
	"FIXED_TIMEOUT",
	"TEMPLATE",
	"UNTRACKED",
	"HELPER",
	"OFFLOAD",
	"HW_OFFLOAD",
}

// String returns the names of the flags that are set, such as
// SEEN_REPLY|ASSURED, or NONE.
func (s Status) String() string { return flagNames(s.Value) }

func (f StatusFlag) name() string { return flagName(statusNames, f) }

// MarshalText returns the names of the flags that are set, as [Status.String] does.
func (f StatusFlag) MarshalText() ([]byte, error) { return []byte(flagNames(f)), nil }

// UnmarshalText sets f to the flags with those names, in any case, or numbers,
// separated by | or a comma. NONE is no flag.
func (f *StatusFlag) UnmarshalText(text []byte) error {
	return parseFlags(f, "status flag", statusNames, text)
}

func (s Status) has(f StatusFlag) bool { return s.Value&f != 0 }

// Expected reports whether StatusExpected is set.
func (s Status) Expected() bool { return s.has(StatusExpected) }

// SeenReply reports whether StatusSeenReply is set.
func (s Status) SeenReply() bool { return s.has(StatusSeenReply) }

// Assured reports whether StatusAssured is set.
func (s Status) Assured() bool { return s.has(StatusAssured) }

// Confirmed reports whether StatusConfirmed is set.
func (s Status) Confirmed() bool { return s.has(StatusConfirmed) }

// SrcNAT reports whether StatusSrcNAT is set.
func (s Status) SrcNAT() bool { return s.has(StatusSrcNAT) }

// DstNAT reports whether StatusDstNAT is set.
func (s Status) DstNAT() bool { return s.has(StatusDstNAT) }

// SeqAdjust reports whether StatusSeqAdjust is set.
func (s Status) SeqAdjust() bool { return s.has(StatusSeqAdjust) }

// SrcNATDone reports whether StatusSrcNATDone is set.
func (s Status) SrcNATDone() bool { return s.has(StatusSrcNATDone) }

// DstNATDone reports whether StatusDstNATDone is set.
func (s Status) DstNATDone() bool { return s.has(StatusDstNATDone) }

// Dying reports whether StatusDying is set.
func (s Status) Dying() bool { return s.has(StatusDying) }

// FixedTimeout reports whether StatusFixedTimeout is set.
func (s Status) FixedTimeout() bool { return s.has(StatusFixedTimeout) }

// Template reports whether StatusTemplate is set.
func (s Status) Template() bool { return s.has(StatusTemplate) }

// Helper reports whether StatusHelper is set.
func (s Status) Helper() bool { return s.has(StatusHelper) }

// Offload reports whether StatusOffload is set.
func (s Status) Offload() bool { return s.has(StatusOffload) }

// HWOffload reports whether StatusHWOffload is set.
func (s Status) HWOffload() bool { return s.has(StatusHWOffload) }

// The flags of an expectation (linux/netfilter/nf_conntrack_common.h).
const (
	// ExpectPermanent: it stays when a packet has fulfilled it, until its time is
	// over (NF_CT_EXPECT_PERMANENT).
	ExpectPermanent = 1
	// ExpectInactive: packets do not fulfil it (NF_CT_EXPECT_INACTIVE).
	ExpectInactive = 2
	// ExpectUserSpace: a helper in user space made it
	// (NF_CT_EXPECT_USERSPACE). It cannot be set.
	ExpectUserSpace = 4
)

// ExpectFlags are the flags of an expectation, as in Expect.Flags.
type ExpectFlags uint32

var expectFlagNames = []string{"PERMANENT", "INACTIVE", "USERSPACE"}

// String returns the names of the flags that are set, such as
// PERMANENT|INACTIVE, or NONE.
func (f ExpectFlags) String() string { return flagNames(f) }

func (f ExpectFlags) name() string { return flagName(expectFlagNames, f) }

// MarshalText returns the text of String.
func (f ExpectFlags) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText sets f to the flags with those names, as [StatusFlag.UnmarshalText]
// does.
func (f *ExpectFlags) UnmarshalText(text []byte) error {
	return parseFlags(f, "expectation flag", expectFlagNames, text)
}

// flagName returns the name of one flag, or "" if it has none.
func flagName[T ~uint8 | ~uint32](names []string, flag T) string {
	if bit := bits.TrailingZeros32(uint32(flag)); bit < len(names) {
		return names[bit]
	}
	return ""
}

// flagNames returns the names of flags, or their numbers where they have none.
func flagNames[T named](flags T) string {
	if flags == 0 {
		return "NONE"
	}
	if name := flags.name(); name != "" && flags&(flags-1) == 0 {
		return name
	}
	var b []byte
	for rest := flags; rest != 0; rest &= rest - 1 {
		if len(b) > 0 {
			b = append(b, '|')
		}
		if name := (rest & -rest).name(); name != "" {
			b = append(b, name...)
		} else {
			b = fmt.Appendf(b, "%#x", uint32(rest&-rest))
		}
	}
	return string(b)
}

// parseFlags sets flags to those that flagNames returned the names of.
func parseFlags[T ~uint8 | ~uint32](flags *T, kind string, names []string, text []byte) error {
	var set T
	rest := string(text)
	for more := !equalFold("NONE", rest); more; {
		var name string
		name, rest, more = cutFlag(rest)
		flag, err := parseFlag[T](names, strings.TrimSpace(name))
		if err != nil {
			return fmt.Errorf("unknown %s %.60q", kind, name)
		}
		set |= flag
	}
	*flags = set
	return nil
}

// cutFlag returns what stands before and behind the first | or comma.
func cutFlag(s string) (name, rest string, more bool) {
	end := strings.IndexAny(s, "|,")
	if end < 0 {
		return s, "", false
	}
	return s[:end], s[end+1:], true
}

func parseFlag[T ~uint8 | ~uint32](names []string, s string) (T, error) {
	for bit, name := range names {
		if equalFold(name, s) {
			return 1 << bit, nil
		}
	}
	v, err := parseNumber(s, bits.Len32(uint32(^T(0))))
	return T(v), err
}
