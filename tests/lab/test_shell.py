"""`lab shell`: a terminal of the guest's own, keys and sizes handed on, a shell that outlives a freeze."""

import os
import pty
import queue
import re
import select
import signal
import socket
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest

import ioflusher.lab.shell
from ioflusher.lab.errors import CommandTimeout, LabError, MachineLost
from ioflusher.lab.guest import shell as guest_shell
from ioflusher.lab.messages import (
    RESIZE_PORT,
    STDERR_PORT,
    STDIN_PORT,
    STDOUT_PORT,
    AgentFailed,
    CommandEnded,
    GuestReport,
    ShellReady,
    StageFailed,
    WindowSize,
)
from ioflusher.lab.shell import _Session
from ioflusher.lab.vm import Ended
from tests.cli import program

SIZE = WindowSize(rows=40, columns=132)
READY = ShellReady(device="/dev/nbd0", daemons=(169,))


# in the guest


class Ports:
    """Pipes in the place of a guest's ports."""

    def __init__(self) -> None:
        self._pipes = {name: os.pipe() for name in (STDIN_PORT, STDOUT_PORT, RESIZE_PORT)}

    def open(self, name: str, flags: int) -> int:
        """The guest's end."""
        return self._pipes[name][0 if flags == os.O_RDONLY else 1]

    def write(self, name: str, data: bytes) -> None:
        """Something comes from outside."""
        os.write(self._pipes[name][1], data)

    def read_until(self, end: str) -> str:
        """What is printed, until it matches."""
        return until(self._pipes[STDOUT_PORT][0], end)


def until(descriptor: int, end: str, deadline_s: float = 60) -> str:
    """What comes there until the regular expression is found in it."""
    text, deadline = "", time.monotonic() + deadline_s
    while not re.search(end, text):
        assert time.monotonic() < deadline, text
        if select.select([descriptor], [], [], 1)[0]:
            text += os.read(descriptor, 65536).decode("utf-8", "replace")
    return text


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> Ports:
    """The ports of a guest that is this process."""
    made = Ports()
    monkeypatch.setattr(guest_shell, "open_port", made.open)
    return made


@pytest.mark.live
def test_a_terminal_of_its_own(ports: Ports) -> None:
    """It controls the shell, has the size from outside, and follows it; Ctrl-C ends what runs on it."""
    statuses: queue.SimpleQueue[int] = queue.SimpleQueue()
    begun: list[int] = []

    def run() -> None:
        statuses.put(
            guest_shell.run_on_terminal(
                ["sh", "-i"],
                "/no/such/directory",
                {"PS1": "ready> ", "PATH": os.environ["PATH"]},
                SIZE,
                prepare=lambda: None,
                started=begun.append,
            )
        )

    thread = threading.Thread(target=run)
    thread.start()
    ports.read_until("ready> ")
    ports.write(STDIN_PORT, b"tty; stty size; pwd\n")
    assert re.search(r"/dev/pts/\d+\r\n40 132\r\n/\r\n", ports.read_until(r"\n/\r\nready> "))
    ports.write(RESIZE_PORT, msgspec.json.encode(WindowSize(24, 80)) + b"\nno size\n")
    deadline = time.monotonic() + 30
    while "24 80" not in (shown := size_now(ports)):
        assert time.monotonic() < deadline, shown
    ports.write(STDIN_PORT, b"sleep 1000\n\x03")
    ports.read_until("ready> ")
    ports.write(STDIN_PORT, b"exit 7\n")
    thread.join(timeout=30)
    assert statuses.get(timeout=30) == 7
    assert begun


def size_now(ports: Ports) -> str:
    """What the shell's terminal says of its size."""
    ports.write(STDIN_PORT, b"stty size\n")
    return ports.read_until(r"\n\d+ \d+\r\nready> ")


@pytest.mark.live
def test_a_shell_that_a_signal_ends(ports: Ports) -> None:
    """As any shell says it; a program that is not there is an error."""

    def run(*argv: str) -> int:
        return guest_shell.run_on_terminal(
            argv, "/", dict(os.environ), SIZE, prepare=lambda: None, started=lambda pid: None
        )

    assert run("sh", "-c", "kill -TERM $$") == 128 + signal.SIGTERM
    with pytest.raises(FileNotFoundError):
        run("/no/such/shell")


# on this side


class Machine:
    """A guest that says what it is told to say; the test has the other ends of its streams."""

    def __init__(self) -> None:
        pairs = {name: socket.socketpair() for name in (STDIN_PORT, STDOUT_PORT, STDERR_PORT, RESIZE_PORT)}
        self.streams = {name: pair[0] for name, pair in pairs.items()}
        self.guest = {name: pair[1] for name, pair in pairs.items()}
        self.says: queue.SimpleQueue[GuestReport | Ended] = queue.SimpleQueue()

    def next_report(self, timeout_s: float) -> GuestReport | Ended | None:
        """The next one, if it comes in time."""
        try:
            return self.says.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def last_words(self, before: str) -> str:
        """Of a machine that is gone."""
        return f"the guest ended before {before}"

    def console_tail(self) -> str:
        """Its last line."""
        return "last line"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Looked at often."""
    monkeypatch.setattr(ioflusher.lab.shell, "LOOK_S", 0.01)
    monkeypatch.setattr(ioflusher.lab.shell, "LAST_OUTPUT_S", 0.05)
    made = Machine()
    yield made
    for end in (*made.streams.values(), *made.guest.values()):
        end.close()


@pytest.fixture
def keys() -> Iterator[tuple[int, int]]:
    """(what the shell reads, where a user types)."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def last(
    machine: Machine,
    stdin: int,
    *,
    window: Callable[[], WindowSize] | None = lambda: SIZE,
    timeout_s: float = 30,
) -> CommandEnded | None:
    """Follow the machine until its shell has ended."""
    session = _Session(machine, stdin, window, lambda report: None)  # type: ignore[arg-type]
    return session.last(timeout_s)


