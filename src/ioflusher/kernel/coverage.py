"""Which threads of a process carry the IO_FLUSHER state."""

from dataclasses import dataclass, field

from ioflusher.kernel.task import Bits, Thread
from ioflusher.kernel.task_flags import PF_IO_FLUSHER


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many threads of a process carry the state, and which.

    Attributes:
        pid: the process.
        threads: its threads that are asked about: those that live, or of these the ones that run its program.
        covered: how many of them carry both bits of the state.
        half_set: how many carry one bit without the other.
    """

    pid: int
    threads: tuple[Thread, ...]
    covered: int = field(init=False)
    half_set: int = field(init=False)

    def __post_init__(self) -> None:
        bits = [thread.flags & PF_IO_FLUSHER for thread in self.threads]
        covered = bits.count(PF_IO_FLUSHER)
        object.__setattr__(self, "covered", covered)
        object.__setattr__(self, "half_set", len(bits) - covered - bits.count(0))

    @property
    def complete(self) -> bool:
        """Whether every thread carries both bits."""
        return self.covered == len(self.threads)

    @property
    def share(self) -> float:
        """Of the threads, those that carry both bits: 0 to 1; 0 where there are none."""
        return self.covered / len(self.threads) if self.threads else 0.0

    def having(self, bits: Bits) -> tuple[Thread, ...]:
        """The threads that carry so many of the two bits."""
        return tuple(thread for thread in self.threads if thread.bits is bits)
