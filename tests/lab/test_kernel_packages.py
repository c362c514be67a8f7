"""Kernels from packages, by the real apt out of a signed archive that lies beside this test (archive.py)."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ioflusher.lab.errors import LabError
from ioflusher.lab.kernels import apt, fetch_kernel, find_kernel
from ioflusher.lab.kernels.cache import cached_kernels, remove_cached
from ioflusher.lab.kernels.listing import list_kernels
from tests.lab.archive import DEBIAN_NEWEST, KEYRINGS, MIRROR, UBUNTU_5_8

pytestmark = pytest.mark.needs("apt-get", "dpkg-deb", "depmod")

Fetch = Callable[[str], list[str]]


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the mirror, and this machine's keyrings replaced by the test's."""
    keyrings = tmp_path / "keyrings"
    shutil.copytree(KEYRINGS, keyrings)
    monkeypatch.setattr(apt, "KEYRING_FILES", keyrings)
    return Path(shutil.copytree(MIRROR, tmp_path / "mirror"))


@pytest.fixture
def fetch(mirror: Path, tmp_path: Path) -> Fetch:
    """Fetches a kernel from the mirror into tmp_path/cache; returns the texts of its progress."""

    def fetched(wanted: str) -> list[str]:
        steps: list[str] = []
        fetch_kernel(wanted, tmp_path / "cache", steps.append, mirror=mirror.as_uri())
        return steps

    return fetched


def nothing_is_left(cache: Path) -> bool:
    """Whether no kernel is there, nor the beginning of one."""
    return not list((cache / "kernels").glob("*")) and not list((cache / "kernels").glob(".*"))


def test_a_kernel_of_another_distribution(fetch: Fetch, tmp_path: Path) -> None:
    """Its keys come out of a package that this distribution signed; the newest release is taken.

    modules-extra is a package that not every flavour has: here it is missing.
    """
    cache = tmp_path / "cache"
    steps = fetch("5.8")
    (kernel,) = cached_kernels(cache)
    assert kernel.release == UBUNTU_5_8
    assert kernel.image.read_bytes() == b"image 5.8"
    assert (kernel.modules / "kernel" / "README").read_bytes() == b"modules"
    assert (kernel.modules / "modules.dep").is_file()
    assert [step.split(" (")[0] for step in steps if step.startswith("downloading")] == [
        f"downloading linux-image-{UBUNTU_5_8}",
        f"downloading linux-modules-{UBUNTU_5_8}",
    ]
    assert find_kernel("5.8", cache=cache, download=False) == kernel
    listed = {line.series: line for line in list_kernels(cache)}
    assert (listed["5.8"].release, listed["5.8"].here) == (UBUNTU_5_8, "cached")
    assert listed["5.8"].origin == "Ubuntu focal-updates"
    assert (listed["5.6"].release, listed["5.6"].here) == ("5.6.0-*-oem", "")


def test_the_newest_is_in_packages_of_its_own(fetch: Fetch, tmp_path: Path) -> None:
    """Since 6.19 Debian's image lies beside the modules, in /usr/lib; a name for others is no kernel."""
    cache = tmp_path / "cache"
    fetch("newest")
    (kernel,) = cached_kernels(cache)
    assert kernel.release == DEBIAN_NEWEST
    assert kernel.image.read_bytes() == b"image 7.3"
    assert (kernel.modules / "modules.builtin").is_file()
    assert find_kernel("newest", cache=cache, download=False) == kernel
    assert find_kernel("7.3", cache=cache, download=False) == kernel


def test_what_is_here_is_not_downloaded_again(fetch: Fetch, tmp_path: Path) -> None:
    """A second fetch looks into the lists and leaves what it finds as it is, but for its origin."""
    cache = tmp_path / "cache"
    fetch("newest")
    (kernel,) = cached_kernels(cache)
    made = kernel.image.stat()
    (kernel.image.parent / "origin.json").write_text('{"series": 5}')
    assert {line.release: line.origin for line in list_kernels(cache)}[DEBIAN_NEWEST] == "unknown"
    assert not [step for step in fetch("newest") if step.startswith("downloading")]
    assert kernel.image.stat() == made
    assert {line.series: line.origin for line in list_kernels(cache)}["newest"] == "Debian trixie-backports"
    assert remove_cached(cache, "newest") == (DEBIAN_NEWEST,)
    assert nothing_is_left(cache)
    assert {line.series: line.here for line in list_kernels(cache)}["newest"] == ""
    with pytest.raises(LabError, match=r"no kernel newest in"):
        remove_cached(cache, "newest")


