"""The reserve: held in memory, given back when everything stalls, taken again when that is over."""

import mmap
import queue
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ioflusher.harden import HardenError, MemoryReserve, ReserveKeeper
from ioflusher.harden import reserve as module
from ioflusher.kernel.pressure import PressureTriggers

SIZE = (2 << 20) + 4096
STALL: tuple[str, ...] = ("memory",)
WAKE: tuple[str, ...] = ()


class Stalls:
    """In place of the kernel's triggers: a stall is put in by the test."""

    def __init__(self, triggers: object, root: Path) -> None:
        self.watched = ("memory",)
        self.events: queue.Queue[tuple[str, ...]] = queue.Queue()
        self.closed = False

    def wait(self, seconds: float) -> tuple[str, ...]:
        try:
            return self.events.get(timeout=seconds) if seconds else self.events.get_nowait()
        except queue.Empty:
            return ()

    def wake(self) -> None:
        self.events.put(WAKE)

    def close(self) -> None:
        self.closed = True


class Stage:
    """A keeper on a machine of the test's making."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root = root
        self.said: list[str] = []
        (root / "proc").mkdir()
        self.available(8 * SIZE)
        monkeypatch.setattr(module, "PressureTriggers", self._triggers)
        self.keeper = ReserveKeeper(SIZE, self._say, calm_s=0.05, root=root)

    def available(self, size: int) -> None:
        (self._root / "proc/meminfo").write_text(f"MemAvailable:   {size >> 10} kB\n")

    def stall(self) -> None:
        self.triggers.events.put(STALL)

    def _triggers(self, triggers: object, root: Path) -> Stalls:
        self.triggers = Stalls(triggers, root)
        return self.triggers

    def _say(self, what: str, **facts: object) -> None:
        self.said.append(f"{what} {facts}")

    def held_is(self, size: int) -> bool:
        deadline = time.monotonic() + 10
        while self.keeper.held != size and time.monotonic() < deadline:
            time.sleep(0.005)
        return self.keeper.held == size


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    stage = Stage(tmp_path, monkeypatch)
    yield stage
    stage.keeper.close()


def test_given_back_and_taken_again(stage: Stage) -> None:
    """A stall gets it all; when nothing has stalled for a while it is there again, and both are told."""
    assert stage.keeper.held == SIZE
    stage.stall()
    assert stage.held_is(0)
    assert stage.held_is(SIZE)
    stage.keeper.close()
    assert stage.said == [
        f"reserve given back {{'bytes': {SIZE}}}",
        f"reserve taken again {{'bytes': {SIZE}}}",
    ]


def test_not_taken_from_who_needs_it(stage: Stage) -> None:
    """It stays away while less than twice of it is available."""
    stage.available(2 * SIZE - 4096)
    stage.stall()
    assert stage.held_is(0)
    time.sleep(0.3)
    assert stage.keeper.held == 0
    stage.available(4 * SIZE)
    assert stage.held_is(SIZE)


def test_not_taken_during_the_next_stall(stage: Stage) -> None:
    """Each stall puts it off."""
    for _ in range(8):
        stage.stall()
        time.sleep(0.02)
        assert stage.keeper.held == 0


def test_at_the_end_nothing_is_held(stage: Stage) -> None:
    """The kernel's trigger is gone, too."""
    stage.keeper.close()
    assert stage.keeper.held == 0
    assert stage.triggers.closed


def test_taken_piece_by_piece() -> None:
    """Whoever takes it can stop in between, and go on later."""
    reserve = MemoryReserve(SIZE)
    go_on = iter([True, False, True, True])
    assert not reserve.hold(lambda: next(go_on))
    assert reserve.held == 1 << 20
    assert reserve.hold(lambda: next(go_on))
    assert reserve.held == SIZE
    reserve.give_back()
    assert reserve.held == 0


def test_without_pressure_stall_information(tmp_path: Path) -> None:
    """A reserve that nobody would give back is refused."""
    with pytest.raises(HardenError, match="tells nobody") as caught:
        ReserveKeeper(4096, lambda *_: None, root=tmp_path)
    assert "psi=1" in (caught.value.hint or "")


LOCKED = """
import resource, sys
from ioflusher.harden import HardenError, MemoryReserve
reserve = MemoryReserve(4 << 20)
def locked():
    return int(open("/proc/self/status").read().split("VmLck:")[1].split()[0])
def resident():
    return int(open("/proc/self/status").read().split("RssAnon:")[1].split()[0])
begin = resident()
reserve.hold()
held = locked(), resident() - begin
reserve.give_back()
print(*held, locked(), resident() - begin)
"""


@pytest.mark.live
def test_it_is_locked_and_there() -> None:
    """4 MiB locked and resident; given back, neither. Beyond the limit it is an error."""
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if limit != resource.RLIM_INFINITY and limit < 5 << 20:
        pytest.skip("the memory lock limit is too small")
    done = subprocess.run([sys.executable, "-c", LOCKED], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    locked, resident, locked_after, resident_after = map(int, done.stdout.split())
    assert locked == 4096
    assert resident >= 4096
    assert locked_after == 0
    assert resident_after < 1024


def test_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what it needs."""

    def refuse(*_: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(mmap, "mmap", refuse)
    with pytest.raises(HardenError, match="CAP_IPC_LOCK or a higher memory lock limit") as caught:
        MemoryReserve(4096).hold()
    assert caught.value.errno == 11


def test_waking_is_no_pressure(tmp_path: Path) -> None:
    """Whoever waits is let go, and is not told of pressure."""
    triggers = PressureTriggers({}, tmp_path)
    triggers.wake()
    began = time.monotonic()
    assert not triggers.wait(30)
    assert time.monotonic() - began < 5
    triggers.close()
