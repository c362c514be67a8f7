"""Exit statuses: one rule for all verbs, the one of docs/command-line.md."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from tests.audit.machines import BARE, COVERED, SWAP_ON_NBD, WELL, machine, threads
from tests.cli.program import DEADLINE, PROGRAM, call, environment_with, start

from ioflusher.cli.exit_status import ExitStatus, verdict
from ioflusher.cli.verbs import VERBS, load
from ioflusher.errors import IoflusherError
from ioflusher.machine.codec import dump_snapshot

PAGE = Path(__file__).parent.parent.parent / "docs" / "command-line.md"
LOGS = Path(__file__).parent.parent / "kernlog" / "logs"
RECORDING = Path(__file__).parent.parent / "watch" / "recordings" / "frozen-nbd.jsonl"
NO_PROCESS = "4194305"  # above the kernel's limit for process numbers


def commands() -> dict[str, click.Command]:
    """Every command that does something, by its words."""
    found: dict[str, click.Command] = {}
    for name in VERBS:
        command = load(name)
        if isinstance(command, click.Group):
            found |= {f"{name} {below}": command.commands[below] for below in command.commands}
        if not isinstance(command, click.Group) or command.invoke_without_command:
            found[name] = command
    return found


COMMANDS = commands()
# Words with which each parses, so that its callback is reached.
WORDS = {
    "completion": ["bash"],
    "diagnose": ["-"],
    "lab exec": ["true"],
    "lab explain": ["1"],
    "lab profile": ["swap-on-nbd"],
    "lab replay": ["1"],
    "lab matrix": ["kernels"],
    "lab minimise": ["swap-on-nbd"],
    "lab run": ["swap-on-nbd"],
    "lab shell": ["swap-on-nbd"],
    "lab show": ["1"],
    "model check": ["1"],
    "model compare": ["swap-on-nbd"],
    "model explore": ["swap-on-nbd"],
    "model page": ["swap-on-nbd"],
    "model run": ["swap-on-nbd"],
    "model size": ["swap-on-nbd"],
    "model sweep": ["swap-on-nbd", "--over", "queue_depth=1,2"],
    "nbd attach": ["/dev/nbd0", "nbd://localhost/"],
    "nbd commit": ["file:/dev/null", "/nonexistent"],
    "nbd detach": ["/dev/nbd0"],
    "nbd info": ["nbd://localhost/"],
    "nbd reconnect": ["/dev/nbd0", "nbd://localhost/"],
    "nbd status": ["/dev/nbd0"],
    "run": ["true"],
    "set": ["1"],
    "unit": ["x.service"],
    "unset": ["1"],
    "watch": ["--once"],
    "watch dump": ["x", "--openmetrics"],
    "watch plot": ["x"],
    "watch replay": ["x"],
}


@pytest.fixture(params=COMMANDS)
def words(request: pytest.FixtureRequest) -> list[str]:
    """A whole command line of each command."""
    return [*request.param.split(), *WORDS.get(request.param, [])]


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has every command raise an exception instead of doing its work."""

    def let(error: BaseException) -> None:
        def callback(**_: object) -> None:
            # a group that is a command itself goes on to the command below it
            if click.get_current_context().invoked_subcommand is not None:
                return
            raise error

        for command in COMMANDS.values():
            monkeypatch.setattr(command, "callback", callback)

    return let


@pytest.mark.parametrize(
    "error", [RuntimeError("boom\n\x1b[31m"), KeyError(1), OSError(13, "no"), EOFError(), AssertionError()]
)
def test_a_mistake_in_the_program_is_no_verdict(words: list[str], raising: Any, error: Exception) -> None:
    """Status 70, nothing on standard output, one line with the exception and how to see the traceback."""
    raising(error)
    ended = call(*words, crash=True)
    assert (ended.status, ended.stdout) == (70, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"ioflusher: internal error: {type(error).__name__}: ")
    assert line.endswith("; run it again with --debug to see the traceback")
    assert line.isprintable()


def test_debug_shows_the_traceback(words: list[str], raising: Any) -> None:
    """Before the verb as after it; the status stays."""
    raising(RuntimeError("boom"))
    for order in (
        ["--debug", *words],
        [*words[: _verb_length(words)], "--debug", *words[_verb_length(words) :]],
    ):
        ended = call(*order, crash=True)
        assert ended.status == 70
        assert "Traceback (most recent call last):" in ended.stderr
        assert "in callback\n    raise error\nRuntimeError: boom\n" in ended.stderr


