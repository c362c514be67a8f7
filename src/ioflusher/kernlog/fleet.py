"""One log or a fleet's: each is diagnosed by itself, here, in a process pool or on a cluster."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ioflusher.kernlog.diagnose import Diagnoser
from ioflusher.kernlog.diagnosis import Diagnosis
from ioflusher.kernlog.errors import LogUnreadableError
from ioflusher.kernlog.reading.console import read_records
from ioflusher.kernlog.reading.inputs import opened
from ioflusher.kernlog.reading.scan import Readable, relevant_lines
from ioflusher.kernlog.records import DeviceServer, EventKind, Record
from ioflusher.support.text import counted, printable

if TYPE_CHECKING:
    from concurrent.futures import Executor

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class LogResult:
    """What came of one log.

    Attributes:
        name: as it was given.
        diagnosis: of what could be read.
        trouble: why it could not be used, or not to its end; None where it could.
        hint: what to do about the trouble, None where nothing is known to help.
    """

    name: str
    diagnosis: Diagnosis
    trouble: str | None = None
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What holds for every log.

    Attributes:
        daemons: task names known to serve storage; `*` at the end is any rest.
        everything: keep tasks that wait for work or run, too.
        servers: who serves what on the machine that the logs are from; empty where nobody knows.
    """

    daemons: tuple[str, ...] = ()
    everything: bool = False
    servers: tuple[DeviceServer, ...] = ()

    def diagnoser(self) -> Diagnoser:
        """One for a log."""
        diagnoser = Diagnoser(self.daemons, self.everything)
        for server in self.servers:
            diagnoser.take(server)
        return diagnoser


def diagnose_file(name: str, options: Options, progress: Progress | None = None) -> LogResult:
    """Diagnose the log of that name ("-": standard input). What is wrong with the input is in the result."""
    return diagnose_source(name, lambda: opened(name), options, progress)


def diagnose_source(
    name: str,
    source: Callable[[], AbstractContextManager[Readable]],
    options: Options,
    progress: Progress | None = None,
) -> LogResult:
    """Diagnose what `source` opens, as far as it can be read; `name` is what messages call it."""
    diagnoser = options.diagnoser()
    watched = _Watched()
    trouble: LogUnreadableError | None = None
    try:
        with source() as stream:
            watched.stream = stream
            for record in read_records(relevant_lines(watched, progress)):
                diagnoser.take(record)
    except LogUnreadableError as error:
        trouble = error
    diagnosis = diagnoser.result()
    if trouble is not None:
        return LogResult(name, diagnosis, str(trouble), trouble.hint)
    if not (diagnosis.reports or diagnosis.episodes or diagnosis.events) and (reason := watched.no_log()):
        return LogResult(
            name, diagnosis, f"{name} {reason}", "give the text of a kernel log, dmesg or console"
        )
    if not diagnosis.recursion and (unread := _unread(diagnosis)):
        return LogResult(
            name,
            diagnosis,
            f"{name}: {unread}",
            "give the log as the kernel wrote it, with the lines name+0x1/0x2 below each announcement",
        )
    return LogResult(name, diagnosis)


def _unread(diagnosis: Diagnosis) -> str | None:
    """What is there to read and could not be read; None where nothing is."""
    lines = next((event for event in diagnosis.events if event.kind is EventKind.UNREAD_STACK), None)
    if lines is None:
        return None
    where = f"line {lines.line}" if lines.line is not None else f"byte {lines.offset}"
    others = f", and {counted(lines.count - 1, 'further line')} alike" if lines.count > 1 else ""
    said = printable(lines.first.strip())
    return f"no stack could be read where {where} announces or shows one{others}: {said}"


def diagnose_records(name: str, records: Callable[[], Iterable[Record]], options: Options) -> LogResult:
    """Diagnose what is no text: a kernel's memory. What is wrong with it is in the result."""
    diagnoser = options.diagnoser()
    try:
        for record in records():
            diagnoser.take(record)
    except LogUnreadableError as error:
        return LogResult(name, diagnoser.result(), str(error), error.hint)
    return LogResult(name, diagnoser.result())


def diagnose_files(
    names: Iterable[str], options: Options, executor: "Executor | None" = None
) -> Iterator[LogResult]:
    """The results of many logs, in the order of their names, each as soon as it and those before are done.

    Args:
        names: readable where the executor works.
        options: for all of them.
        executor: a process pool or a cluster's; None works here, one after another.
    """
    if executor is None:
        yield from (diagnose_file(name, options) for name in names)
        return
    futures = [executor.submit(diagnose_file, name, options) for name in names]
    for future in futures:
        yield future.result()


class _Watched:
    """A stream that remembers what its beginning was like."""

    stream: Readable

    def __init__(self) -> None:
        self._beginning = b""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Hand the call on."""
        length = self.stream.readinto(buffer)
        wanted = min(length or 0, 65536 - len(self._beginning))
        if wanted:
            self._beginning += bytes(buffer[:wanted])
        return length

    def no_log(self) -> str | None:
        """Why this is no log at all, for an input without any stack; None for text."""
        if not self._beginning:
            return "is empty"
        # a console capture may hold some NULs; a binary file is full of what no log has
        odd = sum(byte < 9 or 13 < byte < 27 for byte in self._beginning)
        return "is not text: no kernel log" if odd * 20 > len(self._beginning) else None
