"""`ioflusher watch` and its recordings, on this machine and on what a guest's watch recorded."""

import json
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from tests.cli.program import DEADLINE, PROGRAM, call, environment_with, start

from ioflusher.watch.record import read_recording
from ioflusher.watch.sample import MemorySample

# the watch of tests/watch/guest_watch.py: quiet, near misses, 20 s of a freeze, and the end of it
RECORDING = Path(__file__).parent.parent / "watch" / "recordings" / "frozen-nbd.jsonl"
MEMORY_FIELDS = [field.name for field in fields(MemorySample)]


@pytest.mark.live
def test_this_machine(tmp_path: Path) -> None:
    """One refresh on standard output, the same in the file, and the words of the fallback."""
    record = tmp_path / "r"
    ended = start("watch", "--once", "--json", "--interval", "0.1", "--no-trace", "--record", record)
    assert ended.status in (0, 1), ended.output
    (line,) = ended.stdout.splitlines()
    sample = json.loads(line)["sample"]
    assert sample["counted_by"] == "sampled"
    assert sample["notes"] == ["reclaim and throttling are only sampled: asked for with --no-trace"]
    assert sample["memory"]["total_kib"] > sample["memory"]["free_kib"] > 0
    assert record.read_text().splitlines()[1] == line


@pytest.mark.live
def test_on_no_terminal() -> None:
    """Screens one after the other, without colours or cursor movements."""
    ended = start("watch", "--count", "2", "--interval", "0.1", "--no-trace", "--quiet")
    assert ended.stdout.count("memory free") == 2
    assert "\x1b" not in ended.stdout
    assert ended.stderr == ""


@pytest.mark.live
def test_ctrl_c() -> None:
    """Ends it, whatever it does."""
    with subprocess.Popen(
        [*PROGRAM, "watch", "--json", "--no-trace", "--interval", "0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment_with({}),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(2)
        _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == b"ioflusher: interrupted"


def test_replay() -> None:
    """Each alarm's screen and the last, with the stack of the stalled thread and what to do."""
    ended = call("watch", "replay", RECORDING)
    assert ended.status == 1
    assert "counted by the kernel" in ended.stdout
    assert "is in dirty throttling while a request of /dev/nbd0 has waited for 20" in ended.stdout
    assert "balance_dirty_pages+0x3e7/0x9d0" in ended.stdout
    assert "ioflusher rescue --plan /dev/nbd0" in ended.stdout
    ended = call("watch", "replay", "-", "--json", stdin=RECORDING.read_bytes())
    recorded = [json.loads(line) for line in RECORDING.read_text().splitlines()[1:]]
    for line in recorded:  # of a version that did not keep what vm.* says: unknown
        line["sample"]["memory"] = {**dict.fromkeys(MEMORY_FIELDS), **line["sample"]["memory"]}
        for told in line["alarms"]:  # and none of the kernel's own threads
            told["alarm"].setdefault("takes_state", True)
    assert [json.loads(line) for line in ended.stdout.splitlines()] == recorded


def test_a_torn_recording(tmp_path: Path) -> None:
    """All but the half line, and that there is one."""
    torn = tmp_path / "torn"
    torn.write_bytes(RECORDING.read_bytes()[:-100])
    ended = call("watch", "replay", torn, "--json")
    assert len(ended.stdout.splitlines()) == len(read_recording(RECORDING).records) - 1
    assert ended.stderr == f"ioflusher: {torn}: 1 broken line, left out\n"
    torn.write_bytes(RECORDING.read_bytes().splitlines(keepends=True)[0])
    assert call("watch", "replay", torn).stderr.endswith("has no record behind its heading\n")


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_plot(tmp_path: Path, suffix: str) -> None:
    """A picture with what was recorded."""
    picture = tmp_path / f"x{suffix}"
    assert call("watch", "plot", RECORDING, "-o", picture).status == 0
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    if suffix == ".svg":
        assert all(word in data for word in (b">nbd0<", b"python3 (161) paused", b"oldest request, s"))


def test_plot_of_another_form(tmp_path: Path) -> None:
    """Is said before anything is drawn."""
    ended = call("watch", "plot", RECORDING, "-o", tmp_path / "x.gif")
    assert ended.status == 2
    assert "expected a name that ends with .svg or .png" in ended.stderr


def test_dump() -> None:
    """By the judgement of the library's own parser: every sample with its time, counters that never fall."""
    records = read_recording(RECORDING).records
    text = call("watch", "dump", RECORDING, "--openmetrics").stdout
    found = {family.name: family for family in text_string_to_metric_families(text)}  # type: ignore[no-untyped-call]
    pauses = [
        sample
        for sample in found["ioflusher_dirty_throttling_pauses"].samples
        if sample.labels["serves"] == "NBD server of /dev/nbd0"
    ]
    assert len(pauses) == len(records)
    values = [sample.value for sample in pauses]
    assert values == sorted(values)
    # the thread of the last record, less what it had at the first, which counts too
    assert values[-1] == records[-1].sample.daemons[1].threads[1].dirty_pauses
    assert float(pauses[-1].timestamp) == pytest.approx(records[-1].sample.time)
    oldest = [sample.value for sample in found["ioflusher_oldest_request_seconds"].samples]
    assert max(oldest) > 20
