"""Recordings of a guest: all that it said, when, and its console; played back they take a machine's place.

A recording holds what a `Follower` asks of a machine and nothing else, so that the judgement can be repeated,
without a virtual machine, by this or a later version.
"""

from pathlib import Path

import msgspec

from ioflusher.lab.errors import LabError
from ioflusher.lab.follower import GuestMachine
from ioflusher.lab.memory.evidence import GuestMemory, MemoryQuestion
from ioflusher.lab.messages import GuestReport
from ioflusher.lab.vm import Ended
from ioflusher.scenario.records import Scenario


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that came from the machine.

    Attributes:
        elapsed_s: seconds since power-on, by the clock outside.
        report: what the guest said; None where the machine ended.
        status: QEMU's exit status where the machine ended, else None.
        after_nmi: whether it came after a non-maskable interrupt was sent.
    """

    elapsed_s: float
    report: GuestReport | None = None
    status: int | None = None
    after_nmi: bool = False


class Recording(msgspec.Struct, frozen=True):
    """One half of an experiment as the machine showed it.

    Attributes:
        scenario: what was played.
        io_flusher: which half.
        boot_s: when its first report came.
        kernel: the guest's release.
        said: from the agent's first word on.
        console: what the guest's kernel wrote, from power-on to the end.
        console_at_nmi: characters of it that were there when a non-maskable interrupt was sent; None without.
        memory: what was read from the guest's memory, each time that it was asked for.
    """

    scenario: Scenario
    io_flusher: bool
    boot_s: float
    kernel: str
    said: tuple[Said, ...]
    console: str
    console_at_nmi: int | None = None
    memory: tuple[GuestMemory, ...] = ()


class Recorder:
    """A machine that remembers what was asked of it."""

    def __init__(self, machine: GuestMachine) -> None:
        self._machine = machine
        self._said: list[Said] = []
        self._console_at_nmi: int | None = None
        self._memory: list[GuestMemory] = []

    @property
    def elapsed_s(self) -> float:
        """As the machine has it."""
        return self._machine.elapsed_s

    def next_report(self, timeout_s: float) -> GuestReport | Ended | None:
        """As the machine has it."""
        report = self._machine.next_report(timeout_s)
        if report is not None:
            at_s = round(self._machine.elapsed_s, 3)
            after_nmi = self._console_at_nmi is not None
            if isinstance(report, Ended):
                self._said.append(Said(at_s, status=report.status, after_nmi=after_nmi))
            else:
                self._said.append(Said(at_s, report, after_nmi=after_nmi))
        return report

    def console_bytes(self) -> bytes:
        """As the machine has it."""
        return self._machine.console_bytes()

    def console_tail(self, lines: int = 15) -> str:
        """As the machine has it."""
        return self._machine.console_tail(lines)

    def inject_nmi(self) -> None:
        """As the machine has it."""
        self._console_at_nmi = len(self._console())
        self._machine.inject_nmi()

    def read_memory(self, question: MemoryQuestion) -> GuestMemory | None:
        """As the machine has it."""
        memory = self._machine.read_memory(question)
        if memory is not None:
            self._memory.append(memory)
        return memory

    def _console(self) -> str:
        return self._machine.console_bytes().decode("utf-8", "backslashreplace")

    def recording(self, scenario: Scenario, io_flusher: bool, boot_s: float, kernel: str) -> Recording:
        """All so far."""
        said = tuple(self._said)
        return Recording(
            scenario,
            io_flusher,
            boot_s,
            kernel,
            said,
            self._console(),
            self._console_at_nmi,
            tuple(self._memory),
        )


class RecordedMachine:
    """A recording in a machine's place; its clock moves as reports are taken or waited for."""

    def __init__(self, recording: Recording) -> None:
        self._left = list(recording.said)
        self._whole_console = recording.console
        self._console = recording.console[: recording.console_at_nmi]
        self._nmi = False
        self._memory = list(recording.memory)
        self.elapsed_s = recording.boot_s

    def next_report(self, timeout_s: float) -> GuestReport | Ended | None:
        """What was said next, if it was said within `timeout_s` seconds from now."""
        until_s = self.elapsed_s + max(0.0, timeout_s)
        while self._left:
            # what only the interrupt brought is not said where nobody sent one
            if self._left[0].elapsed_s > until_s or (self._left[0].after_nmi and not self._nmi):
                break
            said = self._left.pop(0)
            self.elapsed_s = max(self.elapsed_s, said.elapsed_s)
            return Ended(said.status or 0) if said.report is None else said.report
        self.elapsed_s = until_s
        return None

    def console_bytes(self) -> bytes:
        """The console as it was before the interrupt, or the whole."""
        return self._console.encode()

    def console_tail(self, lines: int = 15) -> str:
        """The last lines of it."""
        return "\n".join(line.rstrip() for line in self._console.splitlines()[-lines:])

    def inject_nmi(self) -> None:
        """From here on, what the interrupt brought is said."""
        self._nmi = True
        self._console = self._whole_console

    def read_memory(self, question: MemoryQuestion) -> GuestMemory | None:
        """What was read then, whatever is asked now; None where nothing was."""
        return self._memory.pop(0) if self._memory else None


def write_recording(recording: Recording, file: Path) -> None:
    """Write it as JSON, one line for each thing said, so that changes can be read."""
    file.write_bytes(msgspec.json.format(msgspec.json.encode(recording), indent=1) + b"\n")


def read_recording(file: Path) -> Recording:
    """Read it back.

    Raises:
        LabError: where the file cannot be read or is no recording.
    """
    try:
        return msgspec.json.decode(file.read_bytes(), type=Recording)
    except OSError as error:
        raise LabError(f"cannot read the recording {file}: {error.strerror}", errno=error.errno) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LabError(f"{file} is no recording of a guest: {error}") from error
