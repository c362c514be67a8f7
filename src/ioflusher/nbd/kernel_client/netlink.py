"""The kernel's NBD client set up over generic netlink: nobody has to stay for the device to live.

Source: drivers/block/nbd.c (nbd_genl_connect), include/uapi/linux/nbd-netlink.h; since 4.12. Needs the
package pyroute2 (the extra `netlink`).
"""

import errno
import os
import re
import socket
from collections.abc import Sequence
from typing import Any

from ioflusher.kernel.nbd import (
    NBD_GENL_FAMILY_NAME,
    NBD_GENL_VERSION,
    NbdAttr,
    NbdGenlCommand,
)
from ioflusher.nbd.address import Address
from ioflusher.nbd.kernel_client.attachment import (
    AttachError,
    await_end,
    check_free,
    connect_sockets,
    limit_requests,
    open_device,
)
from ioflusher.nbd.protocol.exports import Export


def attach(
    device: str, address: Address, *, block_size: int = 4096, timeout: int = 0, connections: int = 1
) -> Export:
    """Connect the kernel's client to a server; returns when the device is ready. Arguments as by ioctl.

    Raises:
        AttachError: pyroute2 or the device is missing, it is in use, or the kernel refuses.
        NbdError: the server cannot be reached, refuses, or does not fit the block size.
    """
    export, sockets = connect(
        device, address, block_size=block_size, timeout=timeout, connections=connections
    )
    _close(sockets)  # the kernel holds its own references
    return export


def connect(
    device: str,
    address: Address,
    *,
    block_size: int = 4096,
    timeout: int = 0,
    connections: int = 1,
    dead_connection_timeout: int = 0,
) -> tuple[Export, list[socket.socket]]:
    """As `attach`; the sockets that the kernel uses are the caller's to close.

    Args:
        device, address, block_size, timeout, connections: as of `attach`.
        dead_connection_timeout: seconds that requests wait for `reconnect` once no connection is left; 0:
            they fail at once.
    """
    index = device_index(device)
    os.close(open_device(device))  # its errors are clearer than those of netlink
    check_free(device)
    export, sockets = connect_sockets(address, block_size, connections)
    try:
        limit_requests(device, export.block_size.maximum)
        attributes: list[tuple[NbdAttr, object]] = [
            (NbdAttr.INDEX, index),
            (NbdAttr.SIZE_BYTES, export.size),
            (NbdAttr.BLOCK_SIZE_BYTES, block_size),
            (NbdAttr.SERVER_FLAGS, export.flags),
            _sockets_attribute(sockets),
        ]
        if timeout:
            attributes.append((NbdAttr.TIMEOUT, timeout))
        if dead_connection_timeout:
            attributes.append((NbdAttr.DEAD_CONN_TIMEOUT, dead_connection_timeout))
        _request(NbdGenlCommand.CONNECT, attributes, f"attach {device}")
    except BaseException:
        _close(sockets)
        raise
    return export, sockets


def reconnect(device: str, address: Address, *, block_size: int = 4096) -> list[socket.socket]:
    """Give the kernel a connection in place of one that was lost; its socket is the caller's to close.

    Requests that were on their way over the lost one are sent again after the device's time-out. Where none
    was lost the kernel does not take the new one, and says nothing (nbd_genl_reconfigure).

    Raises:
        AttachError: pyroute2 is missing, or the kernel refuses: the device was set up by ioctl, or is down.
        NbdError: the server cannot be reached, or refuses.
    """
    _, sockets = connect_sockets(address, block_size, 1)
    try:
        attributes: list[tuple[NbdAttr, object]] = [
            (NbdAttr.INDEX, device_index(device)),
            _sockets_attribute(sockets),
        ]
        _request(NbdGenlCommand.RECONFIGURE, attributes, f"reconnect {device}")
    except BaseException:
        _close(sockets)
        raise
    return sockets


def _sockets_attribute(sockets: Sequence[socket.socket]) -> tuple[NbdAttr, object]:
    items = [("NBD_SOCK_ITEM", {"attrs": [("NBD_SOCK_FD", sock.fileno())]}) for sock in sockets]
    return NbdAttr.SOCKETS, {"attrs": items}


def _close(sockets: Sequence[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def detach(device: str) -> None:
    """Disconnect a device and wait until it is down.

    Raises:
        AttachError: pyroute2 is missing, the kernel refuses, or the device does not end in time.
    """
    _request(NbdGenlCommand.DISCONNECT, [(NbdAttr.INDEX, device_index(device))], f"detach {device}")
    await_end(device)


def device_index(device: str) -> int:
    """N of /dev/nbdN."""
    match = re.fullmatch(r"(?:/dev/)?nbd(\d+)", device)
    if match is None:
        raise AttachError(f"{device!r} is no device of the nbd driver; expected /dev/nbdN")
    return int(match[1])


def _request(command: NbdGenlCommand, attributes: list[tuple[NbdAttr, object]], what: str) -> None:
    """Send one request and take the kernel's acknowledgement."""
    try:
        from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST
        from pyroute2.netlink.exceptions import NetlinkError
        from pyroute2.netlink.generic import GenericNetlinkSocket
    except ImportError as error:
        raise AttachError(
            f"cannot {what} over netlink: the package pyroute2 is missing",
            hint="pip install 'ioflusher[netlink]', or use --ioctl, which needs nothing",
        ) from error
    layout = _message_layout()
    message = layout()
    message["cmd"] = command
    message["version"] = NBD_GENL_VERSION
    message["attrs"] = [(f"NBD_ATTR_{attribute.name}", value) for attribute, value in attributes]
    try:
        with GenericNetlinkSocket() as netlink:
            netlink.bind(NBD_GENL_FAMILY_NAME, layout)
            netlink.nlm_request(message, netlink.prid, msg_flags=NLM_F_REQUEST | NLM_F_ACK)
    except (NetlinkError, OSError) as error:
        number = error.code if isinstance(error, NetlinkError) else error.errno
        hint = "another client uses it: ioflusher nbd detach" if number == errno.EBUSY else None
        raise AttachError(
            f"cannot {what} over netlink: {os.strerror(number or 0)}", errno=number, hint=hint
        ) from error


def _message_layout() -> Any:
    """The driver's netlink message as pyroute2 describes messages; made here, since pyroute2 loads slowly."""
    from pyroute2.netlink import genlmsg, nla

    class Socket(nla):  # type: ignore[misc]
        nla_map = (("NBD_SOCK_UNSPEC", "none"), ("NBD_SOCK_FD", "uint32"))

    class Sockets(nla):  # type: ignore[misc]
        nla_map = (("NBD_SOCK_ITEM_UNSPEC", "none"), ("NBD_SOCK_ITEM", "socket"))
        socket = Socket

    class Message(genlmsg):  # type: ignore[misc]
        nla_map = (
            ("NBD_ATTR_UNSPEC", "none"),
            ("NBD_ATTR_INDEX", "uint32"),
            ("NBD_ATTR_SIZE_BYTES", "uint64"),
            ("NBD_ATTR_BLOCK_SIZE_BYTES", "uint64"),
            ("NBD_ATTR_TIMEOUT", "uint64"),
            ("NBD_ATTR_SERVER_FLAGS", "uint64"),
            ("NBD_ATTR_CLIENT_FLAGS", "uint64"),
            ("NBD_ATTR_SOCKETS", "sockets"),
            ("NBD_ATTR_DEAD_CONN_TIMEOUT", "uint64"),
        )
        sockets = Sockets

    return Message
