"""In a guest: what the IO_FLUSHER state costs the process that has it. One JSON object a line.

    guest_cost.py faults|kills|throughput ROUNDS

Each round measures without the state and with it, in turn. The swap is an ordinary disk, so nothing waits
for itself: what differs is what the kernel does for an allocation that may not start I/O.
"""

import json
import mmap
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ioflusher.flag import set_io_flusher
from ioflusher.nbd.address import parse_uri
from ioflusher.nbd.client import Client

PAGE = mmap.PAGESIZE
MIB = 1 << 20
PROBE_S = 8.0
OWN_MIB = 24  # the prober's own data, which may go to swap
EATER_MIB = 340  # of a guest of 400 MiB: more than there is beside the kernel and the programs
GREEDY_MIB = 480  # more than memory, less than memory and swap together
COUNTERS = ("oom_kill", "allocstall_normal", "allocstall_dma32", "allocstall_movable", "pswpin", "pswpout")


def vm_counters() -> dict[str, int]:
    """Some of /proc/vmstat; direct reclaims of all zones together."""
    pairs = (line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    values = {name: int(value) for name, value in pairs if name in COUNTERS}
    stalls = sum(value for name, value in values.items() if name.startswith("allocstall"))
    return {"oom_kill": values["oom_kill"], "direct_reclaims": stalls, "pswpout": values["pswpout"]}


def memory(size: int) -> mmap.mmap:
    """Anonymous memory of pages of the ordinary size."""
    area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    return area


def touch(area: mmap.mmap) -> None:
    """Write to each page."""
    for at in range(0, len(area), PAGE):
        area[at] = 1


def in_child(work: Callable[[], dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    """What a child makes of it, and how it ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, json.dumps(work()).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:
        said = answer.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, json.loads(said) if said else {}


def eater() -> int:
    """An ordinary process that touches more memory than there is, over and over; its number."""
    child = os.fork()
    if not child:
        area = memory(EATER_MIB * MIB)
        while True:
            touch(area)
    return child


def probe(state: bool) -> dict[str, Any]:
    """How long a MiB of new memory takes, page by page, and what of its own data comes back from swap."""
    set_io_flusher(state)
    own = memory(OWN_MIB * MIB)
    touch(own)
    took = []
    end = time.monotonic() + PROBE_S
    while time.monotonic() < end:
        begin = time.perf_counter()
        with memory(MIB) as area:
            touch(area)
        took.append(time.perf_counter() - begin)
        touch(own)
    took.sort()
    return {
        "probes": len(took),
        "median_ms": took[len(took) // 2] * 1000,
        "p99_ms": took[int(len(took) * 0.99)] * 1000,
        "longest_ms": took[-1] * 1000,
        "major_faults": resource.getrusage(resource.RUSAGE_SELF).ru_majflt,
    }


def measured(state: bool, work: Callable[[bool], dict[str, Any]]) -> None:
    """Print what a child in that state makes of it, with the kernel's counters meanwhile."""
    before, begin = vm_counters(), time.monotonic()
    status, said = in_child(lambda: work(state))
    seconds = time.monotonic() - begin
    after = vm_counters()
    counted = {name: after[name] - before[name] for name in after}
    print(json.dumps({"state": state, "status": status, "seconds": seconds, **counted, **said}), flush=True)


def greedy(state: bool) -> dict[str, Any]:
    """A process that itself needs more memory than there is."""
    set_io_flusher(state)
    touch(memory(GREEDY_MIB * MIB))
    return {}


def throughput(state: bool) -> dict[str, Any]:
    """Writes and reads of 64 KiB through our server over a Unix socket, in MiB/s, with memory to spare."""
    word = "--io-flusher" if state else "--no-io-flusher"
    argv = [
        sys.executable,
        "-m",
        "ioflusher",
        "nbd",
        "serve",
        "--memory",
        "32M",
        "--unix",
        "/run/s.sock",
        word,
    ]
    total = 24 * MIB
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        uri = server.stdout.readline().removeprefix("listening on ").strip()
        rates = {}
        with Client(parse_uri(uri)) as client:
            data = memoryview(bytearray(64 << 10))
            for name, request in (("write", client.write), ("read", client.read_into)):
                begin = time.perf_counter()
                for at in range(0, total, len(data)):
                    request(at, data)
                rates[f"{name}_mib_s"] = total / MIB / (time.perf_counter() - begin)
        server.terminate()
    return rates


def main(what: str, rounds: int) -> None:
    """Measure, in turn."""
    Path("/proc/self/oom_score_adj").write_text("-1000")
    if what != "throughput":
        for argv in (["mkswap", "/dev/vdb"], ["swapon", "/dev/vdb"]):
            subprocess.run(argv, check=True, capture_output=True)
    for _ in range(rounds):
        for state in (False, True):
            if what == "throughput":
                measured(state, throughput)
                continue
            pressing = eater() if what == "faults" else 0
            if pressing:
                Path(f"/proc/{pressing}/oom_score_adj").write_text("0")
                time.sleep(3)
            measured(state, probe if what == "faults" else ordinary_greedy)
            if pressing:
                os.kill(pressing, 9)
                os.waitpid(pressing, 0)


def ordinary_greedy(state: bool) -> dict[str, Any]:
    """As `greedy`, and may be killed."""
    Path("/proc/self/oom_score_adj").write_text("0")
    return greedy(state)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
