//go:build linux

package compat

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

type object = map[string]any

// A difference is a place where this library differs from v0.5.0.
type difference struct {
	path      string // names and indices, separated by /
	old, ours any
}

func (d difference) String() string {
	return fmt.Sprintf("%s\n\tv0.5.0: %v\n\tours:   %v", d.path, d.old, d.ours)
}

// An exception says which differences are expected, and why.
type exception struct {
	path string // a regular expression
	why  string
	// may is set if there may also be no difference.
	may bool
	// ok reports whether a difference is expected. Nil accepts all.
	ok func(difference) bool
}

// compare fails the test if ours lacks or changes something that old has,
// except for exceptions, or if an exception does not occur. Ours may have
// additional fields.
func compare(t *testing.T, old, ours []any, exceptions []exception) {
	t.Helper()
	met := make([]bool, len(exceptions))
	for _, d := range differences(nil, "", old, ours) {
		i := slices.IndexFunc(exceptions, func(e exception) bool {
			return regexp.MustCompile("^"+e.path+"$").MatchString(d.path) && (e.ok == nil || e.ok(d))
		})
		if i < 0 {
			t.Error(d)
			continue
		}
		met[i] = true
	}
	for i, e := range exceptions {
		if !met[i] && !e.may {
			t.Errorf("%s is no exception any more: %s", e.path, e.why)
		}
	}
}

func differences(found []difference, path string, old, ours any) []difference {
	switch old := old.(type) {
	case object:
		ours, ok := ours.(object)
		if !ok {
			break
		}
		for _, name := range slices.Sorted(maps.Keys(old)) {
			found = differences(found, path+"/"+name, old[name], ours[name])
		}
		return found
	case []any:
		ours, ok := ours.([]any)
		if !ok || len(old) != len(ours) {
			break
		}
		for i := range old {
			found = differences(found, path+"/"+strconv.Itoa(i), old[i], ours[i])
		}
		return found
	default:
		if old == ours {
			return found
		}
	}
	return append(found, difference{strings.TrimPrefix(path, "/"), old, ours})
}

// ticked reports whether two timeouts differ only by the seconds between the
// readings.
func ticked(d difference) bool {
	old, errOld := strconv.Atoi(fmt.Sprint(d.old))
	ours, errOurs := strconv.Atoi(fmt.Sprint(d.ours))
	return errOld == nil && errOurs == nil && max(old-ours, ours-old) <= 5
}
