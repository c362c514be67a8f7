"""Kill servers and cut connections under a write load, again and again, and look at every block afterwards.

    python -m tests.nbd.faults --kills 1000

Writers speak NBD to a *front*, `ioflusher nbd serve --backend remote:...`, which forwards to an *origin*, a
disk with a volatile cache (forgetful_disk.py). Each round kills one of them with SIGKILL, or cuts either
connection in the middle of whatever passes, at a random moment. What the writers know of each block is kept
here, outside of both:

- while the front lives, whatever happens to the origin and to the connections, a block has what was written
  last; no writer sees an error but that of its own connection;
- when the front is killed, a block has what it had at the last answered flush (or FUA), or something that
  was written since; every sector of it has one of these whole, and nothing else.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct

from ioflusher.nbd.address import Address
from ioflusher.nbd.client import Client
from ioflusher.nbd.errors import NbdError, RequestError
from ioflusher.nbd.protocol.wire import Cmd, CmdFlag

BLOCK, SECTOR = 4096, 512
BLOCKS_A_WRITER = 12
WRITERS = 4
KINDS = ("front", "origin", "cut client", "cut origin")
STAMP = Struct(">QII")  # the number of the write, the block, the sector
READY_WITHIN = 60.0  # seconds for a server to start, on a busy machine
GHOST = 1.0  # seconds after a cut for which a server may still do what it had received
HERE = Path(__file__).parent


def content(number: int, block: int) -> bytes:
    """What write `number` puts into a block; 0 is zeroes."""
    if not number:
        return bytes(BLOCK)
    stamps = (STAMP.pack(number, block, sector) for sector in range(BLOCK // SECTOR))
    return b"".join(stamp * (SECTOR // STAMP.size) for stamp in stamps)


@dataclass
class Knowledge:
    """What is known of one block, as numbers of writes.

    Attributes:
        durable: one of these was there at the last flush.
        since: asked for after it, answered or not.
        now: one of these is there now.
        changes: how many were asked for; a flush covers what was asked for before it began.
        covered: up to which of them `durable` tells.
        rest_until: of time.monotonic(): an unanswered write may still happen.
    """

    durable: set[int] = field(default_factory=lambda: {0})
    since: dict[int, int] = field(default_factory=dict)  # -> at which change
    now: set[int] = field(default_factory=lambda: {0})
    changes: int = 0
    covered: int = 0
    unanswered: int | None = None
    rest_until: float = 0.0


class Journal:
    """What the writers know, kept outside of all servers."""

    def __init__(self, blocks: int) -> None:
        self.lock = threading.Lock()
        self.blocks = [Knowledge() for _ in range(blocks)]
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.cuts = 0  # how often the writers' connections were or will be cut
        self._number = 0

    def asked(self, block: int, zero: bool) -> int:
        with self.lock:
            self._number += not zero
            number = 0 if zero else self._number
            known = self.blocks[block]
            known.changes += 1
            known.since[number] = known.changes
            known.now.add(number)
            known.unanswered = number
            return number

    def answered(self, block: int, number: int, durable: bool) -> None:
        with self.lock:
            known = self.blocks[block]
            known.now = {number}
            known.unanswered = None
            if durable:
                known.durable = {number}
                known.covered = known.changes
                known.since.clear()
            self.counts["writes"] += 1

    def flush_begins(self) -> list[tuple[set[int], int]]:
        """For each block, what a flush that begins now makes durable, and up to which change."""
        with self.lock:
            return [
                # what is not answered may be there or not, and is not covered
                (set(known.now), known.changes - (known.unanswered is not None))
                for known in self.blocks
            ]

    def flushed(self, begun: list[tuple[set[int], int]]) -> None:
        with self.lock:
            for known, (now, change) in zip(self.blocks, begun, strict=True):
                if change < known.covered:
                    continue  # a flush that began later was answered first
                known.durable, known.covered = now, change
                known.since = {number: at for number, at in known.since.items() if at > change}
            self.counts["flushes"] += 1

    def front_died(self) -> None:
        with self.lock:
            for known in self.blocks:
                known.now = known.durable | set(known.since)

    def disconnected(self, block: int | None) -> None:
        """A writer lost its connection; what it last asked may be done later than what it asks next."""
        if block is not None:
            with self.lock:
                self.blocks[block].unanswered = None
                self.blocks[block].rest_until = time.monotonic() + GHOST

    def check(self, block: int, data: memoryview, when: str) -> None:
        """Hold a block that was read while nobody wrote to it against what may be there."""
        with self.lock:
            allowed = {number: content(number, block) for number in self.blocks[block].now}
            for at in range(0, BLOCK, SECTOR):
                found = data[at : at + SECTOR]
                if not any(found == each[at : at + SECTOR] for each in allowed.values()):
                    number, of_block, sector = STAMP.unpack_from(found)
                    self.wrong.append(
                        f"{when}: block {block} sector {at // SECTOR} has write {number} (block {of_block}, "
                        f"sector {sector}); allowed: {sorted(allowed)}"
                    )
            self.counts["blocks checked"] += 1


class Served:
    """A server process that can be killed and started again at the same place."""

    def __init__(self, path: Path, arguments: list[str]) -> None:
        self.path = path
        self._arguments = arguments
        self.start()

    def start(self) -> None:
        self.path.unlink(missing_ok=True)  # SIGKILL leaves it behind
        command = [sys.executable, "-m", "ioflusher", "nbd", "serve", "--no-io-flusher", *self._arguments]
        self.process = subprocess.Popen(
            [*command, "--unix", str(self.path), "--max-payload", "1M"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # it reports every loss
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith(b"listening on"):
            raise RuntimeError(f"{command} did not start: {line!r}")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Relay:
    """Passes bytes between a socket and a server's, until it is cut: then mid-message, as a network does."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path, self._target = path, target
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        with self._lock:
            for each in self._sockets:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(str(self._target))
            except OSError:
                near.close()
                far.close()
                continue
            with self._lock:
                self._sockets |= {near, far}
            pair = [
                threading.Thread(target=self._pass, args=ends, daemon=True)
                for ends in ((near, far), (far, near))
            ]
            for thread in pair:
                thread.start()
            threading.Thread(target=self._end, args=(pair, near, far), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(16 << 10):
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _end(self, pair: list[threading.Thread], near: socket.socket, far: socket.socket) -> None:
        for thread in pair:
            thread.join()
        with self._lock:
            self._sockets -= {near, far}
        near.close()
        far.close()


class Writer(threading.Thread):
    """Writes to its own blocks, flushes now and then, and connects again when its connection ends."""

    def __init__(self, number: int, address: Address, journal: Journal, seed: int) -> None:
        super().__init__(daemon=True)
        self._own = range(number * BLOCKS_A_WRITER, (number + 1) * BLOCKS_A_WRITER)
        self._address = address
        self._journal = journal
        self._random = random.Random(seed)
        self.may_run = threading.Event()
        self.resting = threading.Event()
        self.stopped = False
        self._client: Client | None = None
        self._cuts = 0  # before this connection was made

    def run(self) -> None:
        block: int | None = None
        while not self.stopped:
            if not self.may_run.is_set():
                self.resting.set()
                self.may_run.wait()
                self.resting.clear()
                continue
            try:
                if self._client is None:
                    self._cuts = self._journal.cuts
                    self._client = Client(self._address, timeout=5.0)
                block = None
                if self._random.random() < 0.05:
                    begun = self._journal.flush_begins()
                    self._client.command(Cmd.FLUSH)
                    self._journal.flushed(begun)
                    continue
                block = self._random.choice(self._own)
                if self._journal.blocks[block].rest_until < time.monotonic():
                    self._write(self._client, block)
            except RequestError as error:
                self._journal.wrong.append(f"a writer was told of an error: {error}")
                return
            except NbdError as error:
                if self._client is not None:
                    if self._cuts == self._journal.cuts and not self.stopped:
                        self._journal.wrong.append(f"a writer's connection broke: {error}")
                    self._client.close()
                self._client = None
                self._journal.disconnected(block)
                time.sleep(0.02)
        if self._client is not None:
            self._client.close()

    def _write(self, client: Client, block: int) -> None:
        zero, through = self._random.random() < 0.1, self._random.random() < 0.05
        flags = int(CmdFlag.FUA) if through else 0
        number = self._journal.asked(block, zero)
        if zero:
            client.command(Cmd.WRITE_ZEROES, block * BLOCK, BLOCK, flags)
        else:
            client.write(block * BLOCK, memoryview(content(number, block)), flags)
        self._journal.answered(block, number, through)


@contextlib.contextmanager
def scene(
    directory: Path, journal: Journal, seed: int, front_options: str
) -> Iterator[tuple[Served, Served, Relay, Relay, list[Writer]]]:
    """Everything running: origin, front, a relay before each, writers that rest."""
    image = directory / "disk"
    image.write_bytes(bytes(len(journal.blocks) * BLOCK))
    disk = HERE / "forgetful_disk.py"
    origin = Served(directory / "origin", ["--backend", f"python,path={image}:{disk}"])
    to_origin = Relay(directory / "to-origin", origin.path)
    uri = Address(path=str(to_origin.path)).uri
    front = Served(directory / "front", ["--backend", f"remote,{front_options}:{uri}"])
    to_front = Relay(directory / "to-front", front.path)
    address = Address(path=str(to_front.path))
    writers = [Writer(number, address, journal, seed + number) for number in range(WRITERS)]
    try:
        for writer in writers:
            writer.start()
        yield front, origin, to_front, to_origin, writers
    finally:
        for writer in writers:
            writer.stopped = True
            writer.may_run.set()
        front.kill()
        for writer in writers:
            writer.join(READY_WITHIN)
        for relay in (to_front, to_origin):
            relay.close()
        origin.kill()


def rest(writers: list[Writer]) -> None:
    """Let the writers finish what they are at."""
    for writer in writers:
        writer.may_run.clear()
    for writer in writers:
        if not writer.resting.wait(READY_WITHIN):
            raise RuntimeError("a writer's request was not answered")


def play(
    kills: int, seed: int, kinds: tuple[str, ...] = KINDS, front_options: str = "connections=2,journal=1M"
) -> dict[str, object]:
    """Kill so many times; returns what was counted, and what was wrong."""
    chance = random.Random(seed)
    journal = Journal(WRITERS * BLOCKS_A_WRITER)
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as directory,
        scene(Path(directory), journal, seed, front_options) as (front, origin, to_front, to_origin, writers),
    ):
        for kill in range(kills):
            kind = kinds[kill % len(kinds)]
            for writer in writers:
                writer.may_run.set()
            time.sleep(chance.uniform(0.02, 0.12))
            journal.cuts += kind in ("front", "cut client")
            if kind == "front":
                front.kill()
                rest(writers)  # whoever was answered has told the journal then
                journal.front_died()
                front.start()
            elif kind == "origin":
                origin.kill()
                time.sleep(chance.choice([0, 0.05]))
                origin.start()
            else:
                (to_front if kind == "cut client" else to_origin).cut()
            time.sleep(chance.uniform(0, 0.05))
            rest(writers)
            journal.counts[kind] += 1
            _look(Address(path=str(front.path)), journal, f"kill {kill} ({kind})")
            if journal.wrong:
                break
    return {
        "kills": sum(journal.counts[kind] for kind in KINDS),
        **{key: journal.counts[key] for key in sorted(journal.counts)},
        "seconds": round(time.monotonic() - began, 1),
        "seed": seed,
        "wrong": journal.wrong[:10],
    }


def _look(address: Address, journal: Journal, when: str) -> None:
    room = memoryview(bytearray(BLOCK))
    with Client(address) as client:
        for block in range(len(journal.blocks)):
            client.read_into(block * BLOCK, room)
            journal.check(block, room, when)


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    result = play(options.kills, options.seed)
    print(json.dumps(result, indent=2))
    return 1 if result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
