"""Pressure stall information: the text of /proc/pressure/* (Documentation/accounting/psi.rst)."""

import re
from dataclasses import dataclass

_LINE = re.compile(
    rb"^(some|full) avg10=([\d.]+) avg60=[\d.]+ avg300=[\d.]+ total=(\d+)$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class PressureLine:
    """One line: `kind` is "some" or "full", avg10 in percent, total in microseconds since boot."""

    kind: str
    avg10: float
    total_us: int


def parse_pressure(text: bytes) -> tuple[PressureLine, ...]:
    """The lines in the text of such a file, in the kernel's order."""
    return tuple(
        PressureLine(kind.decode("ascii"), float(avg10), int(total))
        for kind, avg10, total in _LINE.findall(text)
    )
