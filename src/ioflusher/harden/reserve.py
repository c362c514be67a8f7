"""Memory that is locked while all is well, given back when everything stalls, and taken again afterwards.

A daemon that is stuck in an allocation waits until pages are free, whoever frees them; a few megabytes are
what many requests need. They are mappings of their own, which nobody uses: what is given back from under a
buffer in use comes back as zeroes, and would be sent as data.
"""

import mmap
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ioflusher.harden.errors import HardenError, denied
from ioflusher.kernel.meminfo import parse_meminfo
from ioflusher.kernel.pressure import PressureTriggers
from ioflusher.kernel.syscalls import MAP_LOCKED

# Half of a second in which every task that could run waited for memory; without CAP_SYS_RESOURCE the kernel
# takes windows of 2 s alone (since 6.5).
TRIGGERS = {"memory": ("full 500000 1000000", "full 1000000 2000000")}
CALM_S = 10.0  # without such a stall, until the memory is taken again
_PIECE = 1 << 20  # bytes that are taken at once
_FOR_EVER = 3600.0  # seconds

Say = Callable[..., None]


class MemoryReserve:
    """Locked memory for nobody's use.

    Attributes:
        size: bytes that it is to have.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._pieces: list[mmap.mmap] = []

    @property
    def held(self) -> int:
        """Bytes that it has."""
        return sum(map(len, self._pieces))

    def hold(self, go_on: Callable[[], bool] = lambda: True) -> bool:
        """Take what is missing, a piece at a time for as long as `go_on` says; whether it has all.

        Raises:
            HardenError: the kernel does not give it.
        """
        while (missing := self.size - self.held) > 0:
            if not go_on():
                return False
            self._pieces.append(_locked(min(missing, _PIECE)))
        return True

    def give_back(self) -> None:
        """Let the kernel have all of it."""
        while self._pieces:
            self._pieces.pop().close()


def _locked(size: int) -> mmap.mmap:
    try:
        piece = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_LOCKED)
    except OSError as error:
        raise denied(
            f"hold {size} bytes more of locked memory in reserve",
            "CAP_IPC_LOCK or a higher memory lock limit",
            error,
            "systemd LimitMEMLOCK=infinity, --memlock unlimited",
        ) from error
    piece[:: mmap.PAGESIZE] = bytes(-(-size // mmap.PAGESIZE))  # mmap(2) is content with less than all
    return piece


class ReserveKeeper:
    """Gives a reserve back when the kernel says that everything stalls, and takes it again when that is over.

    Args:
        size: bytes.
        say: is told when it does either.
        root: of the machine.

    Raises:
        HardenError: the memory is not to be had, or the kernel does not tell.
    """

    def __init__(self, size: int, say: Say, *, calm_s: float = CALM_S, root: Path = Path("/")) -> None:
        self._reserve = MemoryReserve(size)
        self._say = say
        self._calm_s = calm_s
        self._meminfo = root / "proc/meminfo"
        self._stalled_at = 0.0
        self._stopped = False
        self._pressure = PressureTriggers(TRIGGERS, root)
        try:
            if not self._pressure.watched:
                raise HardenError(
                    "the kernel tells nobody when everything stalls",
                    hint="it needs CONFIG_PSI, psi=1 on its command line, and CAP_SYS_RESOURCE before 6.5",
                )
            self._reserve.hold()
        except BaseException:
            self._end()
            raise
        self._thread = threading.Thread(target=self._run, name="reserve", daemon=True)
        self._thread.start()

    @property
    def held(self) -> int:
        """Bytes that it has."""
        return self._reserve.held

    def close(self) -> None:
        """Give it back for good."""
        self._stopped = True
        self._pressure.wake()
        self._thread.join()

    def _run(self) -> None:
        whole = True
        while not self._stopped:
            if self._pressure.wait(_FOR_EVER if whole else self._calm_s):
                self._stalled_at = time.monotonic()
                if self._reserve.held:
                    self._reserve.give_back()
                    self._say("reserve given back", bytes=self._reserve.size)
                whole = False
            elif not self._stopped and not whole:
                whole = self._take_again()
        self._end()

    def _take_again(self) -> bool:
        if not self._is_calm():
            return False
        try:
            whole = self._reserve.hold(self._is_calm)
        except HardenError:
            return False
        if whole:
            self._say("reserve taken again", bytes=self._reserve.size)
        return whole

    def _is_calm(self) -> bool:
        """Whether nothing stalled for a while, and twice what is wanted could be had."""
        if self._pressure.wait(0):
            self._stalled_at = time.monotonic()
        if time.monotonic() - self._stalled_at < self._calm_s:
            return False
        available = parse_meminfo(self._meminfo.read_bytes()).available_kib
        return available is not None and available << 10 >= 2 * (self._reserve.size - self._reserve.held)

    def _end(self) -> None:
        self._reserve.give_back()
        self._pressure.close()
