"""Sizes as people write them: 512K, 768M, 1G (powers of 1024)."""

import re

from ioflusher.lab.errors import LabError

_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(text: str) -> int:
    """Bytes of a size such as "768M"; raises LabError for anything else."""
    match = re.fullmatch(r"(\d+)\s*([KMGT]?)(i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise LabError(f"not a size: {text!r}", hint="write a number with K, M or G, for example 768M")
    return int(match[1]) * _FACTORS[match[2].upper()]


def format_size(count: float) -> str:
    """A number of bytes for people: 1.5 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")
