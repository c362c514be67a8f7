"""Which of the kernel's workers receive for a device; the kernel's own are in test_guest.py."""

import time
from contextlib import closing
from pathlib import Path

import pytest

from ioflusher.nbd.kernel_client import receive_workers
from ioflusher.nbd.kernel_client.receive_workers import ReceiveWorkers

NAMES = {
    64: "kworker/0:1H-kblockd",
    65: "kworker/R-nbd0-recv",  # the queue's rescuer, which waits
    66: "kworker/u5:0+nbd0-recv",
    67: "kworker/u5:1+nbd10-recv",
    68: "kworker/u5:2-nbd0-recv",  # it has worked for the device
    69: "kworker/u5:3+nbd0-recv",
    70: "nbd0-recv",  # a program may call itself so
}


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for number, name in NAMES.items():
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "comm").write_text(f"{name}\n")
    monkeypatch.setattr(receive_workers, "PROC", tmp_path)
    return tmp_path


def test_those_that_run_for_the_device(proc: Path) -> None:
    """By the name of their work queue, and while they work for it: one has ended, one does other work now."""
    with closing(ReceiveWorkers(0)) as workers:
        assert workers.await_end(0.0) == 2
        (proc / "66/comm").write_text("kworker/u5:0-nbd0-recv\n")
        assert workers.await_end(0.05) == 1
        (proc / "69/comm").write_text("kworker/u5:3+nbd10-recv\n")
        began = time.monotonic()
        assert workers.await_end(20.0) == 0
        assert time.monotonic() - began < 10


def test_one_that_begins_later_is_none_of_the_old_ones(proc: Path) -> None:
    """It receives from the other server already."""
    with closing(ReceiveWorkers(10)) as workers:
        (proc / "68/comm").write_text("kworker/u5:2+nbd10-recv\n")
        (proc / "67/comm").write_text("kworker/u5:1-nbd10-recv\n")
        assert workers.await_end(0.0) == 0


def test_where_none_can_be_seen_they_get_some_time(proc: Path) -> None:
    """From within a PID namespace there are no kernel threads; but no longer than one wants to wait."""
    with closing(ReceiveWorkers(3)) as workers:
        began = time.monotonic()
        assert workers.await_end(20.0) == 0
        assert time.monotonic() - began >= receive_workers.UNSEEN
        assert workers.await_end(0.0) == 0
