"""Kernels and the static busybox: what can be used is told from what cannot."""

import shutil
from pathlib import Path

import pytest

from ioflusher.lab.busybox import is_static
from ioflusher.lab.errors import LabError
from ioflusher.lab.kernels import find_kernel
from ioflusher.lab.kernels.apt import archive_base
from ioflusher.lab.kernels.releases import bzimage_release
from ioflusher.lab.kernels.series import DEBIAN, DEBIAN_SECURITY, UBUNTU, series_for


@pytest.mark.live
def test_a_dynamic_program_is_not_static() -> None:
    """The first process of a guest has no libraries, so a program that needs some is refused."""
    shell = shutil.which("sh")
    assert shell is not None
    assert not is_static(Path(shell).read_bytes())
    assert not is_static(b"#!/bin/sh\n")


def test_a_kernel_that_is_none_is_refused(tmp_path: Path) -> None:
    """A file without the boot signature, a missing file and a senseless release are told apart."""
    fake = tmp_path / "vmlinuz"
    fake.write_bytes(b"\0" * 4096)
    with pytest.raises(LabError, match="not an x86 bzImage"):
        find_kernel(str(fake), cache=tmp_path)
    with pytest.raises(LabError, match="no kernel image at"):
        find_kernel("/nowhere/vmlinuz", cache=tmp_path)
    with pytest.raises(LabError, match="not a kernel: 'six'"):
        find_kernel("six", cache=tmp_path)
    with pytest.raises(LabError, match=r"no kernel 5\.99") as caught:
        find_kernel("5.99", cache=tmp_path, download=False)
    assert "lab kernels fetch 5.99" in (caught.value.hint or "")


def test_the_release_is_read_from_the_header() -> None:
    """The version string stands where the boot header points."""
    image = bytearray(0x1000)
    image[0x202:0x206] = b"HdrS"
    image[0x20E:0x210] = (0x300).to_bytes(2, "little")
    image[0x500:0x520] = b"6.12.1-test (someone@host) #1 SM"
    assert bzimage_release(bytes(image)) == "6.12.1-test"


def test_where_an_archive_is() -> None:
    """On the mirror that is given, where this machine's sources have it, or beside what they have."""
    own = ("http://a.example/debian", "https://b.example/debian-security", "https://c.example/apt")
    assert archive_base(DEBIAN, own, None) == "http://a.example/debian"
    assert archive_base(DEBIAN_SECURITY, own, None) == "https://b.example/debian-security"
    assert archive_base(UBUNTU, own, None) == "http://a.example/ubuntu"
    assert archive_base(UBUNTU, own, "http://m.example/all/") == "http://m.example/all/ubuntu"
    with pytest.raises(LabError, match="name no archive of Debian or Ubuntu") as caught:
        archive_base(UBUNTU, ("https://c.example/apt",), None)
    assert "IOFLUSHER_MIRROR" in (caught.value.hint or "")
    with pytest.raises(LabError, match="not the URI of a mirror"):
        archive_base(UBUNTU, own, "ftp://m.example")


def test_which_release_a_series_means() -> None:
    """The newest with the series' flavour; 6.1 is not the beginning of 6.12; a meta-package is no kernel."""
    names = [
        "linux-image-6.12-cloud-amd64",
        "linux-image-6.12.9+deb12-cloud-amd64",
        "linux-image-6.12.117+deb12-cloud-amd64",
        "linux-image-6.12.200+deb12-amd64",
        "linux-image-6.1.0-9-cloud-amd64",
        "linux-image-6.1.0-57-cloud-amd64",
    ]
    assert series_for("6.12").newest(names, "6.12") == "6.12.117+deb12-cloud-amd64"
    assert series_for("6.12.9").newest(names, "6.12.9") == "6.12.9+deb12-cloud-amd64"
    assert series_for("6.1").newest(names, "6.1") == "6.1.0-57-cloud-amd64"
    assert series_for("6.1.0-57-cloud-amd64").series == "6.1"
    assert series_for("5.8").newest(names, "5.8") is None
    # no row of the table: it may still be among the backports
    assert series_for("7.1.7").suite.title == "Debian trixie-backports"
    assert series_for("7.1.7").newest(["linux-image-7.1.7+deb13-cloud-amd64"], "7.1.7") is not None
