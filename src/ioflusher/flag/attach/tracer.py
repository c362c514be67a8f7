"""The tracing thread: goes through the threads of one process until none is left to change."""

import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from ioflusher.flag.attach.arch import Architecture, Call, CallName
from ioflusher.flag.attach.caller import Caller, Pending, UninterruptibleSleep
from ioflusher.flag.attach.memory import lock_process_memory
from ioflusher.flag.attach.outcome import (
    GOOD,
    MemoryOutcome,
    ProcessOutcome,
    ThreadOutcome,
    ThreadResult,
)
from ioflusher.flag.attach.tracee import Tracee, next_status
from ioflusher.flag.errors import FlagError, NoSuchProcessError
from ioflusher.flag.threads import Bits, Thread, thread_state, thread_states
from ioflusher.kernel.prctl import PR_SET_IO_FLUSHER
from ioflusher.kernel.status import parse_status

_PAUSE = 0.02  # seconds between two looks at threads that do not stop
_FAILED_WHERE_IT_ENDS = (ThreadResult.FAILED, ThreadResult.TIMED_OUT, ThreadResult.UNSUITABLE)
_ROUNDS = 200  # looks that find something to do; a process that needs more outruns us


class Tracer:
    """See `put_state`, whose arguments these are."""

    def __init__(
        self,
        pid: int,
        state: bool,
        architecture: Architecture,
        threads: Collection[int] | None,
        lock_memory: bool,
        timeout: float,
        dry_run: bool,
        proc: Path,
    ) -> None:
        self.cancelled = False
        self._pid = pid
        self._state = state
        self._only = threads
        self._lock_memory = lock_memory
        self._timeout = timeout
        self._dry_run = dry_run
        self._proc = proc
        self._directory = f"{proc}/{pid}/task"
        self._caller = Caller(architecture, self._directory, timeout)
        self._call = Call(CallName.PRCTL, (PR_SET_IO_FLUSHER, int(state)))
        self._begun = self._progress = time.monotonic()
        self._threads: dict[int, ThreadOutcome] = {}
        self._slow: dict[int, Pending] = {}
        self._memory: MemoryOutcome | None = None
        self._failure: BaseException | None = None

    def outcome(self) -> ProcessOutcome:
        """What became of it; raises what stopped the work."""
        if self._failure is not None:
            raise self._failure
        threads = tuple(self._threads[tid] for tid in sorted(self._threads))
        took = time.monotonic() - self._begun
        return ProcessOutcome(self._pid, self._state, threads, self._memory, took)

    def run(self) -> None:
        """Do it all; the body of the tracing thread."""
        try:
            states = thread_states(self._pid, proc=self._proc)
            if all(state.ended for state in states):
                raise NoSuchProcessError(self._pid)
            if states[0].kernel_thread:
                raise FlagError(
                    f"{self._pid} is a kernel thread", hint="the kernel sets the flags of its threads itself"
                )
            process = self._process()
            if process != self._pid:
                raise FlagError(
                    f"{self._pid} is a thread of process {process}", hint="name the process itself"
                )
            self._cover(states)
            self._mark_ended()
            if self._lock_memory and not self.cancelled:
                self._memory = lock_process_memory(
                    self._pid,
                    self._call_in_any_thread,
                    self._timeout,
                    dry_run=self._dry_run,
                    proc=self._proc,
                )
        except BaseException as error:
            self._failure = error

    def _process(self) -> int:
        """The process to which the number belongs: numbers are used again, so their order says nothing."""
        try:
            return parse_status((self._proc / str(self._pid) / "status").read_bytes()).tgid
        except (FileNotFoundError, ProcessLookupError) as error:
            raise NoSuchProcessError(self._pid) from error

    def _cover(self, states: tuple[Thread, ...]) -> None:
        """Go through the threads until none is left that could still be changed."""
        for _ in range(_ROUNDS):
            before = self._progress
            waiting = [state for state in states if not self.cancelled and self._waits(state)]
            while self._progress == before:
                if self.cancelled or not (waiting or self._slow):
                    return
                if time.monotonic() > self._progress + self._timeout:
                    self._give_up(waiting)
                    return
                time.sleep(_PAUSE)
                self._drop_ended()
                waiting = [state for state in waiting if self._waits(state)]
                self._handle_late_stops()
            try:
                states = thread_states(self._pid, proc=self._proc)
            except NoSuchProcessError:
                return  # it ended while we worked on it
        for state in states:
            if not self._as_wanted(state) and state.tid not in self._threads:
                self._record(state, ThreadResult.FAILED, "new threads start faster than they can be covered")

    def _waits(self, state: Thread) -> bool:
        """Deal with one thread; True where it cannot be stopped now but may be later."""
        self._handle_late_stops()
        known = self._threads.get(state.tid)
        if state.ended or state.tid in self._slow:
            return False
        if self._only is not None and state.tid not in self._only:
            return False
        if self._as_wanted(state):
            if known is None:
                self._record(state, ThreadResult.ALREADY)
        elif known is not None and known.outcome is ThreadResult.DONE:
            self._record(state, ThreadResult.FAILED, "the thread undid it")
        elif known is not None and known.outcome is not ThreadResult.ALREADY:
            pass  # it was refused before
        elif state.kernel_worker:
            self._record(
                state,
                ThreadResult.UNSUITABLE,
                "a worker of the kernel (io_uring, vhost): new ones follow the thread that needs them",
            )
        else:
            try:
                self._take(state.tid, self._caller.begin(state, self._call, dry_run=self._dry_run))
            except UninterruptibleSleep:
                return True
        return False

    def _take(self, tid: int, result: ThreadOutcome | Pending) -> None:
        if isinstance(result, Pending):
            self._slow[tid] = result
        else:
            self._threads[tid] = result
            self._progress = time.monotonic()

    def _record(self, state: Thread, outcome: ThreadResult, detail: str = "") -> None:
        self._take(state.tid, ThreadOutcome(state.tid, state.comm, outcome, detail))

    def _handle_late_stops(self) -> None:
        """Threads that stop only now must not stand still while we deal with others."""
        while (report := next_status()) is not None:
            tid, status = report
            if tid not in self._slow:
                self._caller.release(tid, status)
                continue
            self._slow[tid].tracee.posted = status
            result = self._caller.carry_on(self._slow[tid], time.monotonic())
            if result is not None:
                del self._slow[tid]
                self._take(tid, result)

    def _drop_ended(self) -> None:
        for tid in [tid for tid, pending in self._slow.items() if pending.tracee.ended()]:
            pending = self._slow.pop(tid)
            self._record(pending.state, ThreadResult.GONE)

    def _mark_ended(self) -> None:
        """What failed because the thread was about to die did not fail."""
        for tid, thread in self._threads.items():
            if thread.outcome in _FAILED_WHERE_IT_ENDS and Tracee(tid).ended():
                self._threads[tid] = replace(thread, outcome=ThreadResult.GONE, detail="")

    def _give_up(self, waiting: list[Thread]) -> None:
        for state in waiting:
            self._record(state, ThreadResult.TIMED_OUT, "it is in uninterruptible sleep (state D)")
        for pending in self._slow.values():
            self._record(pending.state, ThreadResult.TIMED_OUT, "it did not come to a stop")

    def _as_wanted(self, state: Thread) -> bool:
        return state.bits is (Bits.BOTH if self._state else Bits.NONE)

    def _call_in_any_thread(self, call: Call) -> ThreadOutcome:
        """Have one thread of the process make a call, of those that could be stopped."""
        able = [t for t in self._threads.values() if t.outcome in GOOD]
        result: ThreadOutcome | Pending | None = None
        for thread in sorted(able, key=lambda thread: thread.tid):
            state = thread_state(f"{self._directory}/{thread.tid}")
            if state is None or state.ended:
                continue
            try:
                result = self._caller.begin(state, call)
            except UninterruptibleSleep:
                continue
            if isinstance(result, Pending):
                result = self._caller.carry_on(result, time.monotonic() + self._timeout) or result
            if isinstance(result, ThreadOutcome) and result.outcome is not ThreadResult.GONE:
                return result
        return ThreadOutcome(self._pid, "", ThreadResult.TIMED_OUT, "no thread of it could be stopped")
