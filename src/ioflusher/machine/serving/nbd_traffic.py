"""Which socket is an nbd device's, by the bytes that came in: the kernel counts them on both sides.

The kernel's client asks for simple replies (drivers/block/nbd.c): 16 bytes (struct nbd_reply) a request, and
the data behind those of reads. So its sockets have received

    16 * requests + bytes read + what the handshake took

where requests and bytes are the device's (/sys/block/nbdN/stat) and the handshake took some tens or hundreds
of bytes. What was sent says less: the kernel counts a WRITE_ZEROES as a write of so many bytes, sends none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ioflusher.machine.endpoints import SocketEnd
from ioflusher.machine.storage import BlockDevice

REPLY_BYTES = 16  # struct nbd_reply, include/uapi/linux/nbd.h
# of one connection: the greeting alone has 18, an export with a name and its block sizes some hundred
LEAST_HANDSHAKE = 18
MOST_HANDSHAKE = 2048
# connections of one device; more are no use to it
MOST_CONNECTIONS = 16

Pair = tuple[SocketEnd, SocketEnd]


@dataclass(frozen=True, slots=True)
class Match:
    """Sockets that have received what one device has.

    Attributes:
        pairs: the kernel's end and the server's of each connection.
        received: bytes, of all of them.
        expected: bytes, by the device's own counters and without the handshakes.
    """

    pairs: tuple[Pair, ...]
    received: int
    expected: int


def expected_bytes(device: BlockDevice) -> int | None:
    """What the device's sockets have received without the handshakes; None for unknown."""
    if device.completed is None:
        return None
    return REPLY_BYTES * device.completed.requests + device.completed.read_bytes


def matches(device: BlockDevice, sockets: Sequence[Pair]) -> list[Match]:
    """For each server's address whose connections fit the device, the longest run of them that fits.

    A client opens the connections of a device one after another: they are neighbours by their numbers.
    """
    expected = expected_bytes(device)
    if expected is None:
        return []
    by_address: dict[str, list[Pair]] = {}
    for pair in sorted(sockets, key=lambda pair: pair[0].inode):
        if pair[0].received is not None and pair[1].address:
            by_address.setdefault(pair[1].address, []).append(pair)
    found = (_longest_run(pairs, expected) for pairs in by_address.values())
    return [match for match in found if match is not None]


def _longest_run(pairs: list[Pair], expected: int) -> Match | None:
    for length in range(min(len(pairs), MOST_CONNECTIONS), 0, -1):
        for first in range(len(pairs) - length + 1):
            run = pairs[first : first + length]
            received = sum(kernel.received or 0 for kernel, _ in run)
            if LEAST_HANDSHAKE * length <= received - expected <= MOST_HANDSHAKE * length:
                return Match(tuple(run), received, expected)
    return None


def mismatch(device: BlockDevice, kernel: SocketEnd) -> int | None:
    """By how many bytes the socket differs from the device; None where either has no counter."""
    expected = expected_bytes(device)
    if expected is None or kernel.received is None:
        return None
    return abs(kernel.received - expected)
