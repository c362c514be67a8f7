"""Compressed logs. Loaded only when one is met, since the packers' modules take a while in a slow guest."""

import bz2
import contextlib
import gzip
import io
import lzma
import shutil
import subprocess
import zlib
from collections.abc import Iterator

from ioflusher.kernlog.errors import LogUnreadableError
from ioflusher.kernlog.reading.scan import Readable

DAMAGED = "it is damaged or cut short: what came before the damage was read"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# the first bytes tell the format; names are not asked
MAGICS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", ZSTD_MAGIC)


@contextlib.contextmanager
def unpacked(magic: bytes, source: io.RawIOBase, raw: io.FileIO, name: str) -> Iterator[Readable]:
    """The contents of a compressed log.

    Args:
        magic: which of `MAGICS` it begins with.
        source: the log from its first byte.
        raw: the file below it.
        name: what messages call it.

    Raises:
        LogUnreadableError: damaged, or zstd's program is missing; also while it is read inside the `with`.
    """
    if magic == ZSTD_MAGIC:
        with _zstd(raw, name) as stream:
            yield stream
        return
    packed = io.BufferedReader(source)
    try:
        match magic:
            case b"BZh":
                with bz2.BZ2File(packed) as contents:
                    yield _Piecewise(contents)
            case b"\xfd7zXZ\x00":
                with lzma.LZMAFile(packed) as contents:
                    yield _Piecewise(contents)
            case _:
                with gzip.GzipFile(fileobj=packed) as contents:
                    yield _Piecewise(contents)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise LogUnreadableError(f"cannot read {name} to its end: {error}", hint=DAMAGED) from error
    except OSError as error:
        if error.errno is not None:
            raise
        # bz2 says so of damaged data
        raise LogUnreadableError(f"cannot read {name} to its end: {error}", hint=DAMAGED) from error


class _Piecewise:
    """Gives out what is unpacked at once; a whole buffer's worth would be lost to damage in its middle."""

    def __init__(self, contents: "gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile") -> None:
        self._contents = contents

    def readinto(self, buffer: memoryview, /) -> int:
        """The next piece; 0 at the end."""
        piece = self._contents.read1(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


@contextlib.contextmanager
def _zstd(raw: io.FileIO, name: str) -> Iterator[Readable]:
    # Python's library has zstd from 3.14 on only; where such files are made the program is at hand
    program = shutil.which("zstd")
    if program is None or not raw.seekable():
        reason = "the program zstd was not found" if program is None else "it is no file"
        raise LogUnreadableError(
            f"cannot read {name}: it is compressed with zstd, and {reason}",
            hint="pass it through zstd first: zstd -dc FILE | ioflusher diagnose -",
        )
    raw.seek(0)
    command = [program, "--decompress", "--stdout", "--quiet"]
    process = subprocess.Popen(command, stdin=raw, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    try:
        yield io.FileIO(process.stdout.fileno(), closefd=False)
        # its output was read to the end, so it ends by itself
        if process.wait(timeout=60):
            raise LogUnreadableError(f"cannot read {name} to its end: zstd failed", hint=DAMAGED)
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
