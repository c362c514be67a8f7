"""The static busybox that is the first process of every guest: this machine's, or from the packages."""

from pathlib import Path

from ioflusher.lab.errors import LabError
from ioflusher.lab.kernels.apt import OWN_LISTS
from ioflusher.lab.kernels.cache import NEW_PREFIX, cache_directory
from ioflusher.support.temporary import OwnedDirectory, sweep


def busybox(cache: Path | None = None) -> Path:
    """A static busybox; one that is downloaded is kept in the cache."""
    cache = cache or cache_directory()
    for candidate in (cache / "busybox", Path("/bin/busybox"), Path("/usr/bin/busybox")):
        if candidate.is_file() and is_static(candidate.read_bytes()):
            return candidate
    try:
        cache.mkdir(parents=True, exist_ok=True)
        sweep(NEW_PREFIX, cache)
        with OwnedDirectory(NEW_PREFIX, cache) as owned:
            work = owned.path
            OWN_LISTS.unpack("busybox-static", work)
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
