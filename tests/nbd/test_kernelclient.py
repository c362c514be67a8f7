"""What the kernel's client is refused before the kernel is asked; the rest needs a guest (test_guest.py)."""

import errno
import sys

import pytest

from ioflusher.nbd.kernel_client import attachment, netlink
from ioflusher.nbd.kernel_client.attachment import AttachError, check_export
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
    with pytest.raises(AttachError, match=complaint):
        check_export(export, block_size, connections)


def test_what_fits() -> None:
    """Small blocks for an odd size, and several connections where the server allows them."""
    check_export(Export("", (1 << 20) + 512, MULTI), 512, 4)


def test_a_missing_device_names_the_module() -> None:
    """Without /dev/nbdN the hint says what to load."""
    with pytest.raises(AttachError, match="/dev/nbd-none") as caught:
        attachment.open_device("/dev/nbd-none")
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
        netlink.device_index(device)
    assert netlink.device_index("/dev/nbd15") == 15


def test_netlink_without_pyroute2(monkeypatch: pytest.MonkeyPatch) -> None:
    """The optional package is named, and the way that does without it."""
    monkeypatch.setitem(sys.modules, "pyroute2.netlink", None)
    with pytest.raises(AttachError, match="pyroute2 is missing") as caught:
        netlink.detach("/dev/nbd0")
    assert "--ioctl" in (caught.value.hint or "")
