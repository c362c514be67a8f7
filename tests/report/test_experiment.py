"""Reports of experiments: text, JSON and HTML for every outcome, with the reason for each verdict."""

import io
import json
import re
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from rich.console import Console
from tests.lab.halves import (
    BY_NAME,
    FINISHED,
    FROZEN,
    FROZEN_UNSEEN,
    LOST,
    PANICKED,
    PROVED,
    WRONG,
    experiment,
    plan,
)

from ioflusher.errors import IoflusherError
from ioflusher.lab.file_systems import FileSystemCheck
from ioflusher.lab.memory.evidence import GuestMemory
from ioflusher.lab.messages import ThreadReport
from ioflusher.lab.near_misses import NearMisses
from ioflusher.lab.outcome import Ending, Experiment, Run, half_words
from ioflusher.report.experiment_html import check_report, render_html, warm_up, write_report
from ioflusher.report.experiment_json import experiment_record
from ioflusher.report.experiment_near_misses import near_miss_rows
from ioflusher.report.experiment_pictures import PICTURES, Picture, svg
from ioflusher.report.experiment_text import ending_sentence, half_sentence, print_experiment, print_half

GOLDEN = Path(__file__).parent / "golden"
EVIL = "</pre><script>alert(1)</script>\x1b[31m\u202e[bold]"
INTERRUPTED = Experiment(
    plan(runs=10), (PROVED,) * 7, unfinished=Run(FROZEN, None), ending=Ending.INTERRUPTED
)
FAILED = Experiment(
    plan(runs=10), (PROVED,) * 7, ending=Ending.FAILED, error="the guest said nothing for 60 s"
)
EXAMPLES = {
    "proved": experiment(PROVED),
    "wrong": experiment(Run(FROZEN, WRONG)),
    "panicked": experiment(Run(replace(LOST, io_flusher=False), PANICKED)),
    "several": experiment(PROVED, Run(FROZEN_UNSEEN, FINISHED)),
    "interrupted": INTERRUPTED,
}


def printed(found: Experiment, width: int = 80) -> str:
    """What a terminal of that width shows, without colours."""
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False, emoji=False)
    print_experiment(found, console)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def half_by(name: str) -> Run:
    """A run that has this half alone, in its place."""
    return Run(None, None).with_half(BY_NAME[name])


def record(run: Run) -> dict[str, Any]:
    """The JSON of the one half of the run."""
    text = json.dumps(experiment_record(experiment(run)))
    (found,) = json.loads(text)["runs"]
    half: dict[str, Any] = found["without"] or found["with"]
    return half


# text


@pytest.mark.parametrize("name", EXAMPLES)
def test_golden_text(name: str) -> None:
    """At 80 columns it is as it was when somebody looked at it."""
    assert printed(EXAMPLES[name]) == (GOLDEN / f"experiment-{name}.txt").read_text()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("frozen", "after 3.1 s: 10 requests completed, 2 in flight, none completed since. The daemon waits"),
        ("frozen-unseen", "1 in flight, none completed since. None of the daemon's threads was seen waiting"),
        ("finished", "after 10.1 s: 776 requests completed, 188 MiB read back, all as written"),
        ("wrong", "after 10.1 s: 776 requests completed, 188 MiB read back, 3 CHUNKS WRONG"),
        ("out-of-memory", "The kernel killed 1 process(es). 20 requests completed by then."),
        ("panicked", "The kernel panicked. 5 requests completed by then."),
        ("lost", "Neither done nor frozen after 150 s. 0 requests completed by then."),
    ],
)
def test_what_the_text_says_of_a_half(name: str, says: str) -> None:
    """Each outcome with its numbers; right and wrong data are never mixed up."""
    half = BY_NAME[name]
    assert says in half_sentence(half)
    text = " ".join(printed(experiment(half_by(name)), width=300).split())
    assert half.outcome.value.upper() in text
    assert says in text
    assert ("it waits here, for itself" in text) is (name == "frozen")
    assert ("last lines of the guest's console" in text) is (name in ("panicked", "lost"))


def test_numbers_of_memory_and_flags() -> None:
    """First, least and last free memory; how many threads carry the state, and their flags."""
    text = printed(experiment(PROVED), width=300)
    assert "102 MiB free at first, 9 MiB at least, 12 MiB in the end; 120 MiB of file cache then" in text
    assert "0.5 MiB, 1.4 MiB in the end" in text
    assert "0 of 2 threads carry the state (0x00400940 x2)" in text
    assert "2 of 2 threads carry the state (0x00580940 x2)" in text
    assert "played 2025-11-25 12:00 UTC; this machine's load was 0.5 before and 1.2 after" in text
    assert "unknown" in printed(experiment(half_by("lost")), width=300)
    assert "played" not in printed(experiment(half_by("lost")), width=300)


