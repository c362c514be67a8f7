"""The guard: watches served devices, and acts by its policy.

Everything is loaded and locked before the first look. A look allocates a few hundred bytes, which come from
memory that the process has; the whole machine is looked at by a scout, a process of its own, and only while
nothing stands still.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from ioflusher.errors import IoflusherError
from ioflusher.kernel.pressure import PressureTriggers
from ioflusher.machine.collect.kept import KeptTree
from ioflusher.machine.collect.system import read_memory
from ioflusher.machine.snapshot import Memory
from ioflusher.rescue.actions.action import Loss
from ioflusher.rescue.actions.reserve import Reserve
from ioflusher.rescue.errors import RescueError
from ioflusher.rescue.freeze import DeviceFreeze, FreezeWay
from ioflusher.rescue.guard.keeping import Keeping
from ioflusher.rescue.guard.scout import Scouted, load_scouted
from ioflusher.rescue.guard.settings import GuardPolicy, GuardSettings
from ioflusher.rescue.live import DeviceRequests, judge_live, without_path
from ioflusher.rescue.mapper import MapperControl, MultipathMap
from ioflusher.rescue.perform import Rescue, RescueOutcome, StepOutcome
from ioflusher.rescue.plan import ACTIONS, RescuePlan, plan
from ioflusher.rescue.served import ServedDevice
from ioflusher.rescue.stacks import read_threads, wait_of
from ioflusher.rescue.worker import Worker

# 15 % of a second of stall wakes the guard up
TRIGGERS = {"io": ("some 150000 1000000",), "memory": ("some 150000 1000000",)}
QUIET_S = 1.0  # between two looks while every device completes its requests
NEAR_S = 0.25  # while one stands still
SCOUT_DEADLINE_S = 60.0
HISTORY = 120  # samples
AGAIN_S = 30.0  # after a freeze that could not be ended, until the next try; or until it is told again
JUDGED_AGAIN_S = 1.0  # after one that may only be slow
TOLD_AGAIN_S = 3600.0  # a map may have no path for days, and nobody ask it for anything
MOST_FUNCTIONS = 24


def run_scout(files: tuple[str, ...]) -> Scouted:
    """Have a scout look at this machine.

    Raises:
        OSError, SubprocessError, ValueError, KeyError, TypeError: it could not.
    """
    argv = [sys.executable, "-m", "ioflusher.rescue.guard.scout", *files]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        try:
            text, _ = process.communicate(timeout=SCOUT_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, "the scout")
    return load_scouted(text)


class WatchedDevice:
    """A served device, until when nothing more is done about it, and what was told of it until when.

    Raises:
        RescueError: it is gone.
    """

    def __init__(self, served: ServedDevice, root: Path) -> None:
        self.served = served
        self.requests = DeviceRequests(served.name, root)
        self.quiet_until = 0.0
        self.told: FreezeWay | None = None
        self.told_until = 0.0
        self._mapper: MapperControl | None = None
        self._without_path_since: float | None = None
        if served.multipath is not None:
            with contextlib.suppress(RescueError):  # then who keeps requests cannot be seen
                self._mapper = MapperControl(root)

    def serve_by(self, served: ServedDevice) -> None:
        """What a later look at the machine says of it; with other daemons it is worth another try at once."""
        if {d.pid for d in served.daemons} != {d.pid for d in self.served.daemons}:
            self.quiet_until = self.told_until = 0.0
        self.served = served

    def without_path(self, now: float) -> tuple[MultipathMap | None, float]:
        """Its map, where that has no path and keeps requests, and for how long it has been seen so."""
        state = None
        if self._mapper is not None and self.served.multipath is not None:
            with contextlib.suppress(OSError, ValueError):  # it does not tell
                state = self._mapper.multipath(self.served.multipath)
        if state is None or not state.stands_still:
            if self._without_path_since is not None:
                self._without_path_since = self.told = None  # the next time it is told anew
            return None, 0.0
        if self._without_path_since is None:
            self._without_path_since = now
        return state, now - self._without_path_since

    def close(self) -> None:
        """Watch it no longer."""
        self.requests.close()
        if self._mapper is not None:
            self._mapper.close()


class Guard:
    """The service, with everything loaded.

    Args:
        settings: how it works.
        say: where it tells what it does, a line each.
        scout: looks at the whole machine, and for files that lie on what is served.
        keeping: where what was seen is kept; None: as the settings say.
        root: of the machine.

    Raises:
        RescueError: what it keeps would lie on what it watches, or cannot be kept; a reserve too large.
    """

    def __init__(
        self,
        settings: GuardSettings,
        say: Callable[[str], None],
        *,
        scout: Callable[[tuple[str, ...]], Scouted] = run_scout,
        keeping: Keeping | None = None,
        root: Path = Path("/"),
    ) -> None:
        self._settings = settings
        self._say = say
        self._scout = scout
        self._root = root
        self._devices: dict[str, WatchedDevice] = {}
        self._history: deque[str] = deque(maxlen=HISTORY)
        self._looks: deque[tuple[float, str]] = deque(maxlen=HISTORY)  # when, and what woke it up
        self._files = KeptTree(root)
        _check_reserve(settings.reserve, read_memory(self._files))
        self._keeping = keeping or Keeping(settings.history)
        self._pressure = PressureTriggers(TRIGGERS, root)
        self._reserve = Reserve(settings.reserve)
        self._actions = tuple(self._reserve if action.name == "reserve" else action for action in ACTIONS)
        self._scouts = Worker("scouts")  # one that hangs in a frozen machine hangs nobody else
        self._scouting: Future[Scouted] | None = None
        self._scouted_at = 0.0
        self.begin_scouting()
        self.end_scouting(SCOUT_DEADLINE_S)

    def run(self) -> None:
        """Watch for ever."""
        watched = " and ".join(self._pressure.watched) or "no"
        self._say(
            f"watching {len(self._devices)} devices, policy {self._settings.policy.value}, "
            f"{self._settings.reserve >> 20} MiB in reserve, {watched} pressure, "
            f"kept in {', '.join(self._keeping.places) or 'no place'}"
        )
        if unknown := [f"/dev/{name}" for name in self._settings.allow_loss if name not in self._devices]:
            self._say(f"--allow-loss: nobody serves {', '.join(unknown)} yet")
        woken: tuple[str, ...] = ()
        while True:
            oldest_s = self.look(woken)
            woken = self._pressure.wait(NEAR_S if oldest_s > NEAR_S else QUIET_S)
            self.end_scouting()
            calm = oldest_s < self._settings.stalled_s / 2
            if calm and time.monotonic() - self._scouted_at > self._settings.scout_s:
                self._restore_reserve()
                self.begin_scouting()

    def look(self, woken: tuple[str, ...] = ()) -> float:
        """One look at every device, and what is to be done; the age of the oldest request of all.

        `woken` has the resources whose pressure is the reason for it; none where it was time. Of a stall the
        first look matters, from which the request's age counts: from then on it is a question of time alone.
        """
        now = time.monotonic()
        self._looks.append((now, " and ".join(woken) + " pressure" if woken else "the time"))
        oldest_of_all_s = 0.0
        for name, device in list(self._devices.items()):
            try:
                oldest_s = device.requests.oldest_s(now)
            except RescueError as error:
                self._say(f"{error}: no longer watched")
                device.close()
                del self._devices[name]
                continue
            self._remember(device, now)
            oldest_of_all_s = max(oldest_of_all_s, oldest_s)
            state, since_s = device.without_path(now)
            if now < device.quiet_until:
                continue
            stalled_s = self._settings.stalled_s
            if state is not None and since_s >= stalled_s:
                self._stalled(device, without_path(device.served, state), self._first_look(now - since_s))
            elif oldest_s >= stalled_s:
                freeze = judge_live(device.served, oldest_s, stalled_s=stalled_s, root=self._root)
                self._stalled(device, freeze, self._first_look(now - oldest_s))
        return oldest_of_all_s

    def _first_look(self, begun: float) -> str:
        """What woke the guard up for the look from which a request's age counts; "" where it is forgotten."""
        when, what = min(self._looks, key=lambda look: abs(look[0] - begun))
        return what if abs(when - begun) < NEAR_S / 2 else ""

    def begin_scouting(self) -> None:
        """Have the whole machine looked at: devices that are new, daemons that were started again."""
        if self._scouting is not None:
            return  # the last one hangs
        self._scouted_at = time.monotonic()
        own = [sys.executable, __file__, *([self._settings.history] if self._settings.history else [])]
        self._scouting = self._scouts.begin(partial(self._scout, tuple(own)))

    def end_scouting(self, seconds: float = 0.0) -> None:
        """Take what the scout saw, if it is back within so many seconds.

        Raises:
            RescueError: what the guard keeps lies on a device that it watches.
        """
        if self._scouting is None:
            return
        try:
            scouted = self._scouting.result(seconds)
        except NotYet:
            return
        except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
            self._scouting = None
            self._say(f"cannot look at the machine: {error}")
            return
        self._scouting = None
        self._take(scouted)

    def _take(self, scouted: Scouted) -> None:
        for file, name in scouted.on_served:
            if file == self._settings.history:
                raise RescueError(
                    f"{file} lies on /dev/{name}, which is watched: it would freeze with it",
                    hint="keep the history on another disk, or in memory (/run)",
                )
            self._say(
                f"{file} lies on /dev/{name}, which is watched: what is not loaded yet may freeze with it"
            )
        served = {device.name: device for device in scouted.devices}
        for name in self._devices.keys() - served.keys():
            self._devices.pop(name).close()
        for name, device in served.items():
            if name in self._devices:
                self._devices[name].serve_by(device)
                continue
            with contextlib.suppress(RescueError):  # it went away again
                self._devices[name] = WatchedDevice(device, self._root)
                self._say(f"watching {device.path}, served by {', '.join(device.servers)}")

    def _restore_reserve(self) -> None:
        """Hold the reserve again, once four times of it are available."""
        if self._reserve.size and not self._reserve.held:
            available = read_memory(self._files).available_kib or 0
            if available << 10 > 4 * self._reserve.size:
                with contextlib.suppress(RescueError):  # the next time, then
                    self._reserve.hold()
                    self._say(f"{self._reserve.size >> 20} MiB are in reserve again")

    def _remember(self, device: WatchedDevice, now: float) -> None:
        self._history.append(
            f"{now:.2f} {device.served.name}: "
            f"{device.requests.completed} completed, {device.requests.in_flight} in flight"
        )

    def _stalled(self, device: WatchedDevice, freeze: DeviceFreeze, first_look: str) -> None:
        """A device stands still: keep what is seen, act."""
        allowed = (
            self._settings.policy is GuardPolicy.MORE and device.served.name in self._settings.allow_loss
        )
        # what is only slow gets the actions that lose nothing if it was allowed more
        acts = self._settings.policy is not GuardPolicy.REPORT and (freeze.certain or allowed)
        now = time.monotonic()
        if not acts:
            device.quiet_until = now + JUDGED_AGAIN_S
        again = device.told is freeze.way and now < device.told_until
        if again and not acts:
            return
        planned = plan(freeze, read_memory(self._files), actions=self._actions)
        if not again or freeze.certain:
            device.told = freeze.way
            device.told_until = now + (TOLD_AGAIN_S if freeze.way is FreezeWay.PATHS_LOST else AGAIN_S)
            self._keep(planned, acts)
            self._say(f"{freeze.reason}; first seen by {first_look}" if first_look else freeze.reason)
        if acts:
            self._act(device, planned, Loss.DEVICE if allowed else Loss.NOTHING)
        elif not again:
            self.begin_scouting()  # another daemon may serve it by now

    def _keep(self, planned: RescuePlan, acts: bool) -> None:
        """Keep what is seen of a freeze."""
        freeze = planned.freeze
        memory = read_memory(self._files)
        lines = [
            f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {freeze.reason}",
            *_thread_lines(freeze),
            f"memory: {memory.free_kib} KiB free, {memory.dirty_kib} KiB dirty, "
            f"{memory.writeback_kib} KiB under writeback, {memory.available_kib} KiB available",
            *(f"could be done: {': '.join((s.action, *s.commands))}" for s in planned.steps),
            *(f"before: {sample}" for sample in self._history),
        ]
        head = [freeze.reason, *_thread_lines(freeze)[:3], "acts" if acts else "does nothing about it"]
        for late in self._keeping.keep(lines, head):
            self._say(f"not kept in {late}")

    def _act(self, device: WatchedDevice, planned: RescuePlan, most: Loss) -> None:
        """Do what may be done."""
        try:
            rescue = Rescue(
                planned,
                most=most,
                settle_s=self._settings.settle_s,
                actions=self._actions,
                told=self._told,
                told_back=self._say,
                root=self._root,
            )
            with contextlib.closing(rescue):
                outcome = rescue.end()
        except RescueError as error:
            self._say(str(error))
            device.quiet_until = time.monotonic() + AGAIN_S
            return
        self._ended(device, outcome)

    def _told(self, outcome: StepOutcome) -> None:
        words = f"{outcome.step.action}: {outcome.result.value}"
        self._say(f"{words}: {outcome.detail}" if outcome.detail else words)

    def _ended(self, device: WatchedDevice, outcome: RescueOutcome) -> None:
        path = device.served.path
        words = (
            f"{path} goes on, {outcome.seconds:.2f} s after the first action"
            if outcome.seconds is not None
            else f"{path} still stands still"
        )
        self._say(words)
        lines = [
            words,
            *(f"put back: {t}" for t in outcome.put_back),
            *(f"NOT put back: {t}" for t in outcome.left),
        ]
        self._keeping.keep(lines, lines)
        now = time.monotonic()
        device.quiet_until = now + (self._settings.stalled_s if outcome.recovered else AGAIN_S)
        self._scouted_at = now  # the next one finds what became of the daemons


def _check_reserve(size: int, memory: Memory) -> None:
    """RescueError where holding so much would itself bring the machine into need."""
    if memory.available_kib is not None and size > (memory.available_kib << 10) // 2:
        raise RescueError(
            f"{size >> 20} MiB in reserve are more than half of the "
            f"{memory.available_kib >> 10} MiB that are available",
            hint="40 MiB ended most freezes of the lab that took some",
        )


def _thread_lines(freeze: DeviceFreeze) -> list[str]:
    """A line for each thread that waits."""
    return [
        f"{t.comm} {t.pid}/{t.tid} {t.state}: {' < '.join(t.functions[:MOST_FUNCTIONS])}"
        for t in freeze.threads
    ]


def warm_up() -> None:
    """Load what a first freeze would load: the tables of kernel functions, the code for `daemon-state`."""
    from ioflusher.flag.attach.arch import architecture

    read_threads([os.getpid()])
    wait_of("[<0>] balance_dirty_pages+0x3c1/0xa50\n", "warm-up")
    with contextlib.suppress(IoflusherError):  # a processor without a row: the action says so then
        architecture()
