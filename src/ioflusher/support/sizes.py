"""Sizes in bytes as people write and read them: 512K, 768M, 64MiB; powers of 1024."""

import re

from ioflusher.errors import IoflusherError

# one letter is one more power of 1024
_PREFIXES = "KMGT"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
# 20 digits are more than any file or memory has bytes
_SIZE = re.compile(rf"([0-9]{{1,20}})\s*(?:([{_PREFIXES}])(?:I?B)?|B)?", re.IGNORECASE)


class SizeError(IoflusherError):
    """A text is no size."""


def parse_size(text: str) -> int:
    """Bytes of a size: a whole number, alone or with K, M, G or T, which "B" or "iB" may follow.

    "64M", "64MB", "64MiB" and "64 mib" are all 64 * 1024 * 1024.

    Raises:
        SizeError: for anything else.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise SizeError(
            f"not a size: {text[:60]!r}",
            hint="write a whole number of bytes, or one with K, M, G or T: 4096, 768M, 64MiB",
        )
    return int(match[1]) << 10 * (_PREFIXES.index(match[2].upper()) + 1 if match[2] else 0)


def format_size(size: float) -> str:
    """A number of bytes for people, four digits of it: "512 B", "1.5 KiB", "256 MiB"."""
    value = float(size)
    for unit in _UNITS[:-1]:
        if abs(value) < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} {_UNITS[-1]}"
