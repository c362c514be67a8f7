"""The runs that this machine has played, kept with their evidence in one SQLite file.

`lab run` puts a run in as soon as its first half has ended, and again, in the same place, when the second
has; whatever goes wrong later, it can be read back. Two tables: `experiment`, a row for each `lab run`, and
`run`, a row for each of its runs. What is not looked for in SQL is typed JSON of the frozen dataclasses in
`lab/outcome.py`; evidence is compressed. The oldest runs are dropped where there are too many or they are too
large, never the newest one. Every operation opens the file anew, so that several processes can keep runs at
once and none holds it while a guest runs for minutes.
"""

import contextlib
import json
import os
import re
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from ioflusher import __version__
from ioflusher.kernlog.reading.frames import Frame, parse_proc_stack
from ioflusher.kernlog.stacks.waits import StackExplanation, explain_stack
from ioflusher.lab.errors import LabError
from ioflusher.lab.outcome import Ending, Experiment, HalfOutcome, Plan, Run

APPLICATION_ID = 0x696F666C  # "iofl", PRAGMA application_id: what says of a file that it is ours
SCHEMA_VERSION = 1  # PRAGMA user_version
MOST_RUNS = 10_000  # a matrix has hundreds
LARGEST_BYTES = 256 << 20  # of evidence, compressed; a run has 3 to 4 KiB
BUSY_S = 30.0  # how long another process may hold the file
ABANDONED_S = 30 * 86400.0  # an experiment without a run and without an end is forgotten after so long

_TABLES = (
    """CREATE TABLE experiment (
        id       INTEGER PRIMARY KEY AUTOINCREMENT,
        began_at REAL NOT NULL,   -- seconds since 1970
        program  TEXT NOT NULL,   -- version of ioflusher
        plan     TEXT NOT NULL,   -- JSON of Plan
        ending   TEXT NOT NULL,   -- value of Ending
        error    TEXT
    )""",
    """CREATE TABLE run (
        id         INTEGER PRIMARY KEY AUTOINCREMENT,
        experiment INTEGER NOT NULL REFERENCES experiment (id),
        number     INTEGER NOT NULL,  -- from 1
        without    TEXT,              -- value of HalfOutcome; NULL: not played
        with_      TEXT,
        proved     INTEGER NOT NULL,
        bytes      INTEGER NOT NULL,  -- of evidence
        evidence   BLOB NOT NULL,     -- zlib of JSON of Run
        UNIQUE (experiment, number)
    )""",
)
_DROP_OLDEST = """
DELETE FROM run WHERE id IN (
    SELECT id FROM (
        SELECT id, row_number() OVER newest_first AS place, sum(bytes) OVER newest_first AS total
        FROM run WINDOW newest_first AS (ORDER BY id DESC ROWS UNBOUNDED PRECEDING)
    ) WHERE place > 1 AND (place > :most OR total > :largest)
)
"""
# one that has just begun has no run yet
_DROP_EMPTY = """
DELETE FROM experiment WHERE id NOT IN (SELECT experiment FROM run)
AND (ending <> :unknown OR began_at < :long_ago)
"""


