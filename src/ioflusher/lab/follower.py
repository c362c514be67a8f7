"""From what one guest says, and does not say, to how its half of the experiment came out.

The follower reads no clock of its own: time is the machine's `elapsed_s`. So a recording, played back, comes
to the same half as the machine did.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ioflusher.kernel.task_flags import TaskFlags
from ioflusher.kernlog.reading.console import events, task_reports
from ioflusher.kernlog.reading.frames import Frame, parse_proc_stack
from ioflusher.kernlog.records import EventKind
from ioflusher.kernlog.stacks.waits import explain_stack
from ioflusher.lab.errors import LabError
from ioflusher.lab.file_systems import FileSystemCheck
from ioflusher.lab.memory.evidence import GuestMemory, MemoryQuestion
from ioflusher.lab.messages import (
    AgentFailed,
    DeviceFrozen,
    FaultBegan,
    FaultEnded,
    FileSystemChecked,
    GuestReport,
    Hardened,
    Sampled,
    StageFailed,
    ThreadReport,
    WorkBegan,
    WorkEnded,
    WorkVerified,
)
from ioflusher.lab.near_misses import NearMisses
from ioflusher.lab.outcome import (
    GAVE_UP,
    DaemonThread,
    FaultChange,
    Half,
    HalfOutcome,
    Sample,
    bounded_console,
)
from ioflusher.lab.vm import Ended
from ioflusher.scenario.records import Scenario

SILENCE_S = 25.0  # an observer that says nothing for so long is frozen too
SETUP_SILENCE_S = 60.0  # the agent gives each step of the set-up 40 s and then says which one failed
NMI_DEADLINE_S = 40.0  # for a panic's stacks over an emulated serial line

OnReport = Callable[[bool, GuestReport], None]


def ignore_report(io_flusher: bool, report: GuestReport) -> None:
    """An `OnReport` that shows nothing."""


class GuestMachine(Protocol):
    """What a follower needs of a virtual machine, or of the recording of one."""

    @property
    def elapsed_s(self) -> float:
        """Seconds since power-on, by this machine's clock."""
        ...

    def next_report(self, timeout_s: float) -> GuestReport | Ended | None:
        """The next report, `Ended` once the machine is gone, or None when nothing came in time."""
        ...

    def console_bytes(self) -> bytes:
        """What the kernel has written so far."""
        ...

    def console_tail(self, lines: int = 15) -> str:
        """The last lines of it."""
        ...

    def inject_nmi(self) -> None:
        """Make the kernel panic and print every stack."""
        ...

    def read_memory(self, question: MemoryQuestion) -> GuestMemory | None:
        """What its memory says, read from outside; None in recordings of versions that could not read it."""
        ...


