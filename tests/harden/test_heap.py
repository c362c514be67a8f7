"""The heap that is there beforehand: what is allocated after it takes nothing from the kernel."""

import os
import subprocess
import sys

import pytest

from ioflusher.harden import HardenError, heap, prefault_heap

# Allocates blocks, then small objects, in turn and in a thread; prints minor faults and changed mappings.
PROGRAM = """
import gc, resource, sys, threading
from ioflusher.harden import prefault_heap
size = int(sys.argv[1])
if size:
    prefault_heap(size)
gc.disable()
ready, go, done, end = (threading.Event() for _ in range(4))

def work(rounds=3):
    for _ in range(rounds):
        blocks = [bytearray(200_000) for _ in range(15)]  # above what malloc takes from mmap by default
        del blocks
        objects = [[number] for number in range(20_000)]
        del objects

def in_thread():
    ready.set()  # Python's stack for the thread is there, and until the end
    go.wait()
    work()
    done.set()
    end.wait()

thread = threading.Thread(target=in_thread)
thread.start()
ready.wait()
view = memoryview(bytearray(1 << 20))

def maps():
    with open("/proc/self/maps", "rb", buffering=0) as file:
        length = 0
        while count := file.readinto(view[length:]):
            length += count
    return bytes(view[:length])

maps()
before = maps(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
go.set()
done.wait()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before[1]
changed = maps() != before[0]
print(faults, int(changed))
end.set()
"""


def measured(size: int) -> tuple[int, bool]:
    """Faults, and whether mappings changed, of a process with such a heap; 0: none."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "PYTHONM"))
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(size)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    faults, changed = map(int, done.stdout.split())
    return faults, bool(changed)


@pytest.mark.live
def test_nothing_is_asked_of_the_kernel() -> None:
    """In both threads, large blocks and small objects: next to no fault, and not one mapping is another."""
    faults, changed = measured(16 << 20)
    assert faults <= 20
    assert not changed


@pytest.mark.live
def test_without_it_the_same_work_asks() -> None:
    """So what is measured is the heap's doing."""
    faults, _ = measured(0)
    assert faults > 500


def test_another_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """musl has no such settings, and says nothing; we do."""

    def refuse(parameter: int, value: int) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(heap, "mallopt", refuse)
    with pytest.raises(HardenError, match="the heap's settings") as caught:
        prefault_heap(1 << 20)
    assert (caught.value.errno, caught.value.hint) == (22, "they are glibc's")
