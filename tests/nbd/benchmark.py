"""How fast our server is beside others.

    python tests/nbd/benchmark.py [--rounds N] [--seconds N] [--server NAME]... [WORKLOAD]...

Needs fio with its nbd engine, nbdcopy, nbdkit with its python plug-in, nbd-server and qemu-nbd. Servers have
256 MiB, written once: in memory, where a server has its data in files a file on tmpfs, or, in the `file`
workloads, a file of the directory for temporary files. They run at the same time, and in each round each has
its turn while the others are idle. Printed are medians over the rounds with the lowest and highest, the
server's processor time (seconds for a million requests), the 99.9th percentile of the latency, and ratios to
the server in C that is fastest by the clock.
"""

import argparse
import json
import os
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

SIZE = 256 << 20
START_WITHIN = 20.0  # seconds
TICK = os.sysconf("SC_CLK_TCK")
OURS, PYTHON = "ours", "nbdkit python"

# What nbdkit's python plug-in is given: as little Python as can be, on memory that is there already.
PLUGIN = f"""
import nbdkit
API_VERSION = 2
disk = memoryview(bytearray({SIZE}))
def thread_model():
    return nbdkit.THREAD_MODEL_PARALLEL
def open(readonly):
    return 1
def get_size(h):
    return {SIZE}
def pread(h, buf, offset, flags):
    buf[:] = disk[offset:offset + len(buf)]
def pwrite(h, buf, offset, flags):
    disk[offset:offset + len(buf)] = buf
"""


@dataclass(frozen=True)
class Contender:
    """A server's commands with its data in memory and in a file, and how it is told where to listen.

    `most`: connections that it takes at once.
    """

    memory: str
    file: str
    unix: str
    tcp: str
    most: int = 128


OUR_SERVER = f"{sys.executable} -m ioflusher nbd serve --no-io-flusher --max-connections 128 {{listen}}"
QEMU = "qemu-nbd --persistent --shared=128 --format=raw {listen} {image}"
NBD_SERVER = "nbd-server -C {listen} -p {pid}"  # goes into the background
CONTENDERS = {
    OURS: Contender(
        f"{OUR_SERVER} --memory {SIZE}",
        f"{OUR_SERVER} --file {{image}}",
        "--unix {socket}",
        "--tcp 127.0.0.1:{port}",
    ),
    "nbdkit": Contender(
        f"nbdkit -f {{listen}} memory {SIZE}",
        "nbdkit -f {listen} file {image}",
        "-U {socket}",
        "-i 127.0.0.1 -p {port}",
    ),
    PYTHON: Contender("nbdkit -f {listen} python {plugin}", "", "-U {socket}", "-i 127.0.0.1 -p {port}"),
    "qemu-nbd": Contender(QEMU, QEMU, "--socket={socket}", "--bind=127.0.0.1 --port={port}"),
    "nbd-server": Contender(NBD_SERVER, NBD_SERVER, "{config}", "{config}", most=8),
}


@dataclass(frozen=True)
class Workload:
    """What a client does, fio's --rw; `file`: servers have their data in a file."""

    operation: str
    block: str
    depth: int
    connections: int = 1
    tcp: bool = False
    file: bool = False


