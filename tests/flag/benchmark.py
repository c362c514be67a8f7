"""What the state costs: a scope against python-prctl, and a thread of a running process.

    python tests/flag/benchmark.py scope     needs python-prctl and CAP_SYS_RESOURCE (a guest has it)
    python tests/flag/benchmark.py threads PROGRAM    without CAP_SYS_RESOURCE the kernel refuses each
                                             thread's call at its end, all before it is done
    make thousand                            compiles PROGRAM; the same 100 times here and in a guest,
                                             where the state is really set

Both sides of `scope` do the same: read the state, set it, set what was there before.
"""

import argparse
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ioflusher import io_flusher
from ioflusher.flag.attach import caller, put_state
from ioflusher.kernel.capability import CAP_SYS_RESOURCE, parse_capabilities

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
    import prctl  # type: ignore[import-not-found]  # python-prctl

    @contextmanager
    def with_python_prctl() -> Iterator[None]:
        before = prctl.get_io_flusher()
        prctl.set_io_flusher(True)
        try:
            yield
        finally:
            prctl.set_io_flusher(before)

    def ours() -> None:
        with io_flusher():
            pass

    def theirs() -> None:
        with with_python_prctl():
            pass

    def theirs_bare() -> None:
        before = prctl.get_io_flusher()
        prctl.set_io_flusher(True)
        try:
            pass
        finally:
            prctl.set_io_flusher(before)

    contenders = {
        "ioflusher, with io_flusher()": ours,
        "python-prctl, a context manager": theirs,
        "python-prctl, try and finally in place": theirs_bare,
    }
    for action in contenders.values():
        nanoseconds(action)
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, action in contenders.items():
            taken[name].append(nanoseconds(action))
    base = taken["ioflusher, with io_flusher()"]
    for name, times in taken.items():
        ratio = statistics.median(o / t for o, t in zip(base, times, strict=True))
        print(f"{name:<40} median {statistics.median(times):8.0f} ns, ioflusher / this {ratio:.2f}")


def threads(program: Path, rounds: int, wait_ms: int, feed_ms: int) -> None:
    """Time to put the state on THREADS threads in every kind of wait, and to take it away again."""
    permitted = not parse_capabilities(Path("/proc/self/status").read_bytes()).missing(CAP_SYS_RESOURCE)
    if not permitted:
        vars(caller)["CAP_SYS_RESOURCE"] = 0  # have the call made also where it will be refused
    taken: list[float] = []
    outcomes: Counter[str] = Counter()
    command = [str(program), str(THREADS - 1), str(wait_ms), str(feed_ms)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        for number in range(rounds):
            result = put_state(process.pid, number % 2 == 0 or not permitted, timeout=60)
            taken.append(1000 * result.seconds / len(result.threads))
            outcomes.update(thread.outcome.name for thread in result.threads)
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
    of_threads = what.add_parser("threads")
    of_threads.add_argument("program", type=Path, help="tests/flag/programs/waits.c, compiled")
    of_threads.add_argument("--rounds", type=int, default=31)
    of_threads.add_argument("--wait-ms", type=int, default=150, help="how long timed waits last")
    of_threads.add_argument("--feed-ms", type=int, default=50, help="how often others get what they wait for")
    words = vars(parser.parse_args())
    if words.pop("what") == "scope":
        scope()
    else:
        threads(**words)
