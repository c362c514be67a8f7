"""What a prefaulted heap is worth: what a daemon takes of the kernel's memory for requests that need some.

    python tests/nbd/heap_use.py [OPTION OF ioflusher nbd serve]...

A daemon with its memory locked serves 64 MiB of which every other block of 4 KiB was written. Behind its
first requests it answers 300 times block status of 4,096 extents, a READ of 1 MiB whose every other block is
a hole, and one that reaches beyond the end. Printed are its minor faults meanwhile, and how many lines of its
maps file, which shows every mmap, munmap and brk, are others afterwards.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ioflusher.nbd.address import Address
from ioflusher.nbd.client import Client
from ioflusher.nbd.errors import RequestError
from ioflusher.nbd.protocol.client_handshake import Wishes
from ioflusher.nbd.protocol.extents import BASE_ALLOCATION

SIZE, LONGEST, BLOCK = 64 << 20, 1 << 20, 4096
TIMES = 300
WISHES = Wishes(structured_replies=True, contexts=(BASE_ALLOCATION,))


def faults(pid: int) -> int:
    """Minor faults so far (proc_pid_stat(5))."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


def mappings(pid: int) -> set[str]:
    return set(Path(f"/proc/{pid}/maps").read_text().splitlines())


def ask(client: Client) -> None:
    room = memoryview(bytearray(LONGEST))
    for number in range(TIMES):
        client.block_status(0, SIZE)
        client.read_into(number % (SIZE // LONGEST) * LONGEST, room)
        with contextlib.suppress(RequestError):
            client.read_into(SIZE - BLOCK, room[: 2 * BLOCK])


def main(options: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/socket"
        serve = ["nbd", "serve", "--no-io-flusher", "--lock-memory", f"--memory={SIZE}", "--max-payload=1M"]
        command = [sys.executable, "-m", "ioflusher", *serve, f"--unix={path}", *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as daemon:
            try:
                assert daemon.stdout is not None
                daemon.stdout.readline()  # it listens
                with Client(Address(path=path), wishes=WISHES) as client:
                    for offset in range(0, SIZE, 2 * BLOCK):
                        client.write(offset, memoryview(os.urandom(BLOCK)))
                    faults_before, before = faults(daemon.pid), mappings(daemon.pid)
                    ask(client)
                    print(faults(daemon.pid) - faults_before, len(before ^ mappings(daemon.pid)))
            finally:
                daemon.terminate()


if __name__ == "__main__":
    main(sys.argv[1:])
