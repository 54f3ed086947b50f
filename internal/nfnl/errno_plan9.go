package nfnl

import "syscall"

// systemErrors are this system's errors by Linux's numbers.
var systemErrors = map[int32]error{
	1:  syscall.EPERM,
	2:  syscall.ENOENT,
	4:  syscall.EINTR,
	5:  syscall.EIO,
	13: syscall.EACCES,
	16: syscall.EBUSY,
	17: syscall.EEXIST,
	22: syscall.EINVAL,
	24: syscall.EMFILE,
}
