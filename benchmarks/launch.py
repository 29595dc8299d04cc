"""Runs one command and prints its wall-clock and processor seconds and its peak resident memory.

A process of its own, and a small one: the kernel counts what its parent held at the start as a process's own.
"""

import os
import sys
import time

began = time.perf_counter()
silence = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=silence)
_, status, usage = os.wait4(pid, 0)
print(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
