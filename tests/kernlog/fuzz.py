"""Damaged logs by the million: python -m tests.kernlog.fuzz [--inputs N] [--seed N] [--portions N].

Each input is a few lines of the tests' logs, of which bytes were changed, cut, moved or taken from others,
and a task's stack behind them. diagnose answers, and that stack is among what it read; of every RENDERED-th
one the text and the JSON are made, too (test_fuzz.py has what must hold). A portion is known by its seed: it
prints its count, or the first input that failed.
"""

import argparse
import gc
import random
import time

from tests.kernlog.test_fuzz import LINES, TASK, TRIGGERS, sound

from ioflusher.kernlog.diagnose import diagnose_log
from ioflusher.kernlog.diagnosis import Diagnosis

# lines of an input: a frame or head alone is read in other ways than one between others
FEW, MANY = 4, 12
# text and JSON are made of the same few records each time and cost as much as everything else
RENDERED = 16


def damaged(chance: random.Random) -> bytes:
    """One input."""
    begin = chance.randrange(len(LINES))
    lines = [
        LINES[begin + number]
        if chance.random() < 0.5 and begin + number < len(LINES)
        else chance.choice(LINES)
        for number in range(chance.randint(1, chance.choice((FEW, FEW, MANY))))
    ]
    data = bytearray(b"\n".join(lines))
    for _ in range(chance.randint(0, 6)):
        place = chance.randint(0, len(data))
        match chance.randrange(4):
            case 0:
                data[place : place + chance.randint(0, 20)] = chance.choice(TRIGGERS)
            case 1:
                data[place : place + 1] = chance.randbytes(1)
            case 2:
                del data[place : place + chance.randint(1, 60)]
            case _:
                data[place:place] = data[: chance.randint(0, 80)]
    return bytes(data)


def answered(data: bytes) -> Diagnosis:
    """The diagnosis of an input, which shows the task behind it, and has a task in each episode."""
    diagnosis = diagnose_log(data + TASK)
    assert any(task.comm == "sane" for episode in diagnosis.episodes for task in episode.tasks)
    assert all(episode.tasks for episode in diagnosis.episodes)
    return diagnosis


def portion(seed: int, inputs: int) -> None:
    """Try so many inputs.

    Raises:
        AssertionError: one was answered wrongly; it and its number are printed. Any other error likewise.
    """
    chance = random.Random(seed)
    for number in range(inputs):
        data = damaged(chance)
        try:
            diagnosis = answered(data)
            if number % RENDERED == 0:
                sound(diagnosis)
        except Exception:
            print(f"seed {seed}, input {number}: {data!r}", flush=True)
            raise


def main() -> None:
    """Try the portions one after another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="of each portion")
    parser.add_argument("--seed", type=int, default=0, help="of the first portion")
    parser.add_argument("--portions", type=int, default=1)
    arguments = parser.parse_args()
    gc.freeze()  # the tables and logs stay
    for seed in range(arguments.seed, arguments.seed + arguments.portions):
        begin = time.process_time()
        portion(seed, arguments.inputs)
        print(f"seed {seed}: {arguments.inputs} inputs in {time.process_time() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
