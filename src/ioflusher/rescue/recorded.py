"""Freezes in what was recorded: a snapshot, an answer of `ioflusher diagnose --json`, an alarm of `watch`."""

import re
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from ioflusher.kernel.stall import SelfWait
from ioflusher.kernlog.judging.findings import Kind
from ioflusher.machine.snapshot import Memory
from ioflusher.machine.storage import DeviceKind
from ioflusher.rescue.actions.dirty_limits import dirty_limit
from ioflusher.rescue.errors import RescueError
from ioflusher.rescue.freeze import DeviceFreeze, FreezeWay, SeenIn, WaitingThread
from ioflusher.rescue.served import ServedDevice, ServingDaemon, kernels_own

_WAYS = {
    Kind.SWAP_RECURSION: FreezeWay.RECLAIM,
    Kind.INODE_RECURSION: FreezeWay.RECLAIM,
    Kind.WRITEBACK_RECURSION: FreezeWay.RECLAIM,
    Kind.SHRINKER_RECURSION: FreezeWay.RECLAIM,
    Kind.USER_FS_RECURSION: FreezeWay.RECLAIM,
    Kind.NETWORK_FS_RECURSION: FreezeWay.RECLAIM,
    Kind.RECLAIM_BEHIND_DEVICE: FreezeWay.RECLAIM,
    Kind.RECLAIM_BEHIND_LOCK: FreezeWay.RECLAIM,
    Kind.RECLAIM_THROTTLED: FreezeWay.RECLAIM,
    Kind.THROTTLED_DAEMON: FreezeWay.DIRTY_THROTTLING,
    Kind.DIRTY_THROTTLED: FreezeWay.DIRTY_THROTTLING,
}
_WAITS = frozenset(wait.value for wait in SelfWait)


def freezes_of_snapshot(
    devices: Collection[ServedDevice], memory: Memory, names: Collection[str] = ()
) -> tuple[DeviceFreeze, ...]:
    """What may be frozen on a recorded machine: devices with requests in flight, or those of these names.

    A snapshot is one moment without kernel stacks: nothing of this is certain.
    """
    found = []
    for device in devices:
        if device.name in names or (device.in_flight and not names):
            way, reason = _guess(device, memory)
            found.append(DeviceFreeze(device, way, SeenIn.SNAPSHOT, False, reason))
    return tuple(found)


def _guess(device: ServedDevice, memory: Memory) -> tuple[FreezeWay, str]:
    """What speaks for which way."""
    number = device.in_flight if device.in_flight is not None else "an unknown number of"
    count = f"{number} requests of {device.path}"
    if device.missing:
        return FreezeWay.DAEMON_GONE, f"{count} in flight; missing: {', '.join(device.missing)}"
    bare = [daemon.name for daemon in device.daemons if not daemon.covered]
    bare += map(kernels_own, device.kernel_targets)
    limit = dirty_limit(memory)
    if limit is not None and memory.dirty_kib is not None and memory.writeback_kib is not None and bare:
        dirty = (memory.dirty_kib + memory.writeback_kib) << 10
        if dirty * 4 >= limit * 3:
            return FreezeWay.DIRTY_THROTTLING, (
                f"{count} in flight, {dirty >> 20} of at most {limit >> 20} MiB dirty or under writeback, "
                f"and {', '.join(bare)} without the IO_FLUSHER state"
            )
    if device.swaps and bare:
        return (
            FreezeWay.RECLAIM,
            f"{count} in flight, swap on it, and {', '.join(bare)} without the IO_FLUSHER state",
        )
    if device.multipath is not None:
        return FreezeWay.PATHS_LOST, f"{count} in flight, and multipath in its path"
    return FreezeWay.UNKNOWN, f"{count} in flight; a snapshot has no kernel stacks that would say why"


