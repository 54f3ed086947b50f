//go:build !linux && !plan9

package nfnl

import "syscall"

// systemErrors are this system's errors by Linux's numbers.
var systemErrors = map[int32]error{
	1:   syscall.EPERM,
	2:   syscall.ENOENT,
	4:   syscall.EINTR,
	5:   syscall.EIO,
	9:   syscall.EBADF,
	11:  syscall.EAGAIN,
	12:  syscall.ENOMEM,
	13:  syscall.EACCES,
	16:  syscall.EBUSY,
	17:  syscall.EEXIST,
	22:  syscall.EINVAL,
	24:  syscall.EMFILE,
	28:  syscall.ENOSPC,
	34:  syscall.ERANGE,
	90:  syscall.EMSGSIZE,
	95:  syscall.EOPNOTSUPP,
	100: syscall.ENETDOWN,
	105: syscall.ENOBUFS,
	110: syscall.ETIMEDOUT,
	114: syscall.EALREADY,
}
