"""Have a stopped thread make one system call, and let it go on as if nothing had happened."""

import os
import time
from contextlib import suppress
from errno import EPERM
from pathlib import Path

from ioflusher.flag.attach.arch import Architecture, Call, Position
from ioflusher.flag.attach.outcome import LeftOutReason, Refused, ThreadResult
from ioflusher.flag.attach.slots import Slots
from ioflusher.flag.attach.tracee import Tracee
from ioflusher.kernel import seccomp
from ioflusher.kernel.blocked import Blocked, parse_syscall
from ioflusher.kernel.nbd import NBD_DO_IT
from ioflusher.kernel.ptrace import Stop
from ioflusher.kernel.seccomp import Action
from ioflusher.kernel.status import SECCOMP_MODE_DISABLED, SECCOMP_MODE_FILTER, TaskStatus, parse_status

_ONLY_COMPUTES = "it computes in vector registers that a call destroys, and makes no call itself"
_NEVER_CALLED = "it stopped, but did not get to make the call in time"
_PAUSE = 0.0002  # seconds; to leave a restartable sequence, which is a few instructions long


class Injector:
    """Makes the threads of one process execute system calls.

    `directory` is the process's task directory in /proc.
    """

    def __init__(self, architecture: Architecture, directory: str) -> None:
        self._architecture = architecture
        self._directory = directory
        self._slots = Slots(architecture)

    def stop(self, tracee: Tracee, blocked: Blocked | None, deadline: float) -> bool:
        """Wait until the thread that was asked to stop did; signals on the way are handed on.

        A wait that ended with EINTR because of the stop is made to go on.

        False where the deadline passed: the thread still may stop later.

        Raises:
            ProcessLookupError: where it ended.
        """
        while (report := tracee.wait(deadline)) is not None:
            if report.stop is Stop.GONE:
                raise ProcessLookupError
            if report.stop is Stop.TRAP:
                self._repeat_interrupted_call(tracee, blocked)
                return True
            if report.stop is Stop.SIGNAL and not self._status(tracee).catches(report.signal):
                # Untraced, a thread is not woken up by a signal that is ignored.
                self._repeat_interrupted_call(tracee, blocked)
            tracee.interrupt()  # any stop takes the request back
            tracee.go_on(report.signal)
        return False

    def call(self, tracee: Tracee, call: Call, blocked: Blocked | None, deadline: float) -> int:
        """Have the stopped thread make the call; what it returned. The thread then is still stopped.

        Raises:
            Refused: where it cannot be made to, or did not get to it in time.
            ProcessLookupError: where the thread ended.
        """
        while True:
            registers, position = self._look(tracee, blocked)
            if self._architecture.at_stake(tracee.other_registers):
                blocked = self._to_next_call(tracee, deadline)
                if not self.stop(tracee, blocked, deadline):
                    raise Refused(ThreadResult.TIMED_OUT, _ONLY_COMPUTES)
                continue
            if position.instruction is None and tracee.in_restartable_sequence(position.address):
                if time.monotonic() > deadline:
                    raise Refused(ThreadResult.TIMED_OUT, "it never left its restartable sequence (rseq)")
                tracee.go_on()
                time.sleep(_PAUSE)
                tracee.interrupt()
            else:
                result = self._take_detour(tracee, registers, position, call, blocked, deadline)
                if result is not None:
                    return result
            blocked = None  # it went on since then
            if not self.stop(tracee, blocked, deadline):
                raise Refused(ThreadResult.TIMED_OUT, "it was busy with signals")

    def _to_next_call(self, tracee: Tracee, deadline: float) -> Blocked | None:
        """Let the thread make a system call of its own and ask it to stop there; which call that is.

        There the registers that a call destroys hold nothing of value. None where it cannot be known.

        Raises:
            Refused: where it makes none in time, or one that must not be interrupted.
            ProcessLookupError: where the thread ended.
        """
        tracee.go_on_to_call()
        while (report := tracee.wait(deadline)) is not None:
            if report.stop is Stop.GONE:
                raise ProcessLookupError
            if report.stop is Stop.SYSCALL:
                blocked = self.blocked(tracee.tid)
                tracee.interrupt()
                tracee.go_on()
                return blocked
            tracee.go_on_to_call(report.signal)
        raise Refused(ThreadResult.TIMED_OUT, _ONLY_COMPUTES)

    def blocked(self, tid: int) -> Blocked | None:
        """The system call that the thread waits in, None where it is in none or that cannot be known.

        Raises:
            Refused: where it must not be interrupted.
        """
        try:
            blocked = parse_syscall(Path(f"{self._directory}/{tid}/syscall").read_bytes())
        except PermissionError:
            return None
        if blocked and blocked.number == self._architecture.row.ioctl and blocked.arguments[1] == NBD_DO_IT:
            # drivers/block/nbd.c, nbd_start_device_ioctl: wait_event_interruptible(), then sock_shutdown()
            # where it was interrupted; PTRACE_INTERRUPT, SIGSTOP and the freezer wake it up as a signal does.
            raise Refused(
                ThreadResult.UNSAFE,
                "it waits in ioctl(NBD_DO_IT): interrupted, the kernel disconnects the device",
                reason=LeftOutReason.NBD_DO_IT,
                hint="the thread only holds the device, and allocates nothing while it waits; to have the "
                "state there too, disconnect the device and start the program under `ioflusher run`",
            )
        return blocked

    def _look(self, tracee: Tracee, blocked: Blocked | None) -> tuple[bytes, Position]:
        """The stopped thread's registers and where it is."""
        registers = tracee.registers(self._architecture.registers_size)
        if len(registers) != self._architecture.registers_size:
            raise Refused(ThreadResult.UNSUITABLE, "it runs 32-bit code")
        position = self._architecture.position(registers, blocked)
        if position.instruction is not None:
            entry = self._architecture.syscall_instruction
            found = tracee.read(position.instruction, 8)
            if found is None or found[: len(entry)] != entry:
                raise Refused(ThreadResult.UNSUITABLE, "it entered the kernel in an unusual way")
        return registers, position

    def _take_detour(
        self,
        tracee: Tracee,
        registers: bytes,
        position: Position,
        call: Call,
        blocked: Blocked | None,
        deadline: float,
    ) -> int | None:
        """The call's result; None where a signal came first: the thread has it now, and was asked to stop."""
        slot = self._slots.at(tracee, self._directory, position.address)
        detour = self._architecture.detour(registers, call, slot, blocked)
        tracee.write(slot, detour.code)
        tracee.set_registers(detour.enter)
        entered = False
        while True:
            tracee.go_on_to_call()
            report = tracee.wait(deadline)
            if report is None:
                # The code in the slot is the thread's way back now: nobody else may use the slot.
                self._slots.give_up(slot)
                why = (
                    f"{call.name.value} there has not returned yet, and goes on" if entered else _NEVER_CALLED
                )
                raise Refused(ThreadResult.TIMED_OUT, why)
            if report.stop is Stop.GONE:
                raise ProcessLookupError
            if report.stop is Stop.SIGNAL:
                tracee.set_registers(detour.resume)
                self._slots.clear(tracee, slot)
                tracee.interrupt()
                tracee.go_on(report.signal)
                return None
            if report.stop is Stop.SYSCALL and entered:
                result = self._architecture.result(tracee.registers(self._architecture.registers_size))
                tracee.set_registers(detour.resume)
                self._slots.clear(tracee, slot)
                return result
            entered = entered or report.stop is Stop.SYSCALL

    def _repeat_interrupted_call(self, tracee: Tracee, blocked: Blocked | None) -> None:
        """Have the stopped thread make its call once more if that ended with EINTR only because of us.

        This comes first: should we die now, the program sees no EINTR.
        """
        with suppress(Refused):
            registers, position = self._look(tracee, blocked)
            if (
                position.eintr
                and self._can_be_repeated(tracee, position.eintr)
                and self._no_handler_waits(tracee)
            ):
                tracee.set_registers(self._architecture.repeat(registers, position.eintr))

    def _can_be_repeated(self, tracee: Tracee, call: Blocked) -> bool:
        """Whether nothing happened yet when the call was interrupted, so that it can be made again."""
        if call.number in self._architecture.waits:
            return True
        if call.number not in self._architecture.socket_waits:
            return False
        try:
            kind = os.readlink(f"{self._directory}/{tracee.tid}/fd/{call.arguments[0]}")
        except OSError:
            return False
        return kind.startswith("socket:")

    def _no_handler_waits(self, tracee: Tracee) -> bool:
        """Whether no signal waits whose handler shall run before the call is made again."""
        return self._architecture.ends_for_handlers or not self._status(tracee).handler_waits

    def _status(self, tracee: Tracee) -> TaskStatus:
        return parse_status(Path(f"{self._directory}/{tracee.tid}/status").read_bytes())


def check_filters(tracee: Tracee, status: TaskStatus, call: Call, architecture: Architecture) -> None:
    """Make sure that the stopped thread's seccomp filters let the call pass; some would kill the process.

    Raises:
        Refused: where they do not, or cannot be read.
    """
    if status.seccomp == SECCOMP_MODE_DISABLED:
        return
    if status.seccomp != SECCOMP_MODE_FILTER:
        raise Refused(ThreadResult.FILTERED, "seccomp's strict mode allows next to nothing")
    try:
        filters = tracee.seccomp_filters()
    except OSError as error:
        reason = "CAP_SYS_ADMIN is needed for that" if error.errno == EPERM else os.strerror(error.errno or 0)
        raise Refused(ThreadResult.FILTERED, f"its seccomp filter cannot be read: {reason}") from error
    row = architecture.row
    asked = seccomp.SeccompData(call.number(row), row.audit_arch, call.arguments)
    action = seccomp.judge(filters, asked)
    if action not in (Action.ALLOW, Action.LOG):
        raise Refused(ThreadResult.FILTERED, f"its filter answers {call.name.value} with {action.name}")
