"""A server that is to be killed and one that is to go on in its place: what both have, and what is lost."""

import os
import stat
from pathlib import Path

from ioflusher.machine.storage import DeviceKind
from ioflusher.nbd.kernel_client.fence import Fence
from ioflusher.rescue.errors import RescueError
from ioflusher.rescue.freeze import DeviceFreeze, FreezeWay
from ioflusher.rescue.other_server import OtherServer

# A pause in balance_dirty_pages() and a wait for a socket end with the process; a wait for memory does not.
KILLABLE = (FreezeWay.DIRTY_THROTTLING, FreezeWay.SENDING, FreezeWay.UNKNOWN)


def find_other(freeze: DeviceFreeze, kind: DeviceKind, expected: str) -> OtherServer | str:
    """The server that could take over, or in words why none can; `expected`: what the other one would be."""
    if freeze.device.kind is not kind:
        return f"it is no {kind.value} device"
    if freeze.way not in KILLABLE:
        return f"its server would not end before what it waits for does: {freeze.way.value}"
    return freeze.device.other_server or expected


class FirstServer:
    """The process that is to be killed, held on to.

    Raises:
        RescueError: the two do not have the same store any more.
        AttachError: there is no such process.
    """

    def __init__(self, other: OtherServer) -> None:
        self._fence = Fence((other.instead_of,))
        try:
            check_same_store(other)
        except BaseException:
            self._fence.close()
            raise

    def end(self) -> None:
        """Kill it, and wait until it has ended: inside the kernel it may wait for what no signal ends."""
        while self._fence.kill(1.0):
            pass

    def close(self) -> None:
        """Let it live."""
        self._fence.close()


def lost_with_server(other: OtherServer) -> str:
    """What the server that is killed takes with it."""
    return (
        f"what process {other.instead_of} acknowledged and holds in its own memory alone, which is nothing "
        f"where it stores straight into {other.store} (as ioflusher, nbd-server and nbdkit's file plug-in do)"
    )


def check_same_store(other: OtherServer) -> None:
    """Raise RescueError unless both have one file open for writing, the same one in the same way."""
    first, second = written_files(other.instead_of), written_files(other.pid)
    if len(first) != 1 or first != second:
        raise RescueError(
            f"{other.name} does not have the same store as process {other.instead_of} any more",
            hint=f"both must have {other.store} open for writing, and nothing else, both or neither O_DIRECT",
        )


def written_files(pid: int, root: Path = Path("/")) -> frozenset[tuple[int, int, bool]]:
    """Files and block devices that a process may write, but logs: device, inode, whether O_DIRECT.

    Raises:
        RescueError: it cannot be looked at.
    """
    directory = root / "proc" / str(pid)
    found = set()
    try:
        for name in os.listdir(directory / "fd"):
            try:
                info = (directory / "fdinfo" / name).read_text()
                status = os.stat(directory / "fd" / name)
            except FileNotFoundError:  # closed meanwhile
                continue
            flags = int(info.partition("flags:")[2].split()[0], 8)
            if flags & os.O_ACCMODE == os.O_RDONLY or flags & os.O_APPEND:  # a log is no store
                continue
            if stat.S_ISREG(status.st_mode):
                found.add((status.st_dev, status.st_ino, bool(flags & os.O_DIRECT)))
            elif stat.S_ISBLK(status.st_mode):
                found.add((status.st_rdev, 0, bool(flags & os.O_DIRECT)))
        ended = not os.listdir(directory / "fd")  # and has closed all
    except (OSError, ValueError, IndexError) as error:
        raise RescueError(f"the files of process {pid} cannot be seen: {error}") from error
    if ended:
        raise RescueError(f"the files of process {pid} cannot be seen: it has ended")
    return frozenset(found)
