"""Damaged logs by the hundred thousand: python -m tests.kernlog.fuzz [--minutes N] [--seed N].

Each input is a few lines of the tests' logs, of which bytes were changed, cut, moved or taken from others.
What test_fuzz.py asserts of each must hold. Prints how many there were, or the first one that failed.
"""

import argparse
import random
import time

from tests.kernlog.test_fuzz import LINES, TASK, TRIGGERS, sound

from ioflusher.kernlog.diagnose import diagnose_log

MAX_LINES = 12


def damaged(chance: random.Random) -> bytes:
    """One input."""
    begin = chance.randrange(len(LINES))
    lines = [
        LINES[begin + number]
        if chance.random() < 0.5 and begin + number < len(LINES)
        else chance.choice(LINES)
        for number in range(chance.randint(1, MAX_LINES))
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


def main() -> None:
    """Try inputs until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    until = time.monotonic() + 60 * arguments.minutes
    count = 0
    while time.monotonic() < until:
        data = damaged(chance)
        try:
            sound(diagnose_log(data))
            after = diagnose_log(data + TASK)
            assert any(task.comm == "sane" for episode in after.episodes for task in episode.tasks)
        except Exception:
            print(f"input {count}: {data!r}")
            raise
        count += 1
    print(f"{count} inputs, none failed")


if __name__ == "__main__":
    main()
