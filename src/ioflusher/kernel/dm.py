"""The device mapper's control device: which targets a table has, and messages to them.

Source: include/uapi/linux/dm-ioctl.h (struct dm_ioctl, struct dm_target_spec), drivers/md/dm-ioctl.c
(table_status, retrieve_status); the layout is the same since interface version 4.0 (2.6).
"""

import os
import struct

DM_DIR_CONTROL = "dev/mapper/control"  # misc device 10:236

# _IOWR(DM_IOCTL 0xfd, DM_TABLE_STATUS_CMD 12, struct dm_ioctl of 312 bytes)
DM_TABLE_STATUS = 3 << 30 | 312 << 16 | 0xFD << 8 | 12
DM_TARGET_MSG = 3 << 30 | 312 << 16 | 0xFD << 8 | 14

# With it targets return their table. Without it they return their status, for which thin and cache pools take
# locks that a commit holds while it waits for a device: a look at a frozen machine would freeze too.
DM_STATUS_TABLE_FLAG = 1 << 4
DM_BUFFER_FULL_FLAG = 1 << 8
DM_NOFLUSH_FLAG = 1 << 11
DM_SECURE_DATA_FLAG = 1 << 15  # since 2.6.38: the kernel clears its copy of the answer

# version[3], data_size, data_start, target_count, open_count, flags, event_nr, padding, dev, name, uuid, data
_HEADER = struct.Struct("=3I7IQ128s129s7s")
# sector_start, length, status, next (offset of the next one from the first), target_type
_TARGET = struct.Struct("=QQiI16s")


def table_request(major: int, minor: int, size: int) -> bytearray:
    """A DM_TABLE_STATUS request for the device, `size` bytes with the room for the answer."""
    request = bytearray(size)
    # include/linux/kdev_t.h, huge_encode_dev
    device = (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)
    flags = DM_STATUS_TABLE_FLAG | DM_NOFLUSH_FLAG | DM_SECURE_DATA_FLAG
    header = (4, 0, 0, size, _HEADER.size, 0, 0, flags, 0, 0, device, b"", b"", b"")
    _HEADER.pack_into(request, 0, *header)
    return request


def parse_table(answer: bytearray) -> tuple[str, ...] | None:
    """The target types in the answer, in order; None where it did not fit: ask again with more room.

    Their arguments are not looked at: those of crypt hold a key.

    Raises:
        ValueError: where the answer's offsets lead out of it.
    """
    _, _, _, _, start, count, _, flags, *_ = _HEADER.unpack_from(answer)
    if flags & DM_BUFFER_FULL_FLAG:
        return None
    types: list[str] = []
    offset = start
    for _ in range(count):
        if offset + _TARGET.size > len(answer):
            raise ValueError(f"expected {count} targets, found {len(types)} in {len(answer)} bytes")
        *_, following, name = _TARGET.unpack_from(answer, offset)
        types.append(name.split(b"\0")[0].decode("utf-8", "backslashreplace"))
        if start + following <= offset and len(types) < count:
            raise ValueError(f"target {len(types)} of {count} points back to byte {following}")
        offset = start + following
    return tuple(types)


def message_request(name: str, text: str) -> bytearray:
    """A DM_TARGET_MSG request: `text` for the target at the beginning of the device of this name.

    struct dm_target_msg: the sector, then the text with its NUL (drivers/md/dm-ioctl.c, target_message).
    """
    body = struct.pack("=Q", 0) + text.encode() + b"\0"
    request = bytearray(_HEADER.size + len(body))
    header = (4, 0, 0, len(request), _HEADER.size, 0, 0, 0, 0, 0, 0, os.fsencode(name), b"", b"")
    _HEADER.pack_into(request, 0, *header)
    request[_HEADER.size :] = body
    return request
