"""The machine's memory: the text of /proc/meminfo (fs/proc/meminfo.c)."""

import re
from dataclasses import dataclass

_LINE = re.compile(rb"^([A-Za-z]+):\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class MemInfo:
    """A few of its lines in KiB; None where the kernel does not write one."""

    total_kib: int | None = None
    free_kib: int | None = None
    available_kib: int | None = None
    swap_total_kib: int | None = None
    swap_free_kib: int | None = None
    dirty_kib: int | None = None
    writeback_kib: int | None = None


def parse_meminfo(text: bytes) -> MemInfo:
    """The record in the text of /proc/meminfo; lines that are not there are None."""
    lines = {name: int(value) for name, value in _LINE.findall(text)}
    return MemInfo(
        total_kib=lines.get(b"MemTotal"),
        free_kib=lines.get(b"MemFree"),
        available_kib=lines.get(b"MemAvailable"),
        swap_total_kib=lines.get(b"SwapTotal"),
        swap_free_kib=lines.get(b"SwapFree"),
        dirty_kib=lines.get(b"Dirty"),
        writeback_kib=lines.get(b"Writeback"),
    )
