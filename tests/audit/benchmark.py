"""How long a fleet takes, all cores beside one: python tests/audit/benchmark.py [MACHINES].

Makes a server of 300 processes, four of them nbd daemons with many threads and files, writes it as MACHINES
(1000) snapshots of hosts of their own, and judges them all with `--jobs 1` and with all cores in turn. Prints
medians.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from ioflusher.kernel.capability import CapabilitySets
from ioflusher.kernel.task import Thread
from ioflusher.machine.codec import dump_snapshot
from ioflusher.machine.collect.machine import collect
from ioflusher.machine.endpoints import Connection, Family, SocketEnd
from ioflusher.machine.process import FileKind, FileUse, Process
from ioflusher.machine.snapshot import Snapshot
from ioflusher.machine.storage import BlockDevice, DeviceKind, Mount, Queue

DAEMONS, THREADS, FILES, PROCESSES = 4, 16, 60, 300
ROUNDS = 3


def machine() -> Snapshot:
    """An ordinary server: this machine's disks and mounts, and processes of which a few serve nbd devices."""
    live = collect()
    numbers = range(DAEMONS)
    others = tuple(bystander(pid) for pid in range(1, PROCESSES + 1))
    return replace(
        live,
        processes=(*others, *(daemon(pid_of(number)) for number in numbers)),
        devices=(*live.devices, *(device(number) for number in numbers)),
        mounts=(*live.mounts, *(mount(number) for number in numbers)),
        connections=tuple(connection(pid_of(number)) for number in numbers),
        remotes=(),
        listeners=(),
        netlink=(),
        unreadable=(),
    )


def pid_of(number: int) -> int:
    """The process number of a daemon; its threads follow it."""
    return 10_000 + number * 100


def bystander(pid: int) -> Process:
    """A process with a few threads that serves nothing."""
    threads = tuple(Thread(pid * 10 + number, f"thread-{number}", "S", 0x00400140) for number in range(4))
    none = CapabilitySets(effective=0, permitted=0, bounding=(1 << 41) - 1)
    return Process(pid, 1, "bystander", 1000, threads, none, 0, 0, 9000, 0, exe="/usr/bin/bystander")


def daemon(pid: int) -> Process:
    """An nbd server, half of whose threads lack the state."""
    threads = tuple(
        Thread(pid + number, f"worker-{number}", "S", 0x00580140 if number % 2 else 0x00400140)
        for number in range(THREADS)
    )
    files = tuple(FileUse(f"/usr/lib/lib{number}.so", FileKind.LIBRARY, "8:1") for number in range(FILES))
    sets = CapabilitySets(effective=(1 << 41) - 1, permitted=(1 << 41) - 1, bounding=(1 << 41) - 1)
    return Process(pid, 1, "server", 0, threads, sets, 0, 0, 8000, 0, (), "/usr/bin/server", files=files)


def device(number: int) -> BlockDevice:
    """What it serves."""
    queue = Queue(128, 1280, 1)
    name = f"nbd{number}"
    return BlockDevice(name, f"43:{number}", 1 << 30, DeviceKind.NBD, serving_pid=pid_of(number), queue=queue)


def mount(number: int) -> Mount:
    """A file system on it."""
    return Mount(1 << 20 | number, 1, f"43:{number}", "/", f"/data/{number}", "ext4", f"/dev/nbd{number}")


def connection(pid: int) -> Connection:
    """Its socket, whose other end the kernel holds."""
    return Connection(Family.UNIX, (SocketEnd(pid, "", (pid,)), SocketEnd(pid + 1, "", ())))


def run(names: list[str], *options: str) -> tuple[float, float]:
    """Seconds by the clock and on processors of one audit of all."""
    command = [sys.executable, "-m", "ioflusher", "audit", "--json", *options, "--snapshot", *names]
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=600)
    clock = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert len(json.loads(done.stdout)["hosts"]) == len(names), "every machine is judged"
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Make, measure in turn, print."""
    machines = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as directory:
        model = machine()
        names = []
        for number in range(machines):
            name = f"host{number}"
            path = Path(directory) / f"{name}.json"
            path.write_bytes(dump_snapshot(replace(model, system=replace(model.system, hostname=name))))
            names.append(str(path))
        size = sum(os.stat(name).st_size for name in names)
        rounds = [(run(names, "--jobs", "1"), run(names)) for _ in range(ROUNDS)]
    print(f"{machines} snapshots of {len(model.processes)} processes, {size / machines / 1024:.0f} KiB each")
    one = statistics.median(first[0] for first, _ in rounds)
    every = statistics.median(second[0] for _, second in rounds)
    print(f"one job: {one:.2f} s, {machines / one:.0f} machines a second")
    print(f"all cores: {every:.2f} s, {machines / every:.0f} machines a second")
    cores = len(os.sched_getaffinity(0))
    busy = statistics.median(second[1] / second[0] for _, second in rounds)
    ratio = statistics.median(first[0] / second[0] for first, second in rounds)
    print(f"{ratio:.2f} times as fast; {busy:.2f} of {cores} cores busy")


if __name__ == "__main__":
    main()
