"""Kernel releases as text: their order, which one is meant, and where a bzImage has its own."""

import re

from ioflusher.lab.errors import LabError

_RELEASE = re.compile(r"\d+\.\d+(\.\d+)?([-+.\w]*)")


def is_release(text: str) -> bool:
    """Whether it is a release or the beginning of one: 6.12, 5.8.0-63-generic."""
    return _RELEASE.fullmatch(text) is not None


def matches(release: str, wanted: str) -> bool:
    """Whether `wanted` is a beginning of the release that ends at a whole number."""
    return release.startswith(wanted) and not release[len(wanted) :][:1].isdigit()


def version_key(text: str) -> list[int]:
    """What puts releases into their order: all numbers."""
    return [int(number) for number in re.findall(r"\d+", text)]


def version(release: str) -> tuple[int, int]:
    """The first two numbers: (5, 8) of 5.8.0-63-generic; (0, 0) of what has none."""
    major, minor, *_ = (*version_key(release), 0, 0)
    return major, minor


def bzimage_release(image: bytes) -> str:
    """The release in an x86 bzImage: field kernel_version of Documentation/arch/x86/boot.rst."""
    if image[0x202:0x206] != b"HdrS":
        raise LabError("not an x86 bzImage: the boot header's signature HdrS is missing")
    offset = int.from_bytes(image[0x20E:0x210], "little") + 0x200
    text = image[offset : offset + 256].split(b"\0")[0].decode("ascii", "replace")
    return text.split(" ")[0]
