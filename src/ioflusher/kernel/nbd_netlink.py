"""The generic netlink interface of the kernel's NBD client: its commands, and what they carry.

Source: include/uapi/linux/nbd-netlink.h, drivers/block/nbd.c (5.10, 6.1, 6.12, 7.3).
"""

import struct
from collections.abc import Sequence
from enum import IntEnum, IntFlag

from ioflusher.kernel.genetlink import GenericAnswer, nest
from ioflusher.kernel.netlink import attribute, attributes

NBD_GENL_FAMILY_NAME = "nbd"
NBD_GENL_VERSION = 1
NBD_GENL_MCAST_GROUP_NAME = "nbd_mc_group"


class NbdGenlCommand(IntEnum):
    """Generic netlink commands, NBD_CMD_* of nbd-netlink.h."""

    CONNECT = 1
    DISCONNECT = 2
    RECONFIGURE = 3
    LINK_DEAD = 4
    STATUS = 5


class NbdAttr(IntEnum):
    """Attributes of those commands, NBD_ATTR_*."""

    INDEX = 1
    SIZE_BYTES = 2
    BLOCK_SIZE_BYTES = 3
    TIMEOUT = 4
    SERVER_FLAGS = 5
    CLIENT_FLAGS = 6
    SOCKETS = 7  # nest of NBD_SOCK_ITEM, each a nest of NBD_SOCK_FD
    DEAD_CONN_TIMEOUT = 8
    DEVICE_LIST = 9
    BACKEND_IDENTIFIER = 10  # since 5.14


NBD_SOCK_ITEM = 1
NBD_SOCK_FD = 1

NBD_DEVICE_ITEM = 1
NBD_DEVICE_INDEX = 1
NBD_DEVICE_CONNECTED = 2


class NbdClientFlag(IntFlag):
    """NBD_ATTR_CLIENT_FLAGS, NBD_CFLAG_* of include/uapi/linux/nbd.h."""

    DESTROY_ON_DISCONNECT = 1
    DISCONNECT_ON_CLOSE = 2


_U32 = struct.Struct("=I")
_U64 = struct.Struct("=Q")


def number_attribute(kind: NbdAttr, value: int) -> bytes:
    """An attribute that is a number: NLA_U32 for the index, NLA_U64 for all others (nbd_attr_policy)."""
    layout = _U32 if kind is NbdAttr.INDEX else _U64
    return attribute(kind, layout.pack(value))


def backend_attribute(identifier: str) -> bytes:
    """NBD_ATTR_BACKEND_IDENTIFIER, a string; kernels before 5.14 pass it over."""
    return attribute(NbdAttr.BACKEND_IDENTIFIER, identifier.encode() + b"\0")


def sockets_attribute(descriptors: Sequence[int]) -> bytes:
    """NBD_ATTR_SOCKETS: the file descriptors of connected sockets."""
    items = (attribute(NBD_SOCK_FD, _U32.pack(descriptor)) for descriptor in descriptors)
    return attribute(NbdAttr.SOCKETS, b"".join(attribute(NBD_SOCK_ITEM, item) for item in items))


def parse_link_dead(answer: GenericAnswer) -> int | None:
    """The index of the device of which a connection has died; None where another thing is said.

    The driver tells the group so when a connection ends for another reason than a detach, once for each
    (nbd_mark_nsock_dead).
    """
    index = answer.attributes.get(NbdAttr.INDEX, b"")
    if answer.command != NbdGenlCommand.LINK_DEAD or len(index) < _U32.size:
        return None
    number: int = _U32.unpack_from(index)[0]
    return number


def parse_device_list(content: bytes) -> dict[int, bool]:
    """NBD_ATTR_DEVICE_LIST, the answer to NBD_CMD_STATUS: by index, whether the device is configured.

    That is more than attached: a device that somebody has open counts, too (populate_nbd_status).

    Raises:
        ValueError: where it is cut off.
    """
    found: dict[int, bool] = {}
    for kind, begin, end in attributes(content, 0, len(content)):
        fields = nest(content, begin, end)
        index = fields.get(NBD_DEVICE_INDEX, b"")
        if kind == NBD_DEVICE_ITEM and len(index) >= _U32.size:
            found[_U32.unpack_from(index)[0]] = any(fields.get(NBD_DEVICE_CONNECTED, b""))
    return found
