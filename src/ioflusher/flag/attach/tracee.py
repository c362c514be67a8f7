"""One thread under ptrace: seize, stop, look, go on, let go, all with a deadline.

PTRACE_O_EXITKILL is not asked for: when the tracing thread ends, however it ends, the kernel lets its
tracees go on.
"""

import os
import signal
import struct
import time
from contextlib import suppress
from errno import EINVAL, EIO, ENODEV

from ioflusher.flag.attach.arch import WORD, words_of
from ioflusher.flag.threads import thread_state
from ioflusher.kernel.ptrace import (
    NT_PRSTATUS,
    PTRACE_CONT,
    PTRACE_DETACH,
    PTRACE_GET_RSEQ_CONFIGURATION,
    PTRACE_INTERRUPT,
    PTRACE_O_TRACESYSGOOD,
    PTRACE_POKEDATA,
    PTRACE_SECCOMP_GET_FILTER,
    PTRACE_SEIZE,
    PTRACE_SYSCALL,
    WALL,
    WNOTHREAD,
    Stop,
    StopReport,
    parse_wait_status,
)
from ioflusher.kernel.seccomp import Instruction, parse_filter
from ioflusher.kernel.syscalls import (
    ptrace,
    ptrace_get_registers,
    ptrace_read,
    ptrace_set_registers,
)

_PATIENCE = 0.01  # seconds; how long a lost SIGCHLD may delay us


def next_status() -> tuple[int, int] | None:
    """Number and wait status of any thread that this thread traces and that has a report, else None."""
    try:
        tid, status = os.waitpid(-1, WALL | WNOTHREAD | os.WNOHANG)
    except ChildProcessError:
        return None
    return (tid, status) if tid else None


