package cttimeout

// The constants of linux/netfilter/nfnetlink_cttimeout.h, except those of the
// protocols, which are in state.go.

// enum ctnl_timeout_msg_types
const (
	msgNew        = iota // IPCTNL_MSG_TIMEOUT_NEW
	msgGet               // IPCTNL_MSG_TIMEOUT_GET
	msgDelete            // IPCTNL_MSG_TIMEOUT_DELETE
	msgDefaultSet        // IPCTNL_MSG_TIMEOUT_DEFAULT_SET
	msgDefaultGet        // IPCTNL_MSG_TIMEOUT_DEFAULT_GET
)

// enum ctattr_timeout
const (
	ctaTimeoutUnspec = iota
	ctaTimeoutName
	ctaTimeoutL3Proto
	ctaTimeoutL4Proto
	ctaTimeoutData
	ctaTimeoutUse
)

var ctaTimeoutNames = []string{
	ctaTimeoutName:    "CTA_TIMEOUT_NAME",
	ctaTimeoutL3Proto: "CTA_TIMEOUT_L3PROTO",
	ctaTimeoutL4Proto: "CTA_TIMEOUT_L4PROTO",
	ctaTimeoutData:    "CTA_TIMEOUT_DATA",
	ctaTimeoutUse:     "CTA_TIMEOUT_USE",
}

const nameMax = 32 // CTNL_TIMEOUT_NAME_MAX, including the NUL byte
