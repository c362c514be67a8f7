"""Kernels without their bzImage: what can be booted so, and what cannot."""

import gzip
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from ioflusher.lab.kernels.cache import Kernel, remove_cached, unpacked_at
from ioflusher.lab.kernels.unpacked import kernel_to_boot

NOTE = struct.pack("<III4sI", 4, 4, 18, b"Xen\0", 0x1000000)
ELF = b"\x7fELF" + bytes(1000) + NOTE + b"code" * 500


def bzimage(packed: bytes, *, version: int = 0x20F) -> bytes:
    """A boot header with three sectors behind it, and the packed kernel 100 bytes into the rest."""
    image = bytearray(4 * 512 + 100)
    image[0x1F1] = 3
    image[0x202:0x208] = b"HdrS" + version.to_bytes(2, "little")
    image[0x248:0x250] = struct.pack("<II", 100, len(packed))
    return bytes(image) + packed + b"what comes behind"


def kernel_of(tmp_path: Path, image: bytes) -> Kernel:
    """A kernel in the cache `tmp_path`."""
    modules = tmp_path / "kernels" / "6.12.1" / "lib" / "modules" / "6.12.1"
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text("")
    file = tmp_path / "kernels" / "6.12.1" / "vmlinuz"
    file.write_bytes(image)
    return Kernel("6.12.1", file, modules)


def packed_by(program: str, data: bytes) -> bytes:
    """What the kernel's build makes of it (scripts/Makefile.lib): packed, and the size behind it."""
    if program == "gzip":
        return gzip.compress(data)
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    options = ["-l"] if program == "lz4" else ["-19"]
    done = subprocess.run([program, "-q", "-c", *options], input=data, capture_output=True, check=True)
    return done.stdout + struct.pack("<I", len(data))


@pytest.mark.parametrize("program", ["gzip", "zstd", "lz4"])
def test_the_kernel_inside_is_booted(program: str, tmp_path: Path) -> None:
    """It is unpacked once, kept in the cache, and goes with the kernel."""
    kernel = kernel_of(tmp_path, bzimage(packed_by(program, ELF)))
    place = kernel_to_boot(kernel, tmp_path)
    assert place == unpacked_at(tmp_path, kernel) != kernel.image
    assert place.read_bytes() == ELF
    made = place.stat()
    assert kernel_to_boot(kernel, tmp_path) == place
    assert place.stat() == made, "it is not unpacked again"
    assert list(place.parent.iterdir()) == [place], "nothing else is left there"
    kernel.image.write_bytes(bzimage(packed_by(program, ELF + b"another")))
    assert kernel_to_boot(kernel, tmp_path).read_bytes() == ELF + b"another", "another file, another kernel"
    remove_cached(tmp_path, "6.12.1")
    assert list(place.parent.iterdir()) == [place], "that of the other file was another kernel's"


@pytest.mark.parametrize(
    "image",
    [
        bzimage(gzip.compress(ELF.replace(NOTE, b""))),  # it has no entry of its own
        bzimage(gzip.compress(b"no ELF file" + NOTE)),
        bzimage(b"\x5d\0\0\0packed with lzma"),
        bzimage(gzip.compress(ELF)[:-300]),  # damaged
        bzimage(b"\x28\xb5\x2f\xfd is no zstd"),
        bzimage(gzip.compress(ELF), version=0x0207),  # the header has no such fields yet
        b"",
        bytes(4096),
    ],
)
def test_what_cannot_be_booted_so_is_booted_as_it_is(image: bytes, tmp_path: Path) -> None:
    """The bzImage, and nothing in the cache."""
    kernel = kernel_of(tmp_path, image)
    assert kernel_to_boot(kernel, tmp_path) == kernel.image
    assert list((tmp_path / "unpacked").iterdir()) == []


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    """The bzImage boots, too."""
    kernel = kernel_of(tmp_path, bzimage(gzip.compress(ELF)))
    (tmp_path / "unpacked").write_text("in its place")
    assert kernel_to_boot(kernel, tmp_path) == kernel.image