def test_the_escape_key_leaves_the_guest(machine: Machine, keys: tuple[int, int]) -> None:
    """What was typed before it arrives, what comes behind it does not, and nobody waits for the guest."""
    machine.says.put(READY)
    os.write(keys[1], b"ls\r\x1dmore")
    assert last(machine, keys[0]) is None
    assert machine.guest[STDIN_PORT].recv(100) == b"ls\r"


def test_a_script_may_hold_that_byte(machine: Machine, keys: tuple[int, int]) -> None:
    """Where nobody types there is no escape: the shell ends the session, with its status."""
    machine.says.put(READY)
    os.write(keys[1], b"printf '\x1d'")

    def answer() -> None:
        assert machine.guest[STDIN_PORT].recv(100) == b"printf '\x1d'"
        machine.says.put(CommandEnded(status=3))

    thread = threading.Thread(target=answer)
    thread.start()
    ended = last(machine, keys[0], window=None)
    thread.join()
    assert ended == CommandEnded(status=3)


def test_a_terminal_that_changes_its_size(machine: Machine, keys: tuple[int, int]) -> None:
    """The guest is told once for each change, and not of the size that it has."""
    sizes = [SIZE, SIZE, SIZE, WindowSize(10, 20)]

    def window() -> WindowSize:
        if len(sizes) == 1:
            machine.says.put(CommandEnded(status=0))
        return sizes.pop(0) if len(sizes) > 1 else sizes[0]

    machine.says.put(READY)
    last(machine, keys[0], window=window)
    assert machine.guest[RESIZE_PORT].recv(100) == b'{"rows":10,"columns":20}\n'


@pytest.mark.parametrize(
    ("says", "error", "text"),
    [
        (StageFailed(message="no daemon"), LabError, "the scenario's stage: no daemon\n.*\nlast line"),
        (AgentFailed(traceback="KeyError"), MachineLost, "agent failed:\nKeyError"),
        (Ended(1), MachineLost, "the guest ended before the shell ended"),
    ],
)
def test_what_goes_wrong(
    machine: Machine, keys: tuple[int, int], says: GuestReport | Ended, error: type[LabError], text: str
) -> None:
    """Each has its words."""
    machine.says.put(says)
    with pytest.raises(error, match=text):
        last(machine, keys[0])


def test_a_script_has_its_time(machine: Machine, keys: tuple[int, int]) -> None:
    """The time of the shell counts from where it runs."""
    machine.says.put(READY)
    with pytest.raises(CommandTimeout):
        last(machine, keys[0], window=None, timeout_s=0.05)


def test_standard_input_is_the_shells() -> None:
    """So the scenario cannot come from there."""
    ended = program.call("lab", "shell", "-")
    assert ended.status == 2
    assert "standard input is the shell's" in ended.stderr


# with a real guest


@pytest.mark.vm
def test_a_shell_beside_a_frozen_device() -> None:
    """At a terminal: protected, told of the freeze, usable after it; it ends with the shell's status."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "dumb"
        argv = [sys.executable, "-m", "ioflusher", "lab", "shell", "ext4-on-nbd-throttled", "--freeze"]
        os.execv(sys.executable, argv)
    try:
        termios.tcsetwinsize(terminal, (33, 111))
        shown = until(terminal, r"Ctrl-\]", 200)
        assert "/dev/nbd0 is served by" in shown
        until(terminal, "guest, without the state:/.*# ", 60)

        def typed(line: str, end: str) -> str:
            os.write(terminal, line.encode() + b"\r")
            return until(terminal, end, 60)

        assert "33 111" in typed("stty size", r"\d+ \d+\r\n")
        # task->flags, real-time priority and policy of a program that the shell starts
        said = typed("cut -d' ' -f9,40,41 /proc/self/stat", r"\n(\d+) (\d+) (\d+)\r\n")
        found = re.search(r"\n(\d+) (\d+) (\d+)\r\n", said)
        assert found
        assert int(found[1]) & 0x00180000 == 0x00180000
        assert (found[2], found[3]) == ("50", "1")
        locked = re.search(r"VmLck:\s+(\d+) kB", typed("grep VmLck /proc/$$/status", r"VmLck:.*kB"))
        assert locked
        assert int(locked[1]) > 1000
        frozen = until(terminal, r"none completed for \d+ s", 120)
        assert "/dev/nbd0 is frozen: " in frozen
        assert "balance_dirty_pages+" in typed("cat /proc/$IOFLUSHER_DAEMON/task/*/stack", "dirty_pages[+]")
        typed("sleep 1000", "sleep 1000")
        stop(terminal)
        os.write(terminal, b"kill -KILL %1; disown -a; exit 7\r")
        status = wait_for(child, 60)
        assert os.waitstatus_to_exitcode(status) == 7
    finally:
        os.close(terminal)


def stop(terminal: int) -> None:
    """Ctrl-Z, until the shell says that its job is stopped: it may not have started it yet."""
    shown, deadline = "", time.monotonic() + 60
    while "Stopped" not in shown:
        assert time.monotonic() < deadline, shown
        os.write(terminal, b"\x1a")
        while select.select([terminal], [], [], 3)[0] and "Stopped" not in shown:
            shown += os.read(terminal, 65536).decode("utf-8", "replace")


def wait_for(child: int, deadline_s: float) -> int:
    """The wait status of a child that has to end in time; it is killed where it does not."""
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("the program did not end with its shell")
