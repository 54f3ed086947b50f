//go:build linux

package comparison_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/cttext"
	"github.com/ti-mo/conntrack/internal/nstest"
)

// carryOut carries out a command. It returns the flows that conntrack(8) would
// count.
func carryOut(c *conntrack.Conn, cmd *cttext.Command) (flows []conntrack.Flow, err error) {
	ctx := context.Background()
	switch cmd.Op {
	case cttext.OpCreate:
		return []conntrack.Flow{cmd.Flow}, c.Create(cmd.Flow)
	case cttext.OpAdd:
		return []conntrack.Flow{cmd.Flow}, c.CreateOrUpdate(cmd.Flow)
	case cttext.OpUpdate:
		_, err = c.UpdateFunc(ctx, cmd.Filter, func(f *conntrack.Flow) (conntrack.Flow, bool) {
			change, ok := cmd.Change(f)
			if ok {
				flows = append(flows, *f)
			}
			return change, ok
		})
	case cttext.OpDelete:
		_, err = c.DeleteFunc(ctx, cmd.Filter, func(f *conntrack.Flow) bool {
			ok := cmd.Match(f)
			if ok {
				flows = append(flows, *f)
			}
			return ok
		})
	case cttext.OpGet:
		f, err := c.Get(cmd.Flow)
		if err != nil || !cmd.Match(&f) {
			return nil, err
		}
		return []conntrack.Flow{f}, nil
	case cttext.OpList:
		for f, err := range c.Flows(ctx, cmd.Filter, nil) {
			if err != nil {
				return nil, err
			}
			if cmd.Match(&f) {
				flows = append(flows, f)
			}
		}
	}
	return flows, err
}

// carryOutLine carries out a command line like conntrack(8). If there is
// nothing to do, it fails, unless the command is a list.
func carryOutLine(c *conntrack.Conn, line string) ([]conntrack.Flow, error) {
	cmd, err := cttext.Options{Labels: textLabels}.ParseCommand(line)
	if err != nil {
		return nil, err
	}
	flows, err := carryOut(c, &cmd)
	if err == nil && len(flows) == 0 && cmd.Op != cttext.OpList {
		err = errors.New("no flows")
	}
	return flows, err
}

// commandTable is the table on which the commands below run.
var commandTable = []string{
	"-I -s 10.0.0.1 -d 10.0.0.2 -p udp --sport 1 --dport 53 -t 3000 -m 7",
	"-I -s 10.0.0.1 -d 10.0.0.3 -p udp --sport 8 --dport 53 -t 3000 -u SEEN_REPLY,ASSURED -m 8",
	"-I -s 10.0.1.1 -d 10.0.0.2 -p tcp --sport 10 --dport 80 -t 3000 --state ESTABLISHED -u SEEN_REPLY",
	"-I -s 10.0.1.1 -d 10.0.0.2 -p tcp --sport 11 --dport 80 -t 3000 --state CLOSE -m 0xff -g 10.9.9.9:8080",
	"-I -s 10.0.1.2 -d 10.0.0.2 -p tcp --sport 12 --dport 80 -t 3000 --state CLOSE -n 10.8.8.8",
	"-I -s 2001:db8::1 -d 2001:db8::2 -p udp --sport 1 --dport 53 -t 3000",
	"-I -s 10.0.2.1 -d 10.0.0.2 -p udp --sport 1 --dport 53 -t 3000 -w 8",
	"-I -s 10.0.0.1 -d 10.0.0.9 -p gre --srckey 8 --dstkey 0x10 -t 3000",
	"-I -s 10.0.0.1 -d 10.0.0.9 -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 5 -t 3000",
	"-I -s 10.0.0.1 -d 10.0.0.9 -p 2 -t 3000",
}

