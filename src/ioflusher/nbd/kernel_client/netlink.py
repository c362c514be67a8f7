"""The kernel's NBD client set up over generic netlink: nobody has to stay for the device to live.

Source: drivers/block/nbd.c (nbd_genl_connect), include/uapi/linux/nbd-netlink.h; since 4.12.
"""

import errno
import os
import socket

from ioflusher.kernel.genetlink import (
    GENL_ID_CTRL,
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_GENERIC,
    SOL_NETLINK,
    GenericAnswer,
    command,
    find_family,
    parse_answers,
    parse_family,
    parse_groups,
)
from ioflusher.kernel.nbd_netlink import (
    NBD_GENL_FAMILY_NAME,
    NBD_GENL_MCAST_GROUP_NAME,
    NBD_GENL_VERSION,
    NbdAttr,
    NbdClientFlag,
    NbdGenlCommand,
    backend_attribute,
    number_attribute,
    parse_device_list,
    parse_link_dead,
    sockets_attribute,
)
from ioflusher.nbd.address import Address
from ioflusher.nbd.kernel_client.attachment import DEFAULTS, device_flags
from ioflusher.nbd.kernel_client.connections import check_export, close, connect_sockets
from ioflusher.nbd.kernel_client.device import (
    AttachError,
    await_end,
    check_free,
    device_index,
    exists,
    limit_requests,
    open_device,
)
from ioflusher.nbd.kernel_client.options import ClientOptions
from ioflusher.nbd.protocol.exports import Export

_ANSWER_BYTES = 1 << 16  # above what the kernel writes into one datagram, net/netlink/af_netlink.c


class NbdNetlink:
    """A netlink socket that speaks to the driver.

    `send` does not allocate in this process what it could have before, so that it may be used while memory is
    short; in the kernel each command takes some small blocks (docs/nbd.md).

    Raises:
        AttachError: the driver is not loaded.
    """

    def __init__(self) -> None:
        self._answer = bytearray(_ANSWER_BYTES)
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_GENERIC)
        try:
            (family,) = self._exchange(find_family(NBD_GENL_FAMILY_NAME), GENL_ID_CTRL)
            self._family = parse_family(family)
            self._groups = parse_groups(family)
        except OSError as error:
            self._sock.close()
            raise AttachError(
                f"the kernel has no netlink family {NBD_GENL_FAMILY_NAME!r}: {error.strerror}",
                errno=error.errno,
                hint="load the driver: modprobe nbd",
            ) from error
        except BaseException:
            self._sock.close()
            raise

    def hear(self) -> None:
        """Be told from now on what the driver tells everybody: connections that die. See `deaths`.

        Such a socket is for nothing else.

        Raises:
            AttachError: the driver tells nothing.
        """
        group = self._groups.get(NBD_GENL_MCAST_GROUP_NAME)
        if group is None:
            raise AttachError(f"the driver has no group {NBD_GENL_MCAST_GROUP_NAME!r}", errno=errno.ENOENT)
        self._sock.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        self._sock.setblocking(False)

    def deaths(self) -> tuple[int, ...]:
        """By `hear`: the indices of devices of which a connection died since the last call, once for each."""
        found: tuple[int, ...] = ()
        while True:
            try:
                length = self._sock.recv_into(self._answer)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more was told than there was room for
                    raise
                continue
            answers, _ = parse_answers(bytes(self._answer[:length]), self._family)
            found += tuple(index for index in map(parse_link_dead, answers) if index is not None)

    def fileno(self) -> int:
        """For poll(2)."""
        return self._sock.fileno()

    def prepare(self, number: NbdGenlCommand, attributes: bytes) -> bytes:
        """The datagram for `send`."""
        return command(self._family, number, NBD_GENL_VERSION, attributes)

    def send(self, datagram: bytes) -> tuple[GenericAnswer, ...]:
        """Have the kernel carry out a command; what it answers.

        Raises:
            OSError: it refused.
        """
        return self._exchange(datagram, self._family)

    def _exchange(self, datagram: bytes, family: int) -> tuple[GenericAnswer, ...]:
        self._sock.send(datagram)
        answers: tuple[GenericAnswer, ...] = ()
        acknowledged = False
        while not acknowledged:
            length = self._sock.recv_into(self._answer)
            found, acknowledged = parse_answers(bytes(self._answer[:length]), family)
            answers += found
        return answers

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def __enter__(self) -> "NbdNetlink":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def attach(device: str, address: Address, options: ClientOptions = DEFAULTS) -> Export:
    """Connect the kernel's client to a server; returns when the device, /dev/nbdN, is ready.

    Raises:
        AttachError: the device or the driver is missing, it is in use, or the kernel refuses.
        NbdError: the server cannot be reached, refuses, or does not fit the options.
    """
    export, sockets = connect(device, address, options)
    close(sockets)  # the kernel holds its own references
    return export