def _verb_length(words: list[str]) -> int:
    return 2 if " ".join(words[:2]) in COMMANDS else 1


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (IoflusherError("it is so", hint="do that"), 2, "ioflusher: it is so\n  hint: do that\n"),
        (click.ClickException("bad \x1b"), 2, "Error: bad \\x1b\n"),
        (MemoryError(), 2, "ioflusher: out of memory\n"),
        (KeyboardInterrupt(), 130, "ioflusher: interrupted\n"),
        (SystemExit(124), 124, ""),
    ],
)
def test_the_other_ends(words: list[str], raising: Any, error: BaseException, status: int, said: str) -> None:
    """Every verb ends alike for what could not be done, Ctrl-C, and its own statuses."""
    raising(error)
    ended = call(*words)
    assert (ended.status, ended.stderr, ended.stdout) == (status, said, "")


def test_help_and_wrong_usage(words: list[str]) -> None:
    """--help is 0; an option that does not exist is 2, and said on standard error."""
    verb = words[: _verb_length(words)]
    asked = call(*verb, "--help")
    assert asked.status == 0
    assert asked.stdout.startswith(f"Usage: ioflusher {' '.join(verb)} ")
    wrong = call(*verb, "--no-such-option") if verb not in (["run"], ["lab", "exec"]) else call("lab", "exec")
    assert wrong.status == 2
    assert "Error: " in wrong.stderr
    assert wrong.stdout == ""


