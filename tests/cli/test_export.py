"""`ioflusher export` on this machine: printed, in a file, over HTTP."""

import re
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest
from tests.cli.program import DEADLINE, PROGRAM, call, environment_with, start

pytestmark = pytest.mark.live


def test_once() -> None:
    """On standard output, as text of Prometheus."""
    ended = start("export", "--once", "--no-trace", "--quiet")
    assert (ended.status, ended.stderr) == (0, "")
    assert "\nioflusher_counted_by_kernel 0.0\n" in ended.stdout


def test_a_textfile(tmp_path: Path) -> None:
    """Whole, for node_exporter to read; under the one ending that it reads."""
    file = tmp_path / "ioflusher.prom"
    assert start("export", "--once", "--no-trace", "--textfile", file).status == 0
    assert "ioflusher_counted_by_kernel 0.0" in file.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["ioflusher.prom"]
    ended = call("export", "--textfile", tmp_path / "ioflusher.txt")
    assert ended.status == 2
    assert "reads names that end with .prom alone" in ended.stderr


def test_a_textfile_that_cannot_be_written(tmp_path: Path) -> None:
    """At first it is a mistake, and said; later it may be a disk that is full for a while."""
    ended = start("export", "--no-trace", "--textfile", tmp_path / "none" / "ioflusher.prom")
    assert ended.status == 2
    assert "ioflusher.prom: No such file or directory" in ended.stderr


def test_over_http() -> None:
    """At the loopback address; a scrape has what there is; Ctrl-C ends it."""
    with subprocess.Popen(
        [*PROGRAM, "export", "--no-trace", "--listen", ":0"],
        stderr=subprocess.PIPE,
        env=environment_with({}),
    ) as process:
        assert process.stderr is not None
        said = ""
        while "serving" not in said:
            said = process.stderr.readline().decode()
        (url,) = re.findall(r"serving (http://127\.0\.0\.1:\d+/metrics)", said)
        text = ""
        while "ioflusher_last_look_timestamp_seconds" not in text:
            with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
                text = answer.read().decode()
        process.send_signal(2)
        process.communicate(timeout=DEADLINE)
    assert process.returncode == 0


def test_an_address_that_is_taken() -> None:
    """Is said, with what to do."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        ended = start("export", "--no-trace", "--listen", f"127.0.0.1:{other.getsockname()[1]}")
    assert ended.status == 2
    assert "cannot listen at 127.0.0.1:" in ended.stderr
    assert "--listen names another address" in ended.stderr


def test_an_address_that_is_not_this_machines() -> None:
    """Another export has nothing to do with it."""
    ended = call("export", "--no-trace", "--listen", "192.0.2.1:0")
    assert ended.status == 2
    assert "cannot listen at 192.0.2.1:0: Cannot assign requested address" in ended.stderr
    assert "hint" not in ended.stderr


@pytest.mark.parametrize("words", [["--listen", "9847"], ["--listen", "host:port"], ["--listen", ":70000"]])
def test_an_address_that_is_none(words: list[str]) -> None:
    """Is said, with an example."""
    ended = call("export", *words)
    assert ended.status == 2
    assert "expected HOST:PORT, as 127.0.0.1:9847" in ended.stderr


def test_two_ways_at_once(tmp_path: Path) -> None:
    """Contradict each other."""
    ended = call("export", "--listen", ":1", "--textfile", tmp_path / "x.prom")
    assert "contradict each other" in ended.stderr
