//go:build linux

package compat

import "strings"

const tupleText = "package slog prefers MarshalText, which tells all of a Tuple"

// These are the differences from v0.5.0 and their reasons.

var differentTexts = []exception{
	{path: `0/Tuple .*/slog`, why: tupleText},
	{path: `0/Status of bit 15/.*`, why: "v0.5.0 does not know IPS_HW_OFFLOAD"},
	{path: `0/Status of bit (1[6-9]|[23].)/.*`, why: "v0.5.0 leaves out flags that it does not know"},
}

// Timeouts count down between the readings of the two programs.
var differentTables = []exception{
	{path: `.*/(Tuple\w*|Mask|NAT)/slog`, why: tupleText},
	{path: `0/(Dump|DumpFilter .*|Get)/\d+/Flow/Timeout`, why: "time passes", may: true, ok: ticked},
	{path: `0/DumpExpect/\d+/Expect/Timeout`, why: "time passes", may: true, ok: ticked},
}

var differentEvents = []exception{
	{path: `.*/(Tuple\w*|Mask|NAT)/slog`, why: tupleText},
}

var differentHabits = []exception{
	{path: `0/.*/Text`, why: "errors have texts of their own", ok: ownText},
	{path: `0/Create with no (original|reply) .*/EINVAL`, why: "what the kernel would refuse is not sent"},
	{path: `0/DumpFilter with a mark outside its mask/Error`, why: "no flow has such a mark: v0.5.0 finds none, in silence"},
	{path: `0/Create without confirmed/(Error|EBUSY)`, why: "Create adds StatusConfirmed"},
	{path: `0/Create with a helper that is none/EINVAL`, why: "v0.5.0 sends helpers' names as no kernel takes them"},
	{path: `0/Create and Delete with another ID/Error`, why: "v0.5.0 does not send the ID, which its documentation says"},
	{path: `0/Dump after Listen/Error`, why: "listeners have sockets of their own"},
}

var differentRequests = []exception{
	{path: `.*/Table/\d+/ID`, why: "the kernel computes it from addresses in its memory"},
	{path: `.*/Table/\d+/Timeout`, why: "time passes", may: true, ok: ticked},
	{path: `.*/Outcome/Text`, why: "errors have texts of their own", ok: ownText},
}

// ownText reports whether d is the text of an error that may differ from
// v0.5.0's. That is all texts but that of Listen without groups. Whether there
// is an error is compared separately.
func ownText(d difference) bool {
	old := d.old.(string)
	ours, isError := d.ours.(string)
	return !isError || !strings.Contains(old, "multicast groups to join") || strings.Contains(ours, old)
}