# What each verb ends with, on real input: verb -> status -> words. {name} is a file of the fixture `files`.
CASES: dict[str, dict[int, list[str]]] = {
    "audit": {
        0: ["--snapshot", "{well}"],
        1: ["--snapshot", "{bad}", "{none}"],
        2: ["--snapshot", "{none}", "{well}"],
    },
    "completion": {0: ["fish"], 2: ["tcsh"]},
    "container": {0: ["docker"], 2: ["rocket"]},
    "diagnose": {0: ["{neither}"], 1: ["{none}", "{recursion}"], 2: ["{none}", "{neither}"]},
    "guard": {0: ["--unit"], 2: ["--allow-loss", "nbd0"]},
    "lab exec": {2: ["--kernel", "{none}", "true"]},
    "lab explain": {2: ["999999999"]},
    "lab kernels": {0: [], 2: ["fetch", "six"]},
    "lab list": {0: [], 2: ["more"]},
    "lab profile": {
        0: ["--trace", "{strace}", "--requests", "1", "--size", "4K"],
        2: ["--trace", "{none}"],
    },
    "lab replay": {2: ["999999999"]},
    "lab matrix": {2: ["nonsense"]},
    "lab minimise": {2: ["nonsense"]},
    "lab run": {2: ["nonsense"]},
    "lab runs": {0: [], 2: ["more"]},
    "lab setup": {2: ["more"]},
    "lab shell": {2: ["nonsense"]},
    "lab show": {2: ["999999999"]},
    "map": {0: ["--snapshot", "{well}"], 1: ["--snapshot", "{bad}"], 2: ["--snapshot", "{none}"]},
    "model check": {2: ["999999999"]},
    "model compare": {2: ["nonsense"]},
    "model explore": {
        0: ["ext4-on-nbd-throttled", "--without"],
        1: ["ext4-on-nbd-throttled", "--without", "--states", "9"],
        2: ["nonsense"],
    },
    "model page": {0: ["ext4-on-nbd-throttled", "--output", "{root}/page.html"], 2: ["nonsense"]},
    "model run": {0: ["ext4-on-nbd-throttled", "--with"], 2: ["nonsense"]},
    "model size": {2: ["nonsense"]},
    "model sweep": {2: ["nonsense", "--over", "queue_depth=1"]},
    "nbd attach": {2: ["{none}", "nbd://localhost/"]},
    "nbd commit": {2: ["file:{none}", "{none}"]},
    "nbd detach": {2: ["{none}"]},
    "nbd info": {2: ["nbd+unix:///?socket={none}"]},
    "nbd list": {0: [], 2: ["more"]},
    "nbd reconnect": {2: ["/dev/nbd4000", "nbd://localhost/"]},
    "nbd status": {2: ["/dev/nbd4000"]},
    "nbd serve": {2: ["--no-io-flusher", "--file", "{none}", "--tcp", "localhost:0"]},
    "rescue": {
        0: ["--snapshot", "{well}"],
        1: ["--snapshot", "{well}", "/dev/nbd0"],
        2: ["--snapshot", "{none}"],
    },
    "run": {
        0: ["--best-effort", "true"],
        1: ["--best-effort", "false"],
        2: ["--user", "nobody-like-this", "true"],
    },
    "set": {2: [NO_PROCESS]},
    "snapshot": {0: [], 2: ["--output", "{none}/x"]},
    "status": {0: ["{self}"], 2: [NO_PROCESS, "{self}"]},
    "unit": {0: ["--root", "{root}", "x.service"], 2: ["--root", "{root}", "y.service"]},
    "unset": {0: ["{self}"], 2: [NO_PROCESS, "{self}"]},
    "export": {0: ["--once", "--no-trace"], 2: ["--textfile", "{well}"]},
    "watch": {
        0: ["--once", "--interval", "0.1", "--no-trace"],
        2: ["--once", "--record", "{well}"],
    },
    "watch dump": {0: ["{recording}", "--openmetrics"], 2: ["{none}", "--openmetrics"]},
    "watch plot": {0: ["{recording}"], 2: ["{well}"]},
    "watch replay": {0: ["{quiet}", "--json"], 1: ["{recording}", "--json"], 2: ["{none}"]},
}
# What takes a virtual machine, a terminal or a signal, and the test that has it.
ELSEWHERE = {
    ("lab exec", 0): "lab/test_guests.py",
    ("lab exec", 1): "lab/test_guests.py",
    ("lab explain", 0): "cli/test_lab_explain.py",
    ("lab explain", 1): "cli/test_lab_explain.py",
    ("lab replay", 0): "cli/test_lab_replay.py",
    ("lab replay", 1): "cli/test_lab_replay.py",
    ("lab minimise", 0): "cli/test_lab_minimise.py",
    ("lab minimise", 1): "cli/test_lab_minimise.py",
    ("lab matrix", 0): "cli/test_lab_matrix.py",
    ("lab matrix", 1): "cli/test_lab_matrix.py",
    ("lab run", 0): "cli/test_lab_run.py",
    ("lab run", 1): "cli/test_lab_run.py",
    ("lab setup", 0): "make demo",
    ("lab shell", 0): "lab/test_shell.py",
    ("lab shell", 1): "lab/test_shell.py",
    ("lab show", 0): "cli/test_lab_run.py",
    ("model check", 0): "cli/test_model_check.py",
    ("model check", 1): "cli/test_model_check.py",
    ("model compare", 0): "cli/test_model_compare.py",
    ("model compare", 1): "cli/test_model_compare.py",
    ("model run", 1): "cli/test_model.py",
    ("model size", 0): "cli/test_model_size.py",
    ("model size", 1): "cli/test_model_size.py",
    ("model sweep", 0): "cli/test_model_sweep.py",
    ("model sweep", 1): "cli/test_model_sweep.py",
    ("nbd attach", 0): "nbd/test_guest.py",
    ("nbd attach", 1): "nbd/test_guest.py",
    ("nbd commit", 0): "nbd/test_cli.py",
    ("nbd detach", 0): "nbd/test_guest.py",
    ("nbd info", 0): "nbd/test_cli.py",
    ("nbd reconnect", 0): "nbd/test_guest.py",
    ("nbd reconnect", 1): "nbd/test_guest.py",
    ("nbd status", 0): "nbd/test_guest.py",
    ("nbd status", 1): "nbd/test_guest.py",
    ("nbd serve", 0): "nbd/test_cli.py",
    ("set", 0): "flag/test_guest.py",
    ("set", 1): "cli/test_set.py",
    ("unset", 1): "flag/test_guest.py",
    ("watch", 1): "watch/test_guest.py",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Inputs by their names; `none` does not exist."""
    place = tmp_path_factory.mktemp("files")
    bad = machine({"threads": threads(BARE, COVERED), "oom_score_adj": 0}, swaps=(SWAP_ON_NBD,))
    for name, snapshot in (("well", WELL), ("bad", bad)):
        (place / name).write_bytes(dump_snapshot(snapshot))
    units = place / "root" / "etc" / "systemd" / "system"
    units.mkdir(parents=True)
    (units / "x.service").write_text("[Service]\nExecStart=/bin/true\n")
    (place / "strace").write_text('7 12:00:00.000000 pwrite64(6, ""..., 4096, 0) = 4096 <0.001>\n')
    recording = RECORDING.read_bytes()
    (place / "quiet").write_bytes(b"".join(recording.splitlines(keepends=True)[:3]))
    logs = {"recursion": "pos_nbd_xfs_inode_write.txt", "neither": "neg_xfs_reclaim_queue.txt"}
    return {
        **{name: str(place / name) for name in ("well", "bad", "none", "root", "quiet", "strace")},
        "recording": str(RECORDING),
        **{name: str(LOGS / file) for name, file in logs.items()},
        "self": str(os.getpid()),
    }


@pytest.mark.live
@pytest.mark.parametrize(("verb", "status"), [(verb, status) for verb in CASES for status in CASES[verb]])
def test_on_real_input(
    verb: str, status: int, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program itself ends so, and says on standard error why where it could not do its work."""
    monkeypatch.setenv("XDG_CONFIG_HOME", files["none"])
    monkeypatch.setenv("XDG_STATE_HOME", files["none"])
    words = [word.format(**files) for word in CASES[verb][status]]
    # these change the process that they run in
    ended = (start if verb in ("run", "nbd serve", "set", "unset", "watch", "export") else call)(
        *verb.split(), *words
    )
    assert ended.status == status, ended.output
    assert "internal error" not in ended.stderr
    assert status != 2 or ended.stderr or "could not be judged" in ended.stdout


def documented() -> dict[str, set[int]]:
    """The statuses that the page gives each verb."""
    rows = re.findall(r"^\| `([a-z ]+)` \| (.+?) \| (.*?) ?\|$", PAGE.read_text(), re.MULTILINE)
    return {verb: {0, 2} | ({1} if one else set()) for verb, _, one in rows}


def test_the_page_has_every_verb_and_every_status_a_test() -> None:
    """A new verb needs its row in docs/command-line.md, and each of its statuses a case here."""
    tested = {verb: set(CASES.get(verb, ())) for verb in COMMANDS}
    for verb, status in ELSEWHERE:
        tested[verb].add(status)
    assert tested == documented()


def test_the_page_has_every_status() -> None:
    """The first table is the whole of ExitStatus."""
    rows = re.findall(r"^\| (\d[\d, ]*) \|", PAGE.read_text(), re.MULTILINE)
    assert [int(number) for row in rows for number in row.split(",")] == list(ExitStatus)


@pytest.mark.parametrize(
    ("found", "failed", "status"), [(False, False, 0), (True, False, 1), (False, True, 2), (True, True, 1)]
)
def test_several_things(found: bool, failed: bool, status: int) -> None:
    """What was found counts more than what could not be looked at."""
    assert verdict(found=found, failed=failed) == status


@pytest.mark.live
def test_a_reader_that_goes_away() -> None:
    """141, and not a word: `ioflusher audit | true` found nothing out."""
    for verb in (["--help"], ["audit", "--list-rules"], ["status"], ["map"], ["snapshot"]):
        receive, send = os.pipe()
        os.close(receive)
        with open(send, "wb") as pipe:
            done = subprocess.run([*PROGRAM, *verb], stdout=pipe, stderr=subprocess.PIPE, timeout=DEADLINE)
        assert (verb, done.returncode, done.stderr) == (verb, 141, b"")


@pytest.mark.live
def test_a_full_disk() -> None:
    """Every way of printing ends with 2 and a line, whatever the verdict would have been."""
    for verb in (
        ["--help"],
        ["audit", "--list-rules"],
        ["audit", "--json"],
        ["map"],
        ["status"],
        ["lab", "list"],
    ):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([*PROGRAM, *verb], stdout=full, stderr=subprocess.PIPE, timeout=DEADLINE)
        said = done.stderr.decode().splitlines()
        assert done.returncode == 2
        assert said[-1] == "ioflusher: cannot write to standard output: No space left on device"


@pytest.fixture
def waiting() -> Iterator[subprocess.Popen[bytes]]:
    """The program while it waits for its standard input."""
    with subprocess.Popen(
        [*PROGRAM, "diagnose", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment_with({}),
    ) as process:
        yield process
        process.kill()


@pytest.mark.live
def test_ctrl_c(waiting: subprocess.Popen[bytes]) -> None:
    """130 and one word."""
    assert waiting.stdin is not None
    waiting.stdin.write(b"x\n" * 100_000)  # more than a pipe takes: it is read, so the program is at work
    waiting.stdin.flush()
    time.sleep(0.1)
    waiting.send_signal(signal.SIGINT)
    out, err = waiting.communicate(timeout=DEADLINE)
    assert (waiting.returncode, out, err.strip()) == (130, b"", b"ioflusher: interrupted")