class Follower:
    """Follows one machine to its outcome.

    `boot_s` is when its first report came; `on_report` is told of every report, with the half that it is of.
    """

    def __init__(
        self,
        machine: GuestMachine,
        scenario: Scenario,
        *,
        io_flusher: bool,
        boot_s: float,
        on_report: OnReport = ignore_report,
    ) -> None:
        self._machine = machine
        self._scenario = scenario
        self._io_flusher = io_flusher
        self._boot_s = boot_s
        self._on_report = on_report
        self._began_s = 0.0
        self._samples: list[Sample] = []
        self._hardening: tuple[str, ...] = ()
        self._faults: list[FaultChange] = []
        self._begin: WorkBegan | None = None
        self._verified: WorkVerified | None = None
        self._near_misses: NearMisses | None = None
        self._file_system: FileSystemCheck | None = None

    def follow(self) -> Half:
        """The half, once it is over.

        Raises:
            LabError: the stage could not be built: that is no outcome of the experiment.
        """
        while True:
            left = self._scenario.deadline_s - self._machine.elapsed_s
            patience = self._patience_s()
            report = self._machine.next_report(min(left, patience))
            if report is None:
                return self._silent(deadline=left <= patience)
            if isinstance(report, Ended):
                return self._ended()
            self._on_report(self._io_flusher, report)
            half = self._take(report)
            if half is not None:
                return half

    def _patience_s(self) -> float:
        """For how long the guest may say nothing."""
        return SILENCE_S if self._samples else SETUP_SILENCE_S

    def _take(self, report: GuestReport) -> Half | None:
        """One report; the Half if it was the last one."""
        if isinstance(report, Sampled | DeviceFrozen | WorkEnded):
            self._near_misses = report.near_misses
        match report:
            case WorkBegan():
                self._began_s = report.time_s
                self._begin = report
            case Sampled():
                since_s = report.time_s - self._began_s
                self._samples.append(Sample(since_s, report.completed, report.in_flight, report.memory_kib))
            case Hardened():
                self._hardening = report.done
            case FaultBegan() | FaultEnded():
                begins = isinstance(report, FaultBegan)
                since_s = report.time_s - self._began_s
                self._faults.append(FaultChange(since_s, report.kind, begins, report.failed))
            case WorkVerified():
                self._verified = report
            case FileSystemChecked():
                self._file_system = report.check
            case DeviceFrozen():
                return self._frozen(report)
            case WorkEnded():
                return self._work_ended(report)
            case StageFailed():
                raise self._error(f"the guest could not build the scenario's stage: {report.message}")
            case AgentFailed():
                raise self._error(f"the guest's agent failed: {report.traceback}")
        return None

    def _error(self, message: str) -> LabError:
        return LabError(f"{message}\nthe last lines of its console:\n{self._machine.console_tail()}")

    def _half(self, outcome: HalfOutcome, detail: str, **more: Any) -> Half:
        if outcome is not HalfOutcome.FINISHED:
            detail += fault_sentences(self._faults)
        last = self._samples[-1] if self._samples else None
        values: dict[str, Any] = {
            "completed": last.completed if last else 0,
            "in_flight": last.in_flight if last else 0,
            "samples": tuple(self._samples),
            "hardening": self._hardening,
            "faults": tuple(self._faults),
            "console": bounded_console(self._machine.console_bytes()),
            "near_misses": self._near_misses,
            "file_system": self._file_system,
            **more,
        }
        return Half(self._io_flusher, outcome, detail, self._boot_s, self._machine.elapsed_s, **values)

    def _last_progress_s(self) -> float:
        """When the last request completed, seconds since the workload began."""
        moved_s = 0.0
        for before, after in zip(self._samples, self._samples[1:], strict=False):
            if after.completed != before.completed:
                moved_s = after.time_s
        return moved_s

    def _frozen(self, report: DeviceFrozen) -> Half:
        threads = tuple(daemon_thread(thread) for thread in report.threads)
        witness = next((thread for thread in threads if thread.self_wait), None)
        if witness and witness.explanation:
            detail = f"The daemon waits for itself: {witness.explanation.sentence}."
        else:
            detail = "None of the daemon's threads was seen waiting for itself."
        detail += ended_sentences(report.ended)
        return self._half(
            HalfOutcome.FROZEN,
            detail,
            when_s=report.time_s - self._began_s - report.stalled_s,
            completed=report.completed,
            in_flight=report.in_flight,
            threads=threads,
            waiting=waiting_words(report.waiting),
        )

    def _work_ended(self, report: WorkEnded) -> Half:
        more: dict[str, Any] = {
            "when_s": report.time_s - self._began_s,
            "completed": report.completed,
            "in_flight": report.in_flight,
            "threads": tuple(daemon_thread(thread) for thread in report.threads),
        }
        if report.oom_kills:
            detail = f"The kernel killed {report.oom_kills} process(es)."
            return self._half(HalfOutcome.OUT_OF_MEMORY, detail, **more)
        if report.status or self._verified is None:
            detail = f"{GAVE_UP} {report.status} before it had read everything back."
            if self._file_system is not None and not self._file_system.clean:
                detail += f" {checked_sentence(self._file_system)}"
            detail += ended_sentences(report.ended)
            return self._half(HalfOutcome.LOST, detail, console_tail=self._machine.console_tail(), **more)
        wrong = self._verified.wrong_chunks
        detail = "All that was written came back." if not wrong else f"{wrong} chunks came back wrong."
        if self._file_system is not None:
            detail += f" {checked_sentence(self._file_system)}"
        detail += ended_sentences(report.ended)
        return self._half(
            HalfOutcome.FINISHED,
            detail,
            verified_bytes=self._verified.verified_bytes,
            wrong_chunks=wrong,
            **more,
        )

    def _ended(self) -> Half:
        panic = panic_reason(self._machine.console_bytes())
        if panic is not None:
            outcome, detail = HalfOutcome.PANICKED, f"The kernel panicked: {panic}."
        else:
            outcome, detail = HalfOutcome.LOST, "The machine ended without a word on its outcome."
        tail = self._machine.console_tail(25)
        evidence = self._evidence(self._machine.read_memory(self._question()))
        return self._half(outcome, detail, when_s=self._last_progress_s(), console_tail=tail, **evidence)

    def _silent(self, *, deadline: bool) -> Half:
        """Nothing came any more: the guest's memory is read, and an NMI makes the kernel print its stacks."""
        tail = self._machine.console_tail(25)  # the panic that follows prints pages of its own
        memory = self._machine.read_memory(self._question())
        went_on = ""
        if not deadline and self._moved(memory):
            # perhaps before the observer stopped and after its last look: only a second look tells
            self._wait(self._scenario.frozen.stalled_s)
            before, memory = memory, self._machine.read_memory(self._question())
            went_on = self._went_on(before, memory)
        self._machine.inject_nmi()
        self._wait(NMI_DEADLINE_S)
        evidence = self._evidence(memory)
        witness = next((thread for thread in evidence["threads"] if thread.self_wait), None)
        if not deadline and not went_on and witness and witness.explanation:
            shown = "the guest's memory shows" if witness.stack else "the panic's stacks show"
            detail = f"Even the observer stopped; {shown}: {witness.explanation.sentence}."
            return self._half(HalfOutcome.FROZEN, detail, when_s=self._last_progress_s(), **evidence)
        limit = f"{self._scenario.deadline_s:g} s" if deadline else f"{self._patience_s():g} s of silence"
        return self._half(
            HalfOutcome.LOST,
            f"Neither done nor frozen after {limit}.{went_on}",
            when_s=self._last_progress_s(),
            console_tail=tail,
            **evidence,
        )

    def _wait(self, seconds: float) -> None:
        """Let so much time go by, or the machine end."""
        until_s = self._machine.elapsed_s + seconds
        while (left := until_s - self._machine.elapsed_s) > 0:
            if isinstance(self._machine.next_report(left), Ended):
                break

    def _question(self) -> MemoryQuestion:
        """What the guest's memory is asked for."""
        if self._begin is None:
            return MemoryQuestion()
        daemons = sorted({thread.pid for thread in self._begin.threads})
        return MemoryQuestion(tuple(daemons), self._begin.device)

    def _completed_in(self, memory: GuestMemory | None) -> int | None:
        """Requests that the device has completed since the workload began, by the guest's memory."""
        before = self._begin.completed_before if self._begin else None
        if memory is None or memory.completed is None or before is None:
            return None
        return memory.completed - before

    def _moved(self, memory: GuestMemory | None) -> bool:
        """Whether the device is not as the observer saw it last, by the guest's memory."""
        completed = self._completed_in(memory)
        if completed is None or memory is None:
            return False
        seen = self._samples[-1].completed if self._samples else 0
        return completed != seen or memory.in_flight == 0

    def _went_on(self, before: GuestMemory | None, memory: GuestMemory | None) -> str:
        """Why the device of a silent observer is not frozen, by two looks; empty where it may be."""
        first, second = self._completed_in(before), self._completed_in(memory)
        if first is None or second is None or memory is None:
            return ""
        if second != first:
            within = f"within {self._scenario.frozen.stalled_s:g} s"
            return f" By the guest's memory the device went on: {second - first} requests completed {within}."
        if memory.in_flight == 0:
            return " By the guest's memory no request of the device was in flight."
        return ""

    def _evidence(self, memory: GuestMemory | None) -> dict[str, Any]:
        """Fields of a half whose guest does not speak: from its memory, else from its console."""
        found: dict[str, Any] = {"threads": self._threads_on_console(), "guest_memory": memory}
        if memory is None:
            return found
        found["waiting"] = waiting_words(memory.waiting)
        if memory.daemon:
            found["threads"] = tuple(daemon_thread(thread) for thread in memory.daemon)
        completed = self._completed_in(memory)
        if completed is not None and memory.in_flight is not None:
            found |= {"completed": completed, "in_flight": memory.in_flight}
        return found

    def _threads_on_console(self) -> tuple[DaemonThread, ...]:
        """The daemon's threads as the panic printed them; their flags are those of the beginning."""
        known = {thread.tid: thread for thread in self._begin.threads} if self._begin else {}
        return tuple(
            daemon_thread(known[task.tid], state=task.state or "?", frames=task.frames)
            for task in task_reports(self._machine.console_bytes())
            if task.tid in known
        )


