"""How the halves of an experiment came out, with all the evidence."""

from dataclasses import dataclass
from enum import Enum

from ioflusher.kernlog.waits import StackExplanation


class Outcome(Enum):
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
class DaemonThread:
    """A thread of the daemon at the end.

    Attributes:
        tid: its number in the guest.
        comm: its name.
        state: letter of its run state.
        flags: its PF_* bits (task->flags).
        io_flusher: whether both bits of the state are among them.
        explanation: what its kernel stack says; None where it was not asked for.
    """

    tid: int
    comm: str
    state: str
    flags: int
    io_flusher: bool
    explanation: StackExplanation | None = None

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
        threads: the daemon's threads.
        waiting: (name, what its stack says) of other tasks in uninterruptible sleep.
        console_tail: the kernel's last lines, where they matter.
    """

    io_flusher: bool
    outcome: Outcome
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

    @property
    def lived(self) -> bool:
        """Whether the work was finished and everything came back as it was written."""
        return self.outcome is Outcome.FINISHED and self.wrong_chunks == 0

    @property
    def witness(self) -> DaemonThread | None:
        """The daemon's thread that waits for itself, if one does."""
        return next((thread for thread in self.threads if thread.self_wait), None)


@dataclass(frozen=True, slots=True)
class Run:
    """Both halves, or the one that was asked for."""

    without: Half | None
    with_: Half | None

    @property
    def proved(self) -> bool:
        """Whether it shows the mechanism: frozen in its own wait without the state, alive with it."""
        return (
            self.without is not None
            and self.with_ is not None
            and self.without.outcome is Outcome.FROZEN
            and self.without.witness is not None
            and self.with_.lived
        )


@dataclass(frozen=True, slots=True)
class Experiment:
    """Every run of a scenario.

    Attributes:
        scenario: its name.
        title, served, pressed: its story.
        kernel: release of the guest's kernel.
        accelerator: "kvm" or "tcg".
        machine: memory and processors, for people.
    """

    scenario: str
    title: str
    served: str
    pressed: str
    kernel: str
    accelerator: str
    machine: str
    runs: tuple[Run, ...]

    @property
    def verdict(self) -> str:
        """The whole in one sentence, no stronger than what was seen."""
        both = [run for run in self.runs if run.without and run.with_]
        if not both:
            return "Only one half was run, so there is nothing to compare."
        proved = sum(run.proved for run in both)
        times = "" if len(both) == 1 else f" in {proved} of {len(both)} runs"
        if proved:
            return (
                f"Without the IO_FLUSHER state the daemon waited for itself and the device froze; "
                f"with it, and nothing else changed, the same work was done{times}."
            )
        if all(run.without and run.with_ and run.without.lived and run.with_.lived for run in both):
            return "Both halves finished the work: this scenario shows no difference on this kernel."
        found = {
            f"{run.without.outcome.value} without, {run.with_.outcome.value} with"
            for run in both
            if run.without and run.with_
        }
        return f"This shows no clean contrast: {'; '.join(sorted(found))}."
