"""Inside the guest: the programs that use the device, and those that only need memory.

Each says its reports (`ioflusher.lab.messages`) on standard output. They are written out here, because these
programs run without site packages, and load no more than they need: they start sooner in a guest under
emulation, where json and typing take as long as all the rest of Python; the observer checks each report.
What is written is a function of its place, so that reading it back tells whether anything was lost, mixed up
or stale.
"""

from __future__ import annotations

import mmap
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

PAGE = mmap.PAGESIZE
READ_CHUNK = 1 << 20
# odd, so that no two numbers below 2**512 have the same product modulo that, and without long runs of zeroes
FACTOR = 3**323
LONGEST_SAID = 2000  # characters of what a program printed


def say(event: str, **fields: Any) -> None:
    """One report to the observer."""
    import json

    os.write(1, json.dumps({"event": event, **fields}).encode() + b"\n")


def say_ready() -> None:
    """Tell that all is set up."""
    os.write(1, b'{"event": "work-ready"}\n')


def ready() -> None:
    """Tell that all is set up, and wait for the word to begin."""
    say_ready()
    sys.stdin.readline()


def pattern(number: int, size: int) -> bytes:
    """Content of chunk `number`: 64 bytes that differ from chunk to chunk, repeated."""
    block = ((number + 1) * FACTOR % (1 << 512)).to_bytes(64, "little")
    return (block * -(-size // len(block)))[:size]


def pieces(size: int, chunk: int) -> list[tuple[int, int]]:
    """Place and length of each chunk of `size` bytes; the last one may be shorter."""
    return [(at, min(chunk, size - at)) for at in range(0, size, chunk)]


def anonymous(order: dict[str, Any]) -> None:
    """Fill memory, then read it all back: what did not fit went through swap and returns."""
    size, pause, passes = order["size"], order["pause_s"], order["passes"]
    chunks = pieces(size, order["chunk"])
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    ready()
    first = 0
    for turn in range(passes):
        first = turn * len(chunks)
        for number, (at, length) in enumerate(chunks, first):
            memory[at : at + length] = pattern(number, length)
            time.sleep(pause)
    say("work-written", written_bytes=size * passes)
    wrong = wrong_chunks((memory[at : at + length] for at, length in chunks), first)
    say("work-verified", verified_bytes=size, wrong_chunks=wrong)


def files(order: dict[str, Any]) -> None:
    """Write files, sync them, have the file system looked through, and read them back from the device."""
    play_files(order, file_plan(order["directory"], order["size"], order["file_size"], order["chunk"]))


def small_files(order: dict[str, Any]) -> None:
    """The same with many small files, `per_directory` in a directory: what costs memory is the inodes."""
    plan = small_file_plan(order["directory"], order["size"], order["file_size"], order["per_directory"])
    play_files(order, plan)


def play_files(order: dict[str, Any], plan: list[tuple[str, list[int]]]) -> None:
    """Write the plan's files, and read them back from the device."""
    ready()
    passes, chunks = order["passes"], sum(len(lengths) for _, lengths in plan)
    for turn in range(passes):
        write_files(plan, order["pause_s"], turn * chunks)
    os.sync()
    say("work-written", written_bytes=order["size"] * passes)
    look_through(order["look_through"])
    wrong = wrong_chunks(read_files(plan), (passes - 1) * chunks)
    say("work-verified", verified_bytes=order["size"], wrong_chunks=wrong)


def look_through(commands: dict[str, list[str]] | None) -> None:
    """Unmount the file system, have it looked through and mount it again, and say what was found.

    Unmounting empties the page cache of it, so that everything comes from the device again; without that the
    page cache is dropped.
    """
    if commands is None:
        drop_caches()
        return
    checked = {"command": " ".join(commands["check"])}
    status, said = run(commands["unmount"])
    if status:
        say("file-system-checked", check={**checked, "clean": None, "said": f"it was not unmounted: {said}"})
        drop_caches()
        return
    status, said = run(commands["check"])
    # e2fsck has 4 for errors that it left, the others have 1; all else says that it could not look
    clean = True if status == 0 else False if status == 1 or (status & 4 and status < 126) else None
    status, why = run(commands["mount"])
    if status:
        clean, said = False, f"{said}\nit cannot be mounted again: {why}"
    say("file-system-checked", check={**checked, "clean": clean, "said": said[-LONGEST_SAID:]})
    if status:
        sys.exit(1)


def drop_caches() -> None:
    """Have what is read come from the device again."""
    with open("/proc/sys/vm/drop_caches", "w") as drop:
        drop.write("3")


def run(argv: list[str]) -> tuple[int, str]:
    """Run a command; its status, or that of a shell where it does not start, and what it printed."""
    import subprocess  # only now: every import costs a guest under emulation

    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
    except OSError as error:
        return 127, f"{argv[0]}: {error.strerror}"
    return done.returncode % 256, done.stdout.decode("utf-8", "backslashreplace").strip()


def file_plan(directory: str, size: int, file_size: int, chunk: int) -> list[tuple[str, list[int]]]:
    """Each file's path with the lengths of its chunks; `size` bytes in files of `file_size` at most."""
    return [
        (os.path.join(directory, f"file{number}"), [length for _, length in pieces(whole, chunk)])
        for number, (_, whole) in enumerate(pieces(size, file_size))
    ]


def small_file_plan(
    directory: str, size: int, file_size: int, per_directory: int
) -> list[tuple[str, list[int]]]:
    """Each file's path with its length as the one chunk; `size` bytes in files of `file_size` at most."""
    return [
        (os.path.join(directory, f"directory{number // per_directory}", f"file{number}"), [length])
        for number, (_, length) in enumerate(pieces(size, file_size))
    ]


def write_files(plan: list[tuple[str, list[int]]], pause_s: float, first: int = 0) -> None:
    """Write every chunk of every file, numbered through from `first`; over what is there already.

    A directory is made when its first file is.
    """
    number = first
    made = ""
    for path, lengths in plan:
        directory = os.path.dirname(path)
        if directory != made:
            os.makedirs(directory, exist_ok=True)
            made = directory
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666), "wb", buffering=0) as file:
            for length in lengths:
                file.write(pattern(number, length))
                number += 1
                if pause_s:
                    time.sleep(pause_s)


def read_files(plan: list[tuple[str, list[int]]]) -> Iterator[bytes]:
    """Every chunk of every file as it is now; one that is cut off is shorter."""
    for path, lengths in plan:
        with open(path, "rb", buffering=0) as file:
            for length in lengths:
                yield file.read(length).ljust(length, b"\0")


def wrong_chunks(chunks: Iterable[bytes], first: int = 0) -> int:
    """How many of the chunks, numbered from `first`, are not as they were written."""
    return sum(chunk != pattern(number, len(chunk)) for number, chunk in enumerate(chunks, first))


def touch(size: int) -> None:
    """Write to every page of so much memory, over and over."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    ready()
    turn = 0
    while True:
        turn = (turn + 1) % 256
        for at in range(0, size, PAGE):
            memory[at] = turn


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
                say_ready()


if __name__ == "__main__":
    verb, argument = sys.argv[1:]
    if verb == "read":
        read(argument)
    elif verb == "touch":
        touch(int(argument))
    else:
        import json

        {"anonymous": anonymous, "files": files, "small-files": small_files}[verb](json.loads(argument))
