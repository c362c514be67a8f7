"""A machine at one moment: the record that `collect` makes, files hold, and `audit` reads."""

from dataclasses import dataclass

from ioflusher.machine.endpoints import (
    Connection,
    FuseConnection,
    IscsiSession,
    Listener,
    NetlinkUser,
    NvmeController,
    Remote,
    TcmuDevice,
)
from ioflusher.machine.process import Process
from ioflusher.machine.storage import BlockDevice, Mount, Swap
from ioflusher.machine.unreadable import Unreadable

__all__ = ["FORMAT", "VERSION", "Memory", "Snapshot", "System", "Unreadable"]

FORMAT = "ioflusher-snapshot"
VERSION = 1


@dataclass(frozen=True, slots=True)
class System:
    """The machine itself.

    Attributes:
        hostname, release, machine: as in uname(2).
        taken: when, ISO 8601 in UTC.
        privileged: whether the collector could read what only root may.
    """

    hostname: str
    release: str
    machine: str
    taken: str
    privileged: bool


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory and its limits; None for unknown.

    Attributes:
        total_kib, free_kib, available_kib, swap_total_kib, swap_free_kib, dirty_kib, writeback_kib: of
            /proc/meminfo.
        min_free_kib, swappiness, watermark_scale_factor, watermark_boost_factor: vm.* of the same names.
        dirty_bytes, dirty_background_bytes, dirty_ratio, dirty_background_ratio: vm.*; bytes are 0 where the
            ratio holds, and the other way round.
    """

    total_kib: int | None = None
    free_kib: int | None = None
    available_kib: int | None = None
    swap_total_kib: int | None = None
    swap_free_kib: int | None = None
    dirty_kib: int | None = None
    writeback_kib: int | None = None
    min_free_kib: int | None = None
    swappiness: int | None = None
    watermark_scale_factor: int | None = None
    watermark_boost_factor: int | None = None
    dirty_bytes: int | None = None
    dirty_background_bytes: int | None = None
    dirty_ratio: int | None = None
    dirty_background_ratio: int | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One machine at one moment; every tuple in a stable order (by number or name).

    Attributes:
        hosts: network addresses of this machine, as far as its sockets had them: of the sockets themselves
            only those are kept that matter.
    """

    system: System
    memory: Memory
    processes: tuple[Process, ...] = ()
    devices: tuple[BlockDevice, ...] = ()
    mounts: tuple[Mount, ...] = ()
    swaps: tuple[Swap, ...] = ()
    connections: tuple[Connection, ...] = ()
    remotes: tuple[Remote, ...] = ()
    listeners: tuple[Listener, ...] = ()
    netlink: tuple[NetlinkUser, ...] = ()
    iscsi: tuple[IscsiSession, ...] = ()
    tcmu: tuple[TcmuDevice, ...] = ()
    fuse: tuple[FuseConnection, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    hosts: tuple[str, ...] = ()
    nvme: tuple[NvmeController, ...] = ()
    format: str = FORMAT
    version: int = VERSION
