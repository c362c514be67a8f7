"""What the kernel tells of its NBD devices: sysfs, and what generic netlink adds (NBD_CMD_STATUS).

It does not tell which server a device has, nor whether a connection is dead; `ioflusher map` finds the former
from the sockets.
"""

import errno
from dataclasses import dataclass
from pathlib import Path

from ioflusher.nbd.kernel_client import device as devices
from ioflusher.nbd.kernel_client.connections import SECTOR
from ioflusher.nbd.kernel_client.device import AttachError, device_index
from ioflusher.nbd.kernel_client.netlink import configured_devices


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """One /dev/nbdN. None stands for what the kernel does not tell.

    Attributes:
        device: its path.
        attached: whether the kernel's client is at work on it.
        configured: whether the driver has a configuration for it: it is attached, or somebody has it open.
        attached_by: the process that attached it; by netlink it need not live any more.
        alive: whether that process is there.
        backend: the back-end identifier; empty where it has none. Only devices that were attached over
            netlink have it, and only since 5.14.
        size: bytes.
        read_only: whether it refuses writes.
        block_size: bytes; the logical block size.
        queues: one a connection, but no more than there are processors.
        reads, writes: requests in flight.
        timeout_ms: the block layer's time-out of a request; 30,000 also stands for none.
    """

    device: str
    attached: bool
    configured: bool | None
    attached_by: int | None
    alive: bool | None
    backend: str | None
    size: int | None
    read_only: bool | None
    block_size: int | None
    queues: int | None
    reads: int | None
    writes: int | None
    timeout_ms: int | None


def device_status(device: str, *, proc: Path = Path("/proc")) -> DeviceStatus:
    """What is told of one device.

    Raises:
        AttachError: there is no such device.
    """
    index = device_index(device)
    if not devices.exists(device):
        raise AttachError(
            f"there is no device {device!r}", errno=errno.ENOENT, hint="load the driver: modprobe nbd"
        )
    return _status(index, configured(), proc)


def all_devices(*, proc: Path = Path("/proc")) -> tuple[DeviceStatus, ...]:
    """What is told of every device of the driver, by number; none where it is not loaded."""
    known = configured()
    places = devices.SYS_BLOCK.glob("nbd*")
    indices = sorted(int(place.name[3:]) for place in places if place.name[3:].isdecimal())
    return tuple(_status(index, known, proc) for index in indices)


def configured() -> dict[int, bool]:
    """What NBD_CMD_STATUS says; nothing where it cannot be asked."""
    try:
        return configured_devices()
    except AttachError:
        return {}


def _status(index: int, known: dict[int, bool], proc: Path) -> DeviceStatus:
    place = devices.SYS_BLOCK / f"nbd{index}"
    pid = _number(place / "pid")
    sectors = _number(place / "size")
    read_only = _number(place / "ro")
    in_flight = (_text(place / "inflight") or "").split()
    reads, writes = map(int, in_flight) if len(in_flight) == 2 else (None, None)
    return DeviceStatus(
        device=f"/dev/nbd{index}",
        attached=(place / "pid").exists(),
        configured=known.get(index),
        attached_by=pid,
        alive=None if pid is None else (proc / str(pid)).exists(),
        backend=_text(place / "backend"),
        size=None if sectors is None else sectors * SECTOR,
        read_only=None if read_only is None else bool(read_only),
        block_size=_number(place / "queue" / "logical_block_size"),
        queues=_queues(place),
        reads=reads,
        writes=writes,
        timeout_ms=_number(place / "queue" / "io_timeout"),
    )


def _queues(place: Path) -> int | None:
    try:
        return sum(1 for _ in (place / "mq").iterdir())
    except OSError:
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", "backslashreplace").strip()
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text else None
