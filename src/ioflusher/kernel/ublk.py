"""What a ublk server and the kernel say to each other: commands, structures, operations.

Source: include/uapi/linux/ublk_cmd.h, drivers/block/ublk_drv.c (6.1, 6.12). The structures are packed here,
nothing is sent. Commands have the numbers that ioctl's encoding gives them since 6.4 (UBLK_U_CMD_*); a
kernel before that knows the bare numbers alone.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

CONTROL_DEVICE = "/dev/ublk-control"
SECTOR = 512
ANY_DEVICE = 0xFFFFFFFF  # ADD_DEV: the kernel picks the number
WHOLE_DEVICE = 0xFFFF  # the queue of a command that is about no queue
MAX_QUEUE_DEPTH = 4096  # UBLK_MAX_QUEUE_DEPTH
MAX_QUEUES = 4096  # UBLK_MAX_NR_QUEUES


class Control(IntEnum):
    """Commands to /dev/ublk-control, UBLK_CMD_*."""

    GET_DEV_INFO = 0x02
    ADD_DEV = 0x04
    DEL_DEV = 0x05
    START_DEV = 0x06
    STOP_DEV = 0x07
    SET_PARAMS = 0x08
    START_USER_RECOVERY = 0x10  # since 6.1, as the next
    END_USER_RECOVERY = 0x11


class Io(IntEnum):
    """Commands to /dev/ublkcN, UBLK_IO_*."""

    FETCH_REQ = 0x20
    COMMIT_AND_FETCH_REQ = 0x21


class Feature(IntFlag):
    """What a device is made with, UBLK_F_*."""

    USER_RECOVERY = 1 << 3  # when its server dies, requests wait for another one
    USER_RECOVERY_REISSUE = 1 << 4  # and those that the server had are given to the next, too


NO_FEATURE = Feature(0)
RECOVERABLE = Feature.USER_RECOVERY | Feature.USER_RECOVERY_REISSUE


class DeviceState(IntEnum):
    """UBLK_S_DEV_*."""

    DEAD = 0
    LIVE = 1
    QUIESCED = 2  # its server has died, and it waits for another one


class Operation(IntEnum):
    """What a request asks for, UBLK_IO_OP_*: the low eight bits of op_flags."""

    READ = 0
    WRITE = 1
    FLUSH = 2


# what a fetch command completes with: a request is there
IO_RES_OK = 0

_CONTROL_COMMAND = struct.Struct("=IHHQQQ")  # ublksrv_ctrl_cmd
_DEVICE_INFO = struct.Struct("=HHHHIIiIQQIIQQ")  # ublksrv_ctrl_dev_info
_PARAMETERS = struct.Struct("=IIIBBBBIIQQ")  # ublk_params with ublk_param_basic
_IO_COMMAND = struct.Struct("=HHiQ")  # ublksrv_io_cmd
_IO_DESCRIPTOR = struct.Struct("=IIQQ")  # ublksrv_io_desc
DEVICE_INFO_BYTES = _DEVICE_INFO.size
DESCRIPTOR_BYTES = _IO_DESCRIPTOR.size
_TYPE_BASIC = 1 << 0  # UBLK_PARAM_TYPE_BASIC
_VOLATILE_CACHE = 1 << 2  # UBLK_ATTR_VOLATILE_CACHE: flushes come


def encoded(command: Control | Io) -> int:
    """The command as ioctl numbers are encoded: _IOWR('u', command, its structure), _IOR for a question."""
    size = _CONTROL_COMMAND.size if isinstance(command, Control) else _IO_COMMAND.size
    direction = 2 if command is Control.GET_DEV_INFO else 3
    return direction << 30 | size << 16 | ord("u") << 8 | command


def control_command(device: int, *, address: int = 0, length: int = 0, data: int = 0) -> bytes:
    """struct ublksrv_ctrl_cmd: `address` and `length` of a buffer, or the number `data`."""
    return _CONTROL_COMMAND.pack(device, WHOLE_DEVICE, length, address, data, 0)


def device_info(queues: int, depth: int, largest_bytes: int, features: Feature = NO_FEATURE) -> bytes:
    """struct ublksrv_ctrl_dev_info that asks for a device; the kernel fills in the rest."""
    return _DEVICE_INFO.pack(queues, depth, 0, 0, largest_bytes, ANY_DEVICE, 0, 0, features, 0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Granted:
    """What the kernel granted: it may give fewer queues and a smaller depth than were asked for.

    Attributes:
        device: its number.
        queues, depth: queues, and requests of each.
        largest_bytes: the longest request.
        state: a `DeviceState`, or one of a later kernel.
        features: of the kernel's flags those that are known here.
    """

    device: int
    queues: int
    depth: int
    largest_bytes: int
    state: int = DeviceState.DEAD
    features: Feature = NO_FEATURE


def granted(info: bytes) -> Granted:
    """The device in a struct ublksrv_ctrl_dev_info that came back."""
    queues, depth, state, _, largest_bytes, device, _, _, flags, *_ = _DEVICE_INFO.unpack(info)
    return Granted(device, queues, depth, largest_bytes, state, Feature(flags & RECOVERABLE))


def parameters(size: int, largest_bytes: int) -> bytes:
    """struct ublk_params of a disk of `size` bytes with a volatile cache, in blocks of 512 bytes."""
    logical, physical = 9, 12  # shifts
    return _PARAMETERS.pack(
        _PARAMETERS.size,
        _TYPE_BASIC,
        _VOLATILE_CACHE,
        logical,
        physical,
        physical,
        logical,
        largest_bytes // SECTOR,
        0,
        size // SECTOR,
        0,
    )


def io_command(queue: int, tag: int, result: int, address: int) -> bytes:
    """struct ublksrv_io_cmd: the result of the tag's request, and where its data is or goes."""
    return _IO_COMMAND.pack(queue, tag, result, address)


@dataclass(frozen=True, slots=True)
class BlockRequest:
    """A request; `offset` and `length` in bytes."""

    operation: int
    offset: int
    length: int


def block_request(descriptors: bytes | memoryview, tag: int) -> BlockRequest:
    """The request of a tag in the queue's array of struct ublksrv_io_desc."""
    flags, sectors, start, _ = _IO_DESCRIPTOR.unpack_from(descriptors, tag * DESCRIPTOR_BYTES)
    return BlockRequest(flags & 0xFF, start * SECTOR, sectors * SECTOR)


def descriptor_offset(queue: int, page: int) -> int:
    """Where in /dev/ublkcN the queue's array is mapped from (ublk_ch_mmap)."""
    whole = MAX_QUEUE_DEPTH * DESCRIPTOR_BYTES
    return queue * (-(-whole // page) * page)
