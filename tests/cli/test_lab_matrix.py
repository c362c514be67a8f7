"""`ioflusher lab matrix`: what a user sees of a plan, before, while and after it is played.

Guests are played from prepared halves, in this process; all else is the program's own.
"""

import contextlib
import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.cli import program
from tests.cli.program import Ended
from tests.lab.halves import FINISHED, FROZEN, LOST

from ioflusher.lab import repeat
from ioflusher.lab.errors import LabError
from ioflusher.lab.kernels import Kernel
from ioflusher.lab.matrix import play, prepare
from ioflusher.lab.near_misses import NearMisses, ReclaimEntries
from ioflusher.lab.outcome import Half
from ioflusher.lab.qemu import Accelerator
from ioflusher.report.experiment_matrix_pictures import MATRIX_PICTURES
from ioflusher.scenario.records import Scenario

pytest.importorskip("scipy", reason="needs scipy: make setup")

FROZEN_WITH = replace(FROZEN, io_flusher=True)
PLAN = """
name = "mine"
scenarios = ["ext4-on-nbd-throttled"]
runs = 2
[axes]
kernel = ["5.8", "6.12"]
device.use = ["ext4", "swap"]
hardening.lock_memory = [false, true]
"""


class Here(Executor):
    """Plays at once, in this process."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **more: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(work(*arguments, **more))
        return done


class ReadyLab:
    """A lab whose kernel is found."""

    def __init__(self, boot: str, *, accelerator: Accelerator, shares: tuple[Path, ...]) -> None:
        self.kernel, self.accelerator = SimpleNamespace(release=boot), accelerator

    def __enter__(self) -> "ReadyLab":
        return self

    def __exit__(self, *_: object) -> None: ...


@dataclass
class Guests:
    """Prepared guests: what comes out of a scenario's half."""

    fate: Callable[[Scenario, bool], Half | BaseException] = lambda scenario, state: (
        FINISHED if state else FROZEN
    )
    played: list[tuple[bool, bool]] = field(default_factory=list)
    jobs: list[int] = field(default_factory=list)

    def run_half(self, lab: Any, scenario: Scenario, *, io_flusher: bool, **_: Any) -> Half:
        half = self.fate(scenario, io_flusher)
        if isinstance(half, BaseException):
            raise half
        self.played.append((scenario.hardening.lock_memory, io_flusher))
        return half


@pytest.fixture
def guests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Guests:
    """Prepared guests, and a plan and a store of the test's own; there is no kernel 5.8."""
    found = Guests()

    def find_kernel(wanted: str | None, *, download: bool) -> Kernel:
        if wanted == "5.8":
            raise LabError("no kernel 5.8", hint="give a bzImage with --kernel")
        return Kernel(f"{wanted or '6.12'}.117", Path("/image"), Path("/modules"))

    @contextlib.contextmanager
    def workers(jobs: int) -> Iterator[play.Workers]:
        found.jobs.append(jobs)
        yield play.Workers(Here(), lambda: None, True)

    monkeypatch.setattr(prepare, "find_kernel", find_kernel)
    monkeypatch.setattr(prepare, "known_accelerator", lambda kernel: Accelerator.TCG)
    monkeypatch.setattr(prepare, "check_programs", lambda scenario: None)
    monkeypatch.setattr(play, "Lab", ReadyLab)
    monkeypatch.setattr(play, "_worker", play._Worker())
    monkeypatch.setattr(play, "local_workers", workers)
    monkeypatch.setattr(repeat, "run_half", found.run_half)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    Path("plan.toml").write_text(PLAN)
    return found


def call(*words: str) -> Ended:
    """Run `ioflusher lab matrix` through the program's real entry."""
    return program.call("lab", "matrix", *words)


def record(ended: Ended) -> dict[str, Any]:
    """Standard output, which must be one JSON object and nothing else."""
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def columns(line: str) -> list[str]:
    """The cells of a table's line."""
    return re.split(" {2,}", line.strip())


def test_what_does_not_fit_is_said_before_anything_boots(guests: Guests) -> None:
    """With the reason; and what cannot be played here, and how much there is to do."""
    guests.fate = lambda scenario, state: LabError("stop")
    said = call("plan.toml").stderr.splitlines()
    before = said[: next(n for n, line in enumerate(said) if line.startswith("["))]
    start = before.index("ioflusher: combinations that do not fit a scenario:")
    assert before[start + 1 :] == [
        "  ext4-on-nbd-throttled, device.use swap (4 combinations): "
        "workload.kind 'files' does not go with device.use 'swap'",
        "ioflusher: combinations that cannot be played here:",
        "  ext4-on-nbd-throttled, kernel 5.8, device.use ext4 (2 combinations): "
        "no kernel 5.8 (give a bzImage with --kernel)",
        "ioflusher: 8 combinations, 2 can be played; 8 halves to play",
    ]


