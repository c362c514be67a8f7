"""Inside the guest: the programs that use the device, and those that only need memory.

Each says lines of JSON on standard output. What is written is a function of its place, so that reading it
back tells whether anything was lost, mixed up or stale.
"""

import hashlib
import json
import mmap
import os
import sys
import time
from typing import Any

PAGE = mmap.PAGESIZE
READ_CHUNK = 1 << 20


def say(**report: Any) -> None:
    """One line to the observer."""
    os.write(1, json.dumps(report).encode() + b"\n")


def ready() -> None:
    """Tell that all is set up, and wait for the word to begin."""
    say(ready=True)
    sys.stdin.readline()


def pattern(number: int, size: int) -> bytes:
    """Content of chunk `number`: 64 bytes that differ from chunk to chunk, repeated."""
    block = hashlib.sha512(number.to_bytes(8, "little")).digest()
    return (block * -(-size // len(block)))[:size]


def pieces(size: int, chunk: int) -> list[tuple[int, int]]:
    """Place and length of each chunk of `size` bytes; the last one may be shorter."""
    return [(at, min(chunk, size - at)) for at in range(0, size, chunk)]


def anonymous(order: dict[str, Any]) -> None:
    """Fill memory once, then read it all back: what did not fit went through swap and returns."""
    size, pause = order["size"], order["pause_s"]
    chunks = pieces(size, order["chunk"])
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    ready()
    for number, (at, length) in enumerate(chunks):
        memory[at : at + length] = pattern(number, length)
        time.sleep(pause)
    say(phase="written", bytes=size)
    wrong = sum(
        memory[at : at + length] != pattern(number, length) for number, (at, length) in enumerate(chunks)
    )
    say(phase="verified", bytes=size, wrong_chunks=wrong)


def files(order: dict[str, Any]) -> None:
    """Write files, sync them, drop the page cache, and read them back from the device."""
    size, directory, chunk = order["size"], order["directory"], order["chunk"]
    plan = [
        (os.path.join(directory, f"file{n}"), [length for _, length in pieces(whole, chunk)])
        for n, (_, whole) in enumerate(pieces(size, order["file_size"]))
    ]
    ready()
    number = 0
    for path, lengths in plan:
        with open(path, "wb", buffering=0) as file:
            for length in lengths:
                file.write(pattern(number, length))
                number += 1
                if order["pause_s"]:
                    time.sleep(order["pause_s"])
    os.sync()
    say(phase="written", bytes=size)
    with open("/proc/sys/vm/drop_caches", "w") as drop:
        drop.write("3")
    wrong = number = 0
    for path, lengths in plan:
        with open(path, "rb", buffering=0) as file:
            for length in lengths:
                wrong += file.read(length) != pattern(number, length)
                number += 1
    say(phase="verified", bytes=size, wrong_chunks=wrong)


def read(path: str) -> None:
    """Read a disk from beginning to end, over and over: clean page cache that reclaim may drop.

    The second pass makes the pages active (mm/workingset.c), so that reclaim weighs them against anonymous
    memory instead of dropping them first. Only then the reader is ready.
    """
    buffer = memoryview(bytearray(READ_CHUNK))
    passes = 0
    with open(path, "rb", buffering=0) as disk:
        while True:
            while disk.readinto(buffer):
                pass
            disk.seek(0)
            passes += 1
            if passes == 2:
                say(ready=True)


if __name__ == "__main__":
    verb, argument = sys.argv[1:]
    if verb == "read":
        read(argument)
    else:
        {"anonymous": anonymous, "files": files}[verb](json.loads(argument))
