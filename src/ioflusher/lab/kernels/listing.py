"""What `ioflusher lab kernels` lists: what is known, and what is here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ioflusher.lab.kernels.cache import Kernel, cached_kernels, installed_kernels, kernel_origin
from ioflusher.lab.kernels.releases import matches
from ioflusher.lab.kernels.series import KERNEL_SERIES


@dataclass(frozen=True, slots=True)
class ListedKernel:
    """A line of the list.

    Attributes:
        series: what --kernel takes.
        release: what uname -r says; for one that is not here, a pattern.
        origin: where it comes from.
        here: "cached", "installed" (in /boot), or "" for one that is not here.
        good_for: what the lab has it for; empty for one that no series of the table is about.
    """

    series: str
    release: str
    origin: str
    here: str
    good_for: str


def list_kernels(cache: Path) -> tuple[ListedKernel, ...]:
    """Every series of the table with its kernels that are here, then all others that are here."""
    cached = [(kernel, "cached", _origin(kernel)) for kernel in cached_kernels(cache)]
    installed = [(kernel, "installed", "this machine's /boot") for kernel in installed_kernels()]
    return _list((*cached, *installed))


def _list(here: Sequence[tuple[Kernel, str, str]]) -> tuple[ListedKernel, ...]:
    lines = []
    listed = set()
    for row in KERNEL_SERIES.values():
        found = [entry for entry in here if _belongs(entry[0], row.series)]
        listed |= {kernel.image for kernel, _, _ in found}
        lines += [ListedKernel(row.series, k.release, origin, how, row.good_for) for k, how, origin in found]
        if not found:
            lines.append(ListedKernel(row.series, row.releases, row.suite.title, "", row.good_for))
    others = (entry for entry in here if entry[0].image not in listed)
    lines += [ListedKernel(k.release, k.release, origin, how, "") for k, how, origin in others]
    return tuple(lines)


def _belongs(kernel: Kernel, series: str) -> bool:
    origin = kernel_origin(kernel)
    return origin.series == series if origin else matches(kernel.release, series)


def _origin(kernel: Kernel) -> str:
    origin = kernel_origin(kernel)
    return origin.lists if origin else "unknown"
