"""A connection of /dev/nbd0 that can be cut, and made anew, as the kernel's netlink interface has it.

A device that was set up by ioctl ends with its connection. One that was set up over netlink keeps its
requests until it is given another (NBD_CMD_RECONFIGURE, drivers/block/nbd.c); those that were on their way
when the connection ended are sent again once their time-out is over.
"""

import contextlib
import socket
import threading
import time

from ioflusher.nbd.address import Address
from ioflusher.nbd.errors import NbdError
from ioflusher.nbd.kernel_client.netlink import connect
from ioflusher.nbd.kernel_client.options import ClientOptions
from ioflusher.nbd.kernel_client.reconnect import reconnect
from ioflusher.scenario.faults import NBD_REQUEST_TIMEOUT_S

PATIENCE_S = 3600  # seconds that requests wait for a connection: longer than any half
RETRY_S = 0.2


class CuttableConnection:
    """The device's connection; both calls return at once, in a frozen machine too.

    Raises:
        NbdError: the server cannot be reached or refuses, or the device cannot be set up.
    """

    def __init__(self, device: str, address: Address) -> None:
        self._device = device
        self._address = address
        self._changing = threading.Lock()
        options = ClientOptions(timeout=NBD_REQUEST_TIMEOUT_S, dead_connection_timeout=PATIENCE_S)
        _, self._sockets = connect(device, address, options)
        # by a thread that is there already: a server that is frozen takes nobody, and who asks it waits
        self._wanted = threading.Event()
        threading.Thread(target=self._keep_reconnecting, name="reconnect", daemon=True).start()

    def cut(self) -> None:
        """End the connection, at both its ends; none is made until `restore`."""
        with self._changing:
            self._wanted.clear()
            sockets, self._sockets = self._sockets, []
        _shut(sockets)

    def restore(self) -> None:
        """Have another one made, as soon as the server takes it."""
        self._wanted.set()

    def _keep_reconnecting(self) -> None:
        while True:
            self._wanted.wait()
            try:
                made = reconnect(self._device, self._address).sockets
            except NbdError:
                time.sleep(RETRY_S)
                continue
            with self._changing:
                if self._wanted.is_set():
                    self._wanted.clear()
                    self._sockets, made = made, []
            _shut(made)  # it was cut again meanwhile


def _shut(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        with contextlib.suppress(OSError):  # it is over already
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()
