"""How long `ioflusher diagnose` takes for a long log, beside grep: python tests/kernlog/benchmark.py [MIB].

Makes a log of noise with 300 hung tasks in it (1024 MiB unless said), runs both in turn, and prints the
median and the best time of each and the most memory that diagnose took.
"""

import itertools
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


def times(command: list[str]) -> tuple[float, float]:
    """Seconds by the clock and on the processor, of one run."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    # not to /dev/null: grep would stop at the first match
    subprocess.run(command, stdout=subprocess.PIPE, timeout=600)
    clock = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    """Make, measure in turn, print."""
    size = int(sys.argv[1]) << 20 if len(sys.argv) > 1 else 1 << 30
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        make_log(log, size)
        commands = (
            ["grep", "-c", "blocked for more than", str(log)],
            [sys.executable, "-m", "ioflusher", "diagnose", str(log)],
        )
        rounds = [[times(command) for command in commands] for _ in range(ROUNDS)]
    for kind, name in enumerate(("clock", "processor")):
        grep, diagnose = ([one[which][kind] for one in rounds] for which in (0, 1))
        for word, pick in (("median", statistics.median), ("best", min)):
            one, other = pick(grep), pick(diagnose)
            print(f"{name}, {word}: grep {one:.2f} s, diagnose {other:.2f} s, ratio {other / one:.2f}")
    print(f"memory: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MiB at most")


if __name__ == "__main__":
    main()
