"""A freeze: which device, which daemon, by which way."""

from dataclasses import dataclass
from enum import Enum

from ioflusher.kernel.stall import SelfWait
from ioflusher.rescue.served import ServedDevice, kernels_own


class FreezeWay(Enum):
    """How the path came to stand still."""

    # the daemon is paused until pages are clean that only it can clean
    DIRTY_THROTTLING = SelfWait.DIRTY_THROTTLING.value
    RECLAIM = SelfWait.RECLAIM.value  # an allocation of it waits for I/O: swap, inodes, pages of the device
    PAGE_LOCK = SelfWait.PAGE_LOCK.value  # it waits for a page or inode that a writer to its device holds
    PATHS_LOST = "paths lost"  # multipath keeps requests because no path is left
    DAEMON_GONE = "daemon gone"  # nobody serves the device
    SENDING = "sending"  # the driver cannot send: the daemon does not take requests from its socket
    UNKNOWN = "unknown"  # requests stand still, and nothing says why


class SeenIn(Enum):
    """Where a freeze was seen."""

    LIVE = "this machine"
    SNAPSHOT = "a snapshot"
    DIAGNOSIS = "a diagnosis"
    ALARM = "an alarm"


@dataclass(frozen=True, slots=True)
class WaitingThread:
    """A thread of a daemon, and where in the kernel it stands.

    Attributes:
        pid, tid, comm, state: as in /proc/PID/task/TID/stat.
        wait: what its stack says, None where it waits for nothing that the device could hold up.
        functions: of the kernel's stack, innermost first; empty where it could not be read.
        io_flusher: whether it carries the state, or needs none because it is a worker of the kernel's.
        target: the role of the kernel's own target that it belongs to; "" for a thread of a daemon.
    """

    pid: int
    tid: int
    comm: str
    state: str
    wait: SelfWait | None
    functions: tuple[str, ...] = ()
    io_flusher: bool = False
    target: str = ""

    @property
    def owner(self) -> str:
        """Whose it is, in words."""
        return kernels_own(self.target) if self.target else f"its daemon {self.pid}"


@dataclass(frozen=True, slots=True)
class DeviceFreeze:
    """One device that stands still, or may.

    Attributes:
        device: it, with what serves it and what lies on it.
        way: how.
        seen: where that was seen.
        certain: whether requests were seen to stand still and a daemon to wait for itself; else it is
            concluded from figures.
        reason: one sentence on why it is taken for that.
        stalled_s: seconds since a request completed last, at least; None for unknown.
        threads: the daemons' threads that show it.
    """

    device: ServedDevice
    way: FreezeWay
    seen: SeenIn
    certain: bool
    reason: str
    stalled_s: float | None = None
    threads: tuple[WaitingThread, ...] = ()

    @property
    def kernel_waits(self) -> bool:
        """Whether those who wait for themselves are threads of the kernel's own target, and no daemon."""
        waiting = [thread for thread in self.threads if thread.wait is not None]
        return bool(waiting) and all(thread.target for thread in waiting)

    @property
    def waits(self) -> str:
        """Who waits for itself, in words: a daemon, or the kernel's own target where none of them does."""
        if not self.kernel_waits:
            return "the daemon"
        return kernels_own(next(thread.target for thread in self.threads if thread.wait is not None))
