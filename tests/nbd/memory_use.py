"""What serving takes of the kernel's memory.

    python tests/nbd/memory_use.py memory|file|direct|remote simple|structured REQUESTS

Serves READs and WRITEs of 4 KiB to a client in another process. Prints how many requests were looked at,
which is all behind the first quarter, how many minor faults this process had in them, and how many lines of
its maps file, which shows every mmap, munmap and brk, are others at their end than at their begin.
"""

import gc
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack

from ioflusher.nbd.address import parse_uri
from ioflusher.nbd.backends import Backend, FileBackend, MemoryBackend, RemoteBackend
from ioflusher.nbd.protocol.negotiated import Negotiated
from ioflusher.nbd.server.at_once import AtOnce
from ioflusher.nbd.server.counters import Tally
from ioflusher.nbd.server.in_turn import InTurn
from ioflusher.nbd.server.requests import Service, export_of

SIZE, BATCH, LENGTH = 4 << 20, 32, 4096

# Sends a batch of READs or of WRITEs and waits for all answers; is told when to begin, when to go on behind
# the first quarter, and when to leave.
CLIENT = f"""
import os, socket, struct, sys
sock = socket.socket(fileno=int(sys.argv[1]))
header, batches = int(sys.argv[2]), int(sys.argv[3])
read, write = (
    b"".join(
        struct.pack(">IHHQQI", 0x25609513, 0, command, n, n * {LENGTH}, {LENGTH}) + payload
        for n in range({BATCH})
    )
    for command, payload in ((0, b""), (1, bytes({LENGTH})))
)
room = bytearray({BATCH} * (header + {LENGTH}))
for number in range(batches):
    if number in (0, batches // 4):
        os.read(0, 1)
    sock.sendall(write if number % 2 else read)
    missing = {BATCH} * 16 if number % 2 else len(room)
    while missing:
        missing -= sock.recv_into(room, missing)
os.read(0, 1)
"""


class Maps:
    """/proc/self/maps, read into memory that is there beforehand."""

    def __init__(self) -> None:
        self._view = memoryview(bytearray(1 << 20))

    def read(self) -> list[bytes]:
        descriptor = os.open("/proc/self/maps", os.O_RDONLY)
        length = 0
        while count := os.readv(descriptor, [self._view[length:]]):
            length += count
        os.close(descriptor)
        return bytes(self._view[:length]).splitlines()


def opened(kind: str, stack: ExitStack) -> Backend:
    """The back end, and for the remote one a server in another process; they end with the stack."""
    if kind == "memory":
        return MemoryBackend(SIZE)
    if kind == "remote":
        serve = [
            "-m",
            "ioflusher",
            "nbd",
            "serve",
            "--no-io-flusher",
            "--memory",
            str(SIZE),
            "--tcp",
            "127.0.0.1:0",
        ]
        server = stack.enter_context(
            subprocess.Popen([sys.executable, *serve], stdout=subprocess.PIPE, text=True)
        )
        stack.callback(server.terminate)
        assert server.stdout is not None
        return stack.enter_context(RemoteBackend(parse_uri(server.stdout.readline().split()[2])))
    image = stack.enter_context(tempfile.NamedTemporaryFile())  # noqa: SIM115
    image.truncate(SIZE)
    return stack.enter_context(FileBackend(image.name, direct=kind == "direct"))


def main(kind: str, form: str, requests: int, stack: ExitStack) -> None:
    backend = opened(kind, stack)
    if kind == "memory":
        backend.write(0, memoryview(bytes(SIZE)))
    service = Service(
        export_of(backend, "", 1 << 20), backend, Negotiated(structured_replies=form != "simple")
    )
    mine, theirs = socket.socketpair()
    tallies = [Tally() for _ in range(16 if backend.waits else 1)]
    stopping = threading.Event()
    one: AtOnce | InTurn
    if backend.waits:
        one = AtOnce(mine, service, tallies, stopping)
    else:
        one = InTurn(mine, service, memoryview(bytearray(1 << 20)), tallies[0], stopping)
    server = threading.Thread(target=one.run)
    maps, pause = Maps(), threading.Event()

    def done() -> int:
        return sum(tally.read().reads + tally.read().writes for tally in tallies)

    def faults() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    gc.freeze()
    gc.disable()
    server.start()
    batches = requests // BATCH
    header = "16" if form == "simple" else "28"
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(theirs.fileno()), header, str(batches)],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.PIPE,
    )
    theirs.close()
    assert client.stdin is not None
    go_on = client.stdin.fileno()
    os.write(go_on, b".")
    while done() < batches // 4 * BATCH:
        pause.wait(0.02)
        maps.read()  # whose own first times are not what is measured
    before = maps.read()
    first, faults_before = done(), faults()
    os.write(go_on, b".")
    while done() < batches * BATCH:
        pause.wait(0.02)
    last, faults_after = done(), faults()
    after = maps.read()
    client.communicate()
    server.join()
    print(last - first, faults_after - faults_before, len(set(before) ^ set(after)))


if __name__ == "__main__":
    with ExitStack() as stack:
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]), stack)
