"""When it is searched for daemons, and that nobody waits for it."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ioflusher.errors import IoflusherError
from ioflusher.watch.daemons import WatchedDaemon
from ioflusher.watch.discovery import Discovery

DAEMON = WatchedDaemon(10, "nbd-server", 5, "NBD server of /dev/nbd0", ("nbd0",))
WAIT_S = 20.0


class Searches:
    """Counts them; waits in each while it is told to."""

    def __init__(self) -> None:
        self.number = 0
        self.error: Exception | None = None
        self.go = threading.Event()
        self.go.set()

    def __call__(self) -> tuple[WatchedDaemon, ...]:
        self.number += 1
        self.go.wait(WAIT_S)
        if self.error is not None:
            raise self.error
        return (DAEMON,)


@pytest.fixture
def searches() -> Searches:
    return Searches()


@pytest.fixture
def discovery(searches: Searches, tmp_path: Path) -> Iterator[Discovery]:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/partitions").write_text("vda\n")
    made = Discovery(searches, root=tmp_path)
    yield made
    searches.go.set()
    made.close()


def found(discovery: Discovery, *, gone: bool = False) -> tuple[WatchedDaemon, ...]:
    """What comes, soon."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        if (daemons := discovery.poll(gone=gone)) is not None:
            return daemons
        time.sleep(0.005)
    raise AssertionError("no search")


def test_nothing_changes(discovery: Discovery, searches: Searches) -> None:
    """One search, and no more for now."""
    assert discovery.first() == (DAEMON,)
    assert [discovery.poll(gone=False) for _ in range(50)] == [None] * 50
    assert searches.number == 1


def test_a_device_comes(discovery: Discovery, searches: Searches, tmp_path: Path) -> None:
    """It is searched once, not again and again."""
    discovery.first()
    (tmp_path / "proc/partitions").write_text("vda\nnbd0\n")
    assert found(discovery) == (DAEMON,)
    assert [discovery.poll(gone=False) for _ in range(20)] == [None] * 20
    assert searches.number == 2


def test_a_daemon_has_ended(discovery: Discovery) -> None:
    """That is a reason, too."""
    discovery.first()
    assert found(discovery, gone=True) == (DAEMON,)


def test_a_search_that_hangs(discovery: Discovery, searches: Searches) -> None:
    """Nobody waits for it, and no second one is begun."""
    discovery.first()
    searches.go.clear()
    assert discovery.poll(gone=True) is None
    for _ in range(20):
        assert discovery.poll(gone=True) is None
        time.sleep(0.005)
    assert searches.number == 2
    searches.go.set()
    assert found(discovery) == (DAEMON,)


def test_a_search_that_fails(discovery: Discovery, searches: Searches) -> None:
    """It is said; who was known stays, and the next one may go well."""
    discovery.first()
    searches.error = IoflusherError("no /proc")
    end = time.monotonic() + WAIT_S
    while not discovery.failed and time.monotonic() < end:
        assert discovery.poll(gone=True) is None
        time.sleep(0.005)
    assert discovery.failed == "no /proc"
    searches.error = None
    assert found(discovery, gone=True) == (DAEMON,)
    assert discovery.failed == ""