def test_the_file_system_that_was_looked_through() -> None:
    """Clean, damaged with what was said, or not checked and why; nothing where nobody looked."""
    text = printed(experiment(PROVED), width=300)
    assert "file system " not in text
    for clean, line, row in (
        (True, "all as written, file system clean", "clean (e2fsck -fn /dev/nbd0)"),
        (False, "all as written, FILE SYSTEM DAMAGED", "DAMAGED (e2fsck -fn /dev/nbd0): b; c; d; e; f\\x1b"),
        (
            None,
            "all as written, FILE SYSTEM NOT CHECKED",
            "not checked (e2fsck -fn /dev/nbd0): b; c; d; e; f\\x1b",
        ),
    ):
        check = FileSystemCheck("e2fsck -fn /dev/nbd0", clean, "a\nb\nc\nd\ne\nf\x1b")
        run = Run(FROZEN, replace(FINISHED, file_system=check))
        assert half_sentence(replace(FINISHED, file_system=check)).endswith(line)
        text = printed(experiment(run), width=300)
        assert row in text
        assert run.proved is (clean is True)
        assert row in render_html(experiment(run))
        assert record(Run(None, run.with_))["file_system"] == {
            "command": "e2fsck -fn /dev/nbd0",
            "clean": clean,
            "said": check.said,
        }


def test_what_was_read_from_a_guests_memory() -> None:
    """Its numbers and where they are from; why there are none; nothing where nobody had to ask."""
    assert "guest's memory" not in printed(experiment(PROVED), width=300)
    memory = GuestMemory(
        daemon=(ThreadReport(9, 9, "d", "D", 0x40), ThreadReport(9, 10, "d", "S", 0x40)),
        waiting=(ThreadReport(5, 5, "kswapd0", "D", 0x40),),
        memory_kib={
            "MemFree": 102400,
            "Active(file)": 20480,
            "Inactive(file)": 10240,
            "Dirty": 1024,
            "Writeback": 8192,
        },
        completed=9,
        in_flight=2,
        missing=("the stack of 10: gone\x1b",),
    )
    row = (
        "read from outside: 100 MiB free, 20 MiB active and 10 MiB inactive file cache, 1 MiB dirty, "
        "8 MiB in writeback; 2 requests in flight; 2 threads of the daemon and 1 other task in "
        "uninterruptible sleep, with flags and stacks; NOT FOUND: the stack of 10: gone\\x1b"
    )
    for found, words_ in ((memory, row), (GuestMemory(unreadable="no drgn"), "NOT READ: no drgn")):
        run = Run(None, replace(LOST, guest_memory=found))
        assert words_ in printed(experiment(run), width=900)
        assert words_ in words(render_html(experiment(run)))
    stack = "state D, flags 0x00400940"
    assert f"{stack}:" in printed(experiment(Run(FROZEN, None)), width=300)
    frozen = Run(replace(FROZEN, guest_memory=memory), None)
    assert f"{stack}, read from the guest's memory:" in printed(experiment(frozen), width=300)
    kept = record(Run(None, replace(LOST, guest_memory=memory)))["guest_memory"]
    assert (kept["in_flight"], kept["unreadable"]) == (2, "")
    assert kept["daemon"][0]["flags"] == 0x40