class StoreError(LabError):
    """The store cannot be read or written, or does not have what was asked for."""


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A run of an experiment, without its evidence: number from 1, outcomes (None: not played)."""

    number: int
    without: HalfOutcome | None
    with_: HalfOutcome | None
    proved: bool


@dataclass(frozen=True, slots=True)
class KeptExperiment:
    """What the store says of an experiment without unpacking its evidence.

    Attributes:
        id: its number in the store.
        began_at: seconds since 1970.
        program: version of ioflusher that kept it.
        plan: what was to be played.
        runs: those that are still kept.
        ending: how it ended.
        error: why, where it failed.
    """

    id: int
    began_at: float
    program: str
    plan: Plan
    runs: tuple[KeptRun, ...]
    ending: Ending
    error: str | None


def store_path() -> Path:
    """$XDG_STATE_HOME/ioflusher/lab.sqlite, by default ~/.local/state/ioflusher/lab.sqlite.

    The XDG base directory specification has relative paths ignored.
    """
    base = Path(os.environ.get("XDG_STATE_HOME") or "-")
    if not base.is_absolute():
        try:
            base = Path.home() / ".local" / "state"
        except RuntimeError as error:
            raise StoreError(f"no place to keep runs in: {error}", hint="set XDG_STATE_HOME") from error
    return base / "ioflusher" / "lab.sqlite"


class ExperimentStore:
    """The store in a file; made where it is not there and something is to be kept.

    Every method raises StoreError, with what to do about it, where the file cannot be used, is damaged,
    belongs to another program or was written by a newer ioflusher.
    """

    def __init__(
        self, path: Path | None = None, *, most_runs: int = MOST_RUNS, largest_bytes: int = LARGEST_BYTES
    ) -> None:
        self.path = path or store_path()
        self._most_runs = most_runs
        self._largest_bytes = largest_bytes

    def check(self) -> None:
        """Make the file where there is none, and prove that it can be written."""
        with self._writing():
            pass

    def begin(self, plan: Plan) -> int:
        """Keep that an experiment begins; returns its number."""
        with self._writing() as database:
            row = database.execute(
                "INSERT INTO experiment (began_at, program, plan, ending) VALUES (?, ?, ?, ?)",
                (time.time(), __version__, _json(plan).decode(), Ending.UNKNOWN.value),
            )
            assert row.lastrowid is not None
            return row.lastrowid

    def keep(self, experiment: int, number: int, run: Run) -> None:
        """Keep a run, in the place of what was kept under its number; drop the oldest where it is too much.

        Args:
            experiment: its number, from `begin`.
            number: the run's within the experiment, from 1.
            run: its halves, or the first of them.
        """
        evidence = zlib.compress(_json(run))
        with self._writing() as database:
            database.execute("DELETE FROM run WHERE experiment = ? AND number = ?", (experiment, number))
            database.execute(
                "INSERT INTO run (experiment, number, without, with_, proved, bytes, evidence)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    experiment,
                    number,
                    run.without and run.without.outcome.value,
                    run.with_ and run.with_.outcome.value,
                    run.proved,
                    len(evidence),
                    evidence,
                ),
            )
            database.execute(_DROP_OLDEST, {"most": self._most_runs, "largest": self._largest_bytes})
            self._drop_empty(database)

    def end(self, experiment: int, ending: Ending, error: str | None = None) -> None:
        """Keep how the experiment ended; one without a run is forgotten."""
        with self._writing() as database:
            database.execute(
                "UPDATE experiment SET ending = ?, error = ? WHERE id = ?", (ending.value, error, experiment)
            )
            self._drop_empty(database)

    def _drop_empty(self, database: sqlite3.Connection) -> None:
        long_ago = time.time() - ABANDONED_S
        database.execute(_DROP_EMPTY, {"unknown": Ending.UNKNOWN.value, "long_ago": long_ago})

    def experiments(
        self, on_unreadable: Callable[[StoreError], None] = lambda error: None
    ) -> list[KeptExperiment]:
        """Every experiment that has a run, the newest first; none where there is no file.

        Args:
            on_unreadable: called for each that this version cannot read, with its number and why; it is
                left out of the list.
        """
        found = []
        for row, runs in self._experiment_rows():
            try:
                found.append(_kept_experiment(row, map(_kept_run, runs)))
            except StoreError as error:
                on_unreadable(error)
        return found

    def comparable_experiments(self) -> list[KeptExperiment]:
        """Those of them whose scenario says the same to this version of ioflusher as to the one that kept it.

        Left out are those that it cannot read, and those with a key that it does not know: without that key
        such a scenario could look like another one.
        """
        found = []
        for row, runs in self._experiment_rows():
            with contextlib.suppress(StoreError):
                kept = _kept_experiment(row, map(_kept_run, runs))
                if _knows_all(msgspec.json.decode(row[3])["definition"], kept.plan.definition):
                    found.append(kept)
        return found

    def _experiment_rows(self) -> list[tuple[tuple[Any, ...], list[tuple[Any, ...]]]]:
        """The rows of experiments that have runs, each with the rows of these, the newest first."""
        if not self._exists():
            return []
        with self._open() as database:
            if not self._is_ours(database):
                return []
            runs: dict[int, list[tuple[Any, ...]]] = {}
            for owner, *run in database.execute(
                "SELECT experiment, number, without, with_, proved FROM run ORDER BY experiment, number"
            ):
                runs.setdefault(owner, []).append(tuple(run))
            rows = database.execute("SELECT * FROM experiment ORDER BY id DESC").fetchall()
            return [(row, runs[row[0]]) for row in rows if row[0] in runs]

    def load(self, experiment: int, number: int | None = None) -> Experiment:
        """An experiment with its evidence as it was kept; with `number`, that run of it alone."""
        kept, numbered = self._load(experiment, number)
        runs = [run for _, run in numbered]
        plan = kept.plan if number is None else replace(kept.plan, runs=1)
        if number is not None and runs[0].whole(plan.only):
            return Experiment(plan, tuple(runs))
        return Experiment(
            plan,
            tuple(run for run in runs if run.whole(plan.only)),
            next((run for run in runs if not run.whole(plan.only)), None),
            kept.ending,
            kept.error,
        )

    def load_runs(self, experiment: int) -> dict[int, Run]:
        """The runs of an experiment by their number, those that lack a half among them."""
        return dict(self._load(experiment, None)[1])

    def _load(self, experiment: int, number: int | None) -> tuple[KeptExperiment, list[tuple[int, Run]]]:
        """An experiment without its runs, and these with their evidence; `number`: one of them alone."""
        wanted = f"{experiment}" if number is None else f"{experiment}.{number}"
        nothing = StoreError(
            f"no run {wanted} is kept in {self.path}", hint="`ioflusher lab runs` lists what is"
        )
        if not self._exists():
            raise nothing
        with self._open() as database:
            if not self._is_ours(database):
                raise nothing
            row = database.execute("SELECT * FROM experiment WHERE id = ?", (experiment,)).fetchone()
            found = database.execute(
                "SELECT number, evidence FROM run WHERE experiment = ? ORDER BY number", (experiment,)
            ).fetchall()
        found = [(n, evidence) for n, evidence in found if number in (None, n)]
        if row is None or not found:
            raise nothing
        kept = _kept_experiment(row, [])
        return kept, [
            (n, _decoded_run(evidence, f"run {experiment}.{n}", kept.program)) for n, evidence in found
        ]

    def _exists(self) -> bool:
        try:
            return self.path.exists()
        except OSError as error:
            raise StoreError(f"cannot read {self.path}: {error.strerror}", errno=error.errno) from error

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The file, opened and checked; what SQLite says against it becomes a StoreError."""
        try:
            uri = f"{self.path.absolute().as_uri()}?mode=rwc"
            with contextlib.closing(
                sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None)
            ) as database:
                self._recognize(database)
                yield database
        except sqlite3.Error as error:
            raise self._explained(error) from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, in a file that is made where there is none."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"runs cannot be kept in {self.path.parent}: {error.strerror}",
                errno=error.errno,
                hint="set XDG_STATE_HOME to a directory that can be written",
            ) from error
        with self._open() as database:
            database.execute("PRAGMA foreign_keys = ON")
            if not self._is_ours(database):
                self._create(database)
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            finally:
                if database.in_transaction:
                    database.execute("ROLLBACK")

    def _is_ours(self, database: sqlite3.Connection) -> bool:
        return _pragma(database, "application_id") == APPLICATION_ID

    def _recognize(self, database: sqlite3.Connection) -> None:
        """Refuse what is another program's, or a newer one's; an empty file is nobody's yet."""
        if not self._is_ours(database):
            if _pragma(database, "application_id") or _has_tables(database):
                raise StoreError(
                    f"{self.path} is a database of another program, so runs are neither kept there nor read",
                    hint="move it away, or set XDG_STATE_HOME to another place",
                )
            return
        version = _pragma(database, "user_version")
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"{self.path} is a store of version {version}; this ioflusher knows version {SCHEMA_VERSION}",
                hint="use the ioflusher that wrote it, or move the file away",
            )

    def _create(self, database: sqlite3.Connection) -> None:
        """Make the tables. Of two processes that come here at once, the second finds them made."""
        # readers do not wait for a writer; a file system that cannot do it leaves the ordinary journal
        with contextlib.suppress(sqlite3.OperationalError):
            database.execute("PRAGMA journal_mode = WAL")
        database.execute("BEGIN IMMEDIATE")
        if not self._is_ours(database):
            for statement in _TABLES:
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        database.execute("COMMIT")

    def _explained(self, error: sqlite3.Error) -> StoreError:
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            return StoreError(f"{self.path} was locked by another process for {BUSY_S:g} s")
        if isinstance(error, sqlite3.IntegrityError):
            return StoreError(f"{self.path} no longer knows this experiment: {error}")
        if isinstance(error, sqlite3.OperationalError):
            return StoreError(
                f"{self.path} cannot be used: {error}",
                hint="see that it can be written and the disk is not full, or set XDG_STATE_HOME",
            )
        return StoreError(
            f"{self.path} is damaged, or no store of runs: {error}",
            hint=f"move it away: mv {self.path} {self.path}.damaged",
        )


