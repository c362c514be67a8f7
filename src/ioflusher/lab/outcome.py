"""What an experiment is made of and how it is judged: samples, threads, halves, runs, with all the evidence.

A half is one virtual machine's story, a run is a pair of halves that differ in the IO_FLUSHER state alone, an
experiment is a scenario's runs. Everything that says "it froze", "it lived" or "it was proved" is a property
here and pure, so that the command line, the reports and the store judge alike.
"""

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Literal

from ioflusher.kernlog.stacks.waits import StackExplanation
from ioflusher.lab.file_systems import FileSystemCheck
from ioflusher.lab.kernels.releases import version
from ioflusher.lab.memory.evidence import GuestMemory
from ioflusher.lab.near_misses import NearMisses
from ioflusher.scenario.records import Scenario

LARGEST_CONSOLE_BYTES = 256 << 10  # a panic under unknown_nmi_panic prints the stacks of every task

# how the detail of a half begins whose workload ended with an error of its own
GAVE_UP = "The workload ended with status"

OneHalf = Literal["with", "without"]


class HalfOutcome(Enum):
    """What became of one half."""

    FINISHED = "finished"
    FROZEN = "frozen"
    PANICKED = "panicked"
    OUT_OF_MEMORY = "out of memory"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the guest.

    Attributes:
        time_s: seconds since the workload began.
        completed: requests that the device has completed since then.
        in_flight: requests that it has taken and not completed.
        memory_kib: lines of /proc/meminfo.
    """

    time_s: float
    completed: int
    in_flight: int
    memory_kib: dict[str, int]


@dataclass(frozen=True, slots=True)
class FaultChange:
    """A fault of the scenario that began or ended.

    Attributes:
        time_s: seconds since the workload began.
        kind: what it is, as `fault.kind` in the scenario.
        begins: whether it began; else it ended.
        failed: why it could not be brought about; empty where it was.
    """

    time_s: float
    kind: str
    begins: bool
    failed: str = ""


@dataclass(frozen=True, slots=True)
class DaemonThread:
    """A thread of the daemon at the end.

    Attributes:
        tid: its number in the guest.
        comm: its name.
        state: letter of its run state.
        flags: its PF_* bits (task->flags).
        io_flusher: whether both bits of the state are among them.
        explanation: what its kernel stack says; None where it was not asked for.
        stack: the text of /proc/PID/task/TID/stack as it was read; empty where the stack is from the
            console, or was not asked for.
        pid: its process's number in the guest; 0 in runs that were kept without it.
    """

    tid: int
    comm: str
    state: str
    flags: int
    io_flusher: bool
    explanation: StackExplanation | None = None
    stack: str = ""
    pid: int = 0

    @property
    def self_wait(self) -> bool:
        """Whether it waits for what only its own process can bring."""
        return self.explanation is not None and self.explanation.self_wait


@dataclass(frozen=True, slots=True)
class Half:
    """One virtual machine's story.

    Attributes:
        io_flusher: whether the daemon set the state.
        outcome: how it came out.
        detail: one sentence more.
        boot_s: seconds from power-on to the first event.
        wall_s: seconds that the virtual machine ran.
        when_s: seconds from the workload's begin to where the device stands still (frozen), or to the end.
        completed: requests that the device completed after the workload's begin.
        in_flight: requests that were in flight in the end.
        verified_bytes: bytes that were read back and found as written; None where it did not come to that.
        wrong_chunks: chunks that came back wrong; None where it did not come to that.
        samples: what memory and device looked like over time.
        hardening: what the daemon was given besides the state, for people.
        faults: what the scenario did to the stack, in the order of time.
        threads: the daemon's threads.
        waiting: (name, what its stack says) of other tasks in uninterruptible sleep.
        console_tail: the kernel's last lines, where they matter.
        console: everything that the kernel printed, as `bounded_console` leaves it.
        file_system: what was found when the file system on the device was looked through, after all had been
            written; None where there is none, it did not come to that, or an earlier version did not look.
        near_misses: how near the daemon came to waiting for itself, as it was last seen; None where nobody
            counted.
        guest_memory: what the guest's memory said, read from outside; None where the guest told all itself.
            Where it was readable, `threads` and `waiting` are from there.
    """

    io_flusher: bool
    outcome: HalfOutcome
    detail: str
    boot_s: float
    wall_s: float
    when_s: float = 0.0
    completed: int = 0
    in_flight: int = 0
    verified_bytes: int | None = None
    wrong_chunks: int | None = None
    samples: tuple[Sample, ...] = ()
    threads: tuple[DaemonThread, ...] = ()
    waiting: tuple[tuple[str, str], ...] = ()
    console_tail: str = ""
    console: str = ""
    hardening: tuple[str, ...] = ()
    faults: tuple[FaultChange, ...] = ()
    near_misses: NearMisses | None = None
    file_system: FileSystemCheck | None = None
    guest_memory: GuestMemory | None = None

    @property
    def lived(self) -> bool:
        """Whether the work was finished, everything came back as it was written, and its place is clean."""
        clean = self.file_system is None or self.file_system.clean is True
        return self.outcome is HalfOutcome.FINISHED and self.wrong_chunks == 0 and clean

    @property
    def gave_up(self) -> bool:
        """Whether it was lost by an error that the workload got, such as one of I/O."""
        return self.outcome is HalfOutcome.LOST and self.detail.startswith(GAVE_UP)

    @property
    def witness(self) -> DaemonThread | None:
        """The daemon's thread that waits for itself, if one does."""
        return next((thread for thread in self.threads if thread.self_wait), None)

    @property
    def froze_by_itself(self) -> bool:
        """Whether the device froze and a thread of the daemon was seen waiting for itself."""
        return self.outcome is HalfOutcome.FROZEN and self.witness is not None

    def came_out_as(self, outcome: HalfOutcome) -> bool:
        """Whether it came out so: "frozen" is by itself, "finished" with everything as it was written."""
        match outcome:
            case HalfOutcome.FROZEN:
                return self.froze_by_itself
            case HalfOutcome.FINISHED:
                return self.lived
            case _:
                return self.outcome is outcome


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a scenario expects of a kernel.

    Attributes:
        without, with_: what becomes of the halves.
        why: a sentence with the reason; empty for what the state promises, which needs none.
    """

    without: HalfOutcome = HalfOutcome.FROZEN
    with_: HalfOutcome = HalfOutcome.FINISHED
    why: str = ""

    @property
    def words(self) -> str:
        """Both outcomes in a few words."""
        return f"{self.without.value} without, {self.with_.value} with"


PROMISED = Expectation()


def expectation_of(scenario: Scenario, release: str) -> Expectation:
    """What the scenario expects of a kernel: what its last table of it says, or what the state promises."""
    table = scenario.expected_of(version(release))
    if table is None:
        return PROMISED
    return Expectation(HalfOutcome(table.without_state), HalfOutcome(table.with_state), table.why)


@dataclass(frozen=True, slots=True)
class HostLoad:
    """What else this machine had to do while a run was played; it stretches every time that was measured.

    Attributes:
        cpus: processors that are online.
        before, after: load averages of the last minute (/proc/loadavg), the guest's own share included.
    """

    cpus: int
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Run:
    """Both halves, or the one that was asked for.

    Attributes:
        without, with_: the halves; None for one that was not played.
        began_at: when it began, seconds since 1970 by this machine's clock; None where not known.
        host: what else this machine did; None where not known.
    """

    without: Half | None
    with_: Half | None
    began_at: float | None = None
    host: HostLoad | None = None

    @property
    def halves(self) -> tuple[Half, ...]:
        """The halves that were played, without the state first."""
        return tuple(half for half in (self.without, self.with_) if half is not None)

    def with_half(self, half: Half) -> "Run":
        """The run with this half put into its place."""
        return replace(self, with_=half) if half.io_flusher else replace(self, without=half)

    @property
    def proved(self) -> bool:
        """Whether it shows the mechanism: frozen in its own wait without the state, alive with it."""
        return (
            self.without is not None
            and self.with_ is not None
            and self.without.froze_by_itself
            and self.with_.lived
        )

    def whole(self, only: OneHalf | None) -> bool:
        """Whether every half that was asked for has been played."""
        return (self.without is not None or only == "with") and (self.with_ is not None or only == "without")

    def as_expected(self, only: OneHalf | None, expected: Expectation = PROMISED) -> bool:
        """Whether it came out as expected; with `only`, whether that half did."""
        without = self.without is not None and self.without.came_out_as(expected.without)
        with_ = self.with_ is not None and self.with_.came_out_as(expected.with_)
        return (without or only == "with") and (with_ or only == "without")


class Ending(Enum):
    """How an experiment came to its end; the runs before it are as good as any."""

    COMPLETE = "complete"  # every planned run was played
    INTERRUPTED = "interrupted"  # by the user
    FAILED = "failed"  # the lab could not go on
    UNKNOWN = "unknown"  # it is being played now, or its program was killed


@dataclass(frozen=True, slots=True)
class Plan:
    """What all runs of an experiment have in common.

    Attributes:
        scenario: its name.
        title, served, pressed: its story.
        definition: the whole of it.
        kernel: release of the guest's kernel.
        accelerator: "KVM" or "emulated".
        machine: memory and processors of the guest, for people.
        only: the one half that is played; None for both.
        runs: how many are to be played.
        versions: of the programs that it is played with (`ioflusher.lab.versions`); empty where not kept.
        at_once: whether both halves of a run are played at the same time, so under the same load.
    """

    scenario: str
    title: str
    served: str
    pressed: str
    definition: Scenario
    kernel: str
    accelerator: str
    machine: str
    only: OneHalf | None = None
    runs: int = 1
    versions: dict[str, str] = field(default_factory=dict)
    at_once: bool = False

    @property
    def expected(self) -> Expectation:
        """What the scenario expects of this kernel."""
        return expectation_of(self.definition, self.kernel)

    @property
    def setting(self) -> str:
        """Kernel, machine and how the halves are played, for people."""
        at_once = ", both halves at once" if self.at_once else ""
        return f"Linux {self.kernel}, {self.machine}, {self.accelerator}{at_once}"


@dataclass(frozen=True, slots=True)
class Experiment:
    """Every run of a scenario.

    Attributes:
        plan: what was to be played.
        runs: those in which every half that was asked for was played, in their order.
        unfinished: the run in which the experiment ended early, where one of its halves was played.
        ending: how it ended.
        error: why, where it failed.
    """

    plan: Plan
    runs: tuple[Run, ...]
    unfinished: Run | None = None
    ending: Ending = Ending.COMPLETE
    error: str | None = None

    @property
    def as_expected(self) -> bool:
        """Whether all that was planned was played and came out as the scenario expects of this kernel.

        That is, where it says nothing else: frozen in the daemon's own wait without the state and alive with
        it; or, where one half alone was asked for, that half so.
        """
        return (
            self.ending is Ending.COMPLETE
            and 0 < self.plan.runs <= len(self.runs)
            and all(run.as_expected(self.plan.only, self.plan.expected) for run in self.runs)
        )

    @property
    def verdict(self) -> str:
        """The whole in one sentence, no stronger than what was seen."""
        if not self.runs:
            return "No run came to its end, so there is nothing to judge."
        both = [(run, run.without, run.with_) for run in self.runs]
        pairs = [(run, without, with_) for run, without, with_ in both if without and with_]
        if not pairs:
            return "Only one half was run, so there is nothing to compare."
        seen = _seen([run for run, _, _ in pairs], [(without, with_) for _, without, with_ in pairs])
        expected = self.plan.expected
        if not expected.why:
            return seen
        if all(run.as_expected(None, expected) for run, _, _ in pairs):
            return f"{seen} That is what this scenario expects of this kernel: {expected.why}"
        return f"{seen} This scenario expects of this kernel {expected.words}: {expected.why}"


def _seen(runs: list[Run], pairs: list[tuple[Half, Half]]) -> str:
    """What these runs showed; `pairs` are their halves."""
    proved = sum(run.proved for run in runs)
    times = "" if len(pairs) == 1 else f" in {proved} of {len(pairs)} runs"
    if proved:
        return (
            f"Without the IO_FLUSHER state the daemon waited for itself and the device froze; "
            f"with it, and nothing else changed, the same work was done{times}."
        )
    if all(without.lived and with_.lived for without, with_ in pairs):
        return "Both halves finished the work: this scenario shows no difference on this kernel."
    found = {f"{half_words(without)} without, {half_words(with_)} with" for without, with_ in pairs}
    return f"This shows no clean contrast: {'; '.join(sorted(found))}."


def half_words(half: Half) -> str:
    """The outcome of a half in a few words that leave nothing out that its verdict hangs on."""
    if half.outcome is HalfOutcome.FROZEN and not half.froze_by_itself:
        return "frozen, but not seen waiting for itself"
    if half.outcome is HalfOutcome.FINISHED and not half.lived:
        if half.wrong_chunks != 0:
            return "finished with wrong data"
        damaged = half.file_system is not None and half.file_system.clean is False
        return f"finished, its file system {'damaged' if damaged else 'not checked'}"
    return half.outcome.value


def bounded_console(data: bytes) -> str:
    """A console's bytes as text, its beginning left out where it is long, and that said.

    Bytes that are not UTF-8 become backslash escapes.
    """
    left_out = max(0, len(data) - LARGEST_CONSOLE_BYTES)
    text = data[left_out:].decode("utf-8", "backslashreplace")
    return f"[{left_out} bytes before this are left out]\n{text}" if left_out else text