def freezes_of_diagnosis(
    record: Mapping[str, Any], devices: Collection[ServedDevice] = ()
) -> tuple[DeviceFreeze, ...]:
    """The freezes in what `ioflusher diagnose --json` printed; `devices` are those of that machine, if known.

    Raises:
        RescueError: it is something else.
    """
    episodes = record.get("episodes") if isinstance(record, Mapping) else None
    if not isinstance(episodes, list):
        raise RescueError("expected the JSON of `ioflusher diagnose --json`: the key episodes is missing")
    found: dict[tuple[str, FreezeWay], DeviceFreeze] = {}
    for episode in episodes:
        try:
            way = _WAYS.get(Kind(episode["kind"]))
            if way is None or not (episode["recursion"] or episode["daemon"]):
                continue
            name = (episode["device"] or "").removeprefix("/dev/")
            name = name if re.fullmatch(r"[a-z][a-z0-9!-]*", name) else ""
            tasks = [(task["pid"] or task["tid"], task) for task in episode["tasks"]]
            daemons = tuple(
                ServingDaemon(pid, task["comm"] or "?", "a task of the log", bool(task["io_flusher"]))
                for pid, task in tasks
                if pid is not None
            )
            reason = f"{episode['daemon'] or 'a task'}: {episode['sentence']}"
        except (KeyError, TypeError, ValueError) as error:
            raise RescueError(f"an episode of the diagnosis is not as expected: {_wrong(error)}") from error
        device = _known(name, devices) or ServedDevice(name, _kind(name), daemons)
        found.setdefault(
            (name, way), DeviceFreeze(device, way, SeenIn.DIAGNOSIS, bool(episode["recursion"]), reason)
        )
    return tuple(found.values())


def freezes_of_alarm(
    record: Mapping[str, Any], devices: Collection[ServedDevice] = ()
) -> tuple[DeviceFreeze, ...]:
    """The freeze in an alarm of `ioflusher watch`, kind "stall", or in a line of its `--json`.

    Raises:
        RescueError: it is something else.
    """
    try:
        record = _stall_in(record)
        kind, name, wait = record["kind"], record["device"], record["wait"]
        daemon = ServingDaemon(
            int(record["pid"]), str(record["comm"]), str(record["serves"]), bool(record["covered"])
        )
        seconds = float(record["seconds"])
        threads = _kernels(record)
    except (KeyError, TypeError, ValueError) as error:
        raise RescueError(f"expected an alarm of `ioflusher watch`: {_wrong(error)}") from error
    if kind != "stall" or not name:
        raise RescueError(f"the alarm is a {kind}, not a stall: nothing stands still")
    name = str(name).removeprefix("/dev/")
    device = _known(name, devices) or (
        ServedDevice(name, _kind(name), kernel_targets=tuple(thread.target for thread in threads))
        if threads
        else ServedDevice(name, _kind(name), (daemon,))
    )
    way = FreezeWay(wait) if wait in _WAITS else FreezeWay.UNKNOWN
    reason = f"{daemon.name} was in {wait} while a request of {device.path} had waited for {seconds:.1f} s"
    return (DeviceFreeze(device, way, SeenIn.ALARM, True, reason, seconds, threads),)


def _kernels(alarm: Mapping[str, Any]) -> tuple[WaitingThread, ...]:
    """The thread of an alarm, where it is of the kernel's own target: "iSCSI target of /dev/sda"."""
    if alarm.get("takes_state", True) or alarm["wait"] not in _WAITS:
        return ()
    tid, comm, wait = int(alarm["tid"]), str(alarm["thread"]), SelfWait(alarm["wait"])
    return (WaitingThread(tid, tid, comm, "D", wait, target=str(alarm["serves"]).partition(" of ")[0]),)


def _wrong(error: Exception) -> str:
    """What is wrong with a record, in words."""
    return f"the key {error.args[0]} is missing" if isinstance(error, KeyError) else str(error)


def memory_of_alarm(record: Mapping[str, Any]) -> Memory:
    """The machine's figures beside the alarms in a line of `watch --json`; an alarm alone has none."""
    sample = record.get("sample")
    figures = sample.get("memory") if isinstance(sample, Mapping) else None
    if not isinstance(figures, Mapping):
        return Memory()
    names = [field.name for field in fields(Memory)]
    return Memory(**{name: figures[name] for name in names if isinstance(figures.get(name), int)})


def _stall_in(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The alarm itself: a line of `watch --json` has several, each with its words and stack beside it."""
    told = [each["alarm"] for each in record.get("alarms", ())] or [record.get("alarm", record)]
    return next((alarm for alarm in told if alarm["kind"] == "stall"), told[0])


def _known(name: str, devices: Collection[ServedDevice]) -> ServedDevice | None:
    return next((device for device in devices if device.name == name), None)


def _kind(name: str) -> DeviceKind:
    for prefix, kind in (("nbd", DeviceKind.NBD), ("ublk", DeviceKind.UBLK), ("dm-", DeviceKind.DM)):
        if name.startswith(prefix):
            return kind
    return DeviceKind.OTHER
