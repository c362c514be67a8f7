"""How the kernel's client is to treat a device."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """What attaching a device takes besides the device and the server; by ioctl, the first four alone.

    Attributes:
        block_size: bytes; the device's logical block size, a power of two from 512 to the page size.
        timeout: seconds that the kernel waits for an answer; 0: for ever. After that a request fails, or,
            over netlink, its connection is given up and it is sent again.
        connections: how many share the load; more than one where the server allows it.
        read_only: whether the device refuses writes though the server would take them.
        dead_connection_timeout: seconds that requests wait for a new connection once none is left; 0: they
            fail at once.
        backend: a word that a later reconnect must give, too, so that nobody gives the device another
            disk's server; kernels before 5.14 know no such thing.
        disconnect_on_close: whether the device is detached when the last who has it open closes it.
        destroy_on_disconnect: whether /dev/nbdN goes away when it is detached.
    """

    block_size: int = 4096
    timeout: int = 0
    connections: int = 1
    read_only: bool = False
    dead_connection_timeout: int = 0
    backend: str | None = None
    disconnect_on_close: bool = False
    destroy_on_disconnect: bool = False

    @property
    def need_netlink(self) -> bool:
        """Whether the ioctls cannot do it."""
        return bool(
            self.dead_connection_timeout
            or self.backend
            or self.disconnect_on_close
            or self.destroy_on_disconnect
        )
