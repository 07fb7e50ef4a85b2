"""What each process asks of the system before anything else."""

import ctypes
import os
import resource
import signal
import sys

#: Of <linux/prctl.h>.
_PR_SET_DUMPABLE = 4


def prepare() -> None:
    """For a program that goes on running: no core dumps, and no zombies. For the main thread."""
    open_standard_streams()
    forbid_core_dumps()
    reap_children()


def forbid_core_dumps() -> None:
    """Private keys and passwords are in the memory of a process: no file of it is written, whatever ends the process.

    On Linux other processes of the same user can't read the memory either (`ptrace`, `/proc/<pid>/mem`). The limit alone would not do:
    the system ignores it where core dumps are handed to a program (`kernel.core_pattern`).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, *(ctypes.c_ulong(0),) * 4)


def reap_children() -> None:
    """Have the system remove children as they end.

    We start none, and have some all the same: those of a shell that became this program, and every orphan where we are process 1.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # Those that have ended already.
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def open_standard_streams() -> None:
    """Have 0, 1 and 2 be open, if only to nowhere.

    Of a program that was started without (`2>&-`) the next socket would be number 2, and libraries write their complaints there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free
