"""Inside a guest: freezes on a throttled scenario's stage, each with work that can be checked."""

import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from ioflusher.cli.main import main as program
from ioflusher.flag.attach import put_state
from ioflusher.kernel.task import parse_stat
from ioflusher.rescue.guard.unit import CAPABILITIES
from ioflusher.rescue.live import DeviceRequests

DEADLINE_S = 60.0
BOUNDS = (*CAPABILITIES, "CAP_KILL")  # the last for --policy more
CHUNK = 1 << 20
CHUNKS = 96  # twelve times what may be dirty
DIRTY_BYTES = Path("/proc/sys/vm/dirty_bytes")
POLL_S = 0.04
TRIES = 3
TRY_S = 30.0


def until(true: Callable[[], Any], deadline_s: float = DEADLINE_S) -> float:
    """Wait for it; the seconds that it took, or -1."""
    began = time.monotonic()
    while time.monotonic() - began < deadline_s:
        if true():
            return round(time.monotonic() - began, 2)
        time.sleep(0.05)
    return -1.0


def become_program(*words: str) -> NoReturn:
    """Be `ioflusher`, in a child of this process: everything is loaded already."""
    try:
        program(list(words))
    except SystemExit as end:
        sys.stdout.flush()
        os._exit(int(end.code or 0))
    finally:
        os._exit(99)


def content(number: int, place: int) -> bytes:
    """A chunk that no other round and no other place has."""
    return struct.pack("=QQ", number + 1, place) * (CHUNK // 16)


@dataclass(frozen=True, slots=True)
class Work:
    """What became of one round's work.

    Attributes:
        seconds: until all was written and synced; None where the time was up before.
        status: of the writer, 0 without an error.
        frozen_s: the longest time in which no request completed while some were in flight.
    """

    seconds: float | None
    status: int
    frozen_s: float


class Stage:
    """The device of the stage, what lies on it, and who serves it."""

    def __init__(self) -> None:
        self.device = os.environ["IOFLUSHER_DEVICE"]
        self.daemons = [int(pid) for pid in os.environ["IOFLUSHER_DAEMON"].split()]
        self.requests = DeviceRequests(Path(self.device).name)
        mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
        self.directory = next((Path(words[1]) for words in mounts if words[0] == self.device), Path("/"))
        self.limit = DIRTY_BYTES.read_text()
        self.chunks = CHUNKS

    def write(self, number: int) -> int:
        """Have a child write round `number`'s file and sync it; its process number."""
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            try:
                with open(self.directory / "work", "wb") as file:
                    for place in range(self.chunks):
                        file.write(content(number, place))
                    file.flush()
                    os.fsync(file.fileno())
                os._exit(0)
            finally:
                os._exit(1)
        return pid

    def follow(self, pid: int, deadline_s: float = DEADLINE_S) -> Work:
        """Watch the device until the writer has ended, or so long."""
        began = moved = time.monotonic()
        before, longest = -1, 0.0
        while (now := time.monotonic()) - began < deadline_s:
            completed, in_flight = self.requests.read()
            if completed != before or not in_flight:
                before, moved = completed, now
            longest = max(longest, now - moved)
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return Work(round(now - began, 2), os.waitstatus_to_exitcode(status), round(longest, 2))
            time.sleep(POLL_S)
        return Work(None, -1, round(longest, 2))

    def freeze(self, number: int, seconds: float = 3.0) -> tuple[int, bool]:
        """Write until the device stands still for so long, a few times if once goes through by chance.

        Returns:
            The writer, and whether the device stands still.
        """
        for _ in range(TRIES):
            pid = self.write(number)
            if self.frozen(seconds, pid, TRY_S):
                return pid, True
            # who crawls is neither frozen nor done
            self.raise_limit()
            os.waitpid(pid, 0)
            self._clear()
        return self.write(number), False

    def frozen(self, seconds: float, writer: int, deadline_s: float = DEADLINE_S) -> bool:
        """Wait until no request has completed for so long while some were in flight.

        Whether that came before the writer ended.
        """
        began = moved = time.monotonic()
        before = -1
        while (now := time.monotonic()) - began < deadline_s:
            completed, in_flight = self.requests.read()
            if completed != before or not in_flight:
                before, moved = completed, now
            if now - moved >= seconds:
                return True
            if os.waitid(os.P_PID, writer, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return False
            time.sleep(POLL_S)
        return False

    def wrong_chunks(self, number: int) -> int:
        """Read round `number`'s file back from the device; how much of it is not what was written."""
        Path("/proc/sys/vm/drop_caches").write_text("3")
        with open(self.directory / "work", "rb") as file:
            return sum(file.read(CHUNK) != content(number, place) for place in range(self.chunks))

    def raise_limit(self) -> None:
        """End a freeze by hand."""
        DIRTY_BYTES.write_text(str(256 << 20))

    def make_ready(self) -> None:
        """As at first: no file, the dirty limit as it was, no daemon in the state.

        The kernel gives each device a share of the limit by what it has written of late: none, at first,
        to the disk of the daemon's store. Now that it has written, its share is held down: without that there
        is no second freeze.
        """
        store = os.stat("/store").st_dev
        Path(f"/sys/class/bdi/{os.major(store)}:{os.minor(store)}/max_ratio").write_text("1")
        self._clear()
        for pid in self.daemons:
            until(partial(self._taken_off, pid), 20)

    def _clear(self) -> None:
        """No file, and the dirty limit as it was."""
        (self.directory / "work").unlink(missing_ok=True)
        os.sync()
        DIRTY_BYTES.write_text(self.limit)

    def _taken_off(self, pid: int) -> bool:
        put_state(pid, False, timeout=5)
        stats = Path(f"/proc/{pid}/task").glob("*/stat")
        return not any(parse_stat(stat.read_bytes()).io_flusher for stat in stats)

    def waits(self) -> list[str]:
        """The innermost functions of the daemons' threads that are in uninterruptible sleep."""
        found = []
        for pid in self.daemons:
            for task in Path(f"/proc/{pid}/task").iterdir():
                if parse_stat((task / "stat").read_bytes()).state == "D":
                    lines = (task / "stack").read_text().splitlines()[:3]
                    found.append(" < ".join(line.split()[-1].partition("+")[0] for line in lines))
        return found


class GuardProcess:
    """A program that runs a guard, and what the guard says.

    Attributes:
        lines: all that it has said.
    """

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str] = MappingProxyType({})) -> None:
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.pid = self._process.pid
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(line.strip().removeprefix("ioflusher guard: "))

    def said(self, text: str, since: int = 0, deadline_s: float = DEADLINE_S) -> bool:
        """Wait until it says a line with this text, beyond the first `since` lines; whether it did."""
        return until(lambda: any(text in line for line in self.lines[since:]), deadline_s) >= 0

    def end(self) -> int:
        """End it by SIGTERM; its exit status."""
        self._process.terminate()
        return self._process.wait(30)


def guard_process(*options: str) -> GuardProcess:
    """`ioflusher guard`, with the capabilities of its unit and no others."""
    words = ("setpriv", "--bounding-set", ",".join(("-all", *map(_capability, BOUNDS))), "--no-new-privs")
    return GuardProcess([*words, sys.executable, "-m", "ioflusher", "guard", *options])


def _capability(name: str) -> str:
    """As setpriv(1) has it: "+sys_nice"."""
    return "+" + name.removeprefix("CAP_").lower()
