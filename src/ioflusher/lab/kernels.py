"""Kernels to boot: from a file, from this machine's own, or from the distribution's packages cached.

A kernel in the cache is a directory `kernels/RELEASE` with `vmlinuz` and `lib/modules/RELEASE`,
made whole beside its place and then renamed, so that an interrupted download leaves nothing half there.
"""

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ioflusher.lab.errors import LabError
from ioflusher.support.programs import find_program, run

DEFAULT_SERIES = "6.12"
DOWNLOAD_DEADLINE_S = 600.0
_SERIES = re.compile(r"\d+\.\d+(\.\d+)?([-+.\w]*)")


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


def installed_kernels(cache: Path) -> tuple[Kernel, ...]:
    """The kernels in the cache and those that this machine itself has installed, oldest first."""
    found = []
    for image in (cache / "kernels").glob("*/vmlinuz"):
        release = image.parent.name
        found.append(Kernel(release, image, image.parent / "lib" / "modules" / release))
    for image in Path("/boot").glob("vmlinuz-*"):
        release = image.name.removeprefix("vmlinuz-")
        found.append(Kernel(release, image, Path("/lib/modules") / release))
    usable = (k for k in found if (k.modules / "modules.dep").exists() and os.access(k.image, os.R_OK))
    return tuple(sorted(usable, key=lambda kernel: _version_key(kernel.release)))


def find_kernel(wanted: str | None = None, *, cache: Path | None = None, download: bool = True) -> Kernel:
    """The kernel that `wanted` names, downloaded first where that is needed.

    `wanted` is a path to a bzImage (its modules must lie in ../lib/modules/RELEASE beside it or in
    /lib/modules), a release or its beginning ("6.1", "6.12.117+deb12-cloud-amd64"), or None: Debian's
    cloud kernel 6.12. Raises LabError with what to do where there is none.
    """
    cache = cache or cache_directory()
    if wanted and ("/" in wanted or Path(wanted).is_file()):
        return _kernel_at(Path(wanted))
    series = wanted or DEFAULT_SERIES
    if not _SERIES.fullmatch(series):
        raise LabError(
            f"not a kernel: {series!r}", hint="give a path to a bzImage, or a release such as 6.12 or 6.1"
        )
    matching = [k for k in installed_kernels(cache) if _matches(k.release, series)]
    if matching:
        return matching[-1]
    if not download:
        raise LabError(f"no kernel {series} in {cache}", hint="run `ioflusher lab setup`")
    return download_kernel(series, cache)


def download_kernel(series: str, cache: Path) -> Kernel:
    """Fetch the newest cloud kernel of the series from the distribution's packages; needs no root."""
    package = _newest_package(series)
    depmod = find_program("depmod", package="kmod", installer="ioflusher lab setup")
    target_parent = cache / "kernels"
    try:
        target_parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=target_parent) as name:
            work = Path(name)
            unpack_package(package, work)
            image = next((work / "boot").glob("vmlinuz-*"))
            release = image.name.removeprefix("vmlinuz-")
            # on merged-usr systems the package may say usr/lib
            modules = next(p for p in (work / "lib/modules", work / "usr/lib/modules") if p.is_dir())
            new = work / "new"
            (new / "lib").mkdir(parents=True)
            modules.rename(new / "lib" / "modules")
            image.rename(new / "vmlinuz")
            run([depmod, "-b", str(new), release], deadline_s=120)
            target = target_parent / release
            shutil.rmtree(target, ignore_errors=True)
            new.rename(target)
    except (OSError, StopIteration) as error:
        raise LabError(
            f"the kernel package {package} could not be unpacked into {target_parent}: {error}",
            errno=getattr(error, "errno", None),
            hint="check the free space there, or set XDG_CACHE_HOME to another place",
        ) from error
    return Kernel(release, target / "vmlinuz", target / "lib" / "modules" / release)


def busybox(cache: Path | None = None) -> Path:
    """A static busybox for the first process of a guest: this machine's, or from the packages."""
    cache = cache or cache_directory()
    for candidate in (cache / "busybox", Path("/bin/busybox"), Path("/usr/bin/busybox")):
        if candidate.is_file() and is_static(candidate.read_bytes()):
            return candidate
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=cache) as name:
            work = Path(name)
            unpack_package("busybox-static", work)
            found = next(p for p in (work / "bin/busybox", work / "usr/bin/busybox") if p.is_file())
            found.rename(cache / "busybox")
    except (OSError, StopIteration) as error:
        raise LabError(f"busybox could not be unpacked into {cache}: {error}") from error
    return cache / "busybox"


def is_static(elf: bytes) -> bool:
    """Whether a 64-bit little-endian ELF program names no interpreter (PT_INTERP), as elf(5) lays it out."""
    if elf[:6] != b"\x7fELF\x02\x01":
        return False
    offset = int.from_bytes(elf[32:40], "little")
    size = int.from_bytes(elf[54:56], "little")
    count = int.from_bytes(elf[56:58], "little")
    types = (elf[offset + i * size :][:4] for i in range(count))
    return all(int.from_bytes(kind, "little") != 3 for kind in types)


def unpack_package(package: str, directory: Path) -> None:
    """Download a Debian package and unpack its files below the directory, without installing it."""
    find_program("dpkg-deb", package="dpkg")
    run(
        [find_program("apt-get", package="apt"), "download", package],
        deadline_s=DOWNLOAD_DEADLINE_S,
        cwd=directory,
    )
    (archive,) = directory.glob("*.deb")
    run(["dpkg-deb", "-x", str(archive), str(directory)], deadline_s=120)
    archive.unlink()


def _newest_package(series: str) -> str:
    """The name of the newest signed cloud kernel package of the series."""
    apt_cache = find_program("apt-cache", package="apt")
    architecture = run(["dpkg", "--print-architecture"], deadline_s=30).strip()
    pattern = f"^linux-image-{re.escape(series)}.*-cloud-{architecture}$"
    lines = run([apt_cache, "search", "--names-only", pattern], deadline_s=120).splitlines()
    # a meta-package (linux-image-6.12-cloud-amd64) brings no kernel of its own
    names = [n for n in (line.split(" ")[0] for line in lines) if re.match(r"linux-image-\d+\.\d+\.\d+", n)]
    names = [n for n in names if _matches(n.removeprefix("linux-image-"), series)]
    if not names:
        raise LabError(
            f"the package lists know no kernel linux-image-{series}*-cloud-{architecture}",
            hint="run `apt-get update` as root (in a fresh container the lists are empty), "
            "or give a bzImage with --kernel",
        )
    return max(names, key=_version_key)


def _kernel_at(image: Path) -> Kernel:
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


def bzimage_release(image: bytes) -> str:
    """The release in an x86 bzImage: field kernel_version of Documentation/arch/x86/boot.rst."""
    if image[0x202:0x206] != b"HdrS":
        raise LabError("not an x86 bzImage: the boot header's signature HdrS is missing")
    offset = int.from_bytes(image[0x20E:0x210], "little") + 0x200
    text = image[offset : offset + 256].split(b"\0")[0].decode("ascii", "replace")
    return text.split(" ")[0]


def _matches(release: str, series: str) -> bool:
    """Whether the series is a beginning of the release that ends at a whole number."""
    rest = release[len(series) :]
    return release.startswith(series) and not rest[:1].isdigit()


def _version_key(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]
