//go:build linux

package nfnl

import (
	"testing"

	"github.com/ti-mo/conntrack/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }
