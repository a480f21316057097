package redisserver

import "syscall"

// dieWithParent has the kernel end the server where the test process dies without cleaning up.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