class Tracee:
    """A thread of another process that this thread traces.

    Methods raise ProcessLookupError where the thread ended, or is not stopped though it must be; `seize`
    raises PermissionError where it may not be traced or is traced by another.
    """

    def __init__(self, tid: int) -> None:
        self.tid = tid
        self.stopped = False
        self._open_memory: int | None = None
        self.posted: int | None = None  # a wait status that `next_status` took for this thread

    def seize(self) -> None:
        """Begin to trace; the thread is not stopped by that."""
        ptrace(PTRACE_SEIZE, self.tid, 0, PTRACE_O_TRACESYSGOOD)

    def interrupt(self) -> None:
        """Ask the thread to stop; `wait` reports when it did."""
        ptrace(PTRACE_INTERRUPT, self.tid)

    def poll(self) -> StopReport | None:
        """The thread's next report, None where there is none yet."""
        if self.posted is None:
            try:
                tid, status = os.waitpid(self.tid, WALL | os.WNOHANG)
            except ChildProcessError:
                return StopReport(Stop.GONE)
            if tid == 0:
                return None
            self.posted = status
        report = parse_wait_status(self.posted)
        self.posted = None
        self.stopped = report.stop is not Stop.GONE
        if not self.stopped:
            self._goes_on()
        return report

    def wait(self, deadline: float) -> StopReport | None:
        """The thread's next report, None where none came before `deadline` (time.monotonic()).

        The calling thread must have SIGCHLD blocked: it is what wakes it up.
        """
        while (report := self.poll()) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            if signal.sigtimedwait((signal.SIGCHLD,), min(left, _PATIENCE)) is None and self.ended():
                return StopReport(Stop.GONE)
        return report

    def ended(self) -> bool:
        """Whether it is dead though nothing is reported: a first thread's end is, only after all others'."""
        state = thread_state(f"/proc/{self.tid}")
        return state is None or state.ended

    def go_on(self, number: int = 0) -> None:
        """Let the stopped thread go on, with a signal where `number` is not 0."""
        self._goes_on()
        ptrace(PTRACE_CONT, self.tid, 0, number)

    def go_on_to_call(self, number: int = 0) -> None:
        """As `go_on`, to the next entry or exit of a system call."""
        self._goes_on()
        ptrace(PTRACE_SYSCALL, self.tid, 0, number)

    def let_go(self, number: int = 0) -> None:
        """Stop tracing the stopped thread; it goes on, with a signal where `number` is not 0.

        With its process stopped by a signal it stays stopped.
        """
        self._goes_on()
        ptrace(PTRACE_DETACH, self.tid, 0, number)

    def registers(self, size: int) -> bytes:
        """The stopped thread's registers; shorter than `size` where it runs 32-bit code."""
        return ptrace_get_registers(self.tid, NT_PRSTATUS, size)

    def other_registers(self, note: int, size: int) -> bytes:
        """Another register set of the stopped thread (NT_*), at most `size` bytes; empty without one."""
        try:
            return ptrace_get_registers(self.tid, note, size)
        except OSError as error:
            if error.errno in (EINVAL, ENODEV):  # the kernel, the processor
                return b""
            raise

    def set_registers(self, registers: bytes) -> None:
        """Change the stopped thread's registers."""
        ptrace_set_registers(self.tid, NT_PRSTATUS, registers)

    def read(self, address: int, size: int) -> bytes | None:
        """`size` bytes of the stopped thread's memory; None where nothing is mapped."""
        try:
            return os.pread(self._memory(), size, address)
        except OSError as error:
            if error.errno == EIO:
                return None
            raise

    def write(self, address: int, code: bytes) -> None:
        """Write whole words, also where the thread itself may only read and execute."""
        with suppress(OSError):
            if os.pwrite(self._memory(), code, address) == len(code):
                return
        # Kernels can be set up to refuse that to /proc/PID/mem (proc_mem.force_override, since 6.12).
        for place, word in enumerate(words_of(code)):
            ptrace(PTRACE_POKEDATA, self.tid, address + WORD * place, word)

    def _memory(self) -> int:
        """The memory of the program that the stopped thread executes now; execve(2) brings another."""
        if self._open_memory is None:
            self._open_memory = os.open(f"/proc/{self.tid}/mem", os.O_RDWR)
        return self._open_memory

    def _goes_on(self) -> None:
        self.stopped = False
        if self._open_memory is not None:
            os.close(self._open_memory)
            self._open_memory = None

    def in_restartable_sequence(self, address: int) -> bool:
        """Whether `address` lies in the stopped thread's current restartable sequence (rseq(2)).

        Taken out of it, the thread would go on in it without the kernel's guard. Before 5.13 the kernel
        has no such request: then False.
        """
        try:
            configuration = ptrace_read(PTRACE_GET_RSEQ_CONFIGURATION, self.tid, 24, 24)
        except OSError as error:
            if error.errno in (EINVAL, EIO):
                return False
            raise
        (area,) = struct.unpack_from("=Q", configuration)
        # include/uapi/linux/rseq.h: struct rseq.rseq_cs is at 8, struct rseq_cs has start_ip at 8
        sequence = self.read(area + 8, 8) if area else None
        pointer = struct.unpack("=Q", sequence)[0] if sequence else 0
        bounds = self.read(pointer + 8, 16) if pointer else None
        if bounds is None:
            return False
        start, length = struct.unpack("=QQ", bounds)
        return bool(start <= address < start + length)

    def seccomp_filters(self) -> tuple[tuple[Instruction, ...], ...]:
        """The stopped thread's seccomp filters.

        Raises:
            OSError: where the kernel does not give them: without CAP_SYS_ADMIN, or not built in.
        """
        filters: list[tuple[Instruction, ...]] = []
        while True:
            try:
                length = ptrace(PTRACE_SECCOMP_GET_FILTER, self.tid, len(filters))
            except FileNotFoundError:  # ENOENT: there are no more
                return tuple(filters)
            program = ptrace_read(PTRACE_SECCOMP_GET_FILTER, self.tid, len(filters), 8 * length)
            filters.append(parse_filter(program))