def test_a_line_for_each_run_with_the_time_left(guests: Guests) -> None:
    """Where there is no terminal."""
    said = call("plan.toml").stderr.splitlines()
    lines = [line for line in said if line.startswith("[")]
    assert len(lines) == 4
    cell = "ext4-on-nbd-throttled, kernel 6.12, device.use ext4, hardening.lock_memory (true|false)"
    fates = "frozen without after 3.1 s, finished with after 10.1 s"
    assert re.fullmatch(rf"\[2/8, 0:00:0\d left\] {cell}: {fates}", lines[0])
    assert lines[3].startswith("[8/8] ")
    assert [line for line in call("plan.toml", "--quiet", "--again").stderr.splitlines() if "[" in line] == []


def test_the_table_and_the_judgement(guests: Guests) -> None:
    """Each cell with its rates and intervals; each hardening with what is shown of it and why."""
    ended = call("plan.toml")
    lines = ended.stdout.splitlines()
    heading = ["scenario", "kernel", "device.use", "hardening.lock_memory"]
    assert columns(lines[0]) == [*heading, "without", "after, s", "with", "after, s", "shows"]
    assert columns(lines[1]) == [
        "ext4-on-nbd-throttled",
        "6.12",
        "ext4",
        "false",
        "frozen 2 of 2 (16-100 %)",
        "3.1, 3.1, 3.1",
        "lived 2 of 2 (16-100 %)",
        "10.1, 10.1, 10.1",
        "contrast",
    ]
    assert "ext4-on-nbd-throttled, kernel 6.12, device.use ext4" in lines
    (state,) = [line for line in lines if line.startswith("the IO_FLUSHER state")]
    assert "yes: lives with it alone, 2 of 2" in state
    assert "yes: everything else freezes without it" in state
    (lock,) = [line for line in lines if line.startswith("hardening.lock_memory")]
    assert "no: freezes with it alone, 2 of 2" in lock
    assert "it lived with the IO_FLUSHER state" in lines
    assert lines[-1] == "2 cells, 8 halves: 2 contrast"


def test_what_is_measured_is_not_played_again(guests: Guests) -> None:
    """The same plan twice, then more runs, then anew."""
    call("plan.toml")
    assert len(guests.played) == 8
    assert "0 halves to play" in call("plan.toml").stderr
    assert len(guests.played) == 8
    more = record(call("plan.toml", "--runs", "3", "--json"))
    assert len(guests.played) == 8 + 4
    assert [cell["without"]["halves"] for cell in more["cells"]] == [0, 0, 0, 0, 3, 3, 0, 0]
    anew = record(call("plan.toml", "--again", "--json"))
    assert len(guests.played) == 8 + 4 + 8
    assert anew["cells"][4]["with"]["lived"]["count"] == 2, "what was kept before does not count"
    assert record(call("plan.toml", "--kept", "--json"))["cells"][4]["with"]["lived"]["count"] == 5
    later = record(call("plan.toml", "--kept", "--since", "2999-01-01", "--json"))
    assert later["cells"][4]["with"]["lived"]["count"] == 0


def test_another_plan_takes_over_what_is_measured(guests: Guests) -> None:
    """A cell is known by what is played, not by its plan."""
    call("plan.toml")
    other = PLAN.replace('"5.8", "6.12"', '"6.12"').replace('"mine"', '"other"').replace('"swap"', '"xfs"')
    Path("other.toml").write_text(other)
    assert "4 combinations, 4 can be played; 8 halves to play" in call("other.toml").stderr


def test_kept_plays_nothing(guests: Guests) -> None:
    """And says what is missing, which is no success."""
    ended = call("plan.toml", "--kept")
    assert ended.status == 2
    assert guests.played == []
    assert "4 cells not measured to the end:" in ended.stdout
    assert "device.use ext4, hardening.lock_memory true: 0 without, 0 with the state measured" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "Nothing is measured yet."


