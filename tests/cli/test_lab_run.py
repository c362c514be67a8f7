"""`ioflusher lab run`, `lab runs` and `lab show`: nothing that was measured is lost, whatever happens.

The guests are played from prepared halves; everything from there to the terminal, the store and the report is
the program's own.
"""

import io
import json
import os
import pty
import re
import select
import shutil
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.cli import program
from tests.cli.program import Ended
from tests.lab.halves import FINISHED, FROZEN, FROZEN_UNSEEN, LOST, WRONG

import ioflusher.report.experiment_html
from ioflusher.cli.lab import lab
from ioflusher.cli.lab_options import ProgressLine, progress_line
from ioflusher.cli.lab_run import _report_progress
from ioflusher.errors import IoflusherError
from ioflusher.lab import repeat
from ioflusher.lab.errors import LabError, MachineLost
from ioflusher.lab.messages import DeviceFrozen, Hello, Sampled, SettingUp
from ioflusher.lab.outcome import Half
from ioflusher.lab.qemu import Accelerator
from ioflusher.lab.store import ExperimentStore, store_path
from ioflusher.scenario.file import builtin_scenarios

LIVED_WITHOUT = replace(FINISHED, io_flusher=False)


@dataclass
class Guests:
    """Halves that guests will have played: what comes out of each, in the order of the machines booted."""

    halves: list[Half | BaseException | Callable[[], Half]] = field(default_factory=list)
    booted: int = 0

    def will_play(self, *pairs: Sequence[Half | BaseException]) -> None:
        """These runs, each as (without, with)."""
        self.halves += [half for pair in pairs for half in pair]

    def run_half(self, *_: Any, io_flusher: bool, **__: Any) -> Half:
        """In the place of a machine that is booted."""
        self.booted += 1
        played = self.halves.pop(0)
        if isinstance(played, BaseException):
            raise played
        if callable(played):
            played = played()
        assert played.io_flusher is io_flusher
        return played


class ReadyLab:
    """A lab whose kernel is found and whose directories are walked."""

    kernel = SimpleNamespace(release="6.12.117")
    accelerator = Accelerator.TCG

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> "ReadyLab":
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def guests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Guests]:
    """Prepared guests, in a directory and with a store of the test's own."""
    played = Guests()
    monkeypatch.setattr(repeat, "run_half", played.run_half)
    monkeypatch.setattr("ioflusher.lab.session.Lab", ReadyLab)
    # halves come from the list in its order, one after the other; a test of its own has them at once
    monkeypatch.setattr("ioflusher.lab.capacity.why_in_turn", lambda *_: "the test says so")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    yield played
    assert not played.halves, "not all halves were played"


def call(*words: str) -> Ended:
    """Run a verb of `ioflusher lab` through the program's real entry; unexpected exceptions come through."""
    return program.call("lab", *words)


def run(*words: str) -> Ended:
    """Run `ioflusher lab run swap-on-nbd`."""
    return call("run", "swap-on-nbd", *words)


def record(result: Ended) -> dict[str, Any]:
    """Standard output, which must be one JSON object and nothing else."""
    found: dict[str, Any] = json.loads(result.stdout)
    return found


# exit statuses: the reason, not only the number


@pytest.mark.parametrize(
    ("without", "with_", "status", "says"),
    [
        (FROZEN, FINISHED, 0, "with it, and nothing else changed, the same work was done."),
        (FROZEN_UNSEEN, FINISHED, 1, "frozen, but not seen waiting for itself without"),
        (LIVED_WITHOUT, FINISHED, 1, "this scenario shows no difference"),
        (FROZEN, WRONG, 1, "finished with wrong data with"),
        (FROZEN, LOST, 1, "frozen without, lost with"),
    ],
)
def test_the_status_follows_the_verdict(
    guests: Guests, without: Half, with_: Half, status: int, says: str
) -> None:
    """0 for a proof, 1 for everything else that was played to its end."""
    guests.will_play((without, with_))
    result = run("--json")
    assert result.status == status
    assert says in record(result)["verdict"]


