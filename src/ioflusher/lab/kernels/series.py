"""The kernels that the lab knows how to get: series, the archive's suite that has it, what it is good for.

What is in which suite was looked up in November 2026. To add a series is to add a row.
"""

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass

from ioflusher.lab.errors import LabError
from ioflusher.lab.kernels.releases import is_release, matches, version_key

DEFAULT_SERIES = "6.12"
NEWEST = "newest"


@dataclass(frozen=True, slots=True)
class Archive:
    """A distribution's archive of packages.

    Attributes:
        name: for people.
        path: last part of its URI on a mirror, by which it is known among this machine's sources.
        keyring: file of /usr/share/keyrings with the keys that sign it.
        keyring_package: the package that has this file.
    """

    name: str
    path: str
    keyring: str
    keyring_package: str


@dataclass(frozen=True, slots=True)
class Suite:
    """One suite of an archive; its component is main."""

    archive: Archive
    name: str

    @property
    def title(self) -> str:
        """For people: "Debian trixie-backports"."""
        return f"{self.archive.name} {self.name}"


DEBIAN = Archive("Debian", "debian", "debian-archive-keyring.gpg", "debian-archive-keyring")
DEBIAN_SECURITY = Archive("Debian", "debian-security", DEBIAN.keyring, DEBIAN.keyring_package)
UBUNTU = Archive("Ubuntu", "ubuntu", "ubuntu-archive-keyring.gpg", "ubuntu-keyring")
ARCHIVES = (DEBIAN, DEBIAN_SECURITY, UBUNTU)
# has the keyrings of all archives; Debian 12 itself has no ubuntu-keyring
KEYRINGS = Suite(DEBIAN, "trixie")
BACKPORTS = Suite(DEBIAN, "trixie-backports")

# Debian: all in the first one, until 6.19 made it a name for the others
_DEBIAN = (
    "linux-image-{release}",
    "linux-base-{release}",
    "linux-binary-{release}",
    "linux-modules-{release}",
)
_UBUNTU = ("linux-image-{release}", "linux-modules-{release}", "linux-modules-extra-{release}")


@dataclass(frozen=True, slots=True)
class KernelSeries:
    """Where the kernels of a series come from.

    Attributes:
        series: what --kernel takes: "5.8", or "newest".
        suite: where its packages are, for a machine whose own package lists do not have them.
        releases: which are meant, as a shell's pattern.
        good_for: what the lab has it for, a few words.
        packages: their names, with {release}; those behind the first one are there or not.
        own_lists: whether a kernel that this machine's own package lists have is one of the series.
    """

    series: str
    suite: Suite
    releases: str
    good_for: str
    packages: tuple[str, ...] = _DEBIAN
    own_lists: bool = True

    def newest(self, package_names: Iterable[str], wanted: str) -> str | None:
        """The newest release of the series that has a package and begins with `wanted`.

        A package without a release of its own (linux-image-6.12-cloud-amd64) brings no kernel.
        """
        before, after = self.packages[0].split("{release}")
        found = (
            name.removeprefix(before).removesuffix(after)
            for name in package_names
            if fnmatch.fnmatchcase(name, f"{before}{self.releases}{after}")
        )
        meant = (release for release in found if wanted == self.series or matches(release, wanted))
        return max(meant, key=version_key, default=None)


def _cloud(series: str, suite: Suite, good_for: str) -> KernelSeries:
    """A series of Debian's cloud kernels, which have what virtual machines need and little else."""
    return KernelSeries(series, suite, f"{series}.*-cloud-amd64", good_for)


KERNEL_SERIES: dict[str, KernelSeries] = {
    row.series: row
    for row in (
        KernelSeries(
            "5.6",
            Suite(UBUNTU, "focal-updates"),
            "5.6.0-*-oem",
            "the first with the prctl; XFS inode reclaim waits for I/O",
            _UBUNTU,
        ),
        KernelSeries(
            "5.8",
            Suite(UBUNTU, "focal-updates"),
            "5.8.0-*-generic",
            "the last where XFS inode reclaim waits for I/O",
            _UBUNTU,
        ),
        _cloud(
            "5.10", Suite(DEBIAN_SECURITY, "bullseye-security"), "Debian 11; XFS inode reclaim never waits"
        ),
        _cloud("6.1", Suite(DEBIAN_SECURITY, "bookworm-security"), "Debian 12; has ublk"),
        _cloud("6.12", Suite(DEBIAN_SECURITY, "bookworm-security"), "the default: the scenarios' own"),
        _cloud("6.16", BACKPORTS, "reclaim writes no file system pages"),
        _cloud("6.18", BACKPORTS, "the long-term series after 6.12"),
        KernelSeries(NEWEST, BACKPORTS, "*.*.*-cloud-amd64", "what is to come", own_lists=False),
    )
}


def series_for(wanted: str) -> KernelSeries:
    """The row for a series or a release; what no row is about may still be among the backports.

    Raises:
        LabError: it is none.
    """
    if wanted != NEWEST and not is_release(wanted):
        known = ", ".join(KERNEL_SERIES)
        raise LabError(
            f"not a kernel: {wanted!r}", hint=f"give a release such as {known}, or the path of a bzImage"
        )
    for row in KERNEL_SERIES.values():
        if matches(wanted, row.series):
            return row
    return _cloud(".".join(wanted.split(".")[:2]), BACKPORTS, "")
