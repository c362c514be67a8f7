"""What every stack does, in the guest: start its daemon, put the device to use, say whom to watch, end.

The lab runs the workload on it and observes; a stack knows nothing of that.
"""

import abc
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ioflusher.lab.file_systems import CHECKERS
from ioflusher.lab.guest.counters import BlockCounters, DeviceCounters
from ioflusher.lab.guest.disks import find_disk
from ioflusher.lab.guest.mkfs import mkfs_command
from ioflusher.lab.guest.processes import Process, Processes, SetupFailed
from ioflusher.lab.messages import STORE_DISK, PlayHalf
from ioflusher.scenario.records import Scenario

STORE = Path("/store")
BLOCK_DEVICES = Path("/sys/block")


@dataclass(frozen=True, slots=True)
class Fault:
    """How a fault is brought about in the guest, and ended again where that is possible.

    The observer calls both, while the machine may be frozen: they must not wait. Write to a file of /sys,
    shut a socket down, send a signal; do not start a program. An OSError is reported as a fault that failed.
    """

    inject: Callable[[], None]
    relieve: Callable[[], None] | None = None


class Stack(abc.ABC):
    """One stack in one guest, for one half of an experiment.

    Attributes:
        scenario: what is played.
        order: which half, and where the server outside is.
        processes: starts every process of the stack.
        directory: where the workload finds its files, where it has any.
    """

    directory = Path("/mnt")

    def __init__(self, order: PlayHalf, processes: Processes) -> None:
        self.scenario: Scenario = order.scenario
        self.order = order
        self.processes = processes

    @abc.abstractmethod
    def start(self) -> None:
        """Start the daemon and make the device: when it returns, the device takes requests.

        Raises:
            SetupFailed: which says the step, and what the program printed.
        """

    @property
    @abc.abstractmethod
    def device(self) -> str:
        """The block device that the daemon serves, as in /dev/nbd0."""

    @abc.abstractmethod
    def daemons(self) -> tuple[int, ...]:
        """The processes that stand in the device's path, by number, the one most likely to wait first.

        It is asked again and again: a daemon may start further ones.
        """

    def carriers(self) -> tuple[int, ...]:
        """Those of `daemons` that are to carry the state in the half with it."""
        return self.daemons()

    def limit_queue(self, depth: int) -> None:
        """Let the device take so many requests at once.

        Raises:
            SetupFailed: where the driver cannot do that.
        Documentation/ABI/stable/sysfs-block, nr_requests; of a SCSI disk, Documentation/scsi, queue_depth.
        """
        directory = BLOCK_DEVICES / os.path.basename(self.device)
        scsi = directory / "device" / "queue_depth"
        file = scsi if scsi.exists() else directory / "queue" / "nr_requests"
        try:
            file.write_text(str(depth))
            taken = file.read_text().strip()
        except OSError as error:
            raise SetupFailed(f"device.queue_depth {depth}: {error}") from error
        if taken != str(depth):
            raise SetupFailed(f"device.queue_depth: the driver takes {taken} in place of {depth} ({file})")

    def use(self, use: str) -> None:
        """Put swap or a file system on the device, and the file system at `directory`."""
        if use == "swap":
            self.processes.step("mkswap", self.device)
            self.processes.step("swapon", self.device)
            return
        self.processes.step(
            *mkfs_command(
                use, self.device, os.uname().release, self.processes.step, self.scenario.device.mkfs
            )
        )
        self.directory.mkdir(exist_ok=True)
        self.processes.step("mount", "-t", use, self.device, str(self.directory))

    def look_through(self, use: str) -> dict[str, list[str]] | None:
        """The commands that unmount the file system, look it through and mount it again; None for none."""
        if use not in CHECKERS:
            return None
        directory = str(self.directory)
        return {
            "unmount": ["umount", directory],
            "check": [*CHECKERS[use], self.device],
            "mount": ["mount", "-t", use, self.device, directory],
        }

    def faults(self) -> Mapping[str, Fault]:
        """The faults that can be brought about in the guest, by `fault.kind`: these, and those of the row.

        They are for the daemon that is most likely to wait.
        """
        return {
            "daemon-killed": Fault(partial(self._signal, signal.SIGKILL)),
            "daemon-stopped": Fault(
                partial(self._signal, signal.SIGSTOP), partial(self._signal, signal.SIGCONT)
            ),
        }

    def _signal(self, number: int) -> None:
        os.kill(self.daemons()[0], number)

    def counters(self) -> DeviceCounters:
        """Requests of the device: what tells progress from a freeze."""
        return BlockCounters(self.device)

    def end(self) -> None:  # noqa: B027 (most stacks end with their processes)
        """Undo what would outlive the processes; called when the half is over."""

    def set_up(self, daemon: Process, places: Mapping[str, str]) -> None:
        """Tell the running daemon what the scenario's `daemon.setup` says."""
        for command in self.scenario.daemon.setup:
            self.processes.step_until(*filled_in(command, places), running=(daemon,))

    def mount_store(self) -> None:
        """Mount a file system of a disk of its own at STORE; it has no journal."""
        disk = find_disk(STORE_DISK)
        self.processes.step("mkfs.ext4", "-q", "-F", "-O", "^has_journal", disk)
        STORE.mkdir(exist_ok=True)
        self.processes.step("mount", "-t", "ext4", disk, str(STORE))

    def make_store(self) -> Path:
        """What is behind the device, of the device's size.

        A file on a file system as `mount_store` makes it, or with `store = "disk"` the disk itself.
        """
        if self.scenario.daemon.store == "disk":
            return Path(find_disk(STORE_DISK))
        self.mount_store()
        image = STORE / "image"
        with image.open("wb") as file:
            file.truncate(self.scenario.device.size)
        return image


def own_daemon(order: PlayHalf, module: str, *arguments: str) -> list[str]:
    """The command of a daemon of ours, a module of `ioflusher.lab.daemons`; the halves differ in one word.

    It loads no site packages, and so starts sooner in a guest under emulation.
    """
    argv = [sys.executable, "-S", "-m", f"ioflusher.lab.daemons.{module}", *arguments]
    return [*argv, *own_hardening(order)]


def own_hardening(order: PlayHalf) -> list[str]:
    """The options of a daemon of ours for the state, and for what else the scenario asks of it."""
    hardening = order.scenario.hardening
    words = ["--io-flusher" if order.io_flusher else "--no-io-flusher"]
    if hardening.lock_memory:
        words += ["--lock-memory"]
    if hardening.realtime:
        words += ["--realtime", str(hardening.realtime)]
    return words


def filled_in(command: tuple[str, ...], places: Mapping[str, str]) -> list[str]:
    """The command with each placeholder replaced."""
    words = []
    for word in command:
        for name, value in places.items():
            word = word.replace(name, value)
        words.append(word)
    return words