def connect(
    device: str, address: Address, options: ClientOptions = DEFAULTS
) -> tuple[Export, list[socket.socket]]:
    """As `attach`; the sockets that the kernel uses are the caller's to close."""
    index = device_index(device)
    with NbdNetlink() as netlink:
        there = exists(device)  # the driver makes one that is not
        if there:
            os.close(open_device(device))  # its errors are clearer than those of netlink
            check_free(device)
        export, sockets = connect_sockets(address, options.connections)
        try:
            check_export(export, options.block_size)
            if there:
                limit_requests(device, export.block_size.maximum)
            _request(
                netlink, NbdGenlCommand.CONNECT, _connect(index, export, sockets, options), "attach", device
            )
            if not there:
                limit_requests(device, export.block_size.maximum)
        except BaseException:
            close(sockets)
            raise
    return export, sockets


def _connect(index: int, export: Export, sockets: list[socket.socket], options: ClientOptions) -> bytes:
    """The attributes of NBD_CMD_CONNECT."""
    flags = NbdClientFlag.DISCONNECT_ON_CLOSE * options.disconnect_on_close
    flags |= NbdClientFlag.DESTROY_ON_DISCONNECT * options.destroy_on_disconnect
    numbers = {
        NbdAttr.INDEX: index,
        NbdAttr.SIZE_BYTES: export.size,
        NbdAttr.BLOCK_SIZE_BYTES: options.block_size,
        NbdAttr.SERVER_FLAGS: device_flags(export, options),
        NbdAttr.CLIENT_FLAGS: flags,
        NbdAttr.TIMEOUT: options.timeout,
        NbdAttr.DEAD_CONN_TIMEOUT: options.dead_connection_timeout,
    }
    # one list of sockets only, and it last: the kernel reads the times before it takes the sockets
    body = b"".join(number_attribute(kind, value) for kind, value in numbers.items())
    if options.backend:
        body += backend_attribute(options.backend)
    return body + sockets_attribute([sock.fileno() for sock in sockets])


def detach(device: str) -> None:
    """Disconnect a device and wait until it is down.

    The kernel holds the lock of all generic netlink meanwhile, and waits for the server to take its farewell:
    for a device whose server hangs `attachment.detach` keeps clear of the former.

    Raises:
        AttachError: the kernel refuses, or the device does not end in time.
    """
    index = device_index(device)
    with NbdNetlink() as netlink:
        _request(netlink, NbdGenlCommand.DISCONNECT, number_attribute(NbdAttr.INDEX, index), "detach", device)
    await_end(device)


def configured_devices() -> dict[int, bool]:
    """By index, whether the kernel has a configuration for the device: it is attached, or open.

    Raises:
        AttachError: the driver is not loaded, or does not say.
    """
    with NbdNetlink() as netlink:
        answers = _request(netlink, NbdGenlCommand.STATUS, b"", "ask for the state of", "the devices")
    found: dict[int, bool] = {}
    for answer in answers:
        found |= parse_device_list(answer.attributes.get(NbdAttr.DEVICE_LIST, b""))
    return found


def _request(
    netlink: NbdNetlink, number: NbdGenlCommand, attributes: bytes, verb: str, device: str
) -> tuple[GenericAnswer, ...]:
    try:
        return netlink.send(netlink.prepare(number, attributes))
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        code = error.errno if isinstance(error, OSError) else None
        raise AttachError(
            f"cannot {verb} {device} over netlink: {what}", errno=code, hint=_HINTS.get(code or 0)
        ) from error


_HINTS = {
    errno.EBUSY: "another client uses it: ioflusher nbd detach",
    errno.EPERM: "it needs root",
}
