"""A back end that is another NBD server."""

from ioflusher.nbd.address import Address
from ioflusher.nbd.backends.backend import Backend
from ioflusher.nbd.client import Client
from ioflusher.nbd.protocol import wire
from ioflusher.nbd.protocol.wire import Cmd, TransmissionFlag


class RemoteBackend(Backend):
    """Another NBD server: every request is forwarded to it, one after the other on one connection.

    It never reconnects: when the connection is lost, every request fails with EIO.

    Args:
        address: of the other server.
        export: overrides the export that the address names.

    Raises:
        NbdError: the server cannot be reached, refuses, or breaks the protocol.
    """

    def __init__(self, address: Address, export: str = "") -> None:
        self._client = Client(address.with_export(export) if export else address)
        remote = self._client.export
        self.can_write = not remote.has(TransmissionFlag.READ_ONLY)
        self.can_flush = remote.has(TransmissionFlag.SEND_FLUSH)
        self.can_trim = self.can_write and remote.has(TransmissionFlag.SEND_TRIM)
        self.can_zero = self.can_write and remote.has(TransmissionFlag.SEND_WRITE_ZEROES)
        self.minimum_block = remote.block_size.minimum
        # Pieces that the other server takes, aligned as it wants them.
        self._piece = remote.block_size.maximum // self.minimum_block * self.minimum_block

    @property
    def size(self) -> int:
        return self._client.export.size

    def read_into(self, offset: int, view: memoryview) -> None:
        for start in range(0, len(view), self._piece):
            self._client.read_into(offset + start, view[start : start + self._piece])

    def write(self, offset: int, view: memoryview) -> None:
        for start in range(0, len(view), self._piece):
            self._client.write(offset + start, view[start : start + self._piece])

    def flush(self) -> None:
        self._client.command(Cmd.FLUSH)

    def trim(self, offset: int, length: int) -> None:
        self._client.command(Cmd.TRIM, offset, length)

    def zero(self, offset: int, length: int, *, may_trim: bool) -> None:
        self._client.command(Cmd.WRITE_ZEROES, offset, length, 0 if may_trim else wire.CmdFlag.NO_HOLE)

    def interrupt(self) -> None:
        self._client.interrupt()

    def close(self) -> None:
        self._client.close()
