"""Netlink messages and their attributes, which the families of netlink(7) have in common.

include/uapi/linux/netlink.h. All numbers are in the machine's order.
"""

import os
import struct
from collections.abc import Iterator

NLMSG_NOOP = 1
NLMSG_ERROR = 2  # with error 0: an acknowledgement
NLMSG_DONE = 3

NLM_F_REQUEST = 0x01
NLM_F_ACK = 0x04
NLM_F_DUMP_INTR = 0x10  # the list changed while it was written
NLM_F_DUMP = 0x300

NLA_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER

_MAX_ERRNO = 4095  # include/linux/err.h

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_ERROR = struct.Struct("=i")


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """One message; port 0: the kernel fills in who sent it."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def attribute(kind: int, content: bytes) -> bytes:
    """One attribute, filled up to four bytes; a nest is the attributes in it as its content."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(content), kind) + content + bytes(-len(content) % 4)


def messages(data: bytes, expected: int) -> Iterator[tuple[int, int, int, int]]:
    """Kind, beginning and end of the content, and flags of each message in a datagram of the kernel.

    The kinds are `expected`, NLMSG_DONE, and NLMSG_ERROR for an acknowledgement. NLMSG_NOOP is left out.

    Raises:
        OSError: an error that one carries.
        ValueError: where the datagram is cut off or has messages of another kind.
    """
    at = 0
    while at < len(data):
        if len(data) - at < _HEADER.size:
            raise ValueError(f"expected a netlink header of {_HEADER.size} bytes, found {len(data) - at}")
        length, kind, flags, _, _ = _HEADER.unpack_from(data, at)
        if not _HEADER.size <= length <= len(data) - at:
            raise ValueError(f"expected a message of {length} bytes, found {len(data) - at}")
        if kind in (NLMSG_ERROR, NLMSG_DONE):
            error = _ERROR.unpack_from(data, at + _HEADER.size)[0] if length >= _HEADER.size + 4 else 0
            if not -_MAX_ERRNO <= error <= 0:
                raise ValueError(f"expected an error number or 0, found {error}")
            if error:
                raise OSError(-error, os.strerror(-error))
        elif kind not in (expected, NLMSG_NOOP):
            raise ValueError(f"expected messages of type {expected}, found {kind}")
        if kind != NLMSG_NOOP:
            yield kind, at + _HEADER.size, at + length, flags
        at += (length + 3) & ~3


def attributes(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Kind, beginning and end of each attribute between two places of the datagram.

    Raises:
        ValueError: where one is cut off.
    """
    while end - at >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if not _ATTRIBUTE.size <= length <= end - at:
            raise ValueError(f"expected an attribute of {length} bytes, found {end - at}")
        yield kind & NLA_TYPE_MASK, at + _ATTRIBUTE.size, at + length
        at += (length + 3) & ~3
