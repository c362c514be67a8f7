"""Inside the guest: the observer's privileges, and how ordinary processes are started without them.

The process that observes carries the IO_FLUSHER state, has its memory locked and a real-time priority: an
observer that freezes with what it observes is worth nothing. Everything that it starts is set back to an
ordinary process first, so that the daemon begins without the state in both halves.
"""

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from ioflusher.flag import set_io_flusher
from ioflusher.harden import RealtimePolicy, join_cgroup, lock_memory, set_oom_score_adj, set_realtime

SETUP_DEADLINE_S = 40.0
PRIORITY = 50
LOG_LINES = 12

Process = subprocess.Popen[bytes]


class SetupFailed(Exception):
    """The stage could not be built; the message says which step and what it printed."""


def become_observer() -> None:
    """What the observer needs to go on in a frozen machine."""
    set_io_flusher(True)
    lock_memory()
    set_realtime(RealtimePolicy.FIFO, PRIORITY)
    set_oom_score_adj(-1000)


def become_ordinary(io_flusher: bool = False, group: Path | None = None) -> None:
    """In a child, before it executes its program: nothing of the observer's privileges is left.

    `io_flusher` is for a daemon that does not set the state itself, `group` the control group to be in.
    """
    if group is not None:
        join_cgroup(group.name, root=group.parent)
    set_io_flusher(io_flusher)
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    set_oom_score_adj(0)


class Processes:
    """Starts the ordinary processes of a stage.

    Attributes:
        group: the directory of the control group in which `start` starts programs; None for the root's.
    """

    group: Path | None = None

    def start(
        self, argv: Sequence[str], *, stdin: bool = False, stdout: bool = False, io_flusher: bool = False
    ) -> Process:
        """Start a program that stays, with pipes where asked; what it prints else goes to the console.

        Raises:
            SetupFailed: where it cannot be executed.
        """
        try:
            return subprocess.Popen(
                argv,
                preexec_fn=partial(become_ordinary, io_flusher, self.group),
                bufsize=0,
                stdin=subprocess.PIPE if stdin else None,
                stdout=subprocess.PIPE if stdout else None,
            )
        except OSError as error:
            raise SetupFailed(f"{argv[0]} does not start: {error.strerror}") from error
        except subprocess.SubprocessError as error:
            raise SetupFailed(f"{argv[0]} does not start: it cannot be made an ordinary process") from error

    def step(self, *argv: str) -> str:
        """Run a set-up command to its end; returns what it printed on standard output."""
        try:
            done = subprocess.run(
                argv, preexec_fn=become_ordinary, capture_output=True, timeout=SETUP_DEADLINE_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SetupFailed(f"{' '.join(argv)}: {error}") from error
        if done.returncode:
            said = (done.stderr or done.stdout).decode("utf-8", "backslashreplace").strip()
            raise SetupFailed(f"{' '.join(argv)} exited {done.returncode}: {said[-500:]}")
        return done.stdout.decode("utf-8", "backslashreplace")


def await_true(condition: Callable[[], bool], otherwise: str, *processes: Process) -> None:
    """Wait until the condition holds; raises SetupFailed when time is up or one of the processes ends."""
    deadline = time.monotonic() + SETUP_DEADLINE_S
    while not condition():
        for process in processes:
            if process.poll() is not None:
                raise SetupFailed(
                    f"{_shown(process)} ended with status {process.returncode}; see the console"
                )
        if time.monotonic() > deadline:
            shown = ", ".join(map(_shown, processes))
            raise SetupFailed(f"{shown}: {otherwise} after {SETUP_DEADLINE_S:g} s")
        time.sleep(0.1)


def holds(pid: int, path: str) -> bool:
    """Whether the process has this file open; False also where the process is gone."""
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
    for descriptor in descriptors:
        with contextlib.suppress(OSError):  # closed meanwhile
            if os.readlink(descriptor) == path:
                return True
    return False


@contextlib.contextmanager
def with_log(file: Path) -> Iterator[None]:
    """Where the stage fails inside, say the last that a daemon has written into its own log, too."""
    try:
        yield
    except SetupFailed as error:
        text = file.read_text(errors="backslashreplace") if file.exists() else ""
        last = "\n".join(text.splitlines()[-LOG_LINES:]) or "nothing"
        raise SetupFailed(f"{error}\nthe last lines of {file}:\n{last}") from error


def await_line(process: Process) -> str:
    """The first line that the process prints; "" where it ended without one."""
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], SETUP_DEADLINE_S)[0]:
        raise SetupFailed(f"{_shown(process)} said nothing for {SETUP_DEADLINE_S:g} s")
    return os.read(process.stdout.fileno(), 4096).decode("utf-8", "backslashreplace").strip()


def _shown(process: Process) -> str:
    argv = process.args
    assert isinstance(argv, list | tuple)
    return f"`{' '.join(map(str, argv))}`"
