"""Have single threads of a process make a system call: examine, stop, call, let go, say what became of it."""

import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from errno import EPERM

from ioflusher.flag.attach.arch import Architecture, Call, CallName
from ioflusher.flag.attach.inject import Injector, check_filters
from ioflusher.flag.attach.outcome import Refused, ThreadOutcome, ThreadResult
from ioflusher.flag.attach.tracee import Tracee
from ioflusher.flag.threads import Thread, thread_state
from ioflusher.kernel.blocked import Blocked
from ioflusher.kernel.capability import CAP_SYS_RESOURCE
from ioflusher.kernel.status import TaskStatus, parse_status

_PATIENCE = 0.05  # seconds; a thread that takes longer to stop is left for later


@dataclass(frozen=True, slots=True)
class Pending:
    """A thread that was asked to stop and did not yet; and what was known of it before."""

    tracee: Tracee
    state: Thread
    call: Call
    status: TaskStatus
    blocked: Blocked | None


class UninterruptibleSleep(Exception):
    """The thread is in uninterruptible sleep: it cannot be stopped now, but may be later."""


class Caller:
    """Has threads of one process make calls.

    `directory` is its task directory in /proc, `patience` in seconds how long a stopped thread may take to
    make a call.
    """

    def __init__(self, architecture: Architecture, directory: str, patience: float) -> None:
        self._architecture = architecture
        self._directory = directory
        self._patience = patience
        self._injector = Injector(architecture, directory)
        self._stuck: dict[int, Tracee] = {}

    def begin(self, state: Thread, call: Call, *, dry_run: bool = False) -> ThreadOutcome | Pending:
        """Have the thread make the call; pending where it does not stop at once.

        Raises:
            UninterruptibleSleep: where it is in uninterruptible sleep.
        """
        try:
            pending = self._examine(state, call)
            if dry_run:
                return ThreadOutcome(state.tid, state.comm, ThreadResult.WOULD)
            self._seize(pending)
        except (ProcessLookupError, FileNotFoundError):
            return ThreadOutcome(state.tid, state.comm, ThreadResult.GONE)
        except Refused as refusal:
            return _refused(state, refusal)
        return self.carry_on(pending, time.monotonic() + _PATIENCE) or pending

    def carry_on(self, pending: Pending, deadline: float) -> ThreadOutcome | None:
        """Have a thread that was asked to stop make the call; None if it does not stop before `deadline`."""
        state = pending.state
        result = ThreadOutcome(state.tid, state.comm, ThreadResult.DONE)
        try:
            if not self._injector.stop(pending.tracee, pending.blocked, deadline):
                return None
            self._make_call(pending)
        except (ProcessLookupError, FileNotFoundError):
            result = replace(result, outcome=ThreadResult.GONE)
        except Refused as refusal:
            result = _refused(state, refusal)
        except OSError as error:
            result = replace(result, outcome=ThreadResult.FAILED, detail=error.strerror or str(error))
        if pending.tracee.stopped:
            self._let_go(pending.tracee)
        elif result.outcome is not ThreadResult.GONE:
            self._stuck[state.tid] = pending.tracee
        return result

    def release(self, tid: int, status: int) -> None:
        """Let a thread go that was given up and reports only now; it goes back by itself."""
        tracee = self._stuck.pop(tid, None)
        if tracee is not None:
            tracee.posted = status
            report = tracee.poll()
            self._let_go(tracee, report.signal if report else 0)

    def _let_go(self, tracee: Tracee, number: int = 0) -> None:
        with suppress(ProcessLookupError):
            tracee.let_go(number)

    def _examine(self, state: Thread, call: Call) -> Pending:
        """What must be known before the thread is stopped; Refused where it had better not be."""
        directory = f"{self._directory}/{state.tid}"
        status = parse_status(_read(f"{directory}/status"))
        if status.state == "D":
            raise UninterruptibleSleep
        if status.tracer_pid:
            raise Refused(ThreadResult.TRACED, f"by process {status.tracer_pid}")
        lacking = status.capabilities.missing(CAP_SYS_RESOURCE)
        if call.name is CallName.PRCTL and "effective" in lacking:
            raise Refused(
                ThreadResult.NOT_PERMITTED, "it lacks CAP_SYS_RESOURCE; start it under `ioflusher run`"
            )
        return Pending(Tracee(state.tid), state, call, status, self._injector.blocked(state.tid))

    def _seize(self, pending: Pending) -> None:
        try:
            pending.tracee.seize()
        except PermissionError as error:
            directory = f"{self._directory}/{pending.state.tid}"
            tracer = parse_status(_read(f"{directory}/status")).tracer_pid
            if tracer:
                raise Refused(ThreadResult.TRACED, f"by process {tracer}") from error
            current = thread_state(directory)
            if current is None or current.ended:
                raise ProcessLookupError from error
            raise Refused(
                ThreadResult.DENIED, "that needs CAP_SYS_PTRACE, and no lock by kernel.yama"
            ) from error
        pending.tracee.interrupt()

    def _make_call(self, pending: Pending) -> None:
        """Have the stopped thread make the call; Refused where that did not work."""
        call, tracee = pending.call, pending.tracee
        check_filters(tracee, pending.status, call, self._architecture)
        deadline = time.monotonic() + self._patience + call.seconds
        result = self._injector.call(tracee, call, pending.blocked, deadline)
        if result == 0:
            return
        detail = f"{call.name.value} there says: {os.strerror(-result)}"
        raise Refused(ThreadResult.NOT_PERMITTED if result == -EPERM else ThreadResult.FAILED, detail)


def _refused(state: Thread, refusal: Refused) -> ThreadOutcome:
    return ThreadOutcome(
        state.tid, state.comm, refusal.outcome, refusal.detail, reason=refusal.reason, hint=refusal.hint
    )


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()
