"""How long `ioflusher diagnose` takes for a long log, beside grep: python tests/kernlog/benchmark.py [MIB].

Makes a log of noise with 300 hung tasks in it (1024 MiB unless said), runs both in turn, and prints the
median and the best time of each and the most memory that diagnose took. Python's bytecode is written before,
as an installation does.
"""

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

STACK = (Path(__file__).parent / "logs" / "pos_nbd_xfs_inode_write.txt").read_bytes()
HUNG = b"[ 1626.600000] INFO: task msgr-worker-1:1026 blocked for more than 120 seconds.\n"
NOISE = (
    b'[%12.6f] audit: type=1400 audit(17000.%d:%d): apparmor="ALLOWED" name="/proc/%d/stat" comm="init"\n',
    b"[%12.6f] usb 1-%d: new high-speed USB device number %d using xhci_hcd port %d\n",
    b"[%12.6f] IPv6: ADDRCONF(NETDEV_CHANGE): veth%d: link becomes ready after %d ms queue %d\n",
    b"[%12.6f] nf_conntrack: table full, dropping packet %d from 10.0.0.1 port %d length %d\n",
    b"[%12.6f] EXT4-fs (sda%d): mounted filesystem with ordered data mode. Quota %d errors=%d\n",
)
EPISODES = 300
ROUNDS = 7


def make_log(path: Path, size: int) -> None:
    """Write a log of `size` bytes, the episodes spread over it."""
    kinds = itertools.cycle(NOISE)
    number = 0
    with path.open("wb") as log:
        for episode in range(1, EPISODES + 1):
            while log.tell() < size * episode // EPISODES:
                lines = []
                for _ in range(1000):
                    number += 1
                    lines.append(next(kinds) % (number / 100, number % 997, number % 9973, number % 65521))
                log.write(b"".join(lines))
            log.write(HUNG + STACK)


class Cost(NamedTuple):
    """What one run of a program took: seconds by the clock and on the processor, MiB of memory at most."""

    clock: float
    processor: float
    memory: float


def run(command: list[str], environment: dict[str, str]) -> Cost:
    """Run a program to its end."""
    begin = time.perf_counter()
    # not to /dev/null: grep would stop at the first match
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    assert process.stdout
    with process.stdout as output:
        output.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    clock = time.perf_counter() - begin
    return Cost(clock, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def main() -> None:
    """Make, measure in turn, print."""
    size = int(sys.argv[1]) << 20 if len(sys.argv) > 1 else 1 << 30
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        make_log(log, size)
        grep = ["grep", "-c", "blocked for more than", str(log)]
        diagnose = [sys.executable, "-m", "ioflusher", "diagnose", str(log)]
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": directory}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        run(diagnose, environment)
        rounds = [(run(grep, environment), run(diagnose, environment)) for _ in range(ROUNDS)]
    for kind in ("clock", "processor"):
        of_grep, of_diagnose = ([getattr(one[which], kind) for one in rounds] for which in (0, 1))
        for word, pick in (("median", statistics.median), ("best", min)):
            one, other = pick(of_grep), pick(of_diagnose)
            print(f"{kind}, {word}: grep {one:.2f} s, diagnose {other:.2f} s, ratio {other / one:.2f}")
    print(f"memory of diagnose: {max(one.memory for _, one in rounds):.0f} MiB at most")


if __name__ == "__main__":
    main()