def test_a_changed_package_is_refused(fetch: Fetch, mirror: Path, tmp_path: Path) -> None:
    """The hash in the signed lists is not the package's: nothing of it is kept."""
    package = mirror / "debian" / "pool" / f"linux-modules-{DEBIAN_NEWEST}.deb"
    data = bytearray(package.read_bytes())
    data[-1] ^= 1
    package.write_bytes(data)
    with pytest.raises(LabError, match=r"E: Failed to fetch \S*linux-modules-.*Hash Sum mismatch") as caught:
        fetch("newest")
    assert caught.value.hint
    assert nothing_is_left(tmp_path / "cache")


def test_changed_lists_are_refused(fetch: Fetch, mirror: Path, tmp_path: Path) -> None:
    """The signature is right, the list of packages not the one that was signed."""
    suites = mirror / "debian" / "dists"
    lists = Path("main", "binary-amd64", "Packages.gz")
    shutil.copy(suites / "trixie" / lists, suites / "trixie-backports" / lists)
    with pytest.raises(LabError, match="Debian trixie-backports cannot be had from file:") as caught:
        fetch("newest")
    assert "IOFLUSHER_MIRROR" in (caught.value.hint or "")
    assert nothing_is_left(tmp_path / "cache")


def test_a_strangers_signature_is_refused(fetch: Fetch, tmp_path: Path) -> None:
    """An archive that another key signed is not believed, neither for kernels nor for further keys."""
    keyrings = tmp_path / "keyrings"
    shutil.copy(keyrings / "stranger-archive-keyring.gpg", keyrings / "debian-archive-keyring.gpg")
    with pytest.raises(LabError, match=r"Debian trixie-backports cannot be had(.|\n)*not signed"):
        fetch("newest")
    with pytest.raises(LabError, match=r"Debian trixie cannot be had(.|\n)*not signed"):
        fetch("5.8")
    assert nothing_is_left(tmp_path / "cache")


def test_an_archive_without_a_signature_is_refused(fetch: Fetch, mirror: Path) -> None:
    """Plain Release files are no lists."""
    suite = mirror / "debian" / "dists" / "trixie-backports"
    text = (suite / "InRelease").read_text().split("\n\n", 1)[1].split("-----BEGIN PGP SIGNATURE")[0]
    (suite / "Release").write_text(text)
    (suite / "InRelease").unlink()
    with pytest.raises(LabError, match="is not signed"):
        fetch("newest")


def test_missing_keys_are_named(fetch: Fetch, tmp_path: Path) -> None:
    """Without the keys of the distribution's own archive nothing can be checked."""
    (tmp_path / "keyrings" / "debian-archive-keyring.gpg").unlink()
    with pytest.raises(LabError, match="the keys of Debian's archive are missing") as caught:
        fetch("newest")
    assert caught.value.hint == "install the package debian-archive-keyring"


def test_a_series_that_nobody_has(fetch: Fetch, mirror: Path) -> None:
    """It says where was looked, what is known, and how else to give a kernel."""
    with pytest.raises(
        LabError, match=r"no kernel 5\.9 \(linux-image-5\.9\.\*\S*\) in Debian trixie"
    ) as caught:
        fetch("5.9")
    assert "5.6, 5.8, 5.10" in (caught.value.hint or "")
    assert "--kernel FILE" in (caught.value.hint or "")
    with pytest.raises(LabError, match="not the URI of a mirror: 'mirror'"):
        fetch_kernel("5.8", mirror, lambda text: None, mirror="mirror")


def test_a_mirror_without_the_other_distribution(fetch: Fetch, mirror: Path) -> None:
    """What is missing is named, and what to do."""
    shutil.rmtree(mirror / "ubuntu")
    with pytest.raises(
        LabError, match="the package lists of Ubuntu focal-updates cannot be had from file:"
    ) as caught:
        fetch("5.8")
    assert "both debian and ubuntu" in (caught.value.hint or "")
