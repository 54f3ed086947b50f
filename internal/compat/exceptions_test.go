//go:build linux

package compat

import "strings"

// Where this library differs from v0.5.0, and why. Those that say TODO are to go.

var differentTexts = []exception{
	{path: `0/Status of bit 15/.*`, why: "v0.5.0 does not know IPS_HW_OFFLOAD"},
	{path: `0/Status of bit (1[6-9]|[23].)/.*`, why: "v0.5.0 leaves out flags that it does not know"},
	{path: `0/Event .*/slog`, why: "TODO: Event.LogValue goes"},
	{path: `0/StatusFlag %(v|x|#x|#08x)`, why: "TODO: StatusFlag has a String, and fmt prints hexadecimal digits of that"},
}

// Timeouts go on while the programs read the table one after the other.
var differentTables = []exception{
	{path: `0/(Dump|DumpFilter .*|Get)/\d+/Flow/Timeout`, why: "time passes", may: true, ok: ticked},
	{path: `0/DumpExpect/\d+/Expect/Timeout`, why: "time passes", may: true, ok: ticked},
}

var differentEvents = []exception{
	{path: `\d+/(Text|Pointer)/slog`, why: "TODO: Event.LogValue goes"},
}

var differentHabits = []exception{
	{path: `0/.*/Text`, why: "errors have texts of their own", ok: ownText},
	{path: `0/.* after Close/EBADF`, why: "TODO: errors after Close are to satisfy EBADF"},
	{path: `0/Listen with (nil|no) groups/Error`, why: "TODO: it is to be an error"},
	{path: `0/Listen after Listen without groups/Error`, why: "TODO: the first Listen is to fail"},
	{
		path: `0/.* with (no (original |reply )?(protocols?|source|destination)|half a (master|translation))/(Error|EINVAL|ENOENT)`,
		why:  "TODO: half a tuple is to count as none",
	},
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

// ownText tells an error's text that may differ from v0.5.0's, as all but that of
// Listen without groups may. Whether there is an error is another question.
func ownText(d difference) bool {
	old := d.old.(string)
	ours, isError := d.ours.(string)
	return !isError || !strings.Contains(old, "multicast groups to join") || strings.Contains(ours, old)
}
