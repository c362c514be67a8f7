"""Programs to work on, compiled from tests/flag/programs, and what to expect of this machine."""

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest
from tests.needs import PERMITTED, need

from ioflusher.flag.attach import ProcessOutcome, ThreadResult, caller

SOURCES = Path(__file__).parent.parent / "programs"

# What a thread's outcome is when it really made the call: without the capability the kernel refuses it then.
CALLED = ThreadResult.DONE if PERMITTED else ThreadResult.NOT_PERMITTED

# Under emulation everything takes ten times as long: there, fewer threads that wait longer.
THREADS, WAIT_MS, FEED_MS = os.environ.get("IOFLUSHER_WAITS", "999 150 50").split()
ARM = os.uname().machine == "aarch64"
# `make test` asks for all of it: 20 rounds, and a death after every single call.
DEADLY_STEP = int(os.environ.get("IOFLUSHER_DEADLY_STEP", "4"))
ROUNDS = int(os.environ.get("IOFLUSHER_ROUNDS", "6"))
FLOODED_ROUNDS = min(16, max(1, 4 * (ROUNDS - 2)))  # where a signal comes every few microseconds


class Start(Protocol):
    """How tests start a program: see `start`."""

    def __call__(self, program: str, *arguments: str) -> "subprocess.Popen[str]":
        """The process, which said that it is ready."""


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Compiles a program of tests/flag/programs once; IOFLUSHER_PROGRAMS names those made before."""
    prepared = os.environ.get("IOFLUSHER_PROGRAMS")
    directory = Path(prepared) if prepared else tmp_path_factory.mktemp("programs")

    def compile_(name: str) -> Path:
        target = directory / name
        if not target.exists():
            command = [need("gcc"), "-O2", "-pthread", "-o", str(target), str(SOURCES / f"{name}.c")]
            subprocess.run(command, check=True, timeout=120)
        return target

    return compile_


@pytest.fixture
def start(compiled: Callable[[str], Path]) -> Iterator[Start]:
    """Starts a program in a process group of its own and waits until it is ready; ends it after the test."""
    running: list[subprocess.Popen[str]] = []

    def start_(program: str, *arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [str(compiled(program)), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start_
    for process in running:
        assert process.stdout is not None
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
        process.stdout.close()


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """End the process with SIGTERM; its exit status and what else it printed."""
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have threads make the call also where they lack the capability, so that the kernel answers."""
    if not PERMITTED:
        monkeypatch.setattr(caller, "CAP_SYS_RESOURCE", 0)


@contextmanager
def stopped(process: "subprocess.Popen[str]") -> Iterator[None]:
    """The process stopped by SIGSTOP."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def outcomes(result: ProcessOutcome) -> dict[ThreadResult, int]:
    """How many threads had each outcome."""
    return dict(Counter(thread.outcome for thread in result.threads))