def _json(record: Plan | Run) -> bytes:
    """Typed JSON. A lone surrogate, which stands for a byte that was not UTF-8, becomes the text \\udcNN."""
    try:
        return msgspec.json.encode(record)
    except UnicodeEncodeError:
        text = json.dumps(msgspec.to_builtins(record), ensure_ascii=False)
        escaped = re.sub("[\ud800-\udfff]", lambda found: f"\\\\u{ord(found[0]):04x}", text)
        return escaped.encode()


def _pragma(database: sqlite3.Connection, name: str) -> int:
    (value,) = database.execute(f"PRAGMA {name}").fetchone()
    return int(value)


def _has_tables(database: sqlite3.Connection) -> bool:
    return database.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None


def _kept_run(row: tuple[Any, ...]) -> KeptRun:
    number, without, with_, proved = row
    return KeptRun(number, without and _outcome(without), with_ and _outcome(with_), bool(proved))


def _kept_experiment(row: tuple[Any, ...], runs: Iterable[KeptRun]) -> KeptExperiment:
    number, began_at, program, plan, ending, error = row
    try:
        return KeptExperiment(
            number,
            began_at,
            program,
            msgspec.json.decode(plan, type=Plan),
            tuple(runs),
            Ending(ending),
            error,
        )
    except (msgspec.MsgspecError, ValueError) as problem:
        raise _unreadable(f"the plan of run {number}", program, problem) from problem


