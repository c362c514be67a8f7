"""Fetching a kernel: from the packages of a distribution into the cache, without root."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from ioflusher.lab.errors import LabError
from ioflusher.lab.kernels.apt import MIRROR_VARIABLE, OWN_LISTS, Apt, lists_of
from ioflusher.lab.kernels.cache import (
    NEW_PREFIX,
    Kernel,
    KernelOrigin,
    cached_kernel,
    cached_kernels,
    write_origin,
)
from ioflusher.lab.kernels.series import KERNEL_SERIES, KernelSeries, series_for
from ioflusher.support.programs import ProgramError, find_program, run
from ioflusher.support.sizes import format_size
from ioflusher.support.temporary import OwnedDirectory, sweep

Progress = Callable[[str], None]


def fetch_kernel(wanted: str, cache: Path, progress: Progress, *, mirror: str | None = None) -> Kernel:
    """Fetch the newest kernel of a series, or the one of a release; needs no root.

    It is looked for in this machine's own package lists, then in those of the suite that is known to have it.
    One that is in the cache already is not downloaded again.

    Args:
        wanted: a series of `KERNEL_SERIES`, or a release or its beginning.
        cache: where it is kept.
        progress: is told what is going on.
        mirror: URI below which the archives lie; None: $IOFLUSHER_MIRROR, else this machine's sources.

    Raises:
        LabError: with what is missing and how else to give it.
    """
    row = series_for(wanted)
    depmod = find_program("depmod", package="kmod", installer="ioflusher lab setup")
    try:
        with _lists_with(row, wanted, progress, mirror or os.environ.get(MIRROR_VARIABLE)) as (apt, release):
            origin = KernelOrigin(row.series, apt.origin)
            if any(kernel.release == release for kernel in cached_kernels(cache)):
                write_origin(cache / "kernels" / release, origin)
                return cached_kernel(cache, release)
            return _fetch(apt, row, release, cache, origin, depmod, progress)
    except ProgramError as error:
        raise LabError(
            f"the packages of kernel {wanted} cannot be had: {error}",
            hint=error.hint or "where the lists are old, `apt-get update` as root; else try again later",
        ) from error


@contextlib.contextmanager
def _lists_with(
    row: KernelSeries, wanted: str, progress: Progress, mirror: str | None
) -> Iterator[tuple[Apt, str]]:
    """The package lists that have the kernel, and its release."""
    pattern = "^" + re.escape(row.packages[0].partition("{")[0])
    if row.own_lists and not mirror:
        release = row.newest(OWN_LISTS.names(pattern), wanted)
        if release is not None:
            yield OWN_LISTS, release
            return
    progress(f"fetching the package lists of {row.suite.title}")
    with lists_of(row.suite, mirror) as apt:
        release = row.newest(apt.names(pattern), wanted)
        if release is None:
            places = [row.suite.title]
            if row.own_lists and not mirror:
                places.insert(0, OWN_LISTS.origin)
            raise LabError(
                f"no kernel {wanted} ({row.packages[0].format(release=row.releases)}) "
                f"in {' or in '.join(places)}",
                hint=f"known are {', '.join(KERNEL_SERIES)}; "
                "or give a bzImage with --kernel FILE, its modules beside it in lib/modules/RELEASE",
            )
        yield apt, release


def _fetch(
    apt: Apt,
    row: KernelSeries,
    release: str,
    cache: Path,
    origin: KernelOrigin,
    depmod: str,
    progress: Progress,
) -> Kernel:
    parent = cache / "kernels"
    target = cached_kernel(cache, release)
    first, *further = (package.format(release=release) for package in row.packages)
    packages = [first, *(package for package in further if package in apt.names(f"^{re.escape(package)}$"))]
    try:
        parent.mkdir(parents=True, exist_ok=True)
        sweep(NEW_PREFIX, parent)
        with OwnedDirectory(NEW_PREFIX, parent) as owned:
            work = owned.path
            for number, package in enumerate(packages, 1):
                count = f"{number} of {len(packages)}, " if len(packages) > 1 else ""
                progress(f"downloading {package} ({count}{format_size(apt.size_bytes(package))})")
                apt.unpack(package, work)
            progress(f"unpacking Linux {release}")
            new = _arranged(work, release)
            run([depmod, "-b", str(new), release], deadline_s=120)
            write_origin(new, origin)
            if not target.image.exists():  # else another process was quicker
                new.rename(target.image.parent)
    except OSError as error:
        raise LabError(
            f"the kernel package {first} could not be unpacked into {parent}: {error}",
            errno=error.errno,
            hint="check the free space there, or set XDG_CACHE_HOME to another place",
        ) from error
    return target


def _arranged(work: Path, release: str) -> Path:
    """A kernel's directory as the cache has it, of the files of unpacked packages.

    Packages have the modules in /lib or in /usr/lib; the image in /boot, or since 6.19 beside the modules.
    """
    modules = [work / "lib/modules" / release, work / "usr/lib/modules" / release]
    images = [work / "boot" / f"vmlinuz-{release}", *(place / "vmlinuz" for place in modules)]
    new = work / "new"
    (new / "lib" / "modules").mkdir(parents=True)
    _first(images, "image", release).rename(new / "vmlinuz")
    _first([place for place in modules if (place / "kernel").is_dir()], "modules", release).rename(
        new / "lib" / "modules" / release
    )
    return new


def _first(places: list[Path], what: str, release: str) -> Path:
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise LabError(f"the packages of kernel {release} hold no {what} where it is expected")
    return found
