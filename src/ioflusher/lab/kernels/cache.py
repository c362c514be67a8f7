"""The kernels that are here: in the cache, in /boot, or in a file.

A kernel in the cache is a directory `kernels/RELEASE` with `vmlinuz`, `lib/modules/RELEASE` and
`origin.json`, made whole beside its place and then renamed, so that an interrupted download leaves nothing
half there.
"""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ioflusher.lab.errors import LabError
from ioflusher.lab.kernels.releases import bzimage_release, matches, version_key

ORIGIN_FILE = "origin.json"
NEW_PREFIX = ".new-"  # of directories beside the place in which something is made whole


class KernelOrigin(msgspec.Struct, frozen=True):
    """Where a kernel in the cache came from: the series asked for, and whose package lists had it."""

    series: str
    lists: str


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel that can be booted.

    Attributes:
        release: what uname -r will say.
        image: the bzImage.
        modules: the directory that holds modules.dep; it appears as /lib/modules/RELEASE in the guest.
    """

    release: str
    image: Path
    modules: Path


def cache_directory() -> Path:
    """Where kernels and probe results are kept: $XDG_CACHE_HOME/ioflusher or ~/.cache/ioflusher."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "ioflusher"


def cached_kernel(cache: Path, release: str) -> Kernel:
    """The kernel of that release in the cache, there or not."""
    directory = cache / "kernels" / release
    return Kernel(release, directory / "vmlinuz", directory / "lib" / "modules" / release)


def cached_kernels(cache: Path) -> tuple[Kernel, ...]:
    """The kernels in the cache, oldest first."""
    return _usable(cached_kernel(cache, image.parent.name) for image in (cache / "kernels").glob("*/vmlinuz"))


def installed_kernels() -> tuple[Kernel, ...]:
    """The kernels that this machine itself has installed and that may be read, oldest first."""
    return _usable(
        Kernel(release, image, Path("/lib/modules") / release)
        for image in Path("/boot").glob("vmlinuz-*")
        for release in [image.name.removeprefix("vmlinuz-")]
    )


def unpacked_at(cache: Path, kernel: Kernel) -> Path:
    """Where the kernel of that very file lies without its bzImage, if it was unpacked.

    Raises:
        OSError: the file cannot be looked at.
    """
    status = kernel.image.stat()
    return cache / "unpacked" / f"{kernel.release}-{status.st_size}-{status.st_mtime_ns}"


def kernel_origin(kernel: Kernel) -> KernelOrigin | None:
    """Where a kernel in the cache came from; None where that is not written there."""
    try:
        return msgspec.json.decode((kernel.image.parent / ORIGIN_FILE).read_bytes(), type=KernelOrigin)
    except (OSError, msgspec.DecodeError):
        return None


def write_origin(directory: Path, origin: KernelOrigin) -> None:
    """Say in a kernel's directory where it came from."""
    (directory / ORIGIN_FILE).write_bytes(msgspec.json.encode(origin) + b"\n")


def remove_cached(cache: Path, wanted: str) -> tuple[str, ...]:
    """Delete the kernels of a series or release from the cache; returns their releases.

    Raises:
        LabError: there is none, or one cannot be deleted.
    """
    kernels = cached_of(cache, wanted)
    found = [kernel.release for kernel in kernels]
    if not found:
        raise LabError(
            f"no kernel {wanted} in {cache / 'kernels'}", hint="`ioflusher lab kernels` lists what is there"
        )
    try:
        for release, kernel in zip(found, kernels, strict=True):
            unpacked_at(cache, kernel).unlink(missing_ok=True)
            shutil.rmtree(cache / "kernels" / release)
    except OSError as error:
        raise LabError(
            f"the kernel {release} cannot be removed: {error.strerror}: {error.filename}", errno=error.errno
        ) from error
    return tuple(found)


def cached_of(cache: Path, wanted: str) -> tuple[Kernel, ...]:
    """The kernels in the cache that a series or release means, oldest first."""
    return tuple(kernel for kernel in cached_kernels(cache) if _means(kernel, wanted))


def _means(kernel: Kernel, wanted: str) -> bool:
    """Whether a series or the beginning of a release means this kernel; "newest" was fetched as that."""
    origin = kernel_origin(kernel)
    return matches(kernel.release, wanted) or (origin is not None and origin.series == wanted)


def _usable(kernels: Iterable[Kernel]) -> tuple[Kernel, ...]:
    found = (k for k in kernels if (k.modules / "modules.dep").exists() and os.access(k.image, os.R_OK))
    return tuple(sorted(found, key=lambda kernel: version_key(kernel.release)))


def kernel_at(image: Path) -> Kernel:
    """The kernel in a file, with its modules beside it, one directory up, or in /lib/modules.

    Raises:
        LabError: it is none, or its modules are missing.
    """
    if not image.is_file():
        raise LabError(
            f"no kernel image at {image}", hint="--kernel takes a bzImage or a release such as 6.12"
        )
    release = bzimage_release(image.read_bytes())
    places = (image.parent / "lib/modules", image.parent.parent / "lib/modules", Path("/lib/modules"))
    for place in places:
        if (place / release / "modules.dep").exists():
            return Kernel(release, image, place / release)
    raise LabError(
        f"no modules for kernel {release} (looked in {', '.join(map(str, places))})",
        hint=f"put its modules at {places[0] / release} and run `depmod -b {image.parent} {release}`",
    )
