"""ptrace(2): numbers of include/uapi/linux/ptrace.h, and what a wait status says of a traced thread."""

import os
import signal
from dataclasses import dataclass
from enum import Enum

PTRACE_POKEDATA = 5
PTRACE_CONT = 7
PTRACE_DETACH = 17
PTRACE_SYSCALL = 24
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
PTRACE_SECCOMP_GET_FILTER = 0x420C  # since 4.4
PTRACE_GET_RSEQ_CONFIGURATION = 0x420F  # since 5.13

PTRACE_O_TRACESYSGOOD = 1
PTRACE_EVENT_STOP = 128

# include/uapi/linux/elf.h
NT_PRSTATUS = 1
NT_ARM_SVE = 0x405  # since 4.15: the scalable vector registers of arm64
NT_ARM_SSVE = 0x40B  # since 5.19: the same in streaming mode (SME)

# include/uapi/linux/wait.h
WALL = 0x40000000  # also for threads that are not children, which traced ones are not
WNOTHREAD = 0x20000000  # only what the calling thread traces, not its process's other threads

# include/linux/errno.h: what an interrupted system call leaves for the way back to user space
ERESTARTSYS = 512
ERESTARTNOINTR = 513
ERESTARTNOHAND = 514  # restart unless a signal handler runs
ERESTART_RESTARTBLOCK = 516  # restart with restart_syscall(2), which knows how much of the wait is left


class Stop(Enum):
    """Why a seized thread reported."""

    TRAP = "stopped by PTRACE_INTERRUPT, or stopped with its process"
    SYSCALL = "at the entry or the exit of a system call"
    SIGNAL = "about to take a signal"
    OTHER = "stopped for another reason"
    GONE = "ended"


@dataclass(frozen=True, slots=True)
class StopReport:
    """What waitpid(2) said of a traced thread; `signal` is the number for Stop.SIGNAL, else 0."""

    stop: Stop
    signal: int = 0


def parse_wait_status(status: int) -> StopReport:
    """The report in a wait status of a thread seized with PTRACE_O_TRACESYSGOOD."""
    if not os.WIFSTOPPED(status):
        return StopReport(Stop.GONE)
    number, event = os.WSTOPSIG(status), status >> 16
    if event == PTRACE_EVENT_STOP:
        return StopReport(Stop.TRAP)
    if event:
        return StopReport(Stop.OTHER)
    if number == signal.SIGTRAP | 0x80:
        return StopReport(Stop.SYSCALL)
    return StopReport(Stop.SIGNAL, number)