def test_near_misses() -> None:
    """Entries into reclaim by what they allowed, time throttled, the slowest request; unknown is no 0."""
    assert near_miss_rows(FROZEN) == [
        (
            "reclaim, I/O allowed",
            "35 entries, 4 of them without file systems, 9.75 s (GFP_KERNEL 31, GFP_NOFS|__GFP_NOWARN 4)",
        ),
        ("reclaim without I/O", "never entered"),
        ("throttled", "0.00 s for dirty pages, 0.02 s in reclaim"),
        ("slowest request", "8.20 s; the oldest in flight 8.20 s"),
    ]
    assert near_miss_rows(FINISHED) == [
        ("reclaim, I/O allowed", "never entered as far as is known: the kernel dropped events"),
        ("reclaim without I/O", "at least 1 entry, 0.02 s (GFP_NOIO in a cgroup 1)"),
        ("throttled", "at least 0.60 s for dirty pages (3 pauses), unknown in reclaim"),
        ("slowest request", "at least 0.31 s"),
    ]
    assert {words for _, words in near_miss_rows(LOST)} == {"unknown"}
    nothing = replace(FINISHED, near_misses=NearMisses())
    assert {words for _, words in near_miss_rows(nothing)} == {"unknown"}
    text = printed(experiment(Run(LOST, nothing)), width=300)
    assert text.count("slowest request") == 1
    assert "slowest request" not in printed(experiment(Run(None, LOST)), width=300), "nobody counted"
    found = record(Run(FROZEN, None))["near_misses"]
    assert found["reclaim"][1] == {
        "gfp_flags": "GFP_NOFS|__GFP_NOWARN",
        "io": True,
        "fs": False,
        "cgroup": False,
        "entered": 4,
        "spent_s": 0.25,
    }
    assert found["longest_request_s"] == 8.2
    assert record(Run(None, LOST))["near_misses"] is None


def test_an_experiment_cut_short_says_so() -> None:
    """Ctrl-C after seven of ten, a failure in the eighth, and runs that the store has dropped."""
    assert ending_sentence(INTERRUPTED) == "interrupted after 7 of 10 runs"
    assert ending_sentence(FAILED) == "failed after 7 of 10 runs: the guest said nothing for 60 s"
    assert ending_sentence(Experiment(plan(runs=10), (PROVED,) * 3)) == "3 of 10 runs are still kept"
    assert ending_sentence(Experiment(plan(), (), ending=Ending.UNKNOWN)).endswith("killed, after 0 of 1 run")
    text = printed(INTERRUPTED)
    assert "interrupted after 7 of 10 runs" in text
    assert "FROZEN 7 of 7" in text
    assert text.count("\nrun ") == 7
    assert "a run that did not come to its end" in text
    assert "the guest said nothing for 60 s" in printed(FAILED)
    assert "ended" not in printed(experiment(PROVED)).split("verdict")[0]


def test_several_runs_are_counted_by_what_matters() -> None:
    """Wrong data and a freeze without a witness are not counted as what they look like."""
    text = printed(experiment(PROVED, Run(FROZEN_UNSEEN, WRONG), PROVED), width=200)
    assert "FROZEN 2 of 3 (3.1 to 3.1 s)" in text
    assert "FROZEN, BUT NOT SEEN WAITING FOR ITSELF 1 of 3 (4.0 to 4.0 s)" in text
    assert "FINISHED 2 of 3 (10.1 to 10.1 s)" in text
    assert "FINISHED WITH WRONG DATA 1 of 3" in text


