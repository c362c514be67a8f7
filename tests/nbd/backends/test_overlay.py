"""Overlays: the base stays, layers last, and a killed server leaves a whole one."""

import os
import threading
from functools import partial
from pathlib import Path

import pytest
from tests.nbd.backends.model import content

from ioflusher.nbd.backends import BackendError, FileBackend, MemoryBackend, OverlayBackend
from ioflusher.nbd.backends.overlay import PAGE

BLOCK = 2 * PAGE
SIZE = 8 * BLOCK


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A file of random bytes."""
    path = tmp_path / "base"
    path.write_bytes(os.urandom(SIZE))
    return path


def overlay(base: Path, layer: Path | None, *, readonly: bool = True) -> OverlayBackend:
    return OverlayBackend(FileBackend(base, readonly=readonly), layer, block=BLOCK)


def test_the_base_stays_and_the_layer_is_small(base: Path, tmp_path: Path) -> None:
    """A write in the middle of a block changes one block of the layer, and nothing of the base."""
    before = base.read_bytes()
    with overlay(base, tmp_path / "layer") as backend:
        backend.write(3 * BLOCK + 5, memoryview(b"changed"))
        backend.flush()
        assert backend.changed_blocks == 1
        assert content(backend) == before[: 3 * BLOCK + 5] + b"changed" + before[3 * BLOCK + 12 :]
    assert base.read_bytes() == before
    assert (tmp_path / "layer").stat().st_blocks * 512 <= BLOCK + 3 * PAGE


def test_commit(base: Path, tmp_path: Path) -> None:
    """The changes are in the base, the layer is empty, and what is seen is the same."""
    before = base.read_bytes()
    with overlay(base, tmp_path / "layer", readonly=False) as backend:
        backend.write(BLOCK - 1, memoryview(b"xy"))
        backend.flush()
        assert backend.commit() == 2 * BLOCK
        assert backend.changed_blocks == 0
        assert content(backend) == before[: BLOCK - 1] + b"xy" + before[BLOCK + 1 :]
    assert base.read_bytes() == before[: BLOCK - 1] + b"xy" + before[BLOCK + 1 :]
    with overlay(base, tmp_path / "layer") as backend:
        assert backend.changed_blocks == 0


@pytest.mark.parametrize("stored", [True, False])
def test_discard(base: Path, tmp_path: Path, stored: bool) -> None:
    """What the base has is seen again, and what is written later is not mixed with what was discarded."""
    with overlay(base, tmp_path / "layer" if stored else None) as backend:
        backend.write(0, memoryview(b"z" * BLOCK))
        backend.discard()
        assert content(backend) == base.read_bytes()
        backend.zero(0, 10, may_trim=True)
        assert content(backend) == bytes(10) + base.read_bytes()[10:]


def test_commit_needs_a_base_that_can_be_written(base: Path, tmp_path: Path) -> None:
    """A base that was opened read-only is refused, and the layer keeps what it has."""
    with overlay(base, tmp_path / "layer") as backend:
        backend.write(0, memoryview(b"z"))
        with pytest.raises(BackendError, match="read-only") as caught:
            backend.commit()
        assert caught.value.hint
        assert backend.changed_blocks == 1


def test_a_flush_stores_blocks_before_what_refers_to_them(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after any call of a flush: each block is wholly as in the base or wholly as written."""
    layer = tmp_path / "layer"
    log: list[str] = []
    with overlay(base, layer) as backend:
        backend.write(5, memoryview(b"first"))
        write, flush = FileBackend.write, FileBackend.flush

        def logged_write(self: FileBackend, offset: int, view: memoryview) -> None:
            log.append(f"write {offset}")
            write(self, offset, view)

        def logged_flush(self: FileBackend) -> None:
            log.append("flush")
            if len(log) == 1:  # a write while the first flush runs: its block is not covered
                monkeypatch.setattr(FileBackend, "write", write)
                backend.write(BLOCK, memoryview(b"late"))
                monkeypatch.setattr(FileBackend, "write", logged_write)
            flush(self)

        monkeypatch.setattr(FileBackend, "flush", logged_flush)
        monkeypatch.setattr(FileBackend, "write", logged_write)
        backend.flush()
        assert log == ["flush", f"write {SIZE}", "flush"]
        stored = layer.read_bytes()[SIZE : SIZE + 3]
        assert stored == b"\1\0\0"  # the late one is in the layer, and not yet referred to
        backend.flush()
        assert layer.read_bytes()[SIZE : SIZE + 3] == b"\1\1\0"


def test_writers_of_one_block(base: Path) -> None:
    """Parts of a block that are written by many at once for the first time are all there."""
    for _ in range(20):
        with overlay(base, None) as backend:
            start = threading.Barrier(8)

            def write(
                number: int, backend: OverlayBackend = backend, start: threading.Barrier = start
            ) -> None:
                start.wait()
                backend.write(number * 100, memoryview(bytes([number + 1]) * 100))

            threads = [threading.Thread(target=partial(write, number)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert content(backend, 0, 800) == b"".join(bytes([number + 1]) * 100 for number in range(8))


def test_layers_that_do_not_fit(base: Path, tmp_path: Path) -> None:
    """Another file, another block size, another base: each is told, and nothing is changed."""
    layer = tmp_path / "layer"
    layer.write_bytes(b"something else")
    with pytest.raises(BackendError, match="no layer of an overlay"):
        overlay(base, layer)
    layer.unlink()
    overlay(base, layer).close()
    with pytest.raises(BackendError, match=f"expected blocks of {2 * BLOCK} over {SIZE}"):
        OverlayBackend(FileBackend(base, readonly=True), layer, block=2 * BLOCK)
    with pytest.raises(BackendError, match="over a base of"):
        OverlayBackend(MemoryBackend(SIZE + 1), layer, block=BLOCK)
    with pytest.raises(BackendError, match="cannot make the layer"):
        overlay(base, tmp_path / "nowhere" / "layer")


@pytest.mark.parametrize("block", [0, 512, 5000, -4096])
def test_impossible_blocks(block: int) -> None:
    """A block is a power of two, a page or more."""
    with pytest.raises(BackendError, match="expected a power of two, 4096 or more"):
        OverlayBackend(MemoryBackend(SIZE), block=block)
