"""What the state costs: a scope against its peers, importing the library, a thread of a running process.

    python tests/flag/benchmark.py scope             needs pyprctl and python-prctl (which needs libcap-dev)
    python tests/flag/benchmark.py import
    python tests/flag/benchmark.py threads PROGRAM   without CAP_SYS_RESOURCE the kernel refuses each thread's
                                                     call at its end, all before it is done
    make thousand                                    compiles PROGRAM; 100 times here and in a guest, where
                                                     the state is really set

All sides of `scope` do the same: read the state, set it, set what was there before.
"""

import argparse
import importlib
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ioflusher import io_flusher
from ioflusher.flag import scope as scope_room
from ioflusher.flag.attach import caller, put_state
from ioflusher.kernel.capability import CAP_SYS_RESOURCE
from ioflusher.kernel.prctl import PR_GET_IO_FLUSHER, PR_SET_IO_FLUSHER
from ioflusher.kernel.status import parse_status

PR_GET_DUMPABLE, PR_SET_DUMPABLE = 3, 4  # include/uapi/linux/prctl.h

ROUNDS = 31
LOOPS = 3000
THREADS = 1000


def nanoseconds(action: Callable[[], None]) -> float:
    """Of one call, on average over LOOPS."""
    begin = time.perf_counter_ns()
    for _ in range(LOOPS):
        action()
    return (time.perf_counter_ns() - begin) / LOOPS


def scope() -> None:
    """Medians and ratios over rounds in which each contender has its turn."""
    prctl = importlib.import_module("prctl")  # python-prctl
    misc = importlib.import_module("pyprctl.misc")

    get, put = PR_GET_IO_FLUSHER, PR_SET_IO_FLUSHER
    name = "io_flusher"
    if not permitted():
        # Another option of the same shape, which everybody may set: the same code, the kernel's part alike.
        print("no CAP_SYS_RESOURCE: PR_SET_DUMPABLE instead of PR_SET_IO_FLUSHER, for all of them")
        get, put, name = PR_GET_DUMPABLE, PR_SET_DUMPABLE, "dumpable"
        calls = {call: vars(scope_room)[call] for call in ("_GET", "_SET", "_CLEAR")}
        vars(scope_room).update({call: (get if call == "_GET" else put, *a[1:]) for call, a in calls.items()})
        prctl.set_dumpable(False)
    peers = {
        "python-prctl": (getattr(prctl, f"get_{name}"), getattr(prctl, f"set_{name}")),
        # it has no function for this option; these are what it makes its functions with
        "pyprctl": (misc._make_res_bool_getter(get), misc._make_bool_setter(put)),
    }

    def ours() -> None:
        with io_flusher():
            pass

    contenders: dict[str, Callable[[], None]] = {"ioflusher, with io_flusher()": ours}
    for peer, (getter, setter) in peers.items():
        contenders[f"{peer}, a context manager"] = partial(with_manager, manager(getter, setter))
        contenders[f"{peer}, try and finally in place"] = partial(in_place, getter, setter)
    for action in contenders.values():
        nanoseconds(action)
    taken: dict[str, list[float]] = {contender: [] for contender in contenders}
    for _ in range(ROUNDS):
        for contender, action in contenders.items():
            taken[contender].append(nanoseconds(action))
    base = taken["ioflusher, with io_flusher()"]
    for contender, times in taken.items():
        ratio = statistics.median(o / t for o, t in zip(base, times, strict=True))
        print(f"{contender:<40} median {statistics.median(times):8.0f} ns, ioflusher / this {ratio:.2f}")


Getter = Callable[[], object]
Setter = Callable[[Any], object]


def manager(getter: Getter, setter: Setter) -> Callable[[], AbstractContextManager[None]]:
    """What one writes around a peer's two functions."""

    @contextmanager
    def flushing() -> Iterator[None]:
        before = getter()
        setter(True)
        try:
            yield
        finally:
            setter(before)

    return flushing


def with_manager(flushing: Callable[[], AbstractContextManager[None]]) -> None:
    """One section with such a manager."""
    with flushing():
        pass


def in_place(getter: Getter, setter: Setter) -> None:
    """The least that a peer can do."""
    before = getter()
    setter(True)
    try:
        pass
    finally:
        setter(before)


def import_time() -> None:
    """Python with `import ioflusher` against Python with nothing to do, turn by turn."""
    programs = {
        "python -c pass": "pass",
        "python -c 'import ctypes'": "import ctypes",
        "python -c 'import ioflusher'": "import ioflusher",
    }
    taken: dict[str, list[float]] = {program: [] for program in programs}
    for _ in range(ROUNDS):
        for program, code in programs.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-I", "-c", code], check=True)
            taken[program].append(1000 * (time.perf_counter() - begin))
    base = taken["python -c pass"]
    for program, times in taken.items():
        more = statistics.median(t - b for t, b in zip(times, base, strict=True))
        print(f"{program:<32} median {statistics.median(times):6.1f} ms, {more:5.1f} ms above the first")


def permitted() -> bool:
    """Whether the kernel lets this process have the state."""
    return not parse_status(Path("/proc/self/status").read_bytes()).capabilities.missing(CAP_SYS_RESOURCE)


def threads(program: Path, rounds: int, wait_ms: int, feed_ms: int) -> None:
    """Time to put the state on THREADS threads in every kind of wait, and to take it away again."""
    if not permitted():
        vars(caller)["CAP_SYS_RESOURCE"] = 0  # have the call made also where it will be refused
    taken: list[float] = []
    outcomes: Counter[str] = Counter()
    command = [str(program), str(THREADS - 1), str(wait_ms), str(feed_ms)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        for number in range(rounds):
            result = put_state(process.pid, number % 2 == 0 or not permitted(), timeout=60)
            taken.append(1000 * result.seconds / len(result.threads))
            outcomes.update(thread.outcome.name for thread in result.threads)
            if number % 10 == 9:
                print(f"{number + 1} of {rounds}", file=sys.stderr, flush=True)
        time.sleep(2 * wait_ms / 1000)
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=600)
    print(f"{THREADS} threads, {rounds} times: {dict(outcomes)}")
    print(f"median {statistics.median(taken):.3f} ms a thread, most {max(taken):.3f} ms")
    print(
        f"the program ended with status {process.returncode}, {output.count('FAIL')} calls of it went wrong"
    )
    print("kind, threads, rounds, fewest of one thread, most ms late\n" + output, end="")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("scope")
    what.add_parser("import")
    of_threads = what.add_parser("threads")
    of_threads.add_argument("program", type=Path, help="tests/flag/programs/waits.c, compiled")
    of_threads.add_argument("--rounds", type=int, default=31)
    of_threads.add_argument("--wait-ms", type=int, default=150, help="how long timed waits last")
    of_threads.add_argument("--feed-ms", type=int, default=50, help="how often others get what they wait for")
    words = vars(parser.parse_args())
    actions: dict[str, Callable[..., None]] = {"scope": scope, "import": import_time, "threads": threads}
    actions[words.pop("what")](**words)
