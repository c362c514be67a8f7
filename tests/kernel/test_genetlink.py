"""Generic netlink and the driver's interface on it: what is sent, and answers whole, cut off and foreign."""

import errno
import os
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioflusher.kernel.genetlink import (
    GENL_ID_CTRL,
    NETLINK_GENERIC,
    GenericAnswer,
    command,
    find_family,
    parse_answers,
    parse_family,
    parse_groups,
)
from ioflusher.kernel.nbd_netlink import (
    NbdAttr,
    NbdGenlCommand,
    backend_attribute,
    number_attribute,
    parse_device_list,
    parse_link_dead,
    sockets_attribute,
)
from ioflusher.kernel.netlink import NLMSG_ERROR, attribute

FAMILY = 0x22
# CTRL_CMD_NEWFAMILY as a 6.1 kernel answers for "nlctrl", its first attributes
NLCTRL = bytes.fromhex(
    "0b0002006e6c6374726c00000600010010000000080003000200000008000400000000000800050009000000"
)


def acknowledgement(error: int = 0) -> bytes:
    """NLMSG_ERROR, as the kernel ends an answer."""
    return struct.pack("=IHHIIi", 36, NLMSG_ERROR, 0x100, 0, 7, error) + bytes(16)


def answer(number: int, body: bytes, family: int = FAMILY) -> bytes:
    """A message of a family."""
    head = struct.pack("=IHHII", 20 + len(body), family, 0, 0, 7)
    return head + struct.pack("=BBH", number, 1, 0) + body


def test_a_command_byte_by_byte() -> None:
    """NBD_CMD_RECONFIGURE of nbd3 with two sockets: headers, numbers, nests, padding."""
    body = number_attribute(NbdAttr.INDEX, 3) + number_attribute(NbdAttr.TIMEOUT, 10)
    body += backend_attribute("disk") + sockets_attribute([5, 6])
    assert command(FAMILY, NbdGenlCommand.RECONFIGURE, 1, body, sequence=9).hex(" ", 4) == (
        "50000000 22000500 09000000 00000000 03010000 "  # header: request and acknowledgement wanted
        "08000100 03000000 "  # NBD_ATTR_INDEX, 32 bits
        "0c000400 0a000000 00000000 "  # NBD_ATTR_TIMEOUT, 64 bits
        "09000a00 6469736b 00000000 "  # NBD_ATTR_BACKEND_IDENTIFIER
        "1c000700 0c000100 08000100 05000000 0c000100 08000100 06000000"
    )


def test_an_answer_of_several_messages() -> None:
    """What the family says, and the acknowledgement behind it, in one datagram or in two."""
    said = answer(5, attribute(NbdAttr.INDEX, struct.pack("=I", 4)))
    expected = (GenericAnswer(5, {NbdAttr.INDEX: struct.pack("=I", 4)}),)
    assert parse_answers(said + acknowledgement(), FAMILY) == (expected, True)
    assert parse_answers(said, FAMILY) == (expected, False)
    assert parse_answers(acknowledgement(), FAMILY) == ((), True)


def test_a_refusal_is_the_systems_error() -> None:
    """The kernel's errno."""
    with pytest.raises(OSError, match="busy") as caught:
        parse_answers(acknowledgement(-errno.EBUSY), FAMILY)
    assert caught.value.errno == errno.EBUSY


def test_a_family_is_found() -> None:
    """The number out of a recorded answer; without one it is an error."""
    ((found,), _) = parse_answers(answer(1, NLCTRL, GENL_ID_CTRL), GENL_ID_CTRL)
    assert parse_family(found) == GENL_ID_CTRL
    with pytest.raises(ValueError, match="the number of a family"):
        parse_family(GenericAnswer(1, {}))


def test_groups_by_name() -> None:
    """CTRL_ATTR_MCAST_GROUPS, a list of nests; one without a number is left out."""
    name, number = attribute(1, b"nbd_mc_group\0"), attribute(2, struct.pack("=I", 12))
    groups = attribute(1, name + number) + attribute(2, attribute(1, b"other\0"))
    assert parse_groups(GenericAnswer(1, {7: groups})) == {"nbd_mc_group": 12}
    assert parse_groups(GenericAnswer(1, {})) == {}


def test_a_connection_has_died() -> None:
    """NBD_CMD_LINK_DEAD has the device's index; nothing else is such a notice."""
    index = {int(NbdAttr.INDEX): struct.pack("=I", 3)}
    assert parse_link_dead(GenericAnswer(NbdGenlCommand.LINK_DEAD, index)) == 3
    assert parse_link_dead(GenericAnswer(NbdGenlCommand.CONNECT, index)) is None
    assert parse_link_dead(GenericAnswer(NbdGenlCommand.LINK_DEAD, {})) is None


@pytest.mark.live
def test_this_kernel_has_generic_netlink() -> None:
    """The controller of generic netlink answers for itself; a family that is not there is ENOENT."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC) as sock:
        sock.settimeout(5)
        sock.send(find_family("nlctrl"))
        ((found,), _) = parse_answers(sock.recv(1 << 16), GENL_ID_CTRL)
        assert parse_family(found) == GENL_ID_CTRL
        sock.recv(1 << 16)  # the acknowledgement
        sock.send(find_family(f"no-such-family-{os.getpid()}"[:15]))
        with pytest.raises(OSError, match="No such file") as caught:
            parse_answers(sock.recv(1 << 16), GENL_ID_CTRL)
        assert caught.value.errno == errno.ENOENT


def test_a_device_list() -> None:
    """By index; a device without its number is left out, one without its state counts as not configured."""
    items = [
        attribute(1, struct.pack("=I", 0)) + attribute(2, b"\1"),
        attribute(1, struct.pack("=I", 12)) + attribute(2, b"\0"),
        attribute(1, struct.pack("=I", 3)),
        attribute(2, b"\1"),
    ]
    content = b"".join(attribute(1, item) for item in items)
    assert parse_device_list(content) == {0: True, 12: False, 3: False}
    with pytest.raises(ValueError, match="an attribute of"):
        parse_device_list(content[:-2])


@given(st.binary(max_size=80))
def test_any_bytes(data: bytes) -> None:
    """What is no answer is ValueError, or an error that the kernel could have meant; nothing else."""
    try:
        parse_answers(data, FAMILY)
        parse_device_list(data)
    except (ValueError, OSError):
        pass
