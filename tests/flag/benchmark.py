"""What the state costs: a scope against python-prctl, and a thread of a running process.

    python tests/flag/benchmark.py scope     needs python-prctl and CAP_SYS_RESOURCE (a guest has it)
    python tests/flag/benchmark.py threads   needs gcc; without CAP_SYS_RESOURCE the kernel refuses each
                                             thread's call at its end, all before it is done

Both sides of `scope` do the same: read the state, set it, set what was there before.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ioflusher import io_flusher
from ioflusher.flag.attach import caller, put_state

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


def threads() -> None:
    """Time to put the state on a process with THREADS threads in every kind of wait."""
    vars(caller)["CAP_SYS_RESOURCE"] = 0  # have the call made also where it will be refused
    source = Path(__file__).parent / "programs/waits.c"
    with tempfile.TemporaryDirectory() as directory:
        program = f"{directory}/waits"
        subprocess.run(["gcc", "-O2", "-pthread", "-o", program, str(source)], check=True, timeout=120)
        process = subprocess.Popen(
            [program, str(THREADS - 1), "150", "50"], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            taken = []
            for number in range(ROUNDS):
                result = put_state(process.pid, number % 2 == 0)
                taken.append(1000 * result.seconds / len(result.threads))
                outcomes = Counter(thread.outcome.name for thread in result.threads)
        finally:
            process.terminate()
            output, _ = process.communicate(timeout=60)
    print(f"{THREADS} threads: median {statistics.median(taken):.3f} ms a thread, most {max(taken):.3f} ms")
    print(
        f"outcomes of the last round: {dict(outcomes)}; failures seen by the program: {output.count('FAIL')}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=["scope", "threads"])
    {"scope": scope, "threads": threads}[parser.parse_args(sys.argv[1:]).what]()