WORKLOADS = {
    "read": Workload("randread", "4k", 32),
    "write": Workload("randwrite", "4k", 32),
    "read-one": Workload("randread", "4k", 1),
    "write-one": Workload("randwrite", "4k", 1),
    "read-tcp": Workload("randread", "4k", 32, tcp=True),
    "write-tcp": Workload("randwrite", "4k", 32, tcp=True),
    "read-1M": Workload("randread", "1M", 32),
    "write-1M": Workload("randwrite", "1M", 32),
    "read-8": Workload("randread", "4k", 32, connections=8),
    "write-8": Workload("randwrite", "4k", 32, connections=8),
    "read-64": Workload("randread", "4k", 32, connections=64),
    "write-64": Workload("randwrite", "4k", 32, connections=64),
    "read-file": Workload("randread", "4k", 32, file=True),
    "write-file": Workload("randwrite", "4k", 32, file=True),
    "copy-out": Workload("copy-out", "256k", 64),
    "copy-in": Workload("copy-in", "256k", 64),
}


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    pid: int
    uri: str

    def processor_s(self) -> float:
        """Seconds of processor that it and its children that ended have used (proc_pid_stat(5))."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / TICK


@dataclass(frozen=True)
class Turn:
    """What one turn measured."""

    requests_per_s: float
    processor_s_per_million: float
    slowest_ms: float | None  # 99.9th percentile


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def running(name: str, workload: Workload, directory: Path, image: Path) -> Iterator[Running]:
    """A server from when it can be connected to until the end, full of data."""
    names = {name: directory / name for name in ("socket", "config", "plugin", "pid")}
    port = free_port()
    where = "listenaddr = 127.0.0.1" if workload.tcp else f"unixsock = {names['socket']}"
    names["config"].write_text(f"[generic]\n{where}\nport = {port}\n[disk]\nexportname = {image}\n")
    names["plugin"].write_text(PLUGIN)
    contender = CONTENDERS[name]
    listen = (contender.tcp if workload.tcp else contender.unix).format(port=port, **names)
    command = (contender.file if workload.file else contender.memory).format(
        listen=listen, image=image, **names
    )
    export = "disk" if contender.memory == NBD_SERVER else ""
    uri = f"nbd://127.0.0.1:{port}/{export}"
    if not workload.tcp:
        uri = f"nbd+unix:///{export}?socket={names['socket']}"
    process = subprocess.Popen(shlex.split(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pid = process.pid
    try:
        end = time.monotonic() + START_WITHIN
        while subprocess.run(["nbdinfo", "--size", uri], capture_output=True).returncode:
            if time.monotonic() > end or process.poll():
                raise SystemExit(f"{name} does not start: {command}")
            time.sleep(0.1)
        pid = int(names["pid"].read_text()) if names["pid"].exists() else pid
        subprocess.run(["nbdcopy", directory / "data", uri], check=True)
        yield Running(pid, uri)
    finally:
        if process.poll() is None or pid != process.pid:
            os.kill(pid, signal.SIGTERM)
        process.wait()


def turn(server: Running, workload: Workload, seconds: float, data: Path) -> Turn:
    """Let a client work on the server for some time."""
    before = server.processor_s()
    slowest = None
    if workload.operation.startswith("copy"):
        ends = [server.uri, "null:"] if workload.operation == "copy-out" else [str(data), server.uri]
        requests, begin = 0, time.monotonic()
        while time.monotonic() < begin + seconds:
            subprocess.run(
                ["nbdcopy", f"--requests={workload.depth}", "--connections=1", "--no-extents", *ends],
                check=True,
            )
            requests += SIZE // (256 << 10)
        rate = requests / (time.monotonic() - begin)
    else:
        fio = ["fio", "--name=x", "--ioengine=nbd", f"--uri={server.uri}", f"--rw={workload.operation}"]
        fio += [f"--bs={workload.block}", f"--iodepth={workload.depth}", f"--numjobs={workload.connections}"]
        fio += ["--group_reporting", "--time_based", f"--runtime={seconds}", "--output-format=json"]
        text = subprocess.run([*fio, "--thread"], capture_output=True, text=True, check=True).stdout
        job = json.loads(text[text.index("{") :])["jobs"][0]
        found = job["read" if "read" in workload.operation else "write"]
        requests, rate = found["total_ios"], found["iops"]
        slowest = found["clat_ns"]["percentile"]["99.900000"] / 1e6
    return Turn(rate, (server.processor_s() - before) / requests * 1e6, slowest)


def spread(values: list[float], digits: int) -> str:
    """The median, and the lowest and highest."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


def measure(name: str, servers: list[str], rounds: int, seconds: float) -> None:
    """One workload: every server's turn in every round, and a row for each server."""
    workload = WORKLOADS[name]
    turns: defaultdict[str, list[Turn]] = defaultdict(list)
    with ExitStack() as stack:
        fast = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        slow = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        data = fast / "data"
        data.write_bytes(os.urandom(SIZE))
        ready: dict[str, Running] = {}
        for number, server in enumerate(servers):
            contender = CONTENDERS[server]
            if (workload.file and not contender.file) or workload.connections > contender.most:
                continue
            directory = fast / str(number)
            directory.mkdir()
            (directory / "data").symlink_to(data)
            image = (slow if workload.file else fast) / f"image{number}"
            with image.open("wb") as file:
                file.truncate(SIZE)
            ready[server] = stack.enter_context(running(server, workload, directory, image))
        load = os.getloadavg()[0]
        for _ in range(rounds):
            for server, process in ready.items():
                turns[server].append(turn(process, workload, seconds, data))
    print(f"{name}: {workload}; load before {load:.1f}, after {os.getloadavg()[0]:.1f}")
    rates = {server: statistics.median(t.requests_per_s for t in its) for server, its in turns.items()}
    in_c = [server for server in rates if server not in (OURS, PYTHON)]
    fastest = max(in_c, key=lambda server: rates[server]) if in_c else None
    for server, its in turns.items():
        processor = [t.processor_s_per_million for t in its]
        slowest = [t.slowest_ms for t in its if t.slowest_ms is not None]
        words = [f"{server:14}", spread([t.requests_per_s for t in its], 0), "requests/s,"]
        words += [spread(processor, 2), "processor s/million"]
        words += [f", 99.9 % within {spread(slowest, 2)} ms"] if slowest else []
        if server == OURS and fastest is not None:
            its_processor = statistics.median(t.processor_s_per_million for t in turns[fastest])
            words.append(f"; {rates[server] / rates[fastest]:.2f} times {fastest}'s rate,")
            words.append(f"{statistics.median(processor) / its_processor:.2f} times its processor time")
        if server == OURS and PYTHON in rates:
            words.append(f"; {rates[server] / rates[PYTHON]:.1f} times {PYTHON}'s rate")
        print("  " + " ".join(words).replace(" ,", ",").replace(" ;", ";"), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each turn")
    parser.add_argument(
        "--server", choices=CONTENDERS, action="append", help="only this one and others named so"
    )
    parser.add_argument("workloads", metavar="WORKLOAD", nargs="*", help=", ".join(WORKLOADS))
    args = parser.parse_args()
    for name in args.workloads or WORKLOADS:
        measure(name, args.server or [*CONTENDERS], args.rounds, args.seconds)


if __name__ == "__main__":
    main()