// TestCommands asserts that commands carried out by this package and by
// conntrack(8) leave the same flows and fail alike. Each runs in its own
// namespace.
func TestCommands(t *testing.T) {
	t.Parallel()
	old := nstest.OldConntrack(t)
	lines := []string{
		// Numbers.
		"-I -s 1.1.1.1 -d 2.2.2.2 -p 021 --sport 010 --dport 2 -t 03000 -m 010 -w 010",
		"-I -s 1.1.1.1 -d 2.2.2.2 -p 0x2f --srckey 010 --dstkey 0x10 -t 3000 --orig-zone 011",
		"-I -s 1.1.1.1 -d 2.2.2.2 -p ICMP --icmp-type 08 --icmp-code 0 --icmp-id 010 -t 3000 -m 0X1F",
		"-I -s 1.1.1.1 -d 2.2.2.2 -p sctp --sport 010 --dport 2 -t 3000 --state CLOSED --orig-vtag 010 --reply-vtag 2",
		// Adding flows.
		"-I -s 10.0.0.1 -d 10.0.0.2 -p udp --sport 1 --dport 53 -t 3000 -m 0",
		"-I -r 2.2.2.2 -q 1.1.1.1 -p tcp --reply-port-src 11 --reply-port-dst 21 --state LISTEN -u SEEN_REPLY -t 3000",
		"-I -s 2001:db8::7 -d 2001:db8::8 -p udp --sport 1 --dport 2 -g [2001:db8::3]:80 -t 3000 -m 3/1",
		// Deleting flows.
		"-D", "-D -m 7", "-D -m 07", "-D -m 010", "-D -m 0", "-D -m 0/1", "-D -m 1/3", "-D -s 10.0.0.1 -d 10.0.0.2 -p udp --sport 1 --dport 53 -m 9",
		"-D -s 10.0.0.1", "-D -s 10.0.1.0/24", "-D -s 10.0.0.0 --mask-src 255.255.0.0 -d 10.0.0.2", "-D -d 2001:db8::/32", "-D -f ipv6", "-D -f ipv4",
		"-D -p tcp", "-D -p 6 --dport 080", "-D -p tcp --state CLOSE", "-D -p tcp --sport 12 --state ESTABLISHED", "-D -p tcp --reply-port-src 8080",
		"-D -p udp --sport 0", "-D -p icmp --icmp-type 0", "-D -p icmp --icmp-type 8 --icmp-id 5", "-D -p gre --srckey 010", "-D -p 2", "-D -p igmp",
		"-D -u SEEN_REPLY", "-D -u ASSURED,SEEN_REPLY", "-D -u UNSET", "-D -w 8", "-D -w 010", "-D -w 0", "-D -p udp -t 1",
		"-D -r 10.9.9.9", "-D -q 10.8.8.8", "-D -g", "-D -n", "-D -g 10.9.9.9", "-D -g 10.9.9.9:8080", "-D -g 10.9.9.9:80", "-D -n 10.8.8.8", "-D -n -g",
		// Changing flows.
		"-U -s 10.0.0.1 -m 0", "-U -s 10.0.0.1 -m 010", "-U -s 10.0.0.1 -m 0/1", "-U -s 10.0.0.1 -m 6/1", "-U -s 10.0.1.1 -m 0xff", "-U -s 10.0.0.1 -m 7",
		"-U -s 10.0.0.1 -u ASSURED,SEEN_REPLY", "-U -s 10.0.1.1 -p tcp --sport 10 --state CLOSE_WAIT", "-U -s 9.9.9.9 -m 5", "-U -s 10.0.0.1 -d 10.0.0.3 -t 4000",
		"-U -s 10.0.1.1 -p tcp --sport 11 -m 5", "-U -s 10.0.1.0/24 -m 5",
		// Refused commands.
		"-D -s ::1 -d 2.2.2.2", "-G -s 10.0.0.1", "-U -w 8 -m 1", "-D -l none", "-D -p tcp --state OPEN", "-I -s 1.1.1.1 -d 2.2.2.2 -p 99",
		"-I -s 1.1.1.1 -p udp --sport 1 --dport 2 -t 3000", "-D -g 1.1.1.1:", "-D -g [::1]", "-G -p udp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 53",
		"-G -p udp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 53 -i 1", "-L -j -g", "-L -j 10.9.9.9",
	}
	if !old {
		const flow = " -s 10.0.0.1 -d 10.0.0.2 -p udp --sport 1 --dport 53 -t 3000"
		lines = append(lines, "-U -f ipv6 -m 5", "-A"+flow+" -m 8", "-A"+flow+" -m 0")
	}
	table := filepath.Join(t.TempDir(), "table")
	require.NoError(t, os.WriteFile(table, []byte(strings.Join(commandTable, "\n")+"\n"), 0o600))
	for _, line := range lines {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			ours, theirs := nstest.New(t, nstest.NoTracking()), nstest.New(t, nstest.NoTracking())
			c := dial(t, ours)
			for _, l := range commandTable {
				_, err := carryOutLine(c, l)
				require.NoError(t, err, l)
			}
			run(t, theirs, "-R "+table)
			require.Equal(t, tableOf(t, theirs), tableOf(t, ours))
			_, err := carryOutLine(c, line)
			_, message, theirErr := try(t, theirs, line)
			require.Equal(t, theirErr == nil, err == nil, "%v, %v: %s", err, theirErr, message)
			require.Equal(t, tableOf(t, theirs), tableOf(t, ours))
			require.NotErrorIs(t, err, unix.EINVAL)
		})
	}
}

// tableOf returns the flows of a namespace as lines, without the parts that
// change with time.
func tableOf(t *testing.T, ns *nstest.NS) (lines []string) {
	t.Helper()
	c, err := conntrack.Dial(ns.Config())
	require.NoError(t, err)
	defer c.Close()
	flows, err := c.Dump(nil)
	require.NoError(t, err)
	for _, f := range flows {
		f.Use = 0
		f.Timeout = (f.Timeout + 100) / 1000 // may have counted down
		lines = append(lines, cttext.Options{Extended: true}.Flow(&f), strings.TrimSpace(cttext.Options{Save: true}.Flow(&f)))
	}
	slices.Sort(lines)
	return lines
}
