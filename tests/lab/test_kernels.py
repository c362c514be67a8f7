"""Kernels and the static busybox: what can be used is told from what cannot."""

import shutil
from pathlib import Path

import pytest

from ioflusher.lab.errors import LabError
from ioflusher.lab.kernels import bzimage_release, find_kernel, is_static


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
    assert "lab setup" in (caught.value.hint or "")


def test_the_release_is_read_from_the_header() -> None:
    """The version string stands where the boot header points."""
    image = bytearray(0x1000)
    image[0x202:0x206] = b"HdrS"
    image[0x20E:0x210] = (0x300).to_bytes(2, "little")
    image[0x500:0x520] = b"6.12.1-test (someone@host) #1 SM"
    assert bzimage_release(bytes(image)) == "6.12.1-test"
