"""Damaged conversations for the whole server: handshake and requests, on a socket, as clients send them.

    python -m tests.nbd.fuzz_server --inputs 1000000 [--seed N]

They begin as what nbdkit gives its fuzzer (client flags; EXPORT_NAME or GO; READs, a WRITE), and as what goes
beyond it: metadata contexts, structured replies, extended headers, block status, resizing, every flag. Then
bytes are put in, cut out and changed. Invariant: the server reads to the end or hangs up, no thread of it
fails, what it sends ends, the next client is served, and its memory does not grow. Prints the seed of a
failure.
"""

import argparse
import logging
import random
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.nbd.fuzz_handshake import damage, number

from ioflusher.nbd.address import Address
from ioflusher.nbd.backends import Backend, FileBackend, MemoryBackend
from ioflusher.nbd.client import Client
from ioflusher.nbd.protocol.exports import ExportQuery
from ioflusher.nbd.protocol.messages import ClientFlags, Option, Request
from ioflusher.nbd.protocol.metadata import MetaQuery, StatusQuery
from ioflusher.nbd.protocol.wire import Cmd, CmdFlag, Opt
from ioflusher.nbd.server import Server

SIZE = 1 << 20
DEADLINE = 30.0  # seconds for any one conversation
FLAGS = ClientFlags(3).pack()
GO = Option(Opt.GO, ExportQuery("").pack()).pack()
READ = Request(Cmd.READ, 0, 0, 0, 512).pack()
WRITE = Request(Cmd.WRITE, 0, 0, 0, 16).pack() + b"0123456789abcdef"
STRUCTURED = Option(Opt.STRUCTURED_REPLY, b"").pack()
CONTEXT = Option(Opt.SET_META_CONTEXT, MetaQuery("", ("base:allocation",)).pack()).pack()

SEEDS = {
    "flags": FLAGS,
    "export name": FLAGS + Option(Opt.EXPORT_NAME, b"/").pack(),
    "export name, 4 reads": FLAGS + Option(Opt.EXPORT_NAME, b"/").pack() + READ * 4,
    "go": FLAGS + GO,
    "go, read": FLAGS + GO + READ,
    "go, 4 reads": FLAGS + GO + READ * 4,
    "go, write": FLAGS + GO + WRITE,
    "all commands": FLAGS
    + STRUCTURED
    + CONTEXT
    + GO
    + b"".join(
        Request(command, flags, 7, 4096, 8192).pack() + bytes(8192 * (command == Cmd.WRITE))
        for command in Cmd
        for flags in (0, *CmdFlag)
        if command != Cmd.DISC
    ),
    "lists": FLAGS
    + Option(Opt.LIST, b"").pack()
    + Option(Opt.INFO, ExportQuery("disk", (0, 1, 2, 3)).pack()).pack()
    + Option(Opt.LIST_META_CONTEXT, MetaQuery("disk", ("base:",)).pack()).pack()
    + Option(Opt.ABORT, b"").pack(),
}


NAMES = ("", "disk", "waits")
EXTENDED = Option(Opt.EXTENDED_HEADERS, b"").pack()
COMMANDS = (*map(int, Cmd), 4, 99)
CMD_FLAGS = (0, *map(int, CmdFlag), 0xFFFF)


def _context(name: str) -> bytes:
    return Option(Opt.SET_META_CONTEXT, MetaQuery(name, ("base:allocation",)).pack()).pack()


def _request(dice: random.Random, extended: bool) -> bytes:
    command, flags = dice.choice(COMMANDS), dice.choice(CMD_FLAGS)
    length = dice.choice([0, 1, 512, 4096, 70_000, SIZE, SIZE + 1, (1 << 32) - 1])
    offset = dice.choice([0, 1, 511, SIZE - 1, SIZE, (1 << 64) - 1])
    payload = b""
    if extended and command == Cmd.BLOCK_STATUS and flags & CmdFlag.PAYLOAD_LEN:
        payload = StatusQuery(length, (dice.randrange(3),)).pack()
        length = len(payload)
    elif command == Cmd.WRITE:
        payload = dice.randbytes(min(length, dice.choice([0, 4096, SIZE])))
    return Request(command, flags, dice.getrandbits(64), offset, length).pack(extended=extended) + payload


