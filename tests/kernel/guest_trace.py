"""Record, in a guest with an empty disk, pages of the trace ring buffer and what its kernel prints of them.

    ioflusher lab exec --kernel 6.1 --memory 300M --disk 64M -- python tests/kernel/guest_trace.py >6.1.json

Three instances: requests of the disk while a file system is made and used; writers that are paused for dirty
pages; programs that enter direct reclaim, one with the IO_FLUSHER state of its parent, one without.
test_trace_events.py compares the pages, parsed, with the text.
"""

import base64
import ctypes
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ioflusher.kernel.meminfo import meminfo_lines
from ioflusher.lab.guest.near_misses import COMPLETE, DIRTY, ISSUE, RECLAIM, REQUEST, THROTTLED
from ioflusher.lab.guest.tracing import TraceInstance

DISK = "/dev/vdb"
THREADS = (
    *((f"vmscan/{begin}", ("gfp_flags",)) for begin in RECLAIM),
    *((f"vmscan/{end}", ()) for end in RECLAIM.values()),
    *((event, ("usec_delayed",)) for event in THROTTLED),
    (DIRTY, ("pause",)),
)
PAGES = {"requests": 1, "dirty": 1, "reclaim": 2}  # how many of each are kept
HOG = """
import mmap, sys, time
memory = mmap.mmap(-1, int(sys.argv[1]))
until = time.monotonic() + 10
for at in range(0, len(memory), mmap.PAGESIZE):
    memory[at] = 1
    if time.monotonic() > until:
        break
"""


def record(
    name: str, events: Sequence[tuple[str, tuple[str, ...]]], action: Callable[[], None], only: str = ""
) -> dict[str, Any]:
    """What happened during the action: formats, the first pages, and the text of their events."""
    instance = TraceInstance(name, buffer_kib=64)
    directory = Path("/sys/kernel/tracing/instances", name)
    if not only:
        instance.follow([os.getpid()])
    formats = {}
    for event, fields in events:
        there = instance.want(event, fields, only=only)
        formats[event] = (directory / "events" / event / "format").read_text() if there else None
    action()
    (directory / "tracing_on").write_text("0")
    lines = (directory / "trace").read_text().splitlines()
    instance.open()
    pages: list[str] = []
    while len(pages) < PAGES[name]:
        page = bytearray(4096)
        try:
            os.readv(instance._cpus[0], [page])
        except BlockingIOError:
            break
        pages.append(base64.b64encode(zlib.compress(page, 9)).decode())
    text = [line for line in lines if not line.startswith("#")]
    return {"formats": formats, "pages": pages, "text": text[:100]}


def shell(command: str) -> None:
    subprocess.run(["sh", "-c", command], check=True, stdout=sys.stderr)


def use_the_disk() -> None:
    shell(f"mkfs.ext4 -q -F {DISK}; mkdir -p /mnt; mount {DISK} /mnt")
    shell("dd if=/dev/zero of=/mnt/x bs=1M count=4 conv=fsync; sync")


def dirty_pages() -> None:
    Path("/proc/sys/vm/dirty_bytes").write_text(str(1 << 20))
    Path("/proc/sys/vm/dirty_background_bytes").write_text(str(1 << 19))
    shell("dd if=/dev/zero of=/mnt/y bs=64k count=512")


def need_memory() -> None:
    """Fill memory with the page cache of the root, then push it out, without I/O and then with."""
    for io_flusher in (1, 0):
        assert ctypes.CDLL(None).prctl(57, io_flusher, 0, 0, 0) == 0
        shell("dd if=/dev/vda of=/dev/null bs=1M count=220")
        available_kib = meminfo_lines(Path("/proc/meminfo").read_bytes())["MemAvailable"]
        size = (available_kib << 10) - (32 << 20)
        subprocess.run([sys.executable, "-S", "-I", "-c", HOG, str(size)], check=False)


def main() -> None:
    number = os.stat(DISK).st_rdev
    only = f"dev == {os.major(number) << 20 | os.minor(number)}"
    found = {
        "kernel": os.uname().release,
        "requests": record(
            "requests", [(f"block/{ISSUE}", REQUEST), (f"block/{COMPLETE}", REQUEST)], use_the_disk, only
        ),
        "dirty": record("dirty", THREADS, dirty_pages),
        "reclaim": record("reclaim", THREADS, need_memory),
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
