//go:build linux

package testkit_test

import (
	"testing"

	"github.com/ti-mo/conntrack/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }
