"""The store: what goes in comes out, it stays within its bounds, and a bad file is named."""

import os
import sqlite3
import subprocess
import sys
import zlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ioflusher.lab.outcome import Ending, Experiment, Half, HalfOutcome, Run
from ioflusher.lab.store import APPLICATION_ID, SCHEMA_VERSION, ExperimentStore, StoreError, store_path
from tests.lab.halves import BY_NAME, FINISHED, FROZEN, PROVED, STACK_IN_RECLAIM, experiment, plan


@pytest.fixture
def store(tmp_path: Path) -> ExperimentStore:
    """A store in a directory that is not there yet."""
    return ExperimentStore(tmp_path / "state" / "ioflusher" / "lab.sqlite")


def keep(store: ExperimentStore, found: Experiment) -> int:
    """Keep a whole experiment as the lab does, half by half."""
    number = store.begin(found.plan)
    for place, run in enumerate((*found.runs, *([found.unfinished] if found.unfinished else [])), start=1):
        if run.without and run.with_:
            store.keep(number, place, replace(run, with_=None))
        store.keep(number, place, run)
    store.end(number, found.ending, found.error)
    return number


@pytest.mark.parametrize("name", BY_NAME)
def test_every_outcome_comes_back_as_it_was(name: str, store: ExperimentStore) -> None:
    """All evidence: samples, threads with flags, stacks and explanations, console."""
    half = BY_NAME[name]
    found = experiment(Run(None, None).with_half(half), only="with" if half.io_flusher else "without")
    assert store.load(keep(store, found)) == found


def test_an_experiment_comes_back_as_it_was(store: ExperimentStore) -> None:
    """Complete, interrupted in its eighth run, failed; several at once."""
    cut = Experiment(plan(runs=10), (PROVED,) * 7, Run(FROZEN, None), Ending.INTERRUPTED)
    failed = Experiment(plan(runs=2), (PROVED,), None, Ending.FAILED, "the guest\nwas lost")
    one = experiment(Run(None, FINISHED), only="with")
    numbers = {keep(store, found): found for found in (experiment(PROVED), cut, failed, one)}
    assert len(numbers) == 4
    for number, found in numbers.items():
        assert store.load(number) == found


def test_one_run_of_several(store: ExperimentStore) -> None:
    """It comes back alone, as an experiment of one run that is judged by itself."""
    second = Run(FROZEN, replace(FINISHED, completed=777))
    cut = Experiment(plan(runs=3), (PROVED, second), Run(FROZEN, None), Ending.INTERRUPTED)
    number = keep(store, cut)
    assert store.load(number, 2) == Experiment(plan(runs=1), (second,))
    assert store.load(number, 2).as_expected
    assert store.load(number, 3).unfinished == Run(FROZEN, None)
    with pytest.raises(StoreError, match=rf"no run {number}\.4 is kept") as caught:
        store.load(number, 4)
    assert "lab runs" in (caught.value.hint or "")


def test_an_experiment_that_was_killed(store: ExperimentStore) -> None:
    """Its first half is there, and that nobody knows how it ended."""
    number = store.begin(plan(runs=10))
    store.keep(number, 1, Run(FROZEN, None))
    found = store.load(number)
    assert found == Experiment(plan(runs=10), (), Run(FROZEN, None), Ending.UNKNOWN)
    (kept,) = store.experiments()
    assert kept.ending is Ending.UNKNOWN


def test_the_list(store: ExperimentStore) -> None:
    """Newest first, with outcomes and proofs, without unpacking anything."""
    assert store.experiments() == []
    assert not store.path.parent.exists(), "looking makes nothing"
    first = keep(store, experiment(PROVED, Run(BY_NAME["frozen-unseen"], FINISHED)))
    second = keep(store, experiment(Run(FROZEN, None), only="without"))
    newer, older = store.experiments()
    assert (newer.id, older.id) == (second, first)
    assert [(run.number, run.without, run.with_, run.proved) for run in older.runs] == [
        (1, HalfOutcome.FROZEN, HalfOutcome.FINISHED, True),
        (2, HalfOutcome.FROZEN, HalfOutcome.FINISHED, False),
    ]
    assert newer.runs[0].with_ is None
    assert newer.plan == plan(only="without")


