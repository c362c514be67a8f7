"""Inside the guest: the observer's privileges, and how ordinary processes are started without them.

The process that observes carries the IO_FLUSHER state, has its memory locked and a real-time priority: an
observer that freezes with what it observes is worth nothing. Everything that it starts is set back to an
ordinary process first, so that the daemon begins without the state in both halves.
"""

import contextlib
import os
import select
import selectors
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from ioflusher.flag import set_io_flusher
from ioflusher.harden import RealtimePolicy, join_cgroup, lock_memory, set_oom_score_adj, set_realtime
from ioflusher.kernel.task import parse_parent, parse_session, parse_stat

SETUP_DEADLINE_S = 40.0
PRIORITY = 50
LOG_LINES = 12

LAST_BYTES = 4000  # of what a process printed, so much is kept
LAST_LINES = 8  # and so many lines of it are in a message
THREAD_STACK = 1 << 18  # the observer's memory is locked, and with it a thread's whole stack


class SetupFailed(Exception):
    """The stage could not be built; the message says which step and what it printed."""


class LastOutput:
    """The end of what a process and its children print.

    Attributes:
        closed: set once none of them can print any more.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self.closed = threading.Event()

    def add(self, data: bytes) -> None:
        """It printed this."""
        self._bytes += data
        del self._bytes[:-LAST_BYTES]

    def lines(self) -> list[str]:
        """The last lines."""
        text = bytes(self._bytes).decode("utf-8", "backslashreplace")
        return text.strip().splitlines()[-LAST_LINES:]


class StagedProcess(subprocess.Popen[bytes]):
    """A process of the stage.

    Attributes:
        said: what it printed that was not asked for through a pipe.
    """

    said: LastOutput

    def shown(self) -> str:
        """Its command, for messages."""
        assert isinstance(self.args, list | tuple)
        return f"`{' '.join(map(str, self.args))}`"

    def printed(self) -> str:
        """What it printed last, as the end of a sentence."""
        if self.poll() is not None:
            self.said.closed.wait(1.0)  # its last words may still be on their way
        lines = self.said.lines()
        return "; it printed:\n" + "\n".join(lines) if lines else "; it printed nothing"

    def told(self) -> str:
        """For where something failed: how it ended, if it did, and what it printed last."""
        return self.ended() if self.poll() is not None else self.shown() + self.printed()

    def ended(self) -> str:
        """How it ended, and what it printed last."""
        status = self.returncode
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return f"{self.shown()} {how}{self.printed()}"


Process = StagedProcess  # by this name in every stack


class OutputPump:
    """One thread that takes what the processes print, keeps the end of it and passes it on to the console."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._thread: threading.Thread | None = None

    def take(self, pipe: int) -> LastOutput:
        """Read this pipe from now on, and close it at its end."""
        said = LastOutput()
        self._selector.register(pipe, selectors.EVENT_READ, said)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="output", daemon=True)
            self._thread.start()
        return said

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                data = os.read(key.fd, 4096)
                if data:
                    key.data.add(data)
                    os.write(2, data)
                else:
                    self._selector.unregister(key.fd)
                    os.close(key.fd)
                    key.data.closed.set()


