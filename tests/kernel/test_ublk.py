"""The structures of ublk are as include/uapi/linux/ublk_cmd.h lays them out; a C compiler is the judge."""

import struct
import subprocess
from pathlib import Path

import pytest
from tests.needs import need

from ioflusher.kernel import ublk

PROBE = """
#include <stdint.h>
#include <stdio.h>
#include <linux/ublk_cmd.h>
int main(void) {
    printf("%zu %zu %zu %zu\\n", sizeof(struct ublksrv_ctrl_cmd), sizeof(struct ublksrv_ctrl_dev_info),
           sizeof(struct ublksrv_io_cmd), sizeof(struct ublksrv_io_desc));
    printf("%d %d %d %d %d %d %d %d %d %d\\n", UBLK_CMD_GET_DEV_INFO, UBLK_CMD_ADD_DEV, UBLK_CMD_DEL_DEV,
           UBLK_CMD_START_DEV, UBLK_CMD_STOP_DEV, UBLK_CMD_SET_PARAMS, UBLK_CMD_START_USER_RECOVERY,
           UBLK_CMD_END_USER_RECOVERY, UBLK_IO_FETCH_REQ, UBLK_IO_COMMIT_AND_FETCH_REQ);
    printf("%d %d %d %d %d\\n", (int)UBLK_F_USER_RECOVERY, (int)UBLK_F_USER_RECOVERY_REISSUE,
           UBLK_S_DEV_DEAD, UBLK_S_DEV_LIVE, UBLK_S_DEV_QUIESCED);
    return 0;
}
"""


def test_sizes_and_numbers_are_the_headers(tmp_path: Path) -> None:
    """As the machine's own header has them."""
    compiler = need("gcc")
    (tmp_path / "probe.c").write_text(PROBE)
    if not Path("/usr/include/linux/ublk_cmd.h").exists():
        pytest.skip("needs linux/ublk_cmd.h: apt-get install linux-libc-dev of Linux 6.0 or later")
    subprocess.run([compiler, "-o", tmp_path / "probe", tmp_path / "probe.c"], check=True, timeout=60)
    out = subprocess.run([tmp_path / "probe"], check=True, timeout=60, capture_output=True, text=True).stdout
    sizes, numbers, states = (tuple(map(int, line.split())) for line in out.splitlines())
    assert sizes == (
        len(ublk.control_command(0)),
        ublk.DEVICE_INFO_BYTES,
        len(ublk.io_command(0, 0, 0, 0)),
        ublk.DESCRIPTOR_BYTES,
    )
    assert numbers == (*ublk.Control, *ublk.Io)
    assert states == (*ublk.Feature, *ublk.DeviceState)


def test_commands_are_encoded_as_ioctl_numbers() -> None:
    """UBLK_U_CMD_ADD_DEV is _IOWR('u', 0x04, struct ublksrv_ctrl_cmd) = 0xc0207504, and so on."""
    assert ublk.encoded(ublk.Control.ADD_DEV) == 0xC0207504
    assert ublk.encoded(ublk.Control.GET_DEV_INFO) == 0x80207502
    assert ublk.encoded(ublk.Io.COMMIT_AND_FETCH_REQ) == 0xC0107521


def test_a_request_is_read_from_its_place() -> None:
    """The tag's own descriptor, in bytes; flags beside the operation do not disturb."""
    descriptors = b"".join(
        struct.pack("=IIQQ", flags, sectors, start, 0)
        for flags, sectors, start in ((0, 1, 2), (1 | 1 << 13, 8, 1 << 33), (2, 0, 0))
    )
    assert ublk.block_request(descriptors, 0) == ublk.BlockRequest(ublk.Operation.READ, 1024, 512)
    assert ublk.block_request(descriptors, 1) == ublk.BlockRequest(ublk.Operation.WRITE, 1 << 42, 4096)
    assert ublk.block_request(descriptors, 2).operation == ublk.Operation.FLUSH


def test_what_was_granted_comes_back() -> None:
    """Number, queues and depth are read from the places in which they were asked for."""
    info = ublk.device_info(2, 64, 1 << 18)
    assert ublk.granted(info) == ublk.Granted(ublk.ANY_DEVICE, 2, 64, 1 << 18)
    info = ublk.device_info(2, 64, 1 << 18, ublk.RECOVERABLE)
    assert ublk.granted(info).features == ublk.RECOVERABLE


def test_the_disks_parameters() -> None:
    """Size and longest request in sectors; a volatile cache, so that flushes come."""
    words = ublk.parameters(256 << 20, 1 << 18)
    length, types, attributes = struct.unpack_from("=III", words)
    assert (length, types, attributes) == (len(words), 1, 4)
    assert struct.unpack_from("=II", words, 16) == (512, 0)
    assert struct.unpack_from("=Q", words, 24) == (524288,)


def test_each_queue_has_descriptors_of_its_own() -> None:
    """UBLK_MAX_QUEUE_DEPTH descriptors, rounded up to pages, lie between two queues'."""
    assert [ublk.descriptor_offset(queue, 4096) for queue in (0, 1, 2)] == [0, 98304, 196608]
    assert ublk.descriptor_offset(1, 65536) == 2 * 65536
