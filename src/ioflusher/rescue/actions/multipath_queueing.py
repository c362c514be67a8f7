"""Multipath's queueing ended by a message: fail_if_no_path (drivers/md/dm-mpath.c, multipath_message)."""

from ioflusher.machine.snapshot import Memory
from ioflusher.rescue.actions.action import Loss, NotApplicable, Prepared, RescueAction, RescueStep
from ioflusher.rescue.actions.fuse_abort import lost_with
from ioflusher.rescue.errors import RescueError
from ioflusher.rescue.freeze import DeviceFreeze
from ioflusher.rescue.mapper import MapperControl

WAIT_S = 10.0


class MultipathQueueing(RescueAction):
    """Requests that wait for a path fail instead."""

    name = "multipath-queueing"

    def plan(self, freeze: DeviceFreeze, memory: Memory) -> RescueStep | NotApplicable:
        name = freeze.device.multipath
        if name is None:
            return self.no("no multipath device is in the path")
        return RescueStep(
            action=self.name,
            loss=Loss.DEVICE,
            loses=lost_with(freeze),
            reason=f"{name} keeps its requests while no path is left; told to fail, it ends them",
            commands=(f"dmsetup message {name} 0 fail_if_no_path",),
            undo=(f"dmsetup message {name} 0 queue_if_no_path",),
            wait_s=WAIT_S,
        )

    def prepare(self, freeze: DeviceFreeze, step: RescueStep) -> Prepared:
        assert freeze.device.multipath is not None
        return _Message(freeze.device.multipath)


class _Message(Prepared):
    """/dev/mapper/control, open.

    Raises:
        RescueError: the map keeps no requests; told to keep them afterwards, it would from then on.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._control = MapperControl()
        try:
            state = self._control.multipath(name)
        except (OSError, ValueError) as error:
            self._control.close()
            raise RescueError(f"{name} does not tell whether it keeps requests: {error}") from error
        if state is None or not state.queues:
            self._control.close()
            raise RescueError(f"{name} keeps no requests while it has no path")

    def do(self) -> str:
        self._send("fail_if_no_path")
        return f"{self._name} fails requests while it has no path"

    def undo(self) -> str:
        self._send("queue_if_no_path")
        return f"{self._name} keeps requests again while it has no path"

    def _send(self, text: str) -> None:
        try:
            self._control.message(self._name, text)
        except OSError as error:
            raise RescueError(
                f"{self._name} does not take {text}: {error.strerror}", errno=error.errno
            ) from error

    def close(self) -> None:
        self._control.close()