def become_observer() -> None:
    """What the observer needs to go on in a frozen machine."""
    set_io_flusher(True)
    threading.stack_size(THREAD_STACK)
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
        staged: what `start` has started.
    """

    group: Path | None = None
    staged: tuple[Process, ...] = ()
    _pump: OutputPump | None = None

    def start(
        self, argv: Sequence[str], *, stdin: bool = False, stdout: bool = False, io_flusher: bool = False
    ) -> Process:
        """Start a program that stays, in a session of its own, with pipes where asked.

        What it prints else goes to the console, and the end of it is kept.

        Raises:
            SetupFailed: where it cannot be executed.
        """
        taken, given = os.pipe()
        try:
            process = Process(
                argv,
                preexec_fn=partial(become_ordinary, io_flusher, self.group),
                bufsize=0,
                stdin=subprocess.PIPE if stdin else None,
                stdout=subprocess.PIPE if stdout else given,
                stderr=given,
                start_new_session=True,
            )
        except OSError as error:
            os.close(taken)
            raise SetupFailed(f"{argv[0]} does not start: {error.strerror}") from error
        except subprocess.SubprocessError as error:
            os.close(taken)
            raise SetupFailed(f"{argv[0]} does not start: it cannot be made an ordinary process") from error
        finally:
            os.close(given)
        if self._pump is None:
            self._pump = OutputPump()
        process.said = self._pump.take(taken)
        self.staged = (*self.staged, process)
        return process

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
            raise SetupFailed(
                f"{' '.join(argv)} exited {done.returncode}: {said[-500:] or 'it said nothing'}"
            )
        return done.stdout.decode("utf-8", "backslashreplace")

    def step_until(self, *argv: str, running: Sequence[Process]) -> str:
        """Run a set-up command over and over until it succeeds, as long as these processes run.

        Raises:
            SetupFailed: one of them ended, or time is up; with what they printed.
        """
        deadline = time.monotonic() + SETUP_DEADLINE_S
        while True:
            try:
                return self.step(*argv)
            except SetupFailed as error:
                for process in running:
                    check_runs(process)
                if time.monotonic() > deadline:
                    told = ", ".join(process.told() for process in running)
                    raise SetupFailed(f"{error}, tried for {SETUP_DEADLINE_S:g} s: {told}") from error
            time.sleep(0.2)

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Where the stage fails inside, say too how those that should stay ended, or what they printed."""
        try:
            yield
        except (SetupFailed, OSError) as error:
            words = [
                process.told()
                for process in self.staged
                if process.shown() not in str(error) and (process.poll() is not None or process.said.lines())
            ]
            if not words:
                raise
            raise SetupFailed("\n".join([str(error), *words])) from error


def check_runs(process: Process) -> None:
    """Raises SetupFailed, with how it ended, where the process has ended."""
    if process.poll() is not None:
        raise SetupFailed(process.ended())


def await_true(condition: Callable[[], bool], otherwise: str, *processes: Process) -> None:
    """Wait until the condition holds.

    Raises:
        SetupFailed: time is up, or one of the processes ended, if it left nothing that could be watched.
    """
    deadline = time.monotonic() + SETUP_DEADLINE_S
    while not condition():
        for process in processes:
            check_runs(process)
        if time.monotonic() > deadline:
            said = ", ".join(process.told() for process in processes)
            raise SetupFailed(f"{otherwise} after {SETUP_DEADLINE_S:g} s: {said}")
        time.sleep(0.1)
    for process in processes:
        if process.poll() is not None and family(process) == (process.pid,):
            raise SetupFailed(f"{process.ended()}\nit has to stay in the foreground")


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
        said = f"said nothing for {SETUP_DEADLINE_S:g} s"
        raise SetupFailed(f"{process.shown()} {said}{process.printed()}")
    return os.read(process.stdout.fileno(), 4096).decode("utf-8", "backslashreplace").strip()


def await_ready_line(process: Process, prefix: str) -> str:
    """What stands behind `prefix` in the line by which a daemon of ours says that it serves.

    Raises:
        SetupFailed: it said something else or nothing; with how it ended and what it printed.
    """
    line = await_line(process)
    if line.startswith(prefix):
        return line.removeprefix(prefix)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1.0)
        raise SetupFailed(process.ended())
    raise SetupFailed(f"{process.shown()} said {line!r}, expected {prefix!r}{process.printed()}")


def ended_processes(started: Sequence[Process]) -> tuple[str, ...]:
    """How each of them that has ended did so, and what it printed last."""
    return tuple(process.ended() for process in started if process.poll() is not None)


def family(process: Process) -> tuple[int, ...]:
    """The process, and all that it started and that still run: its descendants, and its session's.

    A process whose parent has ended is another's child by then, but in the session in which it was started.
    """
    parents: dict[int, int] = {}
    members = {process.pid}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                stat = file.read()
            if parse_stat(stat).ended:
                continue
        except OSError:
            continue  # it ended between the listing and the look
        parents[int(entry)] = parse_parent(stat)
        if parse_session(stat) == process.pid:
            members.add(int(entry))
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in members} - members
        grown = bool(more)
        members |= more
    return (process.pid, *sorted(members - {process.pid}))
