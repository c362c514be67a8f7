"""Freezes for the tests: of a machine whose daemon is number 7 and serves nbd0."""

from dataclasses import replace
from typing import Any

from ioflusher.machine.graph.analysis import Analysis
from ioflusher.machine.snapshot import Memory
from ioflusher.machine.storage import DeviceKind
from ioflusher.rescue.freeze import DeviceFreeze, FreezeWay, SeenIn
from ioflusher.rescue.served import ServedDevice, ServingDaemon, served_devices
from tests.audit.machines import BARE, SERVER, machine, threads

NBD0 = ServedDevice(
    "nbd0",
    DeviceKind.NBD,
    daemons=(ServingDaemon(7, "server", "NBD server", covered=False),),
    clients=(9,),
    mounts=("/data",),
    in_flight=4,
)
# as in the lab's ext4-on-nbd-throttled, frozen
THROTTLED = Memory(
    total_kib=400 << 10,
    available_kib=300 << 10,
    min_free_kib=8192,
    dirty_kib=0,
    writeback_kib=7680,
    dirty_bytes=8 << 20,
    dirty_background_bytes=4 << 20,
    dirty_ratio=0,
    dirty_background_ratio=0,
)


def freeze(way: FreezeWay = FreezeWay.DIRTY_THROTTLING, **changes: Any) -> DeviceFreeze:
    """nbd0 frozen by this way; `changes` of the device."""
    return DeviceFreeze(replace(NBD0, **changes), way, SeenIn.LIVE, True, "seen", 3.0)


def served(**changes: Any) -> tuple[ServedDevice, ...]:
    """The served devices of a machine whose daemon lacks the state, with these changes."""
    snapshot = machine({"threads": threads(BARE, BARE)}, **changes)
    return served_devices(Analysis(snapshot, (SERVER,)))
