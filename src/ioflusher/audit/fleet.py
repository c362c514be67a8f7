"""One recorded machine or a fleet of them: each is judged by itself, here or in a process pool."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ioflusher.audit.config import Config
from ioflusher.audit.finding import AuditReport, Severity
from ioflusher.audit.run import audit
from ioflusher.machine.codec import read_snapshot
from ioflusher.machine.errors import SnapshotError

# files that a process of a pool takes at a time: each takes a few milliseconds
AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of one machine.

    Attributes:
        input: the file of its snapshot, None for the live machine.
        report: None where the snapshot could not be used.
        trouble: why it could not.
        hint: what to do about the trouble, None where nothing is known to help.
    """

    input: str | None
    report: AuditReport | None
    trouble: str | None = None
    hint: str | None = None


def audit_file(name: str, config: Config) -> Judged:
    """Judge a recorded machine. What is wrong with the file is in the result."""
    try:
        snapshot = read_snapshot(Path(name))
    except SnapshotError as error:
        return Judged(name, None, str(error), error.hint)
    return Judged(name, audit(snapshot, config))


def audit_files(
    names: Iterable[str],
    config: Config,
    executor: Executor | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Iterator[Judged]:
    """The results of many recorded machines, in the order of their names.

    Args:
        names: of files, readable where the executor works.
        config: for all of them.
        executor: a process pool; None works here, one after another.
        progress: called once for each that is done.
    """
    if executor is None:
        for name in names:
            yield audit_file(name, config)
            progress()
        return
    judge = partial(audit_file, config=config)
    for result in executor.map(judge, names, chunksize=AT_ONCE):
        yield result
        progress()


def worst(results: Iterable[Judged]) -> Severity | None:
    """The highest severity that was found anywhere, None where nothing was."""
    found = (result.report.worst for result in results if result.report is not None)
    return max((severity for severity in found if severity), key=lambda s: s.rank, default=None)
