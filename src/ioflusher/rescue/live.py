"""Freezes of this machine: two looks at each device's requests, and the stacks of those who serve it."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ioflusher.kernel.block_counts import parse_completed, parse_inflight
from ioflusher.rescue.errors import RescueError
from ioflusher.rescue.freeze import DeviceFreeze, FreezeWay, SeenIn, WaitingThread
from ioflusher.rescue.served import ServedDevice
from ioflusher.rescue.stacks import read_threads

LOOK_S = 0.1


class DeviceRequests:
    """A device's requests: /sys/block/NAME/stat and inflight, kept open (Documentation/block/stat.rst).

    Raises:
        RescueError: there is no such device.
    """

    def __init__(self, name: str, root: Path = Path("/")) -> None:
        directory = root / "sys/class/block" / name
        self._name = name
        self._files: list[int] = []
        try:
            for file in ("stat", "inflight"):
                self._files.append(os.open(directory / file, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            self.close()
            raise RescueError(f"/dev/{name} is not there: {error.strerror}", errno=error.errno) from error

    def read(self) -> tuple[int, int]:
        """Completed since the device exists, and in flight.

        Raises:
            RescueError: the device vanished.
        """
        try:
            stat, inflight = (os.pread(file, 512, 0) for file in self._files)
            return parse_completed(stat), parse_inflight(inflight)
        except (OSError, ValueError) as error:
            raise RescueError(f"/dev/{self._name} vanished: {error}") from error

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.pop())


def find_freezes(
    devices: Sequence[ServedDevice],
    *,
    seconds: float,
    root: Path = Path("/"),
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[DeviceFreeze, ...]:
    """The devices of which requests are in flight and none completes for so many seconds."""
    before: dict[str, tuple[DeviceRequests, int]] = {}
    for device in devices:
        try:
            requests = DeviceRequests(device.name, root)
            completed, in_flight = requests.read()
        except RescueError:
            continue
        if in_flight:
            before[device.name] = requests, completed
        else:
            requests.close()
    for _ in range(max(1, round(seconds / LOOK_S))):
        if not before:
            break
        sleep(LOOK_S)
        for name, (requests, completed) in list(before.items()):
            try:
                now, in_flight = requests.read()
            except RescueError:
                now, in_flight = completed, 0
            if now != completed or not in_flight:
                requests.close()
                del before[name]
    for requests, _ in before.values():
        requests.close()
    return tuple(
        judge(device, seconds, read_threads([daemon.pid for daemon in device.daemons], root))
        for device in devices
        if device.name in before
    )


def judge(device: ServedDevice, stalled_s: float, threads: tuple[WaitingThread, ...]) -> DeviceFreeze:
    """What a device that stands still comes to, by the stacks of its daemons' threads."""
    shown = tuple(thread for thread in threads if thread.way is not None)
    ways = {thread.way for thread in shown}
    for way in (FreezeWay.DIRTY_THROTTLING, FreezeWay.RECLAIM, FreezeWay.PAGE_LOCK):
        if way in ways:
            first = next(thread for thread in shown if thread.way is way)
            reason = (
                f"no request of {device.path} completed for {stalled_s:.1f} s, and thread {first.tid} "
                f"({first.comm}) of its daemon {first.pid} waits in {first.functions[0]}(): {way.value}"
            )
            return DeviceFreeze(device, way, SeenIn.LIVE, True, reason, stalled_s, shown)
    if device.missing:
        gone = ", ".join(device.missing)
        reason = f"no request of {device.path} completed for {stalled_s:.1f} s; missing: {gone}"
        return DeviceFreeze(device, FreezeWay.DAEMON_GONE, SeenIn.LIVE, True, reason, stalled_s)
    if device.multipath is not None:
        reason = (
            f"no request of {device.path} completed for {stalled_s:.1f} s, and no daemon waits for itself"
        )
        return DeviceFreeze(device, FreezeWay.PATHS_LOST, SeenIn.LIVE, False, reason, stalled_s)
    why = (
        "its daemons wait for nothing that it could hold up"
        if threads
        else "its daemons' stacks cannot be read"
    )
    reason = f"no request of {device.path} completed for {stalled_s:.1f} s; {why}: it may only be slow"
    return DeviceFreeze(device, FreezeWay.UNKNOWN, SeenIn.LIVE, False, reason, stalled_s, threads)
