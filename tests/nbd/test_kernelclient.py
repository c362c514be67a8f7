"""What the kernel's client is refused before the kernel is asked; the rest needs a guest (test_guest.py)."""

import errno

import pytest

from ioflusher.nbd.address import Address
from ioflusher.nbd.kernel_client import attachment, netlink
from ioflusher.nbd.kernel_client.connections import check_connections, check_export
from ioflusher.nbd.kernel_client.device import AttachError, device_index, open_device
from ioflusher.nbd.kernel_client.options import ClientOptions
from ioflusher.nbd.protocol.exports import BlockSize, Export
from ioflusher.nbd.protocol.wire import TransmissionFlag

MULTI = int(TransmissionFlag.HAS_FLAGS | TransmissionFlag.CAN_MULTI_CONN)


@pytest.mark.parametrize(
    ("size", "minimum", "block_size", "connections", "complaint"),
    [
        (1 << 20, 1, 256, 1, "a block size of 256; expected a power of two"),
        (1 << 20, 1, 3000, 1, "a block size of 3000"),
        (1 << 20, 1, 8192, 1, "a block size of 8192"),
        (1 << 20, 4096, 512, 1, "the server takes multiples of 4096"),
        ((1 << 20) + 512, 1, 4096, 1, "no multiple of the block size"),
        (1 << 20, 1, 4096, 0, "0 connections"),
        (1 << 20, 1, 4096, 2, "2 connections; the server allows one"),
    ],
)
def test_what_does_not_fit(
    size: int, minimum: int, block_size: int, connections: int, complaint: str
) -> None:
    """Block sizes that the kernel or the server cannot have, and connections that the server forbids."""
    export = Export("", size, 1, BlockSize(minimum, 4096, 1 << 20))

    def check() -> None:
        check_export(export, block_size)
        check_connections(export, connections)

    with pytest.raises(AttachError, match=complaint):
        check()


def test_what_fits() -> None:
    """Small blocks for an odd size, and several connections where the server allows them."""
    export = Export("", (1 << 20) + 512, MULTI)
    check_export(export, 512)
    check_connections(export, 4)


def test_a_missing_device_names_the_module() -> None:
    """Without /dev/nbdN the hint says what to load."""
    with pytest.raises(AttachError, match="/dev/nbd-none") as caught:
        open_device("/dev/nbd-none")
    assert caught.value.errno == errno.ENOENT
    assert "modprobe nbd" in (caught.value.hint or "")


def test_another_drivers_device_is_refused() -> None:
    """No ioctl of ours reaches a device that is not the driver's."""
    with pytest.raises(AttachError, match="no device of the nbd driver"):
        attachment.detach("/dev/null")


@pytest.mark.parametrize("device", ["/dev/nbd", "/dev/nbd0p1", "/dev/sda", "/dev/nbd-1", ""])
def test_netlink_wants_a_number(device: str) -> None:
    """Netlink knows devices by number, which the name must give."""
    with pytest.raises(AttachError, match="expected /dev/nbdN"):
        device_index(device)
    assert device_index("/dev/nbd15") == 15


@pytest.mark.parametrize(
    "options",
    [
        ClientOptions(dead_connection_timeout=1),
        ClientOptions(backend="x"),
        ClientOptions(disconnect_on_close=True),
        ClientOptions(destroy_on_disconnect=True),
    ],
)
def test_what_the_ioctls_lack(options: ClientOptions) -> None:
    """It is refused before the device is touched, not passed over."""
    with pytest.raises(AttachError, match="no such option") as caught:
        attachment.attach("/dev/nbd-none", Address(), options)
    assert caught.value.hint == "use netlink"


def test_netlink_without_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel has no such family the hint says what to load."""
    monkeypatch.setattr(netlink, "NBD_GENL_FAMILY_NAME", "no-driver")
    with pytest.raises(AttachError, match="no netlink family 'no-driver'") as caught:
        netlink.NbdNetlink()
    assert (caught.value.errno, caught.value.hint) == (errno.ENOENT, "load the driver: modprobe nbd")
