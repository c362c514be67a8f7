"""The device mapper's control device: which targets a table has, and messages to them.

Source: include/uapi/linux/dm-ioctl.h (struct dm_ioctl, struct dm_target_spec), drivers/md/dm-ioctl.c
(table_status, retrieve_status); the layout is the same since interface version 4.0 (2.6).
"""

import os
import struct
from collections.abc import Iterator

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


def ask_status(request: bytearray, name: str, *, table: bool = False) -> None:
    """Make it a DM_TABLE_STATUS request for a device's targets, as long as the room for the answer is.

    `table`: for their arguments, as in their table, instead of their states.
    """
    flags = DM_NOFLUSH_FLAG | (DM_STATUS_TABLE_FLAG | DM_SECURE_DATA_FLAG if table else 0)
    header = (4, 0, 0, len(request), _HEADER.size, 0, 0, flags, 0, 0, 0, os.fsencode(name), b"", b"")
    _HEADER.pack_into(request, 0, *header)


def parse_states(answer: bytearray) -> tuple[tuple[str, str], ...]:
    """Type and state of each target in the answer to `ask_status`; or its arguments, if asked for these.

    Raises:
        ValueError: where the answer's offsets lead out of it, or it did not fit.
    """
    types = parse_table(answer)
    if types is None:
        raise ValueError(f"expected states that fit into {len(answer)} bytes")
    start = _HEADER.unpack_from(answer)[4]
    found, offset = [], start
    for kind in types:
        following = _TARGET.unpack_from(answer, offset)[3]
        text = answer[offset + _TARGET.size :].split(b"\0")[0].decode("utf-8", "backslashreplace")
        found.append((kind, text))
        offset = start + following
    return tuple(found)


def parse_multipath_state(text: str) -> tuple[bool, ...]:
    """Of each path of a multipath target whether it is in use, from its state.

    drivers/md/dm-mpath.c, multipath_status, STATUSTYPE_INFO: counted lists of features and of the hardware
    handler; groups and which is next; of each group its state, the selector's list, how many paths and how
    many words the selector has of each; of each path device, "A" or "F", failures, those words.

    Raises:
        ValueError: where it is something else.
    """
    words = iter(text.split())
    try:
        for _ in ("features", "hardware handler"):
            _skip(words, int(next(words)))
        groups = int(next(words))
        _skip(words, 1)
        found = []
        for _ in range(groups):
            _skip(words, 1)
            _skip(words, int(next(words)))
            paths, arguments = int(next(words)), int(next(words))
            for _ in range(paths):
                _skip(words, 1)
                found.append(next(words) == "A")
                _skip(words, 1 + arguments)
    except StopIteration as end:
        raise ValueError(f"the state of a multipath target is cut off: {text!r}") from end
    return tuple(found)


def parse_queues_without_path(text: str) -> bool:
    """Whether a multipath target keeps requests while it has no path, from its arguments.

    They begin with a counted list of features (drivers/md/dm-mpath.c, multipath_status, STATUSTYPE_TABLE).

    Raises:
        ValueError: where they are something else.
    """
    words = text.split()
    if not words:
        raise ValueError("a multipath target without arguments")
    return "queue_if_no_path" in words[1 : 1 + int(words[0])]


def _skip(words: Iterator[str], number: int) -> None:
    for _ in range(number):
        next(words)


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
