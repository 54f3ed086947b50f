package conntrack_test

import (
	"context"
	"iter"
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
		DeleteFunc(ctx context.Context, f conntrack.Filter, match func(*conntrack.Flow) bool) (deleted int, err error)
		Events(ctx context.Context, groups []netfilter.NetlinkGroup, opts *conntrack.EventOptions) iter.Seq2[conntrack.Event, error]
	} = (*conntrack.Conn)(nil)

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