@pytest.mark.parametrize(
    ("only", "half", "status"),
    [
        ("without", FROZEN, 0),
        ("without", FROZEN_UNSEEN, 1),
        ("without", LIVED_WITHOUT, 1),
        ("with", FINISHED, 0),
        ("with", WRONG, 1),
    ],
)
def test_one_half_alone(guests: Guests, only: str, half: Half, status: int) -> None:
    """One machine is booted, and judged by itself."""
    guests.will_play((half,))
    result = run("--only", only, "--json")
    assert result.status == status
    assert guests.booted == 1
    (played,) = record(result)["runs"]
    assert played["with" if only == "without" else "without"] is None


# printed as it ends


def test_each_half_is_printed_as_it_ends(guests: Guests) -> None:
    """A line for the first half is there before the second machine is booted; the whole at the end."""
    seen: list[str] = []

    def second() -> Half:
        seen.append(sys.stdout.getvalue() if hasattr(sys.stdout, "getvalue") else "")
        seen.append(str(ExperimentStore().experiments()[0].runs[0].without))
        return FINISHED

    guests.halves += [FROZEN, second]
    result = run()
    assert result.status == 0
    assert seen[1] == "HalfOutcome.FROZEN", "it is kept before the second machine is booted"
    first, second_line, empty, story, *_ = result.stdout.splitlines()
    assert first.startswith("without: FROZEN after 3.1 s")
    assert second_line.startswith("with: FINISHED after 10.1 s")
    assert empty == ""
    assert story.startswith("swap-on-nbd")
    assert "verdict" in result.stdout
    assert "kept as run 1: `ioflusher lab show 1`" in result.stdout
    assert result.stdout.endswith("report: reports/swap-on-nbd.html\n")
    assert Path("reports/swap-on-nbd.html").exists()


def test_json_stands_alone(guests: Guests) -> None:
    """One object on standard output; progress, lines of halves and the report's place on standard error."""
    guests.will_play((FROZEN, FINISHED), (FROZEN, FINISHED))
    result = run("--runs", "2", "--json")
    found = record(result)
    assert result.stdout.count("\n") == 1
    assert (found["planned"], found["done"], found["kept_as"]) == (2, 2, 1)
    assert "run 1 of 2, without: FROZEN" in result.stderr
    assert "run 2 of 2, with: FINISHED" in result.stderr
    assert "report: reports/swap-on-nbd.html" in result.stderr


# both halves at once


