"""Messages of generic netlink: how a family is found by its name, its commands, and what it answers.

include/uapi/linux/genetlink.h, net/netlink/genetlink.c. A codec of our own and no library: what is sent while
no memory can be had must lie ready, as bytes.
"""

import struct
from dataclasses import dataclass

from ioflusher.kernel.netlink import NLM_F_ACK, NLM_F_REQUEST, attribute, attributes, message, messages

NETLINK_GENERIC = 16  # include/uapi/linux/netlink.h

GENL_ID_CTRL = 0x10
_CTRL_VERSION = 2
CTRL_CMD_GETFAMILY = 3
CTRL_ATTR_FAMILY_ID = 1
CTRL_ATTR_FAMILY_NAME = 2
CTRL_ATTR_MCAST_GROUPS = 7  # nest of nests
_CTRL_ATTR_MCAST_GRP_NAME = 1
_CTRL_ATTR_MCAST_GRP_ID = 2

SOL_NETLINK = 270  # include/linux/socket.h
NETLINK_ADD_MEMBERSHIP = 1  # include/uapi/linux/netlink.h

_HEADER = struct.Struct("=BBH")  # struct genlmsghdr: cmd, version, reserved
_ID = struct.Struct("=H")
_GROUP = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class GenericAnswer:
    """A message of a family.

    Attributes:
        command: its number.
        attributes: the content of each, by its number; the last one where a number comes twice.
    """

    command: int
    attributes: dict[int, bytes]


def command(family: int, number: int, version: int, body: bytes, *, sequence: int = 0) -> bytes:
    """The datagram of one command, `body` being its attributes; the kernel acknowledges it."""
    return message(family, NLM_F_REQUEST | NLM_F_ACK, sequence, _HEADER.pack(number, version, 0) + body)


def find_family(name: str) -> bytes:
    """The datagram that asks for the number of a family; the answer is for `parse_family`."""
    body = attribute(CTRL_ATTR_FAMILY_NAME, name.encode() + b"\0")
    return command(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, _CTRL_VERSION, body)


def parse_answers(data: bytes, family: int) -> tuple[tuple[GenericAnswer, ...], bool]:
    """What a datagram of the kernel says, and whether it ends with the acknowledgement.

    Raises:
        OSError: the kernel refused.
        ValueError: where it is cut off or of another family.
    """
    answers: list[GenericAnswer] = []
    acknowledged = False
    for kind, at, end, _ in messages(data, family):
        if kind != family:
            acknowledged = True
            continue
        if end - at < _HEADER.size:
            raise ValueError(f"expected a generic header of {_HEADER.size} bytes, found {end - at}")
        number, _, _ = _HEADER.unpack_from(data, at)
        answers.append(GenericAnswer(number, nest(data, at + _HEADER.size, end)))
    return tuple(answers), acknowledged


def nest(data: bytes, at: int = 0, end: int | None = None) -> dict[int, bytes]:
    """The attributes between two places, or of a whole nest, by number; ValueError where one is cut off."""
    found = attributes(data, at, len(data) if end is None else end)
    return {kind: data[begin:stop] for kind, begin, stop in found}


def parse_family(answer: GenericAnswer) -> int:
    """The family's number, from the answer to `find_family`.

    Raises:
        ValueError: where it has none.
    """
    content = answer.attributes.get(CTRL_ATTR_FAMILY_ID, b"")
    if len(content) < _ID.size:
        raise ValueError("expected the number of a family, found none")
    number: int = _ID.unpack_from(content)[0]
    return number


def parse_groups(answer: GenericAnswer) -> dict[str, int]:
    """The numbers of a family's multicast groups by name, from the answer to `find_family`.

    Raises:
        ValueError: where the list is cut off.
    """
    found: dict[str, int] = {}
    for group in nest(answer.attributes.get(CTRL_ATTR_MCAST_GROUPS, b"")).values():
        fields = nest(group)
        number = fields.get(_CTRL_ATTR_MCAST_GRP_ID, b"")
        name = fields.get(_CTRL_ATTR_MCAST_GRP_NAME, b"").rstrip(b"\0")
        if len(number) >= _GROUP.size and name:
            found[name.decode("ascii", "backslashreplace")] = _GROUP.unpack_from(number)[0]
    return found
