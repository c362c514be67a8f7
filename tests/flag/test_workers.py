"""Pools, threads and children: covered from their first line, or the caller is told."""

import asyncio
import errno
import multiprocessing
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.thread import BrokenThreadPool

import pytest
from tests.flag.conftest import FakeKernel

from ioflusher.flag import (
    FlusherThread,
    call_cleared,
    call_flushed,
    flush_worker,
    flusher_executor,
    io_flusher,
    popen,
    set_flusher_executor,
)
from ioflusher.flag import state as room
from ioflusher.flag.errors import NotPermittedError


@pytest.fixture
def workers_end_clean(kernel: FakeKernel) -> FakeKernel:
    """The stand-in kernel; what workers that ended carried is forgotten, as the kernel does."""
    return kernel


def test_every_worker_of_a_pool_is_covered(kernel: FakeKernel) -> None:
    """All workers carry the state although the thread that hands in the work does not."""
    barrier = threading.Barrier(4, timeout=30)

    def work() -> bool:
        barrier.wait()
        return kernel.mine

    with flusher_executor(4) as pool:
        assert [future.result(30) for future in [pool.submit(work) for _ in range(4)]] == [True] * 4
    assert not kernel.mine
    kernel.on.clear()


def test_own_initializer_is_kept(kernel: FakeKernel) -> None:
    """An initializer of the daemon's own runs too, in the state, with its arguments."""
    seen: list[tuple[int, bool]] = []
    with ThreadPoolExecutor(
        1, initializer=flush_worker, initargs=(lambda x: seen.append((x, kernel.mine)), 7)
    ) as pool:
        pool.submit(int).result(30)
    assert seen == [(7, True)]
    kernel.on.clear()


def test_a_pool_that_cannot_be_covered_breaks(kernel: FakeKernel) -> None:
    """Without the capability no work is run uncovered: the pool says it is broken."""
    kernel.refusal = errno.EPERM
    with ThreadPoolExecutor(1, initializer=flush_worker) as pool, pytest.raises(BrokenThreadPool):
        pool.submit(int).result(30)


def test_inherited_state_needs_no_privilege(kernel: FakeKernel) -> None:
    """A worker that inherited the state from a launcher is covered though the capability is gone."""

    def inherit() -> None:
        kernel.on.add(threading.get_ident())  # what fork does
        kernel.refusal = errno.EPERM
        flush_worker()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(inherit).result(30)
    kernel.refusal = 0
    kernel.on.clear()


def test_asyncio_default_executor(kernel: FakeKernel) -> None:
    """What to_thread runs is covered, the loop's own thread is not touched."""

    async def main() -> tuple[bool, bool]:
        set_flusher_executor(max_workers=1)
        return await asyncio.to_thread(lambda: kernel.mine), kernel.mine

    assert asyncio.run(main()) == (True, False)
    kernel.on.clear()


def test_set_flusher_executor_wants_a_loop() -> None:
    """Outside of a loop there is nothing to set."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        set_flusher_executor()


class Override(FlusherThread):
    """A subclass with a `run` of its own, as most are."""

    def __init__(self, kernel: FakeKernel) -> None:
        super().__init__()
        self.kernel = kernel
        self.seen: bool | None = None

    def run(self) -> None:
        self.seen = self.kernel.mine


class OverrideTwice(Override):
    """A subclass of the subclass."""

    def run(self) -> None:
        super().run()


@pytest.mark.parametrize("kind", [Override, OverrideTwice])
def test_thread_subclass_with_its_own_run(kernel: FakeKernel, kind: type[Override]) -> None:
    """Overriding `run` does not lose the state."""
    thread = kind(kernel)
    thread.start()
    thread.join(30)
    assert thread.seen is True
    kernel.on.clear()


def test_thread_with_a_target(kernel: FakeKernel) -> None:
    """A target runs covered, with its arguments."""
    seen: list[bool] = []
    thread = FlusherThread(target=lambda out: out.append(kernel.mine), args=(seen,))
    thread.start()
    thread.join(30)
    assert seen == [True]
    kernel.on.clear()


@pytest.mark.parametrize("kind", [FlusherThread, None])
def test_thread_that_cannot_be_covered(kernel: FakeKernel, kind: type[FlusherThread] | None) -> None:
    """start() raises in the caller, and the work is not run."""
    kernel.refusal = errno.EPERM
    ran: list[int] = []
    thread = kind(target=lambda: ran.append(1)) if kind else Override(kernel)
    with pytest.raises(NotPermittedError):
        thread.start()
    assert not thread.is_alive()
    assert ran == []
    assert getattr(thread, "seen", None) is None


def test_calls_in_and_out_of_the_state(kernel: FakeKernel) -> None:
    """call_flushed and call_cleared pass arguments and results, and restore."""

    def probe(a: int, *, b: int) -> tuple[int, bool]:
        return a + b, kernel.mine

    assert call_flushed(probe, 1, b=2) == (3, True)
    with io_flusher():
        assert call_cleared(probe, 1, b=2) == (3, False)
    assert not kernel.mine


def test_call_flushed_is_a_target_for_any_start_method() -> None:
    """It can be pickled, so that spawn and fork server children can be given it."""
    import pickle

    assert pickle.loads(pickle.dumps(call_flushed)) is call_flushed
    assert "spawn" in multiprocessing.get_all_start_methods()


def test_popen_forks_in_the_wanted_state(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """While subprocess forks, the thread carries what the child shall inherit; then it is as before."""
    import subprocess

    states: list[bool] = []
    real = subprocess.Popen

    def spying(*args: object, **kwargs: object) -> object:
        states.append(room.get_io_flusher())
        return real(*args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", spying)
    with io_flusher():
        for wanted in (True, False):
            child = popen([sys.executable, "-c", "pass"], state=wanted, stdin=subprocess.DEVNULL)
            assert child.wait(60) == 0
        assert kernel.mine
    assert states == [True, False]