def test_both_halves_at_once(guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine has room, unless one after the other is asked for; the report says which it was."""
    playing: list[bool] = []
    both = threading.Barrier(2, timeout=10)

    def run_half(*_: Any, io_flusher: bool, on_report: Any, on_machine: Any) -> Half:
        playing.append(io_flusher)
        on_report(io_flusher, SettingUp(step="starting the daemon"))
        if together:
            both.wait()
        return FINISHED if io_flusher else FROZEN

    monkeypatch.setattr(repeat, "run_half", run_half)
    monkeypatch.setattr("ioflusher.lab.capacity.why_in_turn", lambda *_: None)
    together = True
    result = run("--json")
    assert (result.status, record(result)["at_once"]) == (0, True)
    assert sorted(playing) == [False, True]
    assert "without the state: starting the daemon ..." in result.stderr
    assert "with the state: starting the daemon ..." in result.stderr
    assert "emulated, both halves at once" in call("show", "1").stdout
    together, playing[:] = False, []
    result = run("--json", "--sequential")
    assert (result.status, record(result)["at_once"], playing) == (0, False, [False, True])
    assert "at once" not in call("show", "2").stdout
    assert "one half is played after the other" not in result.stderr, "that was asked for"
    playing[:] = []
    assert record(run("--json", "--only", "with"))["at_once"] is False
    assert playing == [True]


def test_a_machine_without_room_for_both(guests: Guests) -> None:
    """They are played one after the other, and the reason is said."""
    guests.will_play((FROZEN, FINISHED))
    result = run("--json")
    assert record(result)["at_once"] is False
    assert "ioflusher: one half is played after the other: the test says so" in result.stderr


# cut short


def seven_and(*rest: Half | BaseException) -> list[Sequence[Half | BaseException]]:
    """Seven runs that prove it, and then."""
    return [*[(FROZEN, FINISHED)] * 7, rest]


@pytest.mark.parametrize("second", [False, True])
def test_ctrl_c_after_seven_of_ten(guests: Guests, monkeypatch: pytest.MonkeyPatch, second: bool) -> None:
    """Seven are reported, and the half that was played of the eighth; status 130."""
    without_the_extra(monkeypatch)
    guests.will_play(*seven_and(*([FROZEN] if second else []), KeyboardInterrupt()))
    result = run("--runs", "10", "--json")
    assert result.status == 130
    assert "ioflusher: interrupted" in result.stderr
    found = record(result)
    assert found["interrupted"] is True
    assert (found["planned"], found["done"], len(found["runs"])) == (10, 7, 7)
    assert (found["unfinished"] is not None) is second
    assert found["verdict"].endswith("in 7 of 7 runs.")
    shown = call("show", "1", "--json")
    assert shown.stdout == result.stdout


def test_ctrl_c_as_text(guests: Guests) -> None:
    """The same for people, with a report."""
    guests.will_play((FROZEN, FINISHED), (FROZEN, KeyboardInterrupt()))
    result = run("--runs", "10")
    assert result.status == 130
    assert "interrupted after 1 of 10 runs" in result.stdout
    assert "FROZEN 1 of 1" in result.stdout
    assert "interrupted after 1 of 10 runs" in Path("reports/swap-on-nbd.html").read_text()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_as_ctrl_c_does(guests: Guests, number: signal.Signals, status: int) -> None:
    """The status tells which; what was played by then is kept and printed, the other machines are ended."""
    before = signal.getsignal(number)

    def half() -> Half:
        os.kill(os.getpid(), number)
        return FROZEN

    guests.halves += [FROZEN, FINISHED, half]
    result = run("--runs", "10", "--json")
    assert result.status == status
    assert "ioflusher: interrupted" in result.stderr
    found = record(result)
    assert (found["interrupted"], found["done"]) == (True, 1)
    assert found["unfinished"]["without"]["outcome"] == "frozen"
    assert json.loads(call("show", "1", "--json").stdout) == found
    assert signal.getsignal(number) is before


def test_ctrl_c_while_a_run_is_kept(guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    """The half that had just ended is neither lost nor left out of the store; a whole run counts as done."""
    calls = []
    keep = ExperimentStore.keep

    def interrupted(store: ExperimentStore, *arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        keep(store, *arguments)

    monkeypatch.setattr(ExperimentStore, "keep", interrupted)
    guests.will_play((FROZEN, FINISHED))
    result = run("--runs", "3", "--json")
    assert result.status == 130
    found = record(result)
    assert (found["done"], found["unfinished"]) == (1, None)
    assert found["runs"][0]["with"]["outcome"] == "finished"
    assert call("show", "1", "--json").stdout == result.stdout


def test_ctrl_c_before_anything_was_measured(guests: Guests) -> None:
    """Status 130, an object that says that nothing was done, no report, nothing kept."""
    guests.will_play((KeyboardInterrupt(),))
    result = run("--json")
    assert result.status == 130
    found = record(result)
    assert (found["done"], found["unfinished"], found["kept_as"]) == (0, None, None)
    assert not Path("reports").exists()
    assert call("runs").stdout == ""


@pytest.mark.parametrize("as_json", [True, False])
def test_an_error_in_run_eight_of_ten(guests: Guests, monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    """Seven are reported, and the error with what to do about it; status 2."""
    without_the_extra(monkeypatch)
    error = MachineLost("the guest said nothing for 60 s", hint="try --accelerator tcg")
    guests.will_play(*seven_and(error))
    result = run("--runs", "10", *(["--json"] if as_json else []))
    assert result.status == 2
    assert "ioflusher: the guest said nothing for 60 s (try --accelerator tcg)" in result.stderr
    if as_json:
        found = record(result)
        assert found["error"] == "the guest said nothing for 60 s (try --accelerator tcg)"
        assert (found["interrupted"], found["done"], len(found["runs"])) == (False, 7, 7)
    else:
        text = " ".join(result.stdout.split())
        assert "failed after 7 of 10 runs: the guest said nothing for 60 s" in text
        assert "FROZEN 7 of 7" in text


def test_a_crash_says_where_the_runs_are(guests: Guests) -> None:
    """An error of the program itself: it comes through, and the runs before it are kept."""
    guests.will_play((FROZEN, FINISHED), (FROZEN, ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError):
        run("--runs", "3")
    (kept,) = ExperimentStore().experiments()
    assert [(r.without is not None, r.with_ is not None) for r in kept.runs] == [(True, True), (True, False)]
    shown = json.loads(call("show", "1", "--json").stdout)
    assert (shown["ending"], shown["done"]) == ("unknown", 1)


# another daemon


def test_another_daemon_is_played_and_kept(guests: Guests) -> None:
    """The words as a shell splits them; the definition that is kept and reported is the changed one."""
    guests.will_play((FROZEN, FINISHED))
    result = run("--json", "--daemon", "sh -c 'exec serve \"$1\"' {socket} {file}")
    assert result.status == 0, result.stderr
    (kept,) = ExperimentStore().experiments()
    definition = kept.plan.definition
    assert definition.daemon.command == ("sh", "-c", 'exec serve "$1"', "{socket}", "{file}")
    assert definition.daemon.store == "file"
    assert "serves it" in record(result)["served"]
    assert "with another daemon" in record(result)["title"]
    guests.will_play((FROZEN, FINISHED))
    assert run("--daemon", "sh {directory} {mount}", "--kind", "fuse").status == 0
    assert ExperimentStore().experiments()[0].plan.definition.device.kind == "fuse"
    guests.will_play((FROZEN, FINISHED))
    assert run("--daemon", "sh {socket}", "--setup", "true {file}", "--setup", "true").status == 0
    assert ExperimentStore().experiments()[0].plan.definition.daemon.setup == (("true", "{file}"), ("true",))


def test_a_daemon_of_this_directory(guests: Guests) -> None:
    """Its program is named as from here, and guests get its path."""
    Path("server").write_text("#!/bin/sh\n")
    Path("server").chmod(0o755)
    guests.will_play((FROZEN, FINISHED))
    assert run("--daemon", "./server {socket} {file}").status == 0
    (kept,) = ExperimentStore().experiments()
    assert kept.plan.definition.daemon.command[0] == str(Path("server").absolute())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--daemon", "nbdkit 'x {socket}"), "No closing quotation"),
        (("--daemon", "  "), "expected a command, found none"),
        (("--daemon", "sh {socket} {device}"), "found {device}, {socket}"),
        (("--daemon", "sh {directory} {mount}"), "these are placeholders of the kind fuse"),
        (("--daemon", "sh {socket} {file}", "--kind", "ubkl"), "did you mean ublk?"),
        (("--kind", "ublk"), "--kind and --setup go with --daemon"),
        (("--daemon", "no-such-daemon {socket} {file}"), "no-such-daemon (of no package that is known here)"),
        (("--daemon", "./nowhere {socket} {file}"), "/nowhere (of no package that is known here)"),
        (("--share", "/nowhere/at-all"), "does not exist"),
    ],
)
def test_a_daemon_that_cannot_be_played(guests: Guests, words: tuple[str, ...], says: str) -> None:
    """Nothing is booted; the message has what was found and what to do."""
    result = run(*words)
    assert result.status == 2
    assert says in " ".join(result.stderr.split())
    assert guests.booted == 0


# what the end needs is looked at before the first boot


def without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where `pip install ioflusher` was all."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def test_without_the_extra(guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said before anything is booted, everything is played, printed and kept; status by the verdict."""
    without_the_extra(monkeypatch)
    guests.will_play((FROZEN, FINISHED))
    result = run()
    assert result.status == 0
    assert result.stderr.index("there will be no HTML report") < result.stderr.index("booting")
    assert "pip install 'ioflusher[lab]'" in result.stderr
    assert "verdict" in result.stdout
    assert "report:" not in result.stdout
    assert call("show", "1").status == 0


def test_without_the_extra_as_json(guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    """The object is whole."""
    without_the_extra(monkeypatch)
    guests.will_play((FROZEN, FINISHED))
    result = run("--json")
    assert result.status == 0
    assert record(result)["done"] == 1


def test_a_report_that_was_asked_for_needs_the_extra(guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is booted in vain."""
    without_the_extra(monkeypatch)
    result = run("--report", "mine")
    assert result.status == 2
    assert "hint: pip install 'ioflusher[lab]'" in result.stderr
    assert guests.booted == 0
    assert not Path("mine").exists()


def test_a_report_directory_that_cannot_be_written(guests: Guests) -> None:
    """One that was asked for ends it before the first boot; the default one is only said to be missing."""
    Path("reports").write_text("a file")
    for place, says in (
        ("reports", "Directory 'reports' is a file"),
        ("reports/below", "the report cannot be written to reports/below: Not a directory"),
        ("/proc/nowhere", "the report cannot be written to /proc/nowhere: No such file"),
    ):
        result = run("--report", place)
        assert result.status == 2
        assert says in result.stderr
        assert guests.booted == 0
    guests.will_play((FROZEN, FINISHED))
    result = run("--json")
    assert result.status == 0
    assert "there will be no HTML report: the report cannot be written to reports" in result.stderr
    assert record(result)["done"] == 1


def test_a_report_that_fails_in_the_end(guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up while the guests run: everything has been printed and kept before."""

    def fail(*_: Any) -> Path:
        raise IoflusherError("the report cannot be written to mine: No space left on device")

    monkeypatch.setattr(ioflusher.report.experiment_html, "write_report", fail)
    guests.will_play((FROZEN, FINISHED), (FROZEN, FINISHED))
    result = run("--report", "mine", "--json")
    assert result.status == 2
    assert record(result)["as_expected"] is True
    assert "what was measured is kept: `ioflusher lab show 1`" in result.stderr
    result = run("--json")
    assert result.status == 0
    assert "No space left on device" in result.stderr


def test_a_store_that_is_damaged(guests: Guests) -> None:
    """It is said, before the first boot, that nothing will be kept; the runs are printed all the same."""
    store_path().parent.mkdir(parents=True)
    store_path().write_bytes(b"not a database at all, but long enough to be taken for one" * 50)
    guests.will_play((FROZEN, FINISHED))
    result = run("--json")
    assert result.status == 0
    assert result.stderr.index("printed, but not kept") < result.stderr.index("booting")
    assert "lab.sqlite is damaged" in result.stderr
    assert "hint: move it away" in result.stderr
    assert record(result)["kept_as"] is None
    for verb in (["runs"], ["show", "1"]):
        refused = call(*verb)
        assert refused.status == 2
        assert "lab.sqlite is damaged" in refused.stderr


def test_a_store_that_breaks_while_guests_run(guests: Guests) -> None:
    """The run that was just made is printed; the loss is said each time."""

    def broken() -> Half:
        shutil.rmtree(store_path().parent)
        store_path().parent.write_text("in the way")
        return FINISHED

    guests.halves += [FROZEN, broken, FROZEN, FINISHED]
    result = run("--runs", "2", "--json")
    assert result.status == 0
    assert record(result)["done"] == 2
    assert result.stderr.count("this run is not kept") == 4


def test_a_store_that_was_moved_away_while_guests_run(guests: Guests) -> None:
    """A new one is made, which does not know the experiment: said, and gone on."""

    def moved() -> Half:
        shutil.rmtree(store_path().parent)
        return FINISHED

    guests.halves += [FROZEN, moved]
    result = run("--json")
    assert result.status == 0
    assert "no longer knows this experiment" in result.stderr


def test_standard_output_that_is_closed(guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is booted where nothing could be printed."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        with pytest.raises(IoflusherError, match="standard output is closed"):
            lab.main(["run", "swap-on-nbd"], standalone_mode=False)
    assert guests.booted == 0


def test_a_terminal_without_umlauts(guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    """Characters that standard output does not have become escapes, not an error after the work is done."""
    text = builtin_scenarios()["swap-on-nbd"]
    Path("mine.toml").write_text(text.replace("swap on a", "für \\u2192 swap on a"))
    guests.will_play((FROZEN, FINISHED))
    result = program.call("lab", "run", "./mine.toml", encoding="ascii")
    assert result.status == 0, result.stderr
    assert "f\\xfcr \\u2192 swap on a" in result.stdout


# read back


def test_show_prints_what_run_printed(guests: Guests, tmp_path: Path) -> None:
    """Text, JSON and the HTML report of a kept run are those of the run itself, byte for byte."""
    guests.will_play((FROZEN, FINISHED), (FROZEN, WRONG))
    printed = run("--runs", "2")
    assert printed.status == 1
    shown = call("show", "1")
    assert shown.status == 0
    assert shown.stdout in printed.stdout
    assert shown.stdout.startswith("swap-on-nbd")
    report = call("show", "1", "--report", str(tmp_path / "again"))
    assert report.stdout == f"report: {tmp_path}/again/swap-on-nbd.html\n"
    for name in ("swap-on-nbd.html", "swap-on-nbd.svg"):
        assert (tmp_path / "again" / name).read_bytes() == (Path("reports") / name).read_bytes()
    guests.will_play((FROZEN, FINISHED))
    assert call("show", "2", "--json").stdout == ""
    result = run("--json")
    assert call("show", "2", "--json").stdout == result.stdout


def test_show_one_run_of_several(guests: Guests) -> None:
    """17.2 is the second run of number 17."""
    guests.will_play((FROZEN, FINISHED), (FROZEN, WRONG))
    run("--runs", "2", "--json")
    assert json.loads(call("show", "1.1", "--json").stdout)["as_expected"] is True
    second = json.loads(call("show", "1.2", "--json").stdout)
    assert second["as_expected"] is False
    assert second["runs"][0]["with"]["wrong_chunks"] == 3


def test_show_what_is_not_there(guests: Guests) -> None:
    """A number that is not kept names the list; one that is none, the form."""
    result = call("show", "7")
    assert result.status == 2
    assert "no run 7 is kept" in result.stderr
    for word in ("last", "1.", "-1", "1.2.3", "٣"):
        result = call("show", "--", word)
        assert result.status == 2
        assert "expected a number such as 17" in result.stderr
    assert call("show", "1", "--json", "--report", "x").status == 2


def test_the_list_of_runs(guests: Guests) -> None:
    """A line for each `lab run`, newest first, with its outcomes and how it ended."""
    result = call("runs")
    assert result.status == 0
    assert "no runs are kept" in result.stderr
    guests.will_play((FROZEN, FINISHED))
    run()
    guests.will_play(*[(FROZEN, FINISHED)] * 2, (FROZEN_UNSEEN, FINISHED), (FROZEN, KeyboardInterrupt()))
    run("--runs", "10", "--kernel", "6.1")
    guests.will_play((FROZEN,))
    run("--only", "without")
    head, third, second, first = call("runs").stdout.splitlines()
    assert head.split() == ["RUN", "BEGAN", "SCENARIO", "KERNEL", "DONE", "WITHOUT", "WITH", "PROVED"]
    date = r"20\d\d-\d\d-\d\d \d\d:\d\d"
    assert re.fullmatch(rf"1    {date}  swap-on-nbd  6\.12\.117  1 of 1 +frozen +finished +1 of 1", first)
    assert re.fullmatch(
        rf"2    {date}  swap-on-nbd  6\.12\.117  3 of 10, interrupted  4 frozen  3 finished  2 of 3", second
    )
    assert re.fullmatch(rf"3    {date}  swap-on-nbd  6\.12\.117  1 of 1 +frozen +- +-", third)
    listed = json.loads(call("runs", "--json").stdout)
    assert [row["id"] for row in listed] == [3, 2, 1]
    assert (listed[1]["planned"], listed[1]["done"], listed[1]["ending"]) == (10, 3, "interrupted")
    assert listed[1]["runs"][3] == {"number": 4, "without": "frozen", "with": None, "proved": False}


def test_the_list_marks_what_has_no_end(guests: Guests) -> None:
    """A killed program, and a failure."""
    guests.will_play((FROZEN, LabError("gone")))
    run()
    database = sqlite3.connect(store_path())
    with database:
        line = call("runs").stdout.splitlines()[1]
        assert "0 of 1, failed" in line
        database.execute("UPDATE experiment SET ending = 'unknown'")
    database.close()
    assert "0 of 1, no end" in call("runs").stdout


# progress


def read_until(terminal: int, text: str) -> str:
    """What a terminal shows until it shows the text."""
    shown, deadline = "", time.monotonic() + 30
    while text not in shown:
        assert time.monotonic() < deadline, shown
        if select.select([terminal], [], [], 1)[0]:
            shown += os.read(terminal, 65536).decode()
    return shown


def test_lines_go_to_standard_output_beside_a_terminals_progress(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`lab run >file` on a terminal: rich alone would print on the terminal, and the file stay empty."""
    monkeypatch.setenv("TERM", "xterm")
    leader, follower = pty.openpty()
    with open(follower, "w") as terminal, open(tmp_path / "out", "w") as out:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setattr(sys, "stdout", out)
        with progress_line() as progress:
            progress("the work begins | 7 requests completed")
            shown = read_until(leader, "7 requests completed")
            with progress.hidden():
                print("without: FROZEN", flush=True)
            progress("and more")
            shown += read_until(leader, "and more")
    os.close(leader)
    assert (tmp_path / "out").read_text() == "without: FROZEN\n"
    assert "FROZEN" not in shown


def test_a_terminal_sees_both_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each on a line of its own, until it has ended; a log gets one line for each step."""
    told: list[tuple[str, str]] = []

    class Told(ProgressLine):
        def __call__(self, text: str, *, beside: str = "") -> None:
            told.append((text, beside))

    show = _report_progress(Told(None), 3, 10)
    show(False, Sampled(completed=7, in_flight=2, memory_kib={"MemFree": 9 << 10}))
    show(True, SettingUp(step="starting the daemon"))
    show(True, Hello(release="6.12.117"))
    show(False, DeviceFrozen(8.0, 7, 2, (), (), {}, {}))
    show(True, SettingUp(step="putting swap on it"))
    work = "run 3 of 10, without the state: the work begins | 7 requests completed, 2 in flight, 9 MiB free"
    assert told == [
        ("run 3 of 10, booting", ""),
        (work, ""),
        ("run 3 of 10, with the state: starting the daemon", work),
        ("run 3 of 10, with the state: putting swap on it", ""),
    ]
    monkeypatch.setenv("TERM", "xterm")
    leader, follower = pty.openpty()
    with open(follower, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with progress_line() as progress:
            progress("with the state: starting", beside="without the state: the work begins | 7 done")
            shown = read_until(leader, "7 done")
    os.close(leader)
    assert "with the state: starting\r\n" in re.sub(r"\x1b\[[0-9;]*m| +(?=\r)", "", shown)
    assert "without the state: the work begins, 7 done" in shown


def test_progress_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step once, without the part that changes all the time."""
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with progress_line() as progress:
        for count in range(3):
            progress(f"the work begins | {count} requests completed")
        with progress.hidden():
            pass
        progress("booting")
    assert log.getvalue() == "the work begins ...\nbooting ...\n"