def test_colours() -> None:
    """Green only for a half that lived: a half that finished with wrong data looks like a failure."""
    console = Console(file=io.StringIO(), width=300, force_terminal=True, color_system="standard")
    print_half(1, 1, FINISHED, console)
    print_half(1, 1, WRONG, console)
    print_half(1, 1, FROZEN, console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert ["\x1b[1;32m" in line for line in lines] == [True, False, False]
    assert ["\x1b[1;31m" in line for line in lines] == [False, True, True]


def test_a_line_for_a_half_that_has_just_ended() -> None:
    """One line, however long; the run's number where there are several."""
    console = Console(file=io.StringIO(), width=40)
    print_half(1, 1, FROZEN, console)
    print_half(3, 10, FINISHED, console)
    assert isinstance(console.file, io.StringIO)
    first, second = console.file.getvalue().splitlines()
    assert first.startswith("without: FROZEN after 3.1 s: 10 requests")
    assert second == (
        "run 3 of 10, with: FINISHED after 10.1 s: 776 requests completed, 188 MiB read back, all as written"
    )


def evil() -> Experiment:
    """An experiment whose texts would steer a terminal or a browser."""
    bad = replace(
        PANICKED,
        detail=EVIL,
        console_tail=EVIL,
        threads=(replace(FROZEN.threads[1], comm=EVIL),),
        waiting=((EVIL, EVIL),),
    )
    texts = replace(plan(), title=EVIL, served=EVIL, pressed=EVIL, kernel=EVIL)
    return Experiment(texts, (Run(None, bad),), ending=Ending.FAILED, error=f"{EVIL}\n{EVIL}")


def test_hostile_texts_are_escaped() -> None:
    """Neither the terminal nor the page obeys what a guest or a scenario wrote."""
    text = printed(evil(), width=300)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[bold]" in text
    page = render_html(evil())
    assert "<script>" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page


# JSON


@pytest.mark.parametrize("name", BY_NAME)
def test_json_of_every_outcome(name: str) -> None:
    """The outcome, whether the daemon waits for itself, and every number as it was measured."""
    half = BY_NAME[name]
    found = record(half_by(name))
    assert found["outcome"] == half.outcome.value
    assert found["self_wait"] is (name == "frozen")
    assert found["io_flusher"] is half.io_flusher
    assert found["wrong_chunks"] == {"finished": 0, "wrong": 3}.get(name)
    assert found["verified_bytes"] == half.verified_bytes
    assert found["requests_completed"] == half.completed
    assert found["requests_in_flight"] == half.in_flight
    assert found["when_s"] == half.when_s
    assert [sample["memory_kib"]["MemFree"] for sample in found["samples"]] == [
        sample.memory_kib["MemFree"] for sample in half.samples
    ]
    assert found["console"] == half.console
    assert found["console_tail"] == half.console_tail


def test_json_of_threads() -> None:
    """Each thread with its own judgement, roles of its stack and the stack as it was read."""
    idle, waiting = record(half_by("frozen"))["threads"]
    assert idle["explanation"]["self_wait"] is False
    assert waiting["explanation"]["self_wait"] is True
    assert waiting["explanation"]["kind"] == "reclaim-io"
    assert {"function": "try_to_free_pages", "role": "direct-reclaim"} in waiting["explanation"]["stack"]
    assert waiting["stack_text"].startswith("[<0>] nbd_queue_rq+0x1a2/0x400 [nbd]\n")
    assert waiting["flags"] == 0x00400940
    assert waiting["io_flusher"] is False
    assert record(half_by("finished"))["threads"][0]["explanation"] is None


def test_json_of_an_experiment() -> None:
    """What was planned and done, the verdict, where it is kept, when and under what load it was played."""
    found = json.loads(json.dumps(experiment_record(experiment(PROVED), kept_as=17)))
    assert found["kept_as"] == 17
    assert found["as_expected"] is True
    assert (found["planned"], found["done"], found["ending"]) == (1, 1, "complete")
    assert found["interrupted"] is False
    assert found["error"] is None
    assert found["unfinished"] is None
    device = {"kind": "nbd", "size": 256 << 20, "use": "swap", "queue_depth": None, "paths": None, "mkfs": []}
    assert found["definition"]["device"] == device
    (run,) = found["runs"]
    assert run["proved"] is True
    assert run["began_at"] == "2025-11-25T12:00:00+00:00"
    assert run["host"] == {"cpus": 2, "load_before": 0.5, "load_after": 1.25}


def test_json_of_an_experiment_cut_short() -> None:
    """Seven of ten, the half that was played of the eighth, and why there are no more."""
    found = experiment_record(INTERRUPTED)
    assert found["interrupted"] is True
    assert (found["planned"], found["done"], len(found["runs"])) == (10, 7, 7)
    assert found["unfinished"]["without"]["outcome"] == "frozen"
    assert found["unfinished"]["with"] is None
    assert found["as_expected"] is False
    failed = experiment_record(FAILED)
    assert failed["interrupted"] is False
    assert failed["error"] == "the guest said nothing for 60 s"


def test_json_of_a_run_that_proves_nothing() -> None:
    """Without a witness nothing is proved, whatever froze."""
    found = experiment_record(experiment(Run(FROZEN_UNSEEN, FINISHED)))
    assert found["runs"][0]["proved"] is False
    assert found["as_expected"] is False
    assert found["runs"][0]["without"]["outcome"] == "frozen"


# HTML


def words(page: str) -> str:
    """The page's text without its tags and pictures, in one line."""
    body = re.sub(r"<svg.*?</svg>", "", page[page.index("<body>") :], flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).replace("&#39;", "'").split())


@pytest.mark.parametrize("name", BY_NAME)
def test_html_of_every_outcome(name: str) -> None:
    """The half's sentence, its stack where it waits for itself, its console where that matters."""
    half = BY_NAME[name]
    page = render_html(experiment(half_by(name)))
    text = words(page)
    assert f"{half_words(half)} {half_sentence(half)}" in text
    assert ('class="finished wrong"' in page) is (name == "wrong")
    assert ("it waits for itself" in text) is (name == "frozen")
    assert ("tcp_sendmsg_locked" in text) is (name == "frozen")
    assert ("Nothing is known of the daemon's threads" in text) is (name in ("panicked", "lost"))
    assert ("last lines of the guest's console" in text) is (name in ("panicked", "lost"))
    assert page.count("<svg") == len(PICTURES)


