"""What `rescue --now` does about the lab's freezes: `python -m tests.rescue.each [SCENARIO]...`.

Each run is a guest of its own, whose first freeze is the scenario's own: `rescue --now` with what loses
nothing, then all is read back from the device and the file system is checked. Prints a row of
docs/rescue.md for each scenario. Status 1 where a freeze was not ended, or something was lost.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.rescue.hundred import play

SCENARIOS = tuple(
    f"ext4-on-{kind}-throttled"
    for kind in (
        *("nbd", "nbd-server", "nbdkit", "qemu-nbd", "stacked", "ublk", "tgt", "tcmu", "lio"),
        *("fuse", "bindfs", "fuse-overlayfs", "sshfs"),
    )
)


def run(scenario: str, kernel: str) -> dict[str, Any]:
    """One guest: what was seen, in one object."""
    found = {line["what"]: line for line in play("once", scenario=scenario, kernel=kernel, timeout_s=240)}
    return {"scenario": scenario, "kernel": kernel, **found}


def ended(told: dict[str, Any]) -> bool:
    """Whether the freeze of this run was ended, and nothing was lost."""
    rescued, checked = told["rescued"], told["checked"]
    return (rescued["status"], rescued["wrong"], checked["status"]) == (0, 0, 0)


def row(scenario: str, runs: Sequence[dict[str, Any]]) -> str:
    """What came of a scenario's runs, as a row of a table."""
    frozen = [told for told in runs if "checked" in told and told["rescued"]["frozen"]]
    back = [told for told in frozen if ended(told)]
    seconds = [told["rescued"]["seconds"][0] for told in back]
    words = f"{statistics.median(seconds):.2f} s, {max(seconds):.2f} s at most" if back else "none"
    steps = [action for told in back for action, result in told["rescued"]["actions"] if result == "ended_it"]
    by = ", ".join(f"`{action}`" for action in dict.fromkeys(steps)) or "none"
    return f"| `{scenario}` | {by} | {len(runs)} | {len(frozen)} | {len(back)} | {words} |"


def main() -> None:
    """Read the command line, play, judge."""
    parser = argparse.ArgumentParser(description="What rescue --now does about the lab's freezes.")
    parser.add_argument("scenarios", nargs="*", default=SCENARIOS, help="default: those that throttle")
    parser.add_argument("--runs", type=int, default=3, help="of each (default: 3)")
    parser.add_argument("--kernel", default="", help="a release such as 6.1; default: the lab's own")
    parser.add_argument("--keep", type=Path, help="add what was seen to this file, and go on where it ends")
    arguments = parser.parse_args()
    lines: list[dict[str, Any]] = []
    if arguments.keep is not None and arguments.keep.exists():
        lines = [json.loads(line) for line in arguments.keep.read_text().splitlines()]
    good = True
    for scenario in arguments.scenarios:
        own = (told for told in lines if (told["scenario"], told["kernel"]) == (scenario, arguments.kernel))
        runs = [told for told in own if "checked" in told]  # one that broke off is played again
        while len(runs) < arguments.runs:
            runs.append(run(scenario, arguments.kernel))
            if arguments.keep is not None:
                with arguments.keep.open("a") as file:
                    file.write(f"{json.dumps(runs[-1])}\n")
        print(row(scenario, runs), flush=True)
        good = good and all("checked" in t and (ended(t) or not t["rescued"]["frozen"]) for t in runs)
    sys.exit(not good)


if __name__ == "__main__":
    main()
