package conntrack

import (
	"fmt"
	"math/bits"
	"strings"
)

// A Status is a set of flags that says how far a flow has come and how the
// kernel treats it (CTA_STATUS, enum ip_conntrack_status of
// linux/netfilter/nf_conntrack_common.h).
type Status struct {
	Value StatusFlag
}

// A StatusFlag is a flag of a [Status], or several of them.
type StatusFlag uint32

// The flags of enum ip_conntrack_status.
const (
	// StatusExpected is set if the flow was expected: see [Expect]
	// (IPS_EXPECTED). It cannot be changed.
	StatusExpected StatusFlag = 1
	// StatusSeenReply is set if packets were seen in both directions
	// (IPS_SEEN_REPLY). It can be set but not cleared.
	StatusSeenReply StatusFlag = 1 << 1
	// StatusAssured is set if the flow is not to be removed early when the
	// table is full (IPS_ASSURED). It can be set but not cleared.
	StatusAssured StatusFlag = 1 << 2
	// StatusConfirmed is set if the flow is in the table, which it is once its
	// first packet was let through (IPS_CONFIRMED). [Conn.Create] and
	// [Conn.Update] add it to what they send.
	StatusConfirmed StatusFlag = 1 << 3
	// StatusSrcNAT is set if the source is translated in the original direction
	// (IPS_SRC_NAT).
	StatusSrcNAT StatusFlag = 1 << 4
	// StatusDstNAT is set if the destination is translated in the original
	// direction (IPS_DST_NAT).
	StatusDstNAT StatusFlag = 1 << 5

	// StatusNATMask is the flags of both translations (IPS_NAT_MASK).
	StatusNATMask = StatusDstNAT | StatusSrcNAT

	// StatusSeqAdjust is set if TCP sequence numbers are shifted
	// (IPS_SEQ_ADJUST): see [SequenceAdjust].
	StatusSeqAdjust StatusFlag = 1 << 6
	// StatusSrcNATDone is set if the kernel has decided whether to translate
	// the source (IPS_SRC_NAT_DONE).
	StatusSrcNATDone StatusFlag = 1 << 7
	// StatusDstNATDone is set if the kernel has decided whether to translate
	// the destination (IPS_DST_NAT_DONE).
	StatusDstNATDone StatusFlag = 1 << 8

	// StatusNATDoneMask is the flags of both decisions (IPS_NAT_DONE_MASK).
	StatusNATDoneMask = StatusDstNATDone | StatusSrcNATDone

	// StatusDying is set if the flow was removed from the table, or is about to
	// be (IPS_DYING).
	StatusDying StatusFlag = 1 << 9
	// StatusFixedTimeout is set if packets do not refresh the timeout
	// (IPS_FIXED_TIMEOUT).
	StatusFixedTimeout StatusFlag = 1 << 10
	// StatusTemplate is set if this is not a flow but the template of one
	// (IPS_TEMPLATE).
	StatusTemplate StatusFlag = 1 << 11
	// StatusUntracked is set if a rule exempts the packets from tracking
	// (IPS_UNTRACKED). Since Linux 4.12 the bit means that the flow clashed
	// with another one (IPS_NAT_CLASH).
	StatusUntracked StatusFlag = 1 << 12
	// StatusHelper is set if a rule assigned the helper (IPS_HELPER, Linux
	// 3.5).
	StatusHelper StatusFlag = 1 << 13
	// StatusOffload is set if the flow is in a flow table, so that its packets
	// bypass connection tracking (IPS_OFFLOAD, Linux 4.16).
	StatusOffload StatusFlag = 1 << 14
	// StatusHWOffload is set if the flow is offloaded to hardware
	// (IPS_HW_OFFLOAD, Linux 5.7).
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

// String returns the names of the set flags, such as SEEN_REPLY|ASSURED, or
// NONE.
func (s Status) String() string { return flagNames(s.Value) }

func (f StatusFlag) name() string { return flagName(statusNames, f) }

// MarshalText returns the names of the set flags, as [Status.String] does.
func (f StatusFlag) MarshalText() ([]byte, error) { return []byte(flagNames(f)), nil }

// UnmarshalText sets f to flags separated by | or a comma. A flag is its name,
// in any case, or a number; NONE is no flag.
func (f *StatusFlag) UnmarshalText(text []byte) error {
	return parseFlags(f, "status flag", statusNames, text)
}

func (s Status) has(f StatusFlag) bool { return s.Value&f != 0 }

// Expected reports whether [StatusExpected] is set.
func (s Status) Expected() bool { return s.has(StatusExpected) }

// SeenReply reports whether [StatusSeenReply] is set.
func (s Status) SeenReply() bool { return s.has(StatusSeenReply) }

// Assured reports whether [StatusAssured] is set.
func (s Status) Assured() bool { return s.has(StatusAssured) }

// Confirmed reports whether [StatusConfirmed] is set.
func (s Status) Confirmed() bool { return s.has(StatusConfirmed) }

// SrcNAT reports whether [StatusSrcNAT] is set.
func (s Status) SrcNAT() bool { return s.has(StatusSrcNAT) }

// DstNAT reports whether [StatusDstNAT] is set.
func (s Status) DstNAT() bool { return s.has(StatusDstNAT) }

// SeqAdjust reports whether [StatusSeqAdjust] is set.
func (s Status) SeqAdjust() bool { return s.has(StatusSeqAdjust) }

// SrcNATDone reports whether [StatusSrcNATDone] is set.
func (s Status) SrcNATDone() bool { return s.has(StatusSrcNATDone) }

// DstNATDone reports whether [StatusDstNATDone] is set.
func (s Status) DstNATDone() bool { return s.has(StatusDstNATDone) }

// Dying reports whether [StatusDying] is set.
func (s Status) Dying() bool { return s.has(StatusDying) }

// FixedTimeout reports whether [StatusFixedTimeout] is set.
func (s Status) FixedTimeout() bool { return s.has(StatusFixedTimeout) }

// Template reports whether [StatusTemplate] is set.
func (s Status) Template() bool { return s.has(StatusTemplate) }

// Helper reports whether [StatusHelper] is set.
func (s Status) Helper() bool { return s.has(StatusHelper) }

// Offload reports whether [StatusOffload] is set.
func (s Status) Offload() bool { return s.has(StatusOffload) }

// HWOffload reports whether [StatusHWOffload] is set.
func (s Status) HWOffload() bool { return s.has(StatusHWOffload) }

// The flags of an expectation (linux/netfilter/nf_conntrack_common.h). They
// have no type, so that they can be assigned to Expect.Flags as they are.
const (
	// ExpectPermanent is set if the expectation stays after a packet has
	// fulfilled it, until its timeout has passed (NF_CT_EXPECT_PERMANENT).
	ExpectPermanent = 1
	// ExpectInactive is set if packets do not fulfil the expectation
	// (NF_CT_EXPECT_INACTIVE).
	ExpectInactive = 2
	// ExpectUserSpace is set if a helper in user space made the expectation
	// (NF_CT_EXPECT_USERSPACE). It cannot be set by a program.
	ExpectUserSpace = 4
)

// ExpectFlags are the flags of an expectation. Convert Expect.Flags to it for
// their names.
type ExpectFlags uint32

var expectFlagNames = []string{"PERMANENT", "INACTIVE", "USERSPACE"}

// String returns the names of the set flags, such as PERMANENT|INACTIVE, or
// NONE.
func (f ExpectFlags) String() string { return flagNames(f) }

func (f ExpectFlags) name() string { return flagName(expectFlagNames, f) }

// MarshalText returns the text of [ExpectFlags.String].
func (f ExpectFlags) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText sets f to flags in the form of [StatusFlag.UnmarshalText].
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

// flagNames returns the names of flags joined by |, with numbers for those
// without a name.
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

// parseFlags sets flags to those whose names flagNames returned.
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

// cutFlag cuts s at the first | or comma.
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