def test_html_of_a_pair() -> None:
    """Story, verdict, both halves with their threads' flags, who else waited."""
    found = experiment(PROVED)
    text = words(render_html(found))
    assert found.verdict in text
    assert "Linux 6.12.117, 400 MiB, 1 CPU, emulated" in text
    assert "169 python D 0x00400940 no" in text
    assert "169 python S 0x00580940 yes" in text
    assert "kswapd0 : it waits for I/O, in the kernel's own reclaim thread" in text
    assert "played 2025-11-25 12:00 UTC; this machine's load was 0.5 before and 1.2 after, on 2 CPUs" in text
    assert "ended" not in text


def test_html_of_an_experiment_cut_short() -> None:
    """How far it came, each run, and the one that did not come to its end."""
    text = words(render_html(replace(INTERRUPTED, runs=(PROVED,) * 2)))
    assert "interrupted after 2 of 10 runs" in text
    assert "Run 2 of 10" in text
    assert "Run 3 of 10" not in text
    assert "A run that did not come to its end" in text


def test_each_run_is_drawn_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Drawing takes most of a report's time: page and file share the first run's picture."""
    drawn = []
    save = Figure.savefig

    def counted(figure: Figure, *arguments: Any, **more: Any) -> None:
        drawn.append(figure)
        save(figure, *arguments, **more)

    monkeypatch.setattr(Figure, "savefig", counted)
    page = write_report(experiment(PROVED, PROVED), tmp_path)
    assert len(drawn) == 2 * len(PICTURES)
    assert page == tmp_path / "swap-on-nbd.html"
    picture = (tmp_path / "swap-on-nbd.svg").read_text()
    assert picture.startswith("<svg")
    assert picture in page.read_text()


def test_a_second_picture_is_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It stands in the page below the first one, with its caption, and in a file of its own."""

    def draw(run: Run) -> Figure:
        figure = Figure()
        figure.text(0.5, 0.5, "my second picture")
        return figure

    both = (*PICTURES, Picture("second", "What the second one shows", draw))
    monkeypatch.setattr("ioflusher.report.experiment_html.PICTURES", both)
    page = write_report(experiment(PROVED), tmp_path).read_text()
    assert page.index("requests completed") < page.index("my second picture")
    assert "What the second one shows" in page
    assert "my second picture" in (tmp_path / "swap-on-nbd-second.svg").read_text()
    assert "my second picture" not in (tmp_path / "swap-on-nbd.svg").read_text()


def test_the_picture_shows_both_halves() -> None:
    """A curve for each half, and a line where the device froze; the same run gives the same picture."""
    picture = PICTURES[0]
    text = svg(picture, PROVED)
    assert "without the state: frozen" in text
    assert "with the state: finished" in text
    assert text.count("frozen from here on") == 1
    assert text == svg(picture, PROVED)
    assert "frozen from here on" not in svg(picture, Run(None, FINISHED))
    assert "with the state: finished with wrong data" in svg(picture, Run(None, WRONG))


def test_halves_without_samples_are_drawn() -> None:
    """A guest that said nothing has an empty picture, not an error."""
    assert "<svg" in svg(PICTURES[0], Run(None, LOST))


def test_what_draws_is_loaded_without_a_word() -> None:
    """A picture of no half, drawn while guests run, warns of nothing: that would stand among their lines."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        warm_up()
    assert said == []


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before anything is played, and with what to install; nothing is left behind."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(IoflusherError, match=package) as caught:
        check_report(tmp_path / "new")
    assert caught.value.hint == "pip install 'ioflusher[lab]'"
    assert not (tmp_path / "new").exists()


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """A file in its place, or a place where nothing can be made, is found before anything is played."""
    check_report(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists(), "the check leaves nothing behind"
    check_report(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        with pytest.raises(IoflusherError, match="cannot be written") as caught:
            check_report(place)
        assert "--report DIR" in (caught.value.hint or "")
        with pytest.raises(IoflusherError, match="cannot be written"):
            write_report(experiment(PROVED), place)


def test_names_of_pictures() -> None:
    """Each has its own, as they become files."""
    names = [picture.name for picture in PICTURES]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in names)
