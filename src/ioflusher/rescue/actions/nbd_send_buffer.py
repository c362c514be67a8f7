"""More room to send for the nbd driver.

The driver sends a request while it holds the connection's lock (drivers/block/nbd.c, nbd_handle_cmd). A
daemon in reclaim that issues a request itself waits for that lock, and whoever has it waits for the daemon to
take bytes from the socket. With a larger send buffer the sender is done at once (net/core/sock.c, where
SO_SNDBUFFORCE calls sk_write_space), and the daemon goes on.
"""

import socket

from ioflusher.machine.snapshot import Memory
from ioflusher.machine.storage import DeviceKind
from ioflusher.rescue.actions.action import Loss, NotApplicable, Prepared, RescueAction, RescueStep
from ioflusher.rescue.actions.nbd_sockets import borrow_sockets
from ioflusher.rescue.errors import RescueError
from ioflusher.rescue.freeze import DeviceFreeze, FreezeWay

SO_SNDBUFFORCE = 32  # include/uapi/asm-generic/socket.h
ROOM = 16 << 20  # bytes; a tag set of nbd has 128 requests, those that swap out a page have 4 KiB


class NbdSendBuffer(RescueAction):
    """SO_SNDBUFFORCE on the sockets of the device's client."""

    name = "nbd-send-buffer"

    def plan(self, freeze: DeviceFreeze, memory: Memory) -> RescueStep | NotApplicable:
        device = freeze.device
        if device.kind is not DeviceKind.NBD:
            return self.no("it is no nbd device")
        if freeze.way not in (FreezeWay.RECLAIM, FreezeWay.SENDING, FreezeWay.UNKNOWN):
            return self.no(f"the driver does not wait to send: {freeze.way.value}")
        if not device.clients:
            return self.no("no process is known that holds the driver's sockets")
        return RescueStep(
            action=self.name,
            loss=Loss.NOTHING,
            loses="nothing",
            reason="where the driver waits for the daemon to take bytes from its socket, the daemon waits "
            "for the driver's lock; with room the driver has sent, and the lock is free",
            commands=(f"ioflusher rescue --now --only {self.name} {device.path}",),
            wait_s=1.0,
        )

    def prepare(self, freeze: DeviceFreeze, step: RescueStep) -> Prepared:
        return _Buffers(borrow_sockets(freeze.device.clients))


class _Buffers(Prepared):
    """The sockets, and how much room each had."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        # the kernel keeps twice of what is asked for, and tells that
        self._sockets = [(s, s.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2) for s in sockets]
        self._done: list[tuple[socket.socket, int]] = []

    def do(self) -> str:
        for sock, room in self._sockets:
            try:
                sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, max(ROOM, room))
            except OSError as error:
                self.undo()
                raise RescueError(f"the kernel gives a socket no more room: {error.strerror}") from error
            self._done.append((sock, room))
        return f"{len(self._done)} sockets have room for {ROOM >> 20} MiB"

    def undo(self) -> str:
        done, self._done = self._done, []
        for sock, room in done:
            sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, room)
        return f"{len(done)} sockets have the room that they had" if done else ""

    def close(self) -> None:
        for sock, _ in self._sockets:
            sock.close()