@pytest.mark.parametrize(
    ("fate", "kernels", "status"),
    [
        ({True: FINISHED, False: FROZEN}, '"6.12"', 0),
        ({True: FINISHED, False: FROZEN}, '"5.8", "6.12"', 2),
        ({True: FROZEN_WITH, False: FROZEN}, '"5.8", "6.12"', 1),
        ({True: LOST, False: FROZEN}, '"6.12"', 1),
        ({True: FINISHED, False: replace(FINISHED, io_flusher=False)}, '"6.12"', 0),
    ],
)
def test_the_status(guests: Guests, fate: dict[bool, Half], kernels: str, status: int) -> None:
    """1 for a half with the state that did not live; else 2 while something is not measured; else 0."""
    guests.fate = lambda scenario, state: fate[state]
    Path("plan.toml").write_text(PLAN.replace('"5.8", "6.12"', kernels))
    assert call("plan.toml").status == status


def test_ctrl_c_says_how_to_go_on(guests: Guests) -> None:
    """What was measured is printed; the same command plays the rest, with --again from the same time on."""
    halves: list[Half | BaseException] = [FROZEN, FINISHED, FROZEN, KeyboardInterrupt()]

    def fate(scenario: Scenario, state: bool) -> Half | BaseException:
        if not halves:
            raise KeyboardInterrupt
        return halves.pop(0)

    guests.fate = fate
    ended = call("plan.toml", "--runs", "1", "--again")
    # the worker's Ctrl-C ends its run alone: the cell lacks a half
    assert ended.status == 2
    assert "hardening.lock_memory true: 1 without, 0 with the state measured" in ended.stdout
    guests.fate = Guests().fate
    assert "1 half to play" in call("plan.toml", "--runs", "1").stderr


def test_an_error_of_a_cell_is_told(guests: Guests) -> None:
    """With what is missing of it, and the others are measured."""

    def fate(scenario: Scenario, state: bool) -> Half | BaseException:
        if scenario.hardening.lock_memory:
            return LabError("mlockall() is refused")
        return FINISHED if state else FROZEN

    guests.fate = fate
    ended = call("plan.toml")
    assert ended.status == 2
    assert "true: 0 without, 0 with the state measured: mlockall() is refused" in ended.stdout
    assert "1 cell, 4 halves: 1 contrast" in ended.stdout


def test_json(guests: Guests) -> None:
    """All that the tables have, in numbers, with the runs that they are from."""
    found = record(call("plan.toml", "--json"))
    assert (found["plan"], found["runs"], found["confidence"]) == ("mine", 2, 0.95)
    assert found["command"] == "ioflusher lab matrix plan.toml"
    assert (found["ending"], found["complete"]) == ("incomplete", False)
    cell = found["cells"][4]
    assert cell["coordinates"] == {"kernel": "6.12", "device.use": "ext4", "hardening.lock_memory": "false"}
    assert (cell["kernel"], cell["accelerator"], cell["shows"]) == ("6.12.117", "emulated", "contrast")
    assert cell["without"]["frozen"] == {"count": 2, "of": 2, "interval": [0.1581, 1.0]}
    assert cell["without"]["froze_after_s"] == [3.1, 3.1]
    assert cell["kept_as"] == [1]
    assert (found["cells"][6]["fits"], found["cells"][0]["fits"]) == (False, True)
    assert found["cells"][0]["trouble"] == "no kernel 5.8 (give a bzImage with --kernel)"
    assert found["judgements"][0]["hardenings"] == [], "nothing is measured there"
    judged = found["judgements"][2]
    assert judged["context"] == {"scenario": "ext4-on-nbd-throttled", "kernel": "6.12", "device.use": "ext4"}
    assert judged["lives_with"] == [["the IO_FLUSHER state"]]
    assert judged["hardenings"][0]["hardening"] in ("the IO_FLUSHER state", "hardening.lock_memory")


def test_markdown(guests: Guests) -> None:
    """With the command, the kernels and the tables; a pipe in a label does not end a cell."""
    Path("plan.toml").write_text(
        PLAN.replace("hardening.lock_memory = [false, true]", "")
        + '[variants.hardening]\n"a|b" = {}\nlocked = { hardening.lock_memory = true }\n'
    )
    text = call("plan.toml", "--runs", "1", "--markdown").stdout
    assert text.startswith("`ioflusher lab matrix plan.toml --runs 1`: 2 cells, 4 halves: 2 contrast. ")
    assert "Kernels: 6.12.117; emulated. Intervals: 95 % confidence (Clopper and Pearson)." in text
    assert (
        "| ext4-on-nbd-throttled | 6.12 | ext4 | a\\|b | frozen 1 of 1 (3-100 %) | 3.1 "
        "| lived 1 of 1 (3-100 %) | 10.1 | contrast |" in text
    )
    assert "| the IO_FLUSHER state | yes: lives with it alone, 1 of 1 | yes: everything else" in text
    assert "Not measured to the end:\n\n- ext4-on-nbd-throttled, kernel 5.8" in text


