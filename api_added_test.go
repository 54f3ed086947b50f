package conntrack_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/netfilter"
)

// What came after v0.5.0, under the same promise as the names in api_test.go.

var (
	_ interface {
		Flows(ctx context.Context, f conntrack.Filter, opts *conntrack.DumpOptions) iter.Seq2[conntrack.Flow, error]
		Expects(ctx context.Context) iter.Seq2[conntrack.Expect, error]
		CreateBatch(flows []conntrack.Flow) error
		UpdateBatch(flows []conntrack.Flow) error
		DeleteBatch(flows []conntrack.Flow) error
		GetBatch(keys []conntrack.Flow) iter.Seq2[conntrack.Flow, error]
		DeleteFunc(ctx context.Context, f conntrack.Filter, match func(*conntrack.Flow) bool) (deleted int, err error)
		Events(ctx context.Context, groups []netfilter.NetlinkGroup, opts *conntrack.EventOptions) iter.Seq2[conntrack.Event, error]
	} = (*conntrack.Conn)(nil)

	_ interface {
		CreateOrUpdate(f conntrack.Flow) error
		CreateOrUpdateBatch(flows []conntrack.Flow) error
		UpdateFunc(ctx context.Context, f conntrack.Filter, change func(*conntrack.Flow) (conntrack.Flow, bool)) (updated int, err error)
		Dying(ctx context.Context) iter.Seq2[conntrack.Flow, error]
		Unconfirmed(ctx context.Context) iter.Seq2[conntrack.Flow, error]
		GetExpect(ex conntrack.Expect) (conntrack.Expect, error)
		UpdateExpect(ex conntrack.Expect) error
		DeleteExpect(ex conntrack.Expect) error
		FlushExpect() error
		FlushExpectHelper(name string) error
		ExpectsOf(ctx context.Context, master conntrack.Flow) iter.Seq2[conntrack.Expect, error]
		PortID() uint32
	} = (*conntrack.Conn)(nil)

	// What prints, and what reads it.
	_ = []fmt.Stringer{conntrack.Flow{}, conntrack.Expect{}, conntrack.Event{}}
	_ = []json.Marshaler{conntrack.Flow{}, conntrack.Expect{}, conntrack.Event{}}
	_ = []json.Unmarshaler{(*conntrack.Flow)(nil), (*conntrack.Expect)(nil), (*conntrack.Event)(nil)}
	_ = []slog.LogValuer{conntrack.Flow{}, conntrack.Expect{}, conntrack.Event{}}

	_ func(string) (conntrack.Flow, error)   = conntrack.ParseFlow
	_ func(string) (conntrack.Expect, error) = conntrack.ParseExpect
	_ func(string) (conntrack.Event, error)  = conntrack.ParseEvent

	_ *error = &conntrack.ErrOverrun
)

func TestAPIAddedFields(t *testing.T) {
	fields[conntrack.Filter, struct {
		Mark, Mask         uint32
		Family             netfilter.ProtoFamily
		Status, StatusMask conntrack.StatusFlag
		Zone               *uint16
		Orig, Reply        conntrack.Tuple
	}](t)
}

func TestAPIErrOverrun(t *testing.T) {
	assert.ErrorIs(t, conntrack.ErrOverrun, syscall.ENOBUFS)
}
