"""What sysfs tells of nbd devices, on a tree like that of a kernel: status, and what may replace a server."""

from pathlib import Path

import pytest
from tests.cli.program import call

from ioflusher.nbd.kernel_client import device as devices
from ioflusher.nbd.kernel_client import status
from ioflusher.nbd.kernel_client.connections import check_replaces
from ioflusher.nbd.kernel_client.device import AttachError
from ioflusher.nbd.kernel_client.reconnect import queues
from ioflusher.nbd.protocol.exports import BlockSize, Export
from ioflusher.nbd.protocol.wire import TransmissionFlag as Flag

# as a 6.12 kernel shows a device of 64 MiB with two connections
ATTACHED = {
    "pid": "1\n",
    "backend": "disk\n",
    "size": "131072\n",
    "ro": "0\n",
    "inflight": "       2        5\n",
    "queue/logical_block_size": "4096\n",
    "queue/io_timeout": "5000\n",
    "queue/max_sectors_kb": "1024\n",
    "queue/write_cache": "write back\n",
    "queue/fua": "1\n",
    "queue/discard_max_bytes": "0\n",
    "queue/write_zeroes_max_bytes": "4294966784\n",
    "mq/0/cpu_list": "0\n",
    "mq/1/cpu_list": "1\n",
}
FREE = {"size": "0\n", "ro": "0\n", "inflight": "       0        0\n", "mq/0/cpu_list": "0, 1\n"}
FULL = Flag.HAS_FLAGS | Flag.SEND_FLUSH | Flag.SEND_FUA | Flag.SEND_WRITE_ZEROES | Flag.CAN_MULTI_CONN


@pytest.fixture(autouse=True)
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """nbd0 attached, nbd1 not, nbd10 with next to nothing, and another driver's device."""
    for name, files in (("nbd0", ATTACHED), ("nbd1", FREE), ("nbd10", {"size": "\n"}), ("sda", FREE)):
        for path, text in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)
    monkeypatch.setattr(devices, "SYS_BLOCK", tmp_path)
    monkeypatch.setattr(status, "configured", lambda: {0: True, 1: True})
    return tmp_path


def test_an_attached_device(tmp_path: Path) -> None:
    """All of it; the process that attached it is looked for, and may be gone."""
    found = status.device_status("/dev/nbd0")
    assert found == status.DeviceStatus(
        device="/dev/nbd0",
        attached=True,
        configured=True,
        attached_by=1,
        alive=True,
        backend="disk",
        size=64 << 20,
        read_only=False,
        block_size=4096,
        queues=2,
        reads=2,
        writes=5,
        timeout_ms=5000,
    )
    assert status.device_status("/dev/nbd0", proc=tmp_path).alive is False


def test_configured_is_not_attached() -> None:
    """The driver counts a device that somebody has open as configured; what is not told is unknown."""
    free, bare = (status.device_status(f"/dev/nbd{number}") for number in (1, 10))
    assert (free.attached, free.configured, free.attached_by, free.alive) == (False, True, None, None)
    assert (bare.configured, bare.size, bare.reads, bare.queues, bare.backend) == (None,) * 5


def test_the_list_on_the_command_line() -> None:
    """By number; those that are not attached only when asked for."""
    listed = call("nbd", "list")
    assert (listed.status, listed.stdout.splitlines()[1].split()) == (
        0,
        ["/dev/nbd0", "64", "MiB", "4096", "2", "2", "5", "1", "disk"],
    )
    names = [line.split()[0] for line in call("nbd", "list", "--all").stdout.splitlines()]
    assert names == ["DEVICE", "/dev/nbd0", "/dev/nbd1", "/dev/nbd10"]


def test_the_status_on_the_command_line() -> None:
    """0 for one that is attached, 1 for one that is not; unknown is said to be unknown."""
    attached, free = call("nbd", "status", "/dev/nbd0"), call("nbd", "status", "/dev/nbd10")
    assert (attached.status, free.status) == (0, 1)
    assert "attached: yes\n" in attached.stdout
    assert "timeout ms: 5000\n" in attached.stdout
    assert "attached: no\n" in free.stdout
    assert "reads: unknown\n" in free.stdout


def test_queues() -> None:
    """One a connection."""
    assert (queues("/dev/nbd0"), queues("/dev/nbd1")) == (2, 1)


def export(size: int = 64 << 20, flags: int = FULL, minimum: int = 1, maximum: int = 1 << 20) -> Export:
    """An export, by default one that can take the place of nbd0's."""
    return Export("", size, int(flags), BlockSize(minimum, 4096, maximum))


def test_what_can_take_a_servers_place() -> None:
    """The same, or one that can do more; a read-only one for a read-only device."""
    check_replaces(export(), "/dev/nbd0")
    check_replaces(export(flags=FULL | Flag.SEND_TRIM, minimum=512, maximum=32 << 20), "/dev/nbd0")
    devices.SYS_BLOCK.joinpath("nbd0/ro").write_text("1\n")
    check_replaces(export(flags=FULL | Flag.READ_ONLY), "/dev/nbd0")


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (export(size=32 << 20), "the export has 33554432 bytes, '/dev/nbd0' has 67108864"),
        (export(minimum=8192), "the server takes multiples of 8192"),
        (export(maximum=1 << 19), "payloads up to 524288 bytes, '/dev/nbd0' has requests up to 1048576"),
        (export(flags=FULL | Flag.READ_ONLY), "read-only"),
        (export(flags=FULL & ~Flag.SEND_FLUSH), "lacks SEND_FLUSH, which"),
        (export(flags=FULL & ~Flag.SEND_FUA & ~Flag.SEND_WRITE_ZEROES), "lacks SEND_FUA, SEND_WRITE_ZEROES"),
    ],
)
def test_what_cannot(other: Export, complaint: str) -> None:
    """Each reason by name: the kernel would go on as with the first and lose requests."""
    with pytest.raises(AttachError, match=complaint):
        check_replaces(other, "/dev/nbd0")


def test_trim_is_asked_for_where_the_device_uses_it() -> None:
    """As its queue shows it."""
    devices.SYS_BLOCK.joinpath("nbd0/queue/discard_max_bytes").write_text("4294966784\n")
    with pytest.raises(AttachError, match="lacks SEND_TRIM"):
        check_replaces(export(), "/dev/nbd0")
