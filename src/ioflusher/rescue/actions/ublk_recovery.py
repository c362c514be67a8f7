"""Another server for a ublk device, by the driver's own recovery (UBLK_F_USER_RECOVERY and _REISSUE).

A device that was made with both flags outlives its server: when that dies, requests wait, and those that it
had are given to the next (drivers/block/ublk_drv.c, ublk_quiesce_dev, ublk_ctrl_start_recovery). Nobody can
serve it from outside: the next server has to be a program that knows the store, and stands by.
"""

import re

from ioflusher.kernel import ublk
from ioflusher.kernel.ublk_control import UblkControl
from ioflusher.machine.snapshot import Memory
from ioflusher.machine.storage import DeviceKind
from ioflusher.rescue.actions.action import Loss, NotApplicable, Prepared, RescueAction, RescueStep
from ioflusher.rescue.actions.same_store import FirstServer, find_other, lost_with_server
from ioflusher.rescue.errors import RescueError
from ioflusher.rescue.freeze import DeviceFreeze
from ioflusher.rescue.other_server import OtherServer


class UblkRecovery(RescueAction):
    """The server is killed, and the one that stands by recovers the device."""

    name = "ublk-recovery"

    def plan(self, freeze: DeviceFreeze, memory: Memory) -> RescueStep | NotApplicable:
        other = find_other(
            freeze,
            DeviceKind.UBLK,
            "no other server of the same store stands by: one process that has the same file open, that "
            f"alone, and {ublk.CONTROL_DEVICE}",
        )
        if isinstance(other, str):
            return self.no(other)
        return RescueStep(
            action=self.name,
            loss=Loss.DEVICE,
            loses=lost_with_server(other),
            reason=f"{other.name} has {other.store} open, too, and {ublk.CONTROL_DEVICE}: with its server "
            "killed the device waits for another one, and requests that it had are given to that",
            commands=(f"kill -9 {other.instead_of}",),
            wait_s=20.0,  # before 6.12 the driver looks for a dead server every five seconds
        )

    def prepare(self, freeze: DeviceFreeze, step: RescueStep) -> Prepared:
        assert freeze.device.other_server is not None
        return _Recovery(freeze.device.name, freeze.device.other_server)


class _Recovery(Prepared):
    """The first server's process, held on to, of a device that outlives it."""

    def __init__(self, name: str, other: OtherServer) -> None:
        self._other = other
        self._first = FirstServer(other)
        try:
            _check_recoverable(name)
        except BaseException:
            self._first.close()
            raise

    def do(self) -> str:
        self._first.end()
        return f"process {self._other.instead_of} is killed, for {self._other.name} to go on"

    def undo(self) -> str:
        return ""

    def close(self) -> None:
        self._first.close()


def _check_recoverable(name: str) -> None:
    """Raise RescueError unless the device outlives its server with all its requests."""
    number = re.fullmatch(r"ublkb(\d+)", name)
    if number is None:
        raise RescueError(f"/dev/{name} is no device of the ublk driver")
    try:
        control = UblkControl()
        try:
            info = control.info(int(number[1]))
        finally:
            control.close()
    except OSError as error:
        raise RescueError(
            f"the ublk driver does not tell how /dev/{name} was made: {error.strerror}",
            errno=error.errno,
            hint="it needs root",
        ) from error
    if info.features != ublk.RECOVERABLE:
        raise RescueError(
            f"/dev/{name} ends with its server: it was made without UBLK_F_USER_RECOVERY and _REISSUE",
            hint="its server has to ask for both when it makes the device",
        )