def conversation(dice: random.Random) -> bytes:
    """What a client that is mad or malicious sends."""
    data = dice.choice(list(SEEDS.values()))
    if dice.random() < 0.7:
        name, extended = dice.choice(NAMES), dice.random() < 0.4
        data = FLAGS + (EXTENDED if extended else dice.choice([b"", STRUCTURED]))
        data += dice.choice([b"", _context(name)]) + Option(Opt.GO, ExportQuery(name).pack()).pack()
        data += b"".join(_request(dice, extended) for _ in range(dice.randrange(12)))
    if dice.random() < 0.2:
        data = number(dice, 4) + data[4:]
    return damage(dice, data)


def say(address: Address, data: bytes) -> int:
    """Have a conversation, all of it said before anything is heard; how many bytes were heard.

    Raises:
        TimeoutError: the server neither answers nor hangs up.
    """
    heard = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(address.path or "")
        teller = threading.Thread(target=_tell, args=(sock, data), daemon=True)
        if len(data) > 100_000:  # more than the socket holds: somebody must listen meanwhile
            teller.start()
        else:
            _tell(sock, data)
        with suppress(ConnectionResetError):
            while more := len(sock.recv(1 << 20)):
                heard += more
    if teller.ident is not None:
        teller.join(DEADLINE)
    return heard


class Mistakes(logging.Handler):
    """What threads failed with, those that catch it and log it among them."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[object] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record.exc_info[1] if record.exc_info else record.getMessage())

    def __enter__(self) -> "Mistakes":
        self._before, threading.excepthook = threading.excepthook, self.found.append
        logging.getLogger("ioflusher.nbd").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("ioflusher.nbd").removeHandler(self)
        threading.excepthook = self._before


def _tell(sock: socket.socket, data: bytes) -> None:
    with suppress(BrokenPipeError, ConnectionResetError, OSError):
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)


@contextmanager
def served() -> Iterator[tuple[Address, list[object]]]:
    """A server of memory and of two files, one of which waits, and what its threads failed with."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        # who may resize files may not fill the disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 * SIZE, limits[1]))
        with Mistakes() as mistakes, TemporaryDirectory() as place:
            images = [Path(place) / name for name in NAMES[1:]]
            for image in images:
                with image.open("wb") as file:
                    file.truncate(SIZE)
            memory: Backend = MemoryBackend(SIZE)
            with memory, FileBackend(images[0]) as disk, FileBackend(images[1]) as waiting:
                waiting.waits = True
                with Server(memory, max_payload=SIZE, extended_headers=True, resize=True) as server:
                    server.add_export("disk", disk)
                    server.add_export("waits", waiting)
                    address = server.listen_unix(str(Path(place) / "s"))
                    server.start()
                    yield address, mistakes.found
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def fuzz(inputs: int, seed: int) -> int:
    """So many conversations; how many KiB the process has grown in the second half of them.

    Raises:
        AssertionError, TimeoutError: what breaks the invariant, with the input's seed.
    """
    at_half = 0
    with served() as (address, failed):
        for here in range(seed, seed + inputs):
            if here == seed + inputs // 2:
                at_half = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            try:
                say(address, conversation(random.Random(here)))
                assert not failed, failed[0]
            except BaseException as error:
                error.add_note(f"input of seed {here}")
                raise
        with Client(address) as client:
            client.write(0, memoryview(b"still here"))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - at_half


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begin = time.monotonic()
    grown = fuzz(options.inputs, options.seed)
    print(f"{options.inputs} inputs in {time.monotonic() - begin:.0f} s, {grown} KiB more in the second half")
