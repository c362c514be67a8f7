"""Kernels to boot: from a file, from this machine's own, or from a distribution's packages, kept in a cache.

`series.py` is the table of what is known and where it comes from, `apt.py` gets packages of any suite with
their signatures checked, `fetch.py` makes a kernel of them, `cache.py` has what is here.
"""

from pathlib import Path

from ioflusher.lab.errors import LabError
from ioflusher.lab.kernels.cache import (
    Kernel,
    cache_directory,
    cached_kernels,
    cached_of,
    installed_kernels,
    kernel_at,
)
from ioflusher.lab.kernels.fetch import Progress, fetch_kernel
from ioflusher.lab.kernels.releases import matches, version_key
from ioflusher.lab.kernels.series import DEFAULT_SERIES, series_for

__all__ = ["Kernel", "cache_directory", "cached_kernels", "fetch_kernel", "find_kernel", "installed_kernels"]


def find_kernel(
    wanted: str | None = None,
    *,
    cache: Path | None = None,
    download: bool = True,
    progress: Progress = lambda text: None,
) -> Kernel:
    """The kernel that `wanted` names, downloaded first where that is needed.

    `wanted` is a path to a bzImage (its modules must lie in ../lib/modules/RELEASE beside it or in
    /lib/modules), a series or a release or its beginning ("5.8", "6.12.117+deb12-cloud-amd64", "newest"), or
    None: Debian's cloud kernel 6.12. Raises LabError with what to do where there is none.
    """
    cache = cache or cache_directory()
    if wanted and ("/" in wanted or Path(wanted).is_file()):
        return kernel_at(Path(wanted))
    series = wanted or DEFAULT_SERIES
    series_for(series)  # raises for what is none
    here = (*cached_of(cache, series), *(k for k in installed_kernels() if matches(k.release, series)))
    if here:
        return max(here, key=lambda kernel: version_key(kernel.release))
    if not download:
        raise LabError(f"no kernel {series} in {cache}", hint=f"run `ioflusher lab kernels fetch {series}`")
    return fetch_kernel(series, cache, progress)
