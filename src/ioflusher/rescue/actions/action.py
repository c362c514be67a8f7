"""What every action is: when it applies, what it loses, its exact command, and how it is done and undone.

An action has two halves. `plan` is pure: from a freeze and the figures of memory it makes a `RescueStep` with
the exact commands for a person, or says why it does not apply. `prepare` opens and loads all that doing it
needs, so that the `Prepared` can act in a frozen machine without a page that would have to be read.
"""

import abc
import errno
import os
from dataclasses import dataclass
from enum import IntEnum

from ioflusher.machine.snapshot import Memory
from ioflusher.rescue.errors import RescueError
from ioflusher.rescue.freeze import DeviceFreeze


class Loss(IntEnum):
    """What an action loses, the less the lower."""

    NOTHING = 0
    DEVICE = 1  # the device's requests fail: a file system turns read-only, pages in swap are gone


@dataclass(frozen=True, slots=True)
class FileWrite:
    """A value for a file of /proc/sys or /sys."""

    path: str
    value: str

    @property
    def command(self) -> str:
        """For a shell, which needs to load no program for it."""
        return f"echo {self.value} > {self.path}"


@dataclass(frozen=True, slots=True)
class RescueStep:
    """One action for one freeze.

    Attributes:
        action: its name.
        loss: how much it loses.
        loses: what that is, in words.
        reason: why it could end the freeze; one sentence.
        commands: what to type, exactly.
        undo: what takes it back, once the device has recovered; empty where nothing needs to be, or can be.
        background: whether it takes effect only once the others have: it is begun first and not waited for.
        wait_s: seconds within which the first request completes where it works.
        writes: what it writes, where that is all it does; in order.
        restores: what puts back what was there before, in order.
    """

    action: str
    loss: Loss
    loses: str
    reason: str
    commands: tuple[str, ...]
    undo: tuple[str, ...] = ()
    background: bool = False
    wait_s: float = 10.0
    writes: tuple[FileWrite, ...] = ()
    restores: tuple[FileWrite, ...] = ()


@dataclass(frozen=True, slots=True)
class NotApplicable:
    """Why an action cannot end this freeze, one clause."""

    action: str
    why: str


class Prepared(abc.ABC):
    """An action with everything loaded."""

    @abc.abstractmethod
    def do(self) -> str:
        """Do it; what was done, one clause.

        Raises:
            RescueError: it failed; nothing of it is left.
        """

    @abc.abstractmethod
    def undo(self) -> str:
        """Take it back; what was put back, or "" where nothing is to be.

        Raises:
            RescueError: that failed, and what is left.
        """

    def close(self) -> None:  # noqa: B027 (most hold nothing)
        """Give up what was loaded."""


class RescueAction(abc.ABC):
    """A way to end a freeze.

    Attributes:
        name: on the command line and in tables.
    """

    name: str

    @abc.abstractmethod
    def plan(self, freeze: DeviceFreeze, memory: Memory) -> RescueStep | NotApplicable:
        """What it comes to for this freeze; pure."""

    def prepare(self, freeze: DeviceFreeze, step: RescueStep) -> Prepared:
        """Load all that doing it takes.

        Raises:
            RescueError: it cannot be done here.
        """
        return PreparedWrites(step.writes, step.restores)

    def no(self, why: str) -> NotApplicable:
        """It does not apply."""
        return NotApplicable(self.name, why)


def write_value(file: int, value: str) -> None:
    """Write a file's whole value: from its beginning, where it has places at all.

    Files of /proc/sys take values at their beginning only (kernel.sysctl_writes_strict); those of fusectl
    know no places and refuse pwrite(2) (fs/fuse/control.c, nonseekable_open).

    Raises:
        OSError: the kernel refuses it.
    """
    try:
        os.lseek(file, 0, os.SEEK_SET)
    except OSError as error:
        if error.errno != errno.ESPIPE:
            raise
    os.write(file, value.encode())


class PreparedWrites(Prepared):
    """Values to be written into files, which are open already.

    Raises:
        RescueError: a file cannot be written.
    """

    def __init__(self, writes: tuple[FileWrite, ...], restores: tuple[FileWrite, ...]) -> None:
        self._writes = writes
        self._restores = restores
        self._files: dict[str, int] = {}
        for write in (*writes, *restores):
            try:
                if write.path not in self._files:
                    self._files[write.path] = os.open(write.path, os.O_WRONLY | os.O_CLOEXEC)
            except OSError as error:
                self.close()
                raise RescueError(
                    f"cannot write {write.path}: {error.strerror}",
                    errno=error.errno,
                    hint="it needs root, and /proc/sys and /sys that are not read-only",
                ) from error

    def do(self) -> str:
        for write in self._writes:
            try:
                write_value(self._files[write.path], write.value)
            except OSError as error:
                failed = self._put_back()
                put = f"could not put back {failed}" if failed else "what was written before is put back"
                raise RescueError(
                    f"cannot write {write.value} to {write.path}: {error.strerror}; {put}", errno=error.errno
                ) from error
        return ", ".join(f"{write.path} is {write.value}" for write in self._writes)

    def undo(self) -> str:
        if failed := self._put_back():
            raise RescueError(f"could not put back {failed}")
        return ", ".join(f"{write.path} is {write.value} again" for write in self._restores)

    def _put_back(self) -> str:
        """FileWrite what was there before; what failed, in words."""
        failed = []
        for write in self._restores:
            try:
                write_value(self._files[write.path], write.value)
            except OSError as error:
                failed.append(f"{write.path} to {write.value} ({error.strerror})")
        return ", ".join(failed)

    def close(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()
