"""--debug, --quiet and --color: the same for every verb, before and after its name."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.audit.machines import BARE, COVERED, SWAP_ON_NBD, machine, threads
from tests.cli.program import call, start
from tests.cli.test_exit_status import COMMANDS

from ioflusher.cli.preferences import COLOR_CHOICES, Preferences
from ioflusher.machine.codec import dump_snapshot

pytestmark = pytest.mark.live


class Terminal(io.StringIO):
    """Text for a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_that_it_takes_them(name: str) -> None:
    """The same three, with the same words."""
    text = call(*name.split(), "--help").stdout
    for option in ("--debug ", "-q, --quiet ", "--color [auto|always|never] "):
        assert text.count(f"\n  {option}") == 1


@pytest.mark.parametrize(
    ("color", "environment", "terminal", "colored"),
    [
        ("auto", {}, True, True),
        ("auto", {}, False, False),
        ("auto", {"TERM": "dumb"}, True, False),
        ("auto", {"NO_COLOR": "1"}, True, False),
        ("auto", {"NO_COLOR": ""}, True, True),
        ("auto", {"FORCE_COLOR": "1"}, False, True),
        ("auto", {"FORCE_COLOR": ""}, False, False),
        ("auto", {"FORCE_COLOR": "1", "TERM": "dumb"}, False, True),
        ("auto", {"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
        ("always", {"NO_COLOR": "1"}, False, True),
        ("never", {"FORCE_COLOR": "1"}, True, False),
    ],
)
def test_what_decides_on_colours(
    monkeypatch: pytest.MonkeyPatch, color: str, environment: dict[str, str], terminal: bool, colored: bool
) -> None:
    """The option, then NO_COLOR, then FORCE_COLOR, then what the stream is."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Preferences(color=color).colored(Terminal() if terminal else io.StringIO()) is colored


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A recorded machine with a finding and a cycle."""
    path = tmp_path_factory.mktemp("bad") / "host.json"
    snapshot = machine({"threads": threads(BARE, COVERED), "oom_score_adj": 0}, swaps=(SWAP_ON_NBD,))
    path.write_bytes(dump_snapshot(snapshot))
    return str(path)


COLORFUL = [["audit", "--snapshot", "{bad}"], ["map", "--snapshot", "{bad}"], ["status", "{self}"]]


@pytest.mark.parametrize("words", COLORFUL, ids=lambda words: words[0])
def test_colours_of_every_verb_that_has_them(
    words: list[str], bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """always, never, and the environment, alike."""
    verb, *rest = [word.format(bad=bad, self=os.getpid()) for word in words]

    def printed(before: list[str], after: list[str], environment: dict[str, str]) -> str:
        for name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("TERM", "xterm")
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return call(*before, verb, *after, *rest).stdout

    assert "\x1b" not in printed([], [], {})
    wanted: list[tuple[list[str], list[str], dict[str, str]]] = [
        (["--color", "always"], [], {}),
        ([], ["--color=always"], {"NO_COLOR": "1"}),
        (["--color", "never"], ["--color", "always"], {}),
        ([], [], {"FORCE_COLOR": "1"}),
        ([], ["--color", "always"], {"TERM": "dumb"}),
    ]
    for before, after, environment in wanted:
        assert "\x1b[" in printed(before, after, environment)
    for before, after, environment in (
        ([], ["--color", "never"], {"FORCE_COLOR": "1"}),
        ([], [], {"FORCE_COLOR": "1", "NO_COLOR": "1"}),
    ):
        assert "\x1b" not in printed(before, after, environment)


@pytest.mark.parametrize("choice", ["", "yes", "ALWAYS"])
def test_no_other_choice(choice: str) -> None:
    """Wrong usage names those that there are."""
    ended = call("--color", choice, "lab", "list")
    assert ended.status == 2
    for known in COLOR_CHOICES:
        assert known in ended.stderr


@pytest.mark.parametrize("order", ["before", "after", "short"])
def test_quiet_leaves_out_remarks_alone(order: str) -> None:
    """A process that is not there is still an error, and the result is the result."""
    pid = str(os.getpid())
    words = {
        "before": ["--quiet", "run", "--best-effort", "true"],
        "after": ["run", "--quiet", "--best-effort", "true"],
        "short": ["run", "-q", "--best-effort", "true"],
    }[order]
    quiet = start(*words)
    assert (quiet.status, quiet.output) == (0, "")
    shown = call("--quiet", "status", pid, "4194305")
    assert "no process 4194305" in shown.stderr
    assert pid in shown.stdout


@pytest.mark.refused
def test_a_remark_without_quiet() -> None:
    """The remark that --quiet leaves out is there without it."""
    assert "going on without the state" in start("run", "--best-effort", "true").stderr


def test_quiet_shows_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even on a terminal."""
    from ioflusher.cli.progress import progress_bar

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("ioflusher.cli.progress.preferences", lambda: Preferences(quiet=True))
    with progress_bar("reading") as update:
        update(1, 1)
    assert terminal.getvalue() == ""


def test_debug_prints_the_commands() -> None:
    """Each as it can be typed, before and after the verb; and no longer when the program has ended."""
    for words in (["--debug", "run"], ["run", "--debug"]):
        ended = start(*words, "--best-effort", "echo", "two words\x1b[31m")
        assert ended.status == 0
        (line,) = [line for line in ended.stderr.splitlines() if line.startswith("+ ")]
        assert line == "+ echo 'two words\\x1b[31m'"
    assert "+ " not in start("run", "--best-effort", "echo", "x").stderr


def test_debug_prints_commands_of_libraries_and_stops() -> None:
    """subprocess.run() by whomever, only while the preferences say so."""
    code = (
        "import subprocess, sys; from ioflusher.cli.preferences import *; wanted = Preferences(debug=True);"
        "print_commands(wanted); subprocess.run(['true', 'one']); wanted.debug = False;"
        "subprocess.run(['true', 'two'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == "+ true one\n"


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    """The traceback, and after it the same words and status as without."""
    plain, debug = (call(*words, "map", "--snapshot", str(tmp_path / "none")) for words in ([], ["--debug"]))
    assert plain.status == debug.status == 2
    assert "Traceback" not in plain.stderr
    assert debug.stderr.startswith("Traceback (most recent call last):\n")
    assert debug.stderr.endswith(plain.stderr)
