"""Freezes that a guard ends, many in each of some guests: `python -m tests.rescue.hundred [--freezes N]`.

Each guest has the stage of ext4-on-nbd-throttled, and a guard that was started before. In each round a
program writes 96 MiB while 8 may be dirty, the device freezes, the guard acts; then everything is read back,
and the state is taken off the daemon again. The last freeze of each guest is left alone, to see that it
stays. Status 1 where a freeze was not ended, something was lost, or one that was left alone went on.
"""

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.lab.conftest import ioflusher

CRAWLS = (
    20  # requests in 10 s: with its store held down a freeze that is left alone may crawl (docs/rescue.md)
)
MOST_IN_VAIN = 3  # guests one after the other without a freeze

ROOT = Path(__file__).parent.parent.parent
SCENARIO = "ext4-on-nbd-throttled"


def play(*parts: str, scenario: str = SCENARIO, kernel: str = "", timeout_s: float = 600.0) -> list[Any]:
    """Play these parts of guest_freezes.py in one guest; the JSON that it printed."""
    script = f"cd {ROOT}; export PYTHONPATH={ROOT}/src:{ROOT}\n"
    script += f"exec {sys.executable} -m tests.rescue.guest_freezes {' '.join(parts)}\n"
    done = ioflusher(
        "lab",
        "shell",
        scenario,
        "--timeout",
        f"{timeout_s:g}",
        *(("--kernel", kernel) if kernel else ()),
        stdin=script.encode(),
        timeout=timeout_s + 200,
    )
    if done.returncode:
        print(done.stderr.decode()[-3000:], file=sys.stderr)
    return [json.loads(line) for line in done.stdout.splitlines() if line[:1] in (b"{", b"[")]


def came_back(told: dict[str, Any]) -> bool:
    """Whether the guard ended this freeze, and all that was written is there."""
    return bool(told["first_s"] and told["status"] == 0 and told["wrong"] == 0)


def froze(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rounds in which the guard saw a freeze."""
    return [told for told in lines if told["what"] == "guarded" and told["seen_by"]]


def summary(lines: Iterable[dict[str, Any]]) -> tuple[str, bool]:
    """What came of all rounds in words, and whether it is as it should be."""
    lines = list(lines)
    rounds = froze(lines)
    back = [told for told in rounds if came_back(told)]
    alone = [told["completed"] for told in lines if told["what"] == "left alone" and told["frozen"]]
    stayed = [completed for completed in alone if completed < CRAWLS]
    calm = sum(told["what"] == "guarded" and not told["seen_by"] for told in lines)
    words = [f"{len(back)} of {len(rounds)} freezes ended by the guard, {calm} rounds did not freeze"]
    for what, seconds in (
        ("the first request after the first action", [told["first_s"][0] for told in back]),
        ("frozen", [told["frozen_s"] for told in back]),
    ):
        if seconds:
            words.append(f"{what}: median {statistics.median(seconds):.2f} s, at most {max(seconds):.2f} s")
    by = Counter(told["seen_by"][0] for told in rounds)
    words.append("first seen by " + ", ".join(f"{name}: {number}" for name, number in by.most_common()))
    words.append(f"more than one action in {sum(len(told['seen_by']) > 1 for told in rounds)} rounds")
    most = max(alone, default=0)
    words.append(f"left alone: {len(stayed)} of {len(alone)} stayed, with {most} requests in 10 s at most")
    return "\n".join(words), bool(rounds) and len(back) == len(rounds) and len(stayed) == len(alone)


def main() -> None:
    """Read the command line, play, judge."""
    parser = argparse.ArgumentParser(description="Freezes that a guard ends.")
    parser.add_argument("--freezes", type=int, default=100, help="how many (default: 100)")
    parser.add_argument("--rounds", type=int, default=10, help="at most so many in a guest (default: 10)")
    parser.add_argument("--keep", type=Path, help="add what was seen to this file, and go on where it ends")
    arguments = parser.parse_args()
    lines: list[dict[str, Any]] = []
    if arguments.keep is not None and arguments.keep.exists():
        lines = [json.loads(line) for line in arguments.keep.read_text().splitlines()]
    in_vain = 0
    while (left := arguments.freezes - len(froze(lines))) > 0 and in_vain < MOST_IN_VAIN:
        rounds = min(left, arguments.rounds)
        began = time.monotonic()
        found = play(f"guard:{rounds}", timeout_s=120 + 30 * rounds)
        number = len(froze(found))
        in_vain = 0 if number else in_vain + 1
        print(f"a guest, {time.monotonic() - began:.0f} s: {number} freezes in {rounds} rounds", flush=True)
        lines += found
        if arguments.keep is not None:
            with arguments.keep.open("a") as file:
                file.writelines(f"{json.dumps(line)}\n" for line in found)
    words, good = summary(lines)
    print(words)
    sys.exit(not (good and len(froze(lines)) >= arguments.freezes))


if __name__ == "__main__":
    main()
