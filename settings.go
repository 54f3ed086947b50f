package conntrack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/netfilter"
)

// Settings say what the kernel does in a network namespace: why there may be no
// flows, counters, times or events in it.
type Settings struct {
	// Accounting is set if flows that begin now count packets and bytes (sysctl
	// net.netfilter.nf_conntrack_acct).
	Accounting bool
	// Timestamps is set if flows that begin now have start and stop times
	// (nf_conntrack_timestamp). It is false in a kernel that was built without
	// them.
	Timestamps bool
	// Events says which flows have events (nf_conntrack_events). 0: none, as in a
	// kernel that was built without them. 1: all. 2, the default since Linux 5.19:
	// those that begin while somebody listens.
	Events uint8
	// Max is how many flows there may be (nf_conntrack_max).
	Max uint32
	// Buckets is the size of the hash table of all namespaces
	// (nf_conntrack_buckets).
	Buckets uint32

	// TracksIPv4 and TracksIPv6 are set if the kernel tracks the packets of the
	// family: if some rule of the namespace asks for it. Without, there are only
	// the flows that programs create.
	TracksIPv4, TracksIPv6 bool
	// TrackingKnown is false if the two above could not be found out. It takes
	// Linux 5.14 with the module nfnetlink_hook.
	TrackingKnown bool
}

// Settings returns the settings of the Conn's network namespace. They are read one by
// one, the sysctls from /proc. If these are not there, the error satisfies
// errors.Is(err, fs.ErrNotExist): the module nf_conntrack is not loaded, or /proc is
// not mounted, or an old kernel hides them from a namespace that belongs to another
// user namespace than the initial one.
//
// If the Conn was dialled in the process's own namespace, and the calling thread is in
// another one, Settings takes CAP_SYS_ADMIN.
func (c *Conn) Settings() (Settings, error) {
	s, err := c.settings()
	if err != nil {
		return Settings{}, opError("get settings", err)
	}
	return s, nil
}

func (c *Conn) settings() (s Settings, err error) {
	var known4, known6 bool
	s.TracksIPv4, known4, err = c.tracks(netfilter.ProtoIPv4, "ipv4_conntrack_in")
	if err != nil {
		return s, err
	}
	s.TracksIPv6, known6, err = c.tracks(netfilter.ProtoIPv6, "ipv6_conntrack_in")
	if err != nil {
		return s, err
	}
	s.TrackingKnown = known4 && known6
	if c.kernel.sysctl != nil {
		return s, s.readSysctls(c.kernel.sysctl)
	}
	return s, c.sockets.request.InNamespace(func() error { return s.readSysctls(readSysctl) })
}

// readSysctls reads the sysctls, whose names begin with nf_conntrack_, with
// readSysctl.
func (s *Settings) readSysctls(readSysctl func(name string) (uint32, error)) (err error) {
	read := func(name string) uint32 {
		n, readErr := readSysctl(name)
		// Kernels may be built without others, and then do not do what these are for.
		if name != "acct" && errors.Is(readErr, fs.ErrNotExist) {
			return 0
		}
		if err == nil {
			err = readErr
		}
		return n
	}
	s.Accounting = read("acct") != 0
	s.Timestamps = read("timestamp") != 0
	s.Events = uint8(read("events"))
	s.Max = read("max")
	s.Buckets = read("buckets")
	return err
}

// readSysctl reads a sysctl of the calling thread's network namespace.
func readSysctl(name string) (uint32, error) {
	text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("%w (load the kernel module nf_conntrack, or mount /proc)", err)
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64) // some print 1<<31 as negative
	return uint32(n), err
}

// What is asked of nfnetlink_hook (enum nfnl_hook_attributes).
const (
	hookGet          = 0 // NFNL_MSG_HOOK_GET
	hookNumber       = 1 // NFNLA_HOOK_HOOKNUM
	hookFunctionName = 4 // NFNLA_HOOK_FUNCTION_NAME

	hookPrerouting = 0 // NF_INET_PRE_ROUTING
)

// tracks reports whether the function that tracks incoming packets of a family is
// hooked in.
func (c *Conn) tracks(family netfilter.ProtoFamily, function string) (tracks, known bool, err error) {
	r := dumpRequest(nfnl.Header{SubsystemID: nfnl.NFSubsysHook, MessageType: hookGet, Family: family})
	defer r.free()
	r.enc.Uint32(hookNumber, hookPrerouting)
	known = true
	err = c.dump(context.Background(), r, func(m nfnl.Message) error {
		name, err := decodeHook(m.Attributes)
		known = known && name != "" // or the kernel has no names of functions
		tracks = tracks || strings.HasPrefix(name, function)
		return err
	})
	if nfnl.IsInvalid(err) || errors.Is(err, errors.ErrUnsupported) || errors.Is(err, ErrDumpInterrupted) {
		return false, false, nil
	}
	return tracks, known, err
}

// decodeHook returns the name of the function that is hooked in.
func decodeHook(b []byte) (name string, err error) {
	var d nfnl.Decoder
	for typ, v := range d.Attributes(b) {
		if typ == hookFunctionName {
			name = string(nfnl.TrimNUL(v))
		}
	}
	return name, d.Err(nil)
}
