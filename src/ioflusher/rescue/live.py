"""Freezes of this machine: how long each device's requests wait, and the stacks of those who serve it."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ioflusher.kernel.block_counts import parse_completed, parse_inflight
from ioflusher.kernel.stall import STALLED_S, RequestAge, stall
from ioflusher.rescue.errors import RescueError
from ioflusher.rescue.freeze import DeviceFreeze, FreezeWay, SeenIn, WaitingThread
from ioflusher.rescue.mapper import MapperControl, MultipathMap
from ioflusher.rescue.served import ServedDevice, ServingDaemon
from ioflusher.rescue.stacks import read_threads
from ioflusher.rescue.target_threads import read_target_threads

LOOK_S = 0.1
# A paused thread looks whether it may go on, and waits for nothing meanwhile: a look may meet just that.
MOST_LOOKS_AT_THREADS = 5
BETWEEN_LOOKS_S = 0.05


class DeviceRequests:
    """A device's requests: /sys/block/NAME/stat and inflight, kept open (Documentation/block/stat.rst).

    Attributes:
        completed, in_flight: at the last look.

    Raises:
        RescueError: there is no such device.
    """

    def __init__(self, name: str, root: Path = Path("/")) -> None:
        directory = root / "sys/class/block" / name
        self._name = name
        self._age = RequestAge()
        self.completed = self.in_flight = 0
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
            self.completed, self.in_flight = parse_completed(stat), parse_inflight(inflight)
        except (OSError, ValueError) as error:
            raise RescueError(f"/dev/{self._name} vanished: {error}") from error
        return self.completed, self.in_flight

    def oldest_s(self, now: float) -> float:
        """The least age of the oldest request in flight, as far as the looks before tell.

        Raises:
            RescueError: the device vanished.
        """
        return self._age.look(now, *self.read())

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.pop())


def ask_map(name: str) -> MultipathMap | None:
    """The multipath map of this name; None where it does not tell."""
    try:
        control = MapperControl()
    except RescueError:
        return None
    try:
        return control.multipath(name)
    except (OSError, ValueError):
        return None
    finally:
        control.close()


def find_freezes(
    devices: Sequence[ServedDevice],
    *,
    seconds: float,
    root: Path = Path("/"),
    sleep: Callable[[float], None] = time.sleep,
    ask_map: Callable[[str], MultipathMap | None] = ask_map,
) -> tuple[DeviceFreeze, ...]:
    """The devices of which a request waits for so many seconds, found in as many.

    And those over multipath without a path, of which nobody can tell: what a map keeps is not in flight.
    `ask_map` tells how a map is, by its name.
    """
    looked: dict[str, DeviceRequests] = {}
    for device in devices:
        with contextlib.suppress(RescueError):  # it is gone again
            looked[device.name] = DeviceRequests(device.name, root)
    looks = max(1, math.ceil(seconds / LOOK_S))
    for number in range(looks + 1):
        passed = number * LOOK_S
        for name, requests in list(looked.items()):
            try:
                waits = requests.oldest_s(passed) == passed
            except RescueError:
                waits = False
            if not waits:  # what was in flight at first has completed
                looked.pop(name).close()
        if not looked:
            break
        if number < looks:
            sleep(LOOK_S)
    for requests in looked.values():
        requests.close()
    found = []
    for device in devices:
        if device.name in looked:
            found.append(judge_live(device, looks * LOOK_S, stalled_s=seconds, root=root, sleep=sleep))
        elif device.multipath is not None:
            state = ask_map(device.multipath)
            if state is not None and state.stands_still:
                found.append(without_path(device, state))
    return tuple(found)


def without_path(device: ServedDevice, state: MultipathMap) -> DeviceFreeze:
    """What a device comes to whose map has no path and keeps requests."""
    reason = (
        f"none of the {len(state.paths)} paths of {device.multipath} is in use: what it is asked for waits "
        "until one is, and is not counted in flight"
    )
    return DeviceFreeze(device, FreezeWay.PATHS_LOST, SeenIn.LIVE, False, reason)


def judge_live(
    device: ServedDevice,
    oldest_s: float,
    *,
    stalled_s: float,
    root: Path = Path("/"),
    sleep: Callable[[float], None] = time.sleep,
) -> DeviceFreeze:
    """`judge` by the threads that serve it, looked at a few times until one is seen to wait for itself."""
    for number in range(MOST_LOOKS_AT_THREADS):
        if number:
            sleep(BETWEEN_LOOKS_S)
        threads = read_threads([daemon.pid for daemon in device.daemons], root)
        threads += read_target_threads(device.kernel_targets, root)
        freeze = judge(device, oldest_s, threads, stalled_s=stalled_s)
        if freeze.way is not FreezeWay.UNKNOWN or not (threads or device.kernel_targets):
            break
    return freeze


def judge(
    device: ServedDevice,
    oldest_s: float,
    threads: tuple[WaitingThread, ...],
    *,
    stalled_s: float = STALLED_S,
) -> DeviceFreeze:
    """What a device with a request that old comes to, by its daemons' threads as they are now."""
    device = replace(device, daemons=tuple(_as_now(daemon, threads) for daemon in device.daemons))
    waited = f"a request of {device.path} has waited for {oldest_s:.1f} s"
    wait = stall(oldest_s, [thread.wait for thread in threads], stalled_s=stalled_s)
    if wait is not None:
        shown = tuple(thread for thread in threads if thread.wait is not None)
        first = next(thread for thread in shown if thread.wait is wait)
        reason = (
            f"{waited}, and thread {first.tid} ({first.comm}) of {first.owner} waits in "
            f"{first.functions[0]}(): {wait.value}"
        )
        return DeviceFreeze(device, FreezeWay(wait.value), SeenIn.LIVE, True, reason, oldest_s, shown)
    if device.missing:
        reason = f"{waited}; missing: {', '.join(device.missing)}"
        return DeviceFreeze(device, FreezeWay.DAEMON_GONE, SeenIn.LIVE, True, reason, oldest_s)
    if device.multipath is not None:
        reason = f"{waited}, and no daemon waits for itself"
        return DeviceFreeze(device, FreezeWay.PATHS_LOST, SeenIn.LIVE, False, reason, oldest_s)
    why = (
        "no thread that serves it waits for what it could hold up"
        if threads
        else "no thread that serves it can be looked at"
    )
    reason = f"{waited}; {why}: it may only be slow"
    return DeviceFreeze(device, FreezeWay.UNKNOWN, SeenIn.LIVE, False, reason, oldest_s, threads)


def _as_now(daemon: ServingDaemon, threads: tuple[WaitingThread, ...]) -> ServingDaemon:
    """Somebody may have put the state on it since the machine was looked at, or taken it off."""
    own = [thread for thread in threads if thread.pid == daemon.pid]
    return replace(daemon, covered=all(thread.io_flusher for thread in own)) if own else daemon