def test_what_another_version_kept_is_compared_with_nothing(store: ExperimentStore) -> None:
    """A key that is not known, or a plan that cannot be read: it might be the very thing that differs."""
    own, other, broken = (keep(store, experiment(PROVED)) for _ in range(3))
    assert [kept.id for kept in store.comparable_experiments()] == [broken, other, own]
    with sqlite3.connect(store.path) as database:
        for number, old, new in (
            (other, '"deadline_s":', '"hardened":true,"deadline_s":'),
            (broken, '"served":', '"served_by":'),
        ):
            (text,) = database.execute("SELECT plan FROM experiment WHERE id = ?", (number,)).fetchone()
            assert old in text
            changed = text.replace(old, new)
            database.execute("UPDATE experiment SET plan = ? WHERE id = ?", (changed, number))
    database.close()
    assert [kept.id for kept in store.comparable_experiments()] == [own]
    assert store.load(other).runs == (PROVED,), "it can be shown all the same"
    unreadable: list[StoreError] = []
    assert [kept.id for kept in store.experiments(unreadable.append)] == [other, own]
    (error,) = unreadable
    assert str(error).startswith(f"the plan of run {broken}, kept by ioflusher")


def test_an_experiment_without_a_run_is_forgotten_at_its_end(store: ExperimentStore) -> None:
    """It has nothing to show; but one that is still being played is left alone by others."""
    playing = store.begin(plan())
    empty = store.begin(plan())
    store.end(empty, Ending.FAILED, "no guest came up")
    assert store.experiments() == []
    store.keep(playing, 1, PROVED)
    assert store.load(playing).runs == (PROVED,)
    with pytest.raises(StoreError, match="no run"):
        store.load(empty)


def test_the_oldest_runs_are_dropped(tmp_path: Path) -> None:
    """By number: the newest stay, of the experiment at the border those that are still within."""
    store = ExperimentStore(tmp_path / "lab.sqlite", most_runs=5)
    numbers = [keep(store, experiment(PROVED, PROVED)) for _ in range(4)]
    assert [kept.id for kept in store.experiments()] == numbers[:0:-1]
    assert [run.number for run in store.experiments()[-1].runs] == [2]
    found = store.load(numbers[1])
    assert found.runs == (PROVED,)
    assert not found.as_expected, "one of two runs is gone"
    with pytest.raises(StoreError, match="no run"):
        store.load(numbers[0])


def test_the_size_is_bounded(tmp_path: Path) -> None:
    """By size: the file stays about as large as its bound, and the newest run is kept even above it."""
    noise = [os.urandom(20_000).hex() for _ in range(30)]
    store = ExperimentStore(tmp_path / "lab.sqlite", largest_bytes=200_000)
    for text in noise:
        keep(store, experiment(Run(replace(FROZEN, console=text), None), only="without"))
    assert store.path.stat().st_size < 2 * 200_000
    assert 5 <= len(store.experiments()) < 10
    tiny = ExperimentStore(store.path, largest_bytes=10)
    number = keep(tiny, experiment(PROVED))
    assert [kept.id for kept in tiny.experiments()] == [number]
    assert tiny.load(number).runs == (PROVED,)


def test_a_run_is_small(store: ExperimentStore) -> None:
    """A console of a quarter MiB and five minutes of samples are compressed to a few dozen KiB."""
    line = "[   12.345678] nbd0: detected capacity change from 0 to 524288\n"
    memory = {f"Line{number}(kB)": number * 4711 for number in range(55)}
    many = tuple(replace(FROZEN.samples[0], time_s=t * 1.0, memory_kib=memory) for t in range(300))
    half = replace(FROZEN, console=line * 4000, samples=many)
    number = store.begin(plan())
    store.keep(number, 1, Run(half, half))
    assert store.path.stat().st_size < 200_000
    assert store.load(number).unfinished is None


def test_the_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """$XDG_STATE_HOME where it is an absolute path, else ~/.local/state."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    assert store_path() == tmp_path / "elsewhere" / "ioflusher" / "lab.sqlite"
    for value in ("", "relative/path"):
        monkeypatch.setenv("XDG_STATE_HOME", value)
        assert store_path() == tmp_path / ".local" / "state" / "ioflusher" / "lab.sqlite"


def test_the_directory_is_private(store: ExperimentStore) -> None:
    """Consoles are nobody else's business."""
    store.check()
    assert store.path.parent.stat().st_mode & 0o777 == 0o700


def test_readers_do_not_wait_for_a_writer(store: ExperimentStore) -> None:
    """The journal is a write-ahead log: the list is there while another process holds the file."""
    keep(store, experiment(PROVED))
    writer = sqlite3.connect(store.path, isolation_level=None)
    assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM run")
    assert len(store.experiments()) == 1
    writer.execute("ROLLBACK")
    writer.close()


