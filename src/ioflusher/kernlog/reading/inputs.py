"""Where logs come from: files (compressed or not), standard input, the kernel's ring buffer, the journal."""

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ioflusher.kernlog.errors import LogUnreadableError
from ioflusher.kernlog.reading.scan import Readable

KMSG = Path("/dev/kmsg")
_LONGEST_MAGIC = 6


@contextlib.contextmanager
def opened(name: str) -> Iterator[Readable]:
    """A log by name, decompressed: a path, or "-" for standard input.

    Raises:
        LogUnreadableError: it is missing, a directory, not permitted, damaged, or a program is missing;
            also while it is read inside the `with`.
    """
    with reading(name), contextlib.ExitStack() as stack:
        raw = stack.enter_context(
            open(sys.stdin.fileno() if name == "-" else name, "rb", 0, closefd=name != "-")
        )
        yield stack.enter_context(_decompressed(raw, name))


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what the system says while the log `name` is read into `LogUnreadableError`."""
    try:
        yield
    except OSError as error:
        raise LogUnreadableError(
            f"cannot read {name}: {error.strerror or error}",
            errno=error.errno,
            hint="give the name of a log file, or - for standard input",
        ) from error


@contextlib.contextmanager
def _decompressed(raw: io.FileIO, name: str) -> Iterator[Readable]:
    head = b""
    while len(head) < _LONGEST_MAGIC and (more := raw.read(_LONGEST_MAGIC - len(head))):
        head += more
    source = _Rejoined(head, raw)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        yield _Utf16(source)
        return
    if head.isascii() and not head.startswith(b"BZh"):
        yield source
        return
    from ioflusher.kernlog.reading.packed import MAGICS, unpacked

    magic = next((magic for magic in MAGICS if head.startswith(magic)), None)
    if magic is None:
        yield source
        return
    with unpacked(magic, source, raw, name) as contents:
        yield contents


class _Utf16:
    """A text that Windows wrote, as bytes of UTF-8; what is no UTF-16 becomes question marks."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._decoder = codecs.getincrementaldecoder("utf-16")("replace")
        self._rest = b""

    def readinto(self, buffer: memoryview, /) -> int:
        """The next piece; 0 at the end."""
        piece = bytearray(65536)
        while not self._rest and (size := self._source.readinto(memoryview(piece))):
            self._rest = self._decoder.decode(piece[:size]).encode("utf-8", "replace")
        given = self._rest[: len(buffer)]
        buffer[: len(given)] = given
        self._rest = self._rest[len(given) :]
        return len(given)


class _Rejoined(io.RawIOBase):
    """A stream of which the first bytes have been read already."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        super().__init__()
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        """Always true: it was opened for reading."""
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        """The kept bytes first, then the stream's own."""
        part = self._head[: len(buffer)]
        if not part:
            return self._rest.readinto(buffer)
        buffer[: len(part)] = part
        self._head = self._head[len(part) :]
        return len(part)


def kernel_ring_buffer(path: Path = KMSG) -> bytes:
    """Everything the kernel still holds of its own log, in /dev/kmsg's form, at most some MiB.

    Raises:
        LogUnreadableError: not permitted (kernel.dmesg_restrict), or no such device.
    """
    records = []
    with reading(str(path)):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            while True:
                try:
                    records.append(os.read(descriptor, 8192))
                except BlockingIOError:
                    break
                except BrokenPipeError:
                    continue  # records were overwritten before they were read
                if not records[-1]:
                    break
        finally:
            os.close(descriptor)
    return b"".join(records)


@contextlib.contextmanager
def journal(boot: str | None = None) -> Iterator[Readable]:
    """The kernel's messages in systemd's journal; `boot` as journalctl's --boot takes it, None for this boot.

    Raises:
        LogUnreadableError: journalctl is missing or failed.
    """
    import shutil
    import subprocess

    program = shutil.which("journalctl")
    if program is None:
        raise LogUnreadableError(
            "cannot read the journal: the program journalctl was not found",
            hint="copy the journal's text from the machine: journalctl --dmesg --boot N > FILE",
        )
    command = [program, "--dmesg", "--no-pager", "--output=short-monotonic", f"--boot={boot or 0}"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_plain_environment(),
    )
    assert process.stdout
    assert process.stderr
    try:
        yield io.FileIO(process.stdout.fileno(), closefd=False)
        said = process.stderr.read(4096).decode("utf-8", "replace").strip()
        if process.wait(timeout=60):
            raise LogUnreadableError(f"cannot read the journal: {said}", hint="see journalctl --list-boots")
    finally:
        process.kill()
        process.stdout.close()
        process.stderr.close()
        process.wait()


def _plain_environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"}