def _knows_all(raw: Any, known: Any) -> bool:
    """Whether a record that was read from JSON has every key of it."""
    known = msgspec.to_builtins(known)
    if isinstance(raw, dict):
        return isinstance(known, dict) and all(
            key in known and _knows_all(value, known[key]) for key, value in raw.items()
        )
    if isinstance(raw, list):
        return len(raw) == len(known) and all(map(_knows_all, raw, known))
    return True


def _outcome(value: str) -> HalfOutcome:
    try:
        return HalfOutcome(value)
    except ValueError as error:
        raise _unreadable("an outcome", "another version", error) from error


def _decoded_run(evidence: bytes, name: str, program: str) -> Run:
    """The run, its stacks explained as they were when it was kept."""
    try:
        record = msgspec.json.decode(zlib.decompress(evidence))
        for half in (record["without"], record["with_"]):
            for thread in half["threads"] if half else ():
                thread["explanation"] = _explanation(thread)
        return msgspec.convert(record, Run)
    except (msgspec.MsgspecError, zlib.error, ValueError, TypeError, KeyError) as error:
        raise _unreadable(name, program, error) from error


def _explanation(thread: dict[str, Any]) -> StackExplanation | None:
    """A thread's stack explained as it was kept; anew where another version of ioflusher has other words."""
    kept = thread["explanation"]
    if kept is None:
        return None
    try:
        return msgspec.convert(kept, StackExplanation)
    except msgspec.ValidationError:
        frames = parse_proc_stack(thread.get("stack", "")) or tuple(
            msgspec.convert(marked["frame"], Frame) for marked in kept["marked"]
        )
        return explain_stack(frames)


def _unreadable(name: str, program: str, error: Exception) -> StoreError:
    return StoreError(
        f"{name}, kept by ioflusher {program}, cannot be read by ioflusher {__version__}: {error}",
        hint="the version that kept it can read it, unless the file is damaged",
    )
