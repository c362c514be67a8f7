"""Connections for the kernel's client: negotiated by us, and checked against what the device needs."""

import mmap
import socket
from pathlib import Path

from ioflusher.kernel.nbd import NBD_MIN_BLKSIZE
from ioflusher.nbd.address import Address
from ioflusher.nbd.client import HANDSHAKE_TIMEOUT, negotiate, open_socket
from ioflusher.nbd.kernel_client.device import AttachError, sysfs
from ioflusher.nbd.protocol.exports import Export
from ioflusher.nbd.protocol.wire import TransmissionFlag

SECTOR = 512  # bytes; the unit of /sys/block/*/size


def connect_sockets(
    address: Address, connections: int, *, timeout: float = HANDSHAKE_TIMEOUT
) -> tuple[Export, list[socket.socket]]:
    """Sockets in transmission, ready for the kernel, and what the server said of the export.

    Raises:
        AttachError: the server allows fewer connections, or the address wants TLS.
        NbdError: it cannot be reached, or refuses.
    """
    if address.tls is not None:
        raise AttachError(
            f"{address.uri!r} wants TLS, which the kernel's client cannot speak",
            hint="serve --remote with that address on a Unix socket, and attach to this",
        )
    sockets: list[socket.socket] = []
    try:
        for _ in range(connections):
            sock = open_socket(address, timeout)
            sockets.append(sock)
            _, export = negotiate(sock, address)
            check_connections(export, connections)
            sock.settimeout(None)
    except BaseException:
        close(sockets)
        raise
    return export, sockets


def close(sockets: list[socket.socket]) -> None:
    """Close our ends; the kernel has references of its own to those that it took."""
    for sock in sockets:
        sock.close()


def check_connections(export: Export, connections: int) -> None:
    """Raise AttachError when the server allows fewer."""
    if connections < 1 or (connections > 1 and not export.has(TransmissionFlag.CAN_MULTI_CONN)):
        raise AttachError(f"{connections} connections; the server allows one")


def check_export(export: Export, block_size: int) -> None:
    """Raise AttachError when the kernel could not use the export in blocks of this size."""
    smallest, largest = NBD_MIN_BLKSIZE, mmap.PAGESIZE
    if not smallest <= block_size <= largest or block_size & (block_size - 1):
        raise AttachError(f"a block size of {block_size}; expected a power of two, {smallest} to {largest}")
    if block_size < export.block_size.minimum:
        raise AttachError(
            f"a block size of {block_size}; the server takes multiples of {export.block_size.minimum}"
        )
    if export.size % block_size:
        raise AttachError(
            f"the export has {export.size} bytes, which is no multiple of the block size {block_size}",
            hint=f"a smaller block size, down to {smallest}, may fit",
        )


def check_replaces(export: Export, device: str) -> None:
    """Raise AttachError when an export cannot take the place of the one that the device has.

    The kernel asks another server for what it asked the first: it goes on with the same size, blocks and
    commands, and requests that wait are as long as they are.
    """
    place = sysfs(device)
    queue = place / "queue"
    size = _number(place / "size") * SECTOR
    if export.size != size:
        raise AttachError(f"the export has {export.size} bytes, {device!r} has {size}")
    check_export(export, _number(queue / "logical_block_size"))
    longest = _number(queue / "max_sectors_kb") << 10
    if export.block_size.maximum < longest:
        raise AttachError(
            f"the server takes payloads up to {export.block_size.maximum} bytes, "
            f"{device!r} has requests up to {longest}"
        )
    if export.has(TransmissionFlag.READ_ONLY) and not _number(place / "ro"):
        raise AttachError(f"the export is read-only, {device!r} is not")
    lacking = [flag.name or "" for flag in used_commands(device) if not export.has(flag)]
    if lacking:
        raise AttachError(f"the server lacks {', '.join(lacking)}, which {device!r} uses")


def used_commands(device: str) -> list[TransmissionFlag]:
    """What the kernel may ask of the device's server besides reading and writing, as its queue shows it."""
    queue = sysfs(device) / "queue"
    used = []
    if (queue / "write_cache").read_text().strip() == "write back":
        used.append(TransmissionFlag.SEND_FLUSH)
        if _number(queue / "fua"):
            used.append(TransmissionFlag.SEND_FUA)
    if _number(queue / "discard_max_bytes"):
        used.append(TransmissionFlag.SEND_TRIM)
    if _number(queue / "write_zeroes_max_bytes"):
        used.append(TransmissionFlag.SEND_WRITE_ZEROES)
    return used


def _number(path: Path) -> int:
    return int(path.read_text())