def test_the_report(guests: Guests, tmp_path: Path) -> None:
    """A page and its pictures; everything in it is escaped, and every table of the terminal is there."""
    Path("plan.toml").write_text(
        PLAN.replace("hardening.lock_memory = [false, true]", "").replace('"mine"', '"mine"\ntitle = "<b>&"')
        + '[variants.hardening]\n"<i>" = {}\nlocked = { hardening.lock_memory = true }\n'
    )
    near = NearMisses((ReclaimEntries("GFP_KERNEL", True, True, False, 7, 0.5),), 0.25, 3, 1.5, 2.75)
    lived = replace(FINISHED, near_misses=near)
    guests.fate = lambda scenario, state: lived if state else FROZEN
    ended = call("plan.toml", "--report", "out")
    page = Path("out/matrix-mine.html")
    assert ended.stdout.splitlines()[-1] == f"report: {page}"
    text = page.read_text()
    assert "&lt;b&gt;&amp;" in text
    assert "<b>" not in text
    assert "<i>" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL)
    assert text.count("<svg") == len(MATRIX_PICTURES)
    for words in (
        "frozen 2 of 2 (16-100 %)",
        "lives with it alone, 2 of 2",
        "device.use swap (4 combinations)",
    ):
        assert words in text
    assert "<td>with, 2 halves</td><td>7</td><td>1.5</td><td>0.2</td><td>2.75</td>" in text
    assert "no kernel 5.8" in text
    for picture in MATRIX_PICTURES:
        assert Path(f"out/matrix-mine-{picture.name}.svg").read_text().startswith("<svg")
    again = call("plan.toml", "--report", "out", "--json")
    assert f"report: {page}" in again.stderr
    assert page.read_text() == text, "the same matrix, the same page"
    nothing = call("plan.toml", "--report", "empty", "--kept", "--since", "2999-01-01")
    assert nothing.status == 2
    assert "Nothing is measured yet." in Path("empty/matrix-mine.html").read_text()


def test_a_report_that_cannot_be_written(guests: Guests) -> None:
    """Known before anything is played."""
    Path("file").write_text("")
    ended = call("plan.toml", "--report", "file/out")
    assert (ended.status, guests.played) == (2, [])
    assert "the report cannot be written to file/out" in ended.stderr


def test_jobs(guests: Guests) -> None:
    """As many as are asked for, not more than there are runs."""
    call("plan.toml", "--jobs", "3")
    call("plan.toml", "--jobs", "100", "--again")
    assert guests.jobs == [3, 4]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["plan.toml", "--json", "--markdown"], "--json and --markdown contradict each other"),
        (["plan.toml", "--kept", "--again"], "--kept and --again contradict each other"),
        (["plan.toml", "--again", "--since", "2026-01-01"], "--again and --since contradict each other"),
        (["plan.toml", "--runs", "0"], "0 is not in the range"),
        (["missing.toml"], "cannot read the plan missing.toml: No such file or directory"),
        (["kernals"], "did you mean kernels?"),
        (["swap.toml"], "mine: none of 2 combinations fits a scenario"),
        (["wrong.toml"], "devise.use: scenarios have no key devise"),
        (["nowhere.toml"], "no scenario 'ext4'"),
    ],
)
def test_wrong_usage(guests: Guests, words: list[str], says: str) -> None:
    """2, with what is wrong; nothing is played."""
    Path("swap.toml").write_text(
        'name = "mine"\nscenarios = ["ext4-on-nbd-throttled"]\n[axes]\ndevice.use = ["swap", "fat"]\n'
    )
    Path("wrong.toml").write_text(PLAN.replace("device.use", "devise.use"))
    Path("nowhere.toml").write_text(PLAN.replace("ext4-on-nbd-throttled", "ext4"))
    ended = call(*words)
    assert ended.status == 2
    assert says in ended.stderr
    assert guests.played == []


def test_without_the_extra(guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is played, with what to install."""

    def missing(name: str) -> None:
        assert name == "scipy"

    monkeypatch.setattr(importlib.util, "find_spec", missing)
    ended = call("plan.toml")
    assert (ended.status, guests.played) == (2, [])
    assert "hint: pip install 'ioflusher[lab]'" in ended.stderr


def test_a_store_that_cannot_be_used(guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    """A matrix lives from its store: without one it does not begin."""
    Path("file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(Path("file").absolute()))
    ended = call("plan.toml")
    assert (ended.status, guests.played) == (2, [])
    assert "runs cannot be kept" in ended.stderr or "cannot read" in ended.stderr
