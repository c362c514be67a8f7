"""What the IO_FLUSHER state costs the process that has it, in guests of 400 MiB.

    python tests/lab/benchmark_cost.py [faults|kills|throughput]... [--rounds N] [--kernel K]

`faults`: the time of new memory, page by page, and page faults from swap, while another process touches more
memory than there is; `kills`: a process that itself needs more memory than there is; `throughput`: our NBD
server with memory to spare. Without and with the state in turn in one guest (guest_cost.py); medians, and the
least and most.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

GUEST = Path(__file__).with_name("guest_cost.py")
SHOWN = {
    "faults": ("probes", "median_ms", "p99_ms", "longest_ms", "major_faults", "direct_reclaims", "oom_kill"),
    "kills": ("seconds", "status", "direct_reclaims", "pswpout", "oom_kill"),
    "throughput": ("write_mib_s", "read_mib_s"),
}


def play(what: str, rounds: int, kernel: str | None) -> list[dict[str, Any]]:
    """The guest's lines."""
    program = Path(sys.executable).with_name("ioflusher")
    argv = [str(program), "lab", "exec", "--memory", "400M", "--disk", "512M", "--timeout", "1200"]
    argv += ["--kernel", kernel] if kernel else []
    argv += ["--", sys.executable, str(GUEST), what, str(rounds)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, timeout=1300, check=False)
    if done.returncode:
        sys.exit(f"the guest ended with status {done.returncode} after: {done.stdout}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def shown(values: list[float]) -> str:
    """Median, least and most."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.4g} ({low:.4g} to {high:.4g})"


def main() -> None:
    """Measure and print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", nargs="*", choices=[*SHOWN, []], default=list(SHOWN))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kernel")
    wanted = parser.parse_args()
    for what in wanted.what:
        lines = play(what, wanted.rounds, wanted.kernel)
        print(f"\n| {what}, {wanted.rounds} rounds | without the state | with it |\n|---|---|---|")
        for name in SHOWN[what]:
            cells = [
                shown([line[name] for line in lines if line["state"] is state and name in line])
                for state in (False, True)
            ]
            print(f"| {name} | {cells[0]} | {cells[1]} |")


if __name__ == "__main__":
    main()