def waiting_words(tasks: tuple[ThreadReport, ...]) -> tuple[tuple[str, str], ...]:
    """Name of each task, and what its stack says."""
    return tuple((task.comm, explain_stack(parse_proc_stack(task.stack)).sentence) for task in tasks)


def ended_sentences(ended: tuple[str, ...]) -> str:
    """What is to be said of processes of the stack that ended meanwhile, behind what is said already."""
    return "".join(f" Meanwhile {' / '.join(sentence.splitlines())}." for sentence in ended)


def fault_sentences(changes: Iterable[FaultChange]) -> str:
    """Which of the scenario's faults were in force in the end, behind what is said already."""
    since: dict[str, float] = {}
    for change in changes:
        if change.begins and not change.failed:
            since[change.kind] = change.time_s
        elif not change.begins and not change.failed:
            since.pop(change.kind, None)
    return "".join(
        f" The scenario's {kind} was in force, since {time_s:.1f} s." for kind, time_s in since.items()
    )


def panic_reason(console: bytes) -> str | None:
    """What the kernel panicked of, in its own words; None where it did not."""
    said = next((event.text for event in events(console) if event.kind is EventKind.PANIC), None)
    return said and said.removeprefix("Kernel panic - not syncing: ")


def checked_sentence(check: FileSystemCheck) -> str:
    """What was found in the file system."""
    if check.clean:
        return f"The file system is clean ({check.command})."
    last = check.said.splitlines()[-1] if check.said else "it said nothing"
    if check.clean is None:
        return f"The file system was not checked ({check.command}): {last}."
    return f"The file system is damaged ({check.command}): {last}."


def daemon_thread(
    thread: ThreadReport, *, state: str | None = None, frames: tuple[Frame, ...] = ()
) -> DaemonThread:
    """A thread of the guest's report, its stack explained where it has one; `frames` stand for the stack."""
    frames = frames or parse_proc_stack(thread.stack)
    return DaemonThread(
        tid=thread.tid,
        comm=thread.comm,
        state=state or thread.state,
        flags=thread.flags,
        io_flusher=TaskFlags(thread.flags).io_flusher,
        explanation=explain_stack(frames) if frames else None,
        stack=thread.stack,
        pid=thread.pid,
    )