def test_a_lock_that_is_held_is_named(store: ExperimentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits too long says for what."""
    monkeypatch.setattr("ioflusher.lab.store.BUSY_S", 0.1)
    number = store.begin(plan())
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"locked by another process for 0\.1 s"):
        store.keep(number, 1, PROVED)
    other.close()
    store.keep(number, 1, PROVED)


def _play(path: Path, label: int) -> list[int]:
    """What one of several processes does: begin and keep in a file that is not there at first."""
    store = ExperimentStore(path)
    found = []
    for _ in range(5):
        mine = replace(plan(runs=3), title=f"process {label}")
        found.append(keep(store, Experiment(mine, (PROVED,) * 3)))
    return found


def test_several_processes_at_once(tmp_path: Path) -> None:
    """Four processes make the file and keep runs in it: none is lost, none is mixed up."""
    path = tmp_path / "new" / "lab.sqlite"
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        futures = {label: pool.submit(_play, path, label) for label in range(4)}
        numbers = {label: future.result(timeout=120) for label, future in futures.items()}
    store = ExperimentStore(path)
    assert len(store.experiments()) == 20
    for label, own in numbers.items():
        for number in own:
            found = store.load(number)
            assert found.plan.title == f"process {label}"
            assert found.runs == (PROVED,) * 3


def test_a_killed_process_leaves_a_whole_file(tmp_path: Path) -> None:
    """SIGKILL in the middle of keeping: what was kept before is read back."""
    path = tmp_path / "lab.sqlite"
    code = (
        "import sys; from pathlib import Path; from tests.lab.halves import PROVED, plan\n"
        "from ioflusher.lab.store import ExperimentStore\n"
        "store = ExperimentStore(Path(sys.argv[1])); number = store.begin(plan(runs=100000))\n"
        "for place in range(1, 100000):\n"
        "    store.keep(number, place, PROVED); print(place, flush=True)\n"
    )
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, cwd=root
    ) as process:
        assert process.stdout is not None
        for _ in range(20):
            last = int(process.stdout.readline())
        process.kill()
        process.wait(timeout=30)
    store = ExperimentStore(path)
    (kept,) = store.experiments()
    assert len(kept.runs) >= last
    assert all(run == PROVED for run in store.load(kept.id).runs)
    store.keep(kept.id, last + 100, PROVED)


# files that are no store


def test_a_file_that_is_no_database(store: ExperimentStore) -> None:
    """It is named, what to do is said, and it is left as it is."""
    store.path.parent.mkdir(parents=True)
    store.path.write_text("my diary, not a database at all\n" * 100)
    for attempt in (store.check, store.experiments, lambda: store.load(1), lambda: store.begin(plan())):
        with pytest.raises(StoreError, match="no store of runs: file is not a database") as caught:
            attempt()
        assert f"mv {store.path} {store.path}.damaged" in (caught.value.hint or "")
    assert store.path.read_text().startswith("my diary")


def test_another_programs_database(store: ExperimentStore) -> None:
    """Its tables are left alone, whether it has an application_id or not."""
    for statement in ("CREATE TABLE moz_places (url TEXT)", "PRAGMA application_id = 7"):
        store.path.parent.mkdir(parents=True, exist_ok=True)
        store.path.unlink(missing_ok=True)
        other = sqlite3.connect(store.path)
        other.execute(statement)
        other.commit()
        other.close()
        before = store.path.read_bytes()
        for attempt in (store.check, store.experiments, lambda: store.load(1)):
            with pytest.raises(StoreError, match="a database of another program"):
                attempt()
        assert store.path.read_bytes() == before


def test_a_store_of_a_newer_version(store: ExperimentStore) -> None:
    """It is neither read nor written."""
    keep(store, experiment(PROVED))
    database = sqlite3.connect(store.path)
    database.execute("PRAGMA user_version = 9")
    database.close()
    for attempt in (store.check, store.experiments):
        with pytest.raises(StoreError, match=f"version 9; this ioflusher knows version {SCHEMA_VERSION}"):
            attempt()


def test_a_damaged_store(store: ExperimentStore) -> None:
    """Bytes overwritten in the middle of the file: an error of the store, not of SQLite."""
    for _ in range(20):
        noise = replace(FROZEN, console=os.urandom(5000).hex())
        keep(store, experiment(Run(noise, None), only="without"))
    data = bytearray(store.path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    store.path.write_bytes(data)
    with pytest.raises(StoreError, match="damaged"):
        store.experiments()


def test_evidence_that_cannot_be_unpacked(store: ExperimentStore) -> None:
    """The run is named, and the version that kept it."""
    number = keep(store, experiment(PROVED, PROVED))
    database = sqlite3.connect(store.path)
    for evidence in (b"", b"noise", zlib.compress(b"{}"), zlib.compress(b'{"without": 7, "with_": null}')):
        with database:
            database.execute("UPDATE run SET evidence = ? WHERE number = 2", (evidence,))
        with pytest.raises(StoreError, match=rf"run {number}\.2, kept by ioflusher .*, cannot be read"):
            store.load(number)
        assert store.load(number, 1).runs == (PROVED,), "the others are still there"
    database.close()


def test_explanations_of_another_version_are_made_anew(store: ExperimentStore) -> None:
    """Roles that this version does not know: the stack is explained again from what was read of it."""
    number = keep(store, experiment(PROVED))
    database = sqlite3.connect(store.path)
    (evidence,) = database.execute("SELECT evidence FROM run").fetchone()
    record = msgspec.json.decode(zlib.decompress(evidence))
    witness = record["without"]["threads"][1]
    assert witness["stack"] == STACK_IN_RECLAIM
    witness["explanation"]["kind"] = "a-kind-of-2031"
    witness["explanation"]["sentence"] = "what nobody says today"
    for text in (STACK_IN_RECLAIM, ""):  # as from /proc, and from a console
        witness["stack"] = text
        with database:
            database.execute("UPDATE run SET evidence = ?", (zlib.compress(msgspec.json.encode(record)),))
        (run,) = store.load(number).runs
        assert run.proved
        assert run.without is not None
        assert run.without.threads[1].explanation == FROZEN.threads[1].explanation
    database.close()


def test_a_run_that_was_kept_before_near_misses_were_counted(store: ExperimentStore) -> None:
    """It is read as it was; what nobody counted is None."""
    number = keep(store, experiment(PROVED))
    database = sqlite3.connect(store.path)
    (evidence,) = database.execute("SELECT evidence FROM run").fetchone()
    record = msgspec.json.decode(zlib.decompress(evidence))
    for name in ("without", "with_"):
        del record[name]["near_misses"]
    with database:
        database.execute("UPDATE run SET evidence = ?", (zlib.compress(msgspec.json.encode(record)),))
    database.close()
    (run,) = store.load(number).runs
    assert run.without is not None
    assert run.without == replace(FROZEN, near_misses=None)
    assert run.proved


@pytest.mark.live
def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    """A file where the directory should be, and a place where nobody can write."""
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "ioflusher" / "lab.sqlite", Path("/proc/ioflusher/lab.sqlite")):
        store = ExperimentStore(place)
        with pytest.raises(StoreError, match="cannot be kept") as caught:
            store.check()
        assert "XDG_STATE_HOME" in (caught.value.hint or "")
        assert store.experiments() == []


def test_a_directory_in_its_place(store: ExperimentStore) -> None:
    """SQLite's own complaint becomes the store's."""
    store.path.mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot be used: unable to open"):
        store.check()


def test_who_it_says_it_is(store: ExperimentStore) -> None:
    """file(1) and SQLite see whose file it is."""
    store.check()
    assert store.path.read_bytes()[68:72] == APPLICATION_ID.to_bytes(4, "big") == b"iofl"


# lone surrogates are escaped when they are stored, which another test holds
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(comm=TEXT, console=TEXT, seconds=st.floats(0, 1e6), count=st.integers(0, 2**62))
def test_any_text_and_number_comes_back(
    store: ExperimentStore, comm: str, console: str, seconds: float, count: int
) -> None:
    """Names and consoles may hold anything that Unicode has."""
    threads = (replace(FROZEN.threads[0], comm=comm),)
    half: Half = replace(FROZEN, threads=threads, console=console, wall_s=seconds, completed=count)
    number = store.begin(plan())
    store.keep(number, 1, Run(half, half))
    (run,) = store.load(number).runs
    back = run.without
    assert back is not None
    assert (back.wall_s, back.completed) == (seconds, count)
    assert back == half


def test_a_name_that_is_no_utf8(store: ExperimentStore) -> None:
    """A daemon can be called anything; its run is kept all the same."""
    half = replace(FROZEN, threads=(replace(FROZEN.threads[0], comm='a\udcff"\\b\\udc00'),))
    number = store.begin(plan())
    store.keep(number, 1, Run(half, half))
    (run,) = store.load(number).runs
    assert run.without is not None
    assert run.without.threads[0].comm == 'a\\udcff"\\b\\udc00'
