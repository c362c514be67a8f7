"""The nbd device disconnected: its requests fail.

drivers/block/nbd.c: NBD_DISCONNECT and NBD_CLEAR_SOCK take each connection's lock, which a sender holds that
waits for the daemon. So the sockets are shut down first, where a process holds them: that ends the sender.
"""

import contextlib
import fcntl
import os
import socket

from ioflusher.kernel.nbd import NBD_CLEAR_SOCK, NBD_DISCONNECT
from ioflusher.machine.snapshot import Memory
from ioflusher.machine.storage import DeviceKind
from ioflusher.rescue.actions.action import Loss, NotApplicable, Prepared, RescueAction, RescueStep
from ioflusher.rescue.actions.fuse_abort import lost_with
from ioflusher.rescue.actions.nbd_sockets import borrow_sockets
from ioflusher.rescue.errors import RescueError
from ioflusher.rescue.freeze import DeviceFreeze


class NbdDisconnect(RescueAction):
    """Every request of the device fails, and it holds nothing any more."""

    name = "nbd-disconnect"

    def plan(self, freeze: DeviceFreeze, memory: Memory) -> RescueStep | NotApplicable:
        device = freeze.device
        if device.kind is not DeviceKind.NBD:
            return self.no("it is no nbd device")
        return RescueStep(
            action=self.name,
            loss=Loss.DEVICE,
            loses=lost_with(freeze),
            reason="its requests fail instead of waiting for the daemon, and nobody waits for them any more",
            commands=(f"ioflusher nbd detach {device.path}",),
            wait_s=15.0,
        )

    def prepare(self, freeze: DeviceFreeze, step: RescueStep) -> Prepared:
        return _Disconnect(freeze.device.path, freeze.device.clients)


class _Disconnect(Prepared):
    """The device, open, and its sockets."""

    def __init__(self, path: str, clients: tuple[int, ...]) -> None:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise RescueError(f"cannot open {path}: {error.strerror}", errno=error.errno) from error
        self._path = path
        self._sockets: list[socket.socket] = []
        with contextlib.suppress(RescueError):
            self._sockets = borrow_sockets(clients)

    def do(self) -> str:
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        try:
            fcntl.ioctl(self._file, NBD_DISCONNECT)
            fcntl.ioctl(self._file, NBD_CLEAR_SOCK)
        except OSError as error:
            raise RescueError(
                f"cannot disconnect {self._path}: {error.strerror}", errno=error.errno
            ) from error
        return f"{self._path} is disconnected"

    def undo(self) -> str:
        return ""

    def close(self) -> None:
        os.close(self._file)
        for sock in self._sockets:
            sock.close()
