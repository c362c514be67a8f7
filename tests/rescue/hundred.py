"""Freezes that a guard ends, many in each of some guests: `python -m tests.rescue.hundred [--rounds N]`.

Each guest has the stage of ext4-on-nbd-throttled, and a guard that was started before. In each round a
program writes 24 MiB while 8 may be dirty, the device freezes, the guard acts; then everything is read back,
and the state is taken off the daemon again. The last freeze of each guest is left alone, to see that it
stays. Status 1 where a freeze was not ended, something was lost, or the one that was left alone went on.
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

ROOT = Path(__file__).parent.parent.parent
SCENARIO = "ext4-on-nbd-throttled"


def play(*parts: str, scenario: str = SCENARIO, timeout_s: float = 600.0) -> list[Any]:
    """Play these parts of guest_freezes.py in one guest; the JSON that it printed."""
    script = f"cd {ROOT}; export PYTHONPATH={ROOT}/src:{ROOT}\n"
    script += f"exec {sys.executable} -m tests.rescue.guest_freezes {' '.join(parts)}\n"
    done = ioflusher(
        "lab",
        "shell",
        scenario,
        "--timeout",
        f"{timeout_s:g}",
        stdin=script.encode(),
        timeout=timeout_s + 200,
    )
    if done.returncode:
        print(done.stderr.decode()[-3000:], file=sys.stderr)
    return [json.loads(line) for line in done.stdout.splitlines() if line[:1] in (b"{", b"[")]


def came_back(told: dict[str, Any]) -> bool:
    """Whether the guard ended this freeze, and all that was written is there."""
    return bool(told["first_s"] and told["status"] == 0 and told["wrong"] == 0)


def summary(lines: Iterable[dict[str, Any]]) -> tuple[str, bool]:
    """What came of all rounds in words, and whether it is as it should be."""
    lines = list(lines)
    rounds = [told for told in lines if told["what"] == "guarded" and told["seen_by"]]
    back = [told for told in rounds if came_back(told)]
    alone = [told for told in lines if told["what"] == "left alone" and told["frozen"]]
    stayed = [told for told in alone if told["completed"] == 0]
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
    words.append(f"left alone: {len(stayed)} of {len(alone)} stayed frozen")
    return "\n".join(words), bool(rounds) and len(back) == len(rounds) and len(stayed) == len(alone)


def main() -> None:
    """Read the command line, play, judge."""
    parser = argparse.ArgumentParser(description="Freezes that a guard ends.")
    parser.add_argument("--rounds", type=int, default=100, help="how many (default: 100)")
    parser.add_argument("--guests", type=int, default=4, help="in how many guests (default: 4)")
    parser.add_argument("--keep", type=Path, help="add what was seen to this file, and judge all of it")
    arguments = parser.parse_args()
    lines: list[dict[str, Any]] = []
    if arguments.keep is not None and arguments.keep.exists():
        lines = [json.loads(line) for line in arguments.keep.read_text().splitlines()]
    for guest in range(arguments.guests):
        rounds = len(range(guest, arguments.rounds, arguments.guests))
        began = time.monotonic()
        found = play(f"guard:{rounds}", timeout_s=120 + 30 * rounds)
        print(f"guest {guest + 1}: {time.monotonic() - began:.0f} s, {len(found)} lines", flush=True)
        lines += found
        if arguments.keep is not None:
            with arguments.keep.open("a") as file:
                file.writelines(f"{json.dumps(line)}\n" for line in found)
    words, good = summary(lines)
    print(words)
    sys.exit(not good)


if __name__ == "__main__":
    main()
