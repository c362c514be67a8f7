"""What it costs to look at a machine, beside the tools that everybody has.

    python tests/machine/benchmark.py status      10,000 threads: `ioflusher status --json` and `ps -eL`,
                                                  in 20 processes, and in one
    python tests/machine/benchmark.py snapshot    2,000 processes, 50,000 descriptors: `ioflusher snapshot`
                                                  and `lsof -n`; time, and memory at half and at full size

The contenders take turns, each writes to /dev/null; medians over the rounds, and the median of the ratios.
Our bytecode is written before, as an installation does. On a busy machine, `chrt -r 50` before the command
gives both contenders the processors when it is their turn.
"""

import argparse
import compileall
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ioflusher

ROUNDS = 15
IOFLUSHER = str(Path(sys.executable).parent / "ioflusher")

# Each of these programs says "ready" when the machine is as it shall be, and ends with its standard input.
THREADS = """
import sys, threading
threading.stack_size(1 << 16)
event = threading.Event()
for _ in range(int(sys.argv[1]) - 1):
    threading.Thread(target=event.wait, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""
PROCESSES = """
import os, signal, socket, sys
processes, directory = int(sys.argv[1]), sys.argv[2]
for number in range(processes):
    if os.fork() == 0:
        kept = [open(f"{directory}/{number % 100}.{index}", "ab") for index in range(12)]  # files
        kept += [end for _ in range(2) for end in socket.socketpair()]
        kept += [open(os.devnull) for _ in range(3)]
        kept += [os.pipe(), os.eventfd(0)]  # with the three that are inherited: 25
        os.write(1, b".")
        signal.pause()
        os._exit(0)
sys.stdin.read()
os.killpg(0, signal.SIGKILL)
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run: seconds, and the most memory that it held in MiB."""

    seconds: float
    peak: float


def cost(command: list[str]) -> Cost:
    """Of a command whose output nobody reads."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):  # lsof ends with 1 where it could not see everything
        raise SystemExit(f"{command} ended with status {process.returncode}")
    return Cost(seconds, usage.ru_maxrss / 1024)


def compare(ours: list[str], theirs: list[str]) -> None:
    """Let both take turns, and print what came of it."""
    cost(ours), cost(theirs)
    pairs = [(cost(ours), cost(theirs)) for _ in range(ROUNDS)]
    for name, costs in zip((ours, theirs), zip(*pairs, strict=True), strict=True):
        seconds = [taken.seconds for taken in costs]
        command = " ".join([Path(name[0]).name, *name[1:]])
        print(
            f"{command:<32} median {1000 * statistics.median(seconds):7.1f} ms "
            f"({1000 * min(seconds):.1f} to {1000 * max(seconds):.1f}), "
            f"most memory {max(taken.peak for taken in costs):.0f} MiB"
        )
    ratios = sorted(mine.seconds / other.seconds for mine, other in pairs)
    print(f"ratio: median {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


@contextmanager
def many_threads(processes: int, each: int) -> Iterator[None]:
    """So many processes of so many threads."""
    command = [sys.executable, "-I", "-S", "-c", THREADS, str(each)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(processes)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.communicate(timeout=60)


@contextmanager
def many_processes(count: int) -> Iterator[None]:
    """So many processes with 25 descriptors each."""
    with tempfile.TemporaryDirectory() as directory:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", PROCESSES, str(count), directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )
        try:
            assert process.stdout is not None
            ready = 0
            while ready < count:
                part = os.read(process.stdout.fileno(), 4096)
                assert part, "the processes ended"
                ready += len(part)
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=60)


def status() -> None:
    """The threads of the whole machine."""
    for processes, each in ((20, 500), (1, 10_000)):
        with many_threads(processes, each):
            print(f"{processes} processes of {each} threads")
            compare([IOFLUSHER, "status", "--json"], ["ps", "-eLo", "pid,tid,flag,comm"])


def snapshot() -> None:
    """Everything about the whole machine."""
    for count in (1000, 2000):
        with many_processes(count):
            print(f"{count} processes, {25 * count} descriptors")
            compare([IOFLUSHER, "snapshot"], ["lsof", "-n"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=["status", "snapshot"])
    compileall.compile_dir(Path(ioflusher.__file__).parent, quiet=1)
    {"status": status, "snapshot": snapshot}[parser.parse_args().what]()
