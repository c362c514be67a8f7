"""What real guests said, in every report and through the store: what their recordings come to is shown."""

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console
from tests.lab.halves import plan
from tests.lab.test_recordings import EXPECTED, judged, recording

from ioflusher.lab.outcome import Experiment, Half, HalfOutcome, Run
from ioflusher.lab.store import ExperimentStore
from ioflusher.report.experiment_html import render_html
from ioflusher.report.experiment_json import experiment_record
from ioflusher.report.experiment_text import half_sentence, print_experiment

# what a reader must find in text and page, besides the numbers: read off the recordings by hand
SAID = {
    HalfOutcome.FINISHED: "read back",
    HalfOutcome.FROZEN: "none completed since",
    HalfOutcome.OUT_OF_MEMORY: "The kernel killed 1 process(es).",
    HalfOutcome.PANICKED: "The kernel panicked: ",
    HalfOutcome.LOST: "",
}


def experiment_of(half: Half) -> Experiment:
    """An experiment of this half alone."""
    return Experiment(plan(only="with" if half.io_flusher else "without"), (Run(None, None).with_half(half),))


def text_of(found: Experiment) -> str:
    """What a wide terminal shows, in one line."""
    console = Console(file=io.StringIO(), width=400, highlight=False, markup=False, emoji=False)
    print_experiment(found, console)
    assert isinstance(console.file, io.StringIO)
    return " ".join(console.file.getvalue().split())


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_guest_in_every_report(name: str) -> None:
    """Outcome, requests, right or wrong data, the witness, and the console where it matters."""
    expected, half = EXPECTED[name], judged(recording(name))
    found = experiment_of(half)
    text = text_of(found)
    page = re.sub(r"<svg.*?</svg>", "", render_html(found), flags=re.DOTALL)
    (run,) = json.loads(json.dumps(experiment_record(found)))["runs"]
    record = run["with"] or run["without"]

    assert record["outcome"] == expected.outcome.value
    assert (record["requests_completed"], record["requests_in_flight"]) == expected.requests
    assert record["wrong_chunks"] == expected.wrong_chunks
    assert record["self_wait"] is (expected.witness is not None)
    assert "".join(thread["state"] for thread in record["threads"]) == expected.states
    assert sum(thread["io_flusher"] for thread in record["threads"]) == expected.covered

    assert expected.outcome.value.upper() in text
    assert SAID[expected.outcome] in half_sentence(half)
    right = {None: "", 0: "all as written"}.get(
        expected.wrong_chunks, f"{expected.wrong_chunks} CHUNKS WRONG"
    )
    assert right in text
    assert ("CHUNKS WRONG" in text) is bool(expected.wrong_chunks)
    assert f"{expected.requests[0]} completed, {expected.requests[1]} in flight" in text
    assert ("<- it waits here, for itself" in text) is (expected.witness is not None)
    assert ("it waits for itself." in page) is (expected.witness is not None)
    if expected.witness is not None:
        assert f"kernel stack of the daemon's thread {expected.witness[0]} " in text
        assert f"The kernel stack of thread {expected.witness[0]}," in page
    if expected.console:
        assert " ".join(expected.console.split()) in text


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_guest_through_the_store(name: str, tmp_path: Path) -> None:
    """What was kept is what was judged, to the last sample and stack."""
    found = experiment_of(judged(recording(name)))
    store = ExperimentStore(tmp_path / "lab.sqlite")
    number = store.begin(found.plan)
    store.keep(number, 1, found.runs[0])
    store.end(number, found.ending)
    assert store.load(number) == found
    assert found.as_expected is (
        EXPECTED[name].lived if found.plan.only == "with" else EXPECTED[name].witness is not None
    )
