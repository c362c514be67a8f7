"""Fuzzing of both ends of the protocol by the million, in process: python -m tests.nbd.fuzz --inputs N

The inputs are shared out evenly to the targets of fuzz_handshake and fuzz_transmission, which have the
invariants. They are made of numbers, so that each can be made again: a failure names its own, and
`--target NAME --seed NUMBER --inputs 1` makes that one alone. With --record FILE each chunk of inputs leaves
a line in the file, and the same command goes on behind the last one.
"""

import argparse
import faulthandler
import json
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock

from tests.nbd import fuzz_handshake, fuzz_transmission

from ioflusher.nbd.protocol import connection
from ioflusher.nbd.server import in_turn

Target = Callable[[random.Random], None]
TARGETS: dict[str, Target] = {**fuzz_handshake.TARGETS, **fuzz_transmission.TARGETS}
CHUNK = 5_000  # inputs
STUCK = 900.0  # seconds that no chunk takes, however busy the machine is


@dataclass(frozen=True, slots=True)
class FuzzedChunk:
    """Inputs `first` to `first + inputs` of a target, which all kept the invariant.

    `grown` is by how many KiB the process's largest size went up meanwhile.
    """

    target: str
    first: int
    inputs: int
    seconds: float
    grown: int


def play(name: str, first: int, inputs: int) -> FuzzedChunk:
    """So many inputs; raises what breaks the invariant, with the input's number."""
    target = TARGETS[name]
    before, begin = _largest(), time.process_time()
    faulthandler.dump_traceback_later(STUCK, exit=True)
    try:
        with (
            mock.patch.object(connection, "aligned_memory", _memory),
            mock.patch.object(in_turn, "aligned_memory", _memory),
        ):
            for number in range(first, first + inputs):
                try:
                    target(random.Random(number))
                except BaseException as error:
                    error.add_note(f"input {number} of {name!r}")
                    raise
    finally:
        faulthandler.cancel_dump_traceback_later()
    return FuzzedChunk(name, first, inputs, round(time.process_time() - begin, 1), _largest() - before)


_MEMORY = memoryview(bytearray(in_turn.RECEIVE))


def _memory(size: int) -> memoryview:
    """What connections take for themselves, each input for each, taken once: there is one at a time."""
    return _MEMORY[:size]


def _largest() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def recorded(path: Path | None) -> list[FuzzedChunk]:
    """The chunks that are done already."""
    if path is None or not path.exists():
        return []
    return [FuzzedChunk(**json.loads(line)) for line in path.read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="of all targets together")
    parser.add_argument("--seed", type=int, default=0, help="the first input's number")
    parser.add_argument("--target", choices=TARGETS, action="append", help="this one alone")
    parser.add_argument("--record", type=Path, help="a line of JSON for each chunk; go on behind the last")
    options = parser.parse_args()
    names = options.target or list(TARGETS)
    done: Counter[str] = Counter()
    for chunk in recorded(options.record):
        done[chunk.target] += chunk.inputs
    share = -(-options.inputs // len(names))
    while left := [name for name in names if done[name] < share]:
        name = min(left, key=done.__getitem__)
        chunk = play(name, options.seed + done[name], min(CHUNK, share - done[name]))
        done[name] += chunk.inputs
        line = json.dumps(asdict(chunk))
        if options.record is None:
            print(line)
        else:
            with options.record.open("a") as file:
                file.write(line + "\n")
    print(f"{sum(done[name] for name in names)} inputs: {dict(done)}", file=sys.stderr)


if __name__ == "__main__":
    main()
