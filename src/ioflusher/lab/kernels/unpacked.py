"""A kernel's own code, taken out of its bzImage: a guest under emulation takes a second to unpack it itself.

A bzImage is a real-mode header, code that unpacks, and the packed kernel (Documentation/arch/x86/boot.rst,
payload_offset). What is packed is an ELF file that QEMU starts as it is where it has an entry for that: the
note XEN_ELFNOTE_PHYS32_ENTRY (include/xen/interface/elfnote.h, CONFIG_PVH).
"""

import struct
import tempfile
import zlib
from pathlib import Path

from ioflusher.lab.kernels.cache import NEW_PREFIX, Kernel, unpacked_at
from ioflusher.support.programs import ProgramError, find_program, run

_SETUP_SECTORS = 0x1F1
_MAGIC = 0x202  # "HdrS", then the protocol's version
_FIRST_PAYLOAD_VERSION = 0x0208
_PAYLOAD = 0x248  # offset and length, each 32 bits
_SIZE_BYTES = 4  # of the unpacked kernel, behind what gzip did not pack
_GZIP = b"\x1f\x8b"
# what else kernels are packed with: its first bytes, the program that unpacks it, its option for the target
_UNPACKERS = {b"\x28\xb5\x2f\xfd": ("zstd", ("-o",)), b"\x02\x21\x4c\x18": ("lz4", ())}
_ELF = b"\x7fELF"
# length of the name with its zero and of the address, type 18, the name
_NOTES = tuple(struct.pack("<III4s", 4, length, 18, b"Xen\0") for length in (4, 8))


def kernel_to_boot(kernel: Kernel, cache: Path) -> Path:
    """The file that QEMU boots: the kernel without its bzImage, kept in the cache, or else the bzImage.

    It is the bzImage where that is packed in a way that this machine cannot unpack, where the kernel does not
    start without, and where the cache cannot be written.
    """
    try:
        place = unpacked_at(cache, kernel)
        if place.exists():
            return place
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=NEW_PREFIX, dir=place.parent) as name:
            new = Path(name) / "kernel"
            if not unpack_kernel(kernel.image, new):
                return kernel.image
            new.rename(place)
    except OSError:
        return kernel.image
    return place


def unpack_kernel(image: Path, target: Path) -> bool:
    """Write the kernel that is packed in a bzImage to a file.

    Returns whether it can be booted: not where it is packed in a way that this machine cannot unpack, or has
    no entry of its own.

    Raises:
        OSError: the one cannot be read, or the other not be written.
    """
    packed = _payload(image.read_bytes())
    if packed.startswith(_GZIP):
        try:
            target.write_bytes(zlib.decompress(packed, wbits=31))
        except zlib.error:
            return False
        return _starts_by_itself(target)
    for magic, (program, to) in _UNPACKERS.items():
        if packed.startswith(magic):
            file = target.with_suffix(".packed")
            file.write_bytes(packed[:-_SIZE_BYTES])
            try:
                path = find_program(program, package=program)
                run([path, "-d", "-q", "-f", str(file), *to, str(target)], deadline_s=60)
            except ProgramError:
                return False
            return _starts_by_itself(target)
    return False


def _payload(image: bytes) -> bytes:
    """The packed kernel; empty for what is no bzImage."""
    if len(image) < _PAYLOAD + 8 or image[_MAGIC : _MAGIC + 4] != b"HdrS":
        return b""
    (version,) = struct.unpack_from("<H", image, _MAGIC + 4)
    if version < _FIRST_PAYLOAD_VERSION:
        return b""
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    start = ((image[_SETUP_SECTORS] or 4) + 1) * 512 + offset
    return image[start : start + length]


def _starts_by_itself(kernel: Path) -> bool:
    """Whether it is an ELF file with the note."""
    content = kernel.read_bytes()
    return content.startswith(_ELF) and any(note in content for note in _NOTES)
