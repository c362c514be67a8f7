"""The machine's memory: the text of /proc/meminfo (fs/proc/meminfo.c)."""

import re
from dataclasses import dataclass

_LINE = re.compile(rb"^([A-Za-z_()0-9]+):\s+(\d+) kB$", re.MULTILINE)


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


def meminfo_lines(text: bytes) -> dict[str, int]:
    """Every line that is a size, by the kernel's own name: "MemFree", "Inactive(file)"; values in KiB.

    Counts of huge pages (HugePages_Total and its like) are no sizes and left out.
    """
    return {name.decode("ascii"): int(value) for name, value in _LINE.findall(text)}


def parse_meminfo(text: bytes) -> MemInfo:
    """The record in the text of /proc/meminfo; lines that are not there are None."""
    lines = meminfo_lines(text)
    return MemInfo(
        total_kib=lines.get("MemTotal"),
        free_kib=lines.get("MemFree"),
        available_kib=lines.get("MemAvailable"),
        swap_total_kib=lines.get("SwapTotal"),
        swap_free_kib=lines.get("SwapFree"),
        dirty_kib=lines.get("Dirty"),
        writeback_kib=lines.get("Writeback"),
    )
