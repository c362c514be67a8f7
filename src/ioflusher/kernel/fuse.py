"""The FUSE protocol as /dev/fuse speaks it, as far as a file system with one file needs it.

Numbers and structures; nothing is read or written here. A request is a header and a body that depends on the
opcode; an answer is a header and, without an error, a body.

Source: include/uapi/linux/fuse.h, fs/fuse/dev.c, fs/fuse/inode.c (5.10, 6.12).
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

DEVICE = "/dev/fuse"
MAJOR, MINOR = 7, 31  # what this side speaks; the kernel falls back to it
ROOT_ID = 1  # FUSE_ROOT_ID: the node of the mount's top
MIN_READ_BUFFER = 8192  # FUSE_MIN_READ_BUFFER


class Opcode(IntEnum):
    """Requests, FUSE_*."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    ACCESS = 34
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42


# requests that are not answered
UNANSWERED = frozenset((Opcode.FORGET, Opcode.INTERRUPT, Opcode.BATCH_FORGET))

# flags of INIT
ASYNC_READ = 1 << 0
BIG_WRITES = 1 << 5
WRITEBACK_CACHE = 1 << 16
MAX_PAGES = 1 << 22

_IN_HEADER = struct.Struct("=IIQQIIIHH")  # fuse_in_header
_OUT_HEADER = struct.Struct("=IiQ")  # fuse_out_header
_INIT_IN = struct.Struct("=IIII")  # fuse_init_in, its first half
_INIT_OUT = struct.Struct("=IIIIHHIIHHI7I")  # fuse_init_out
_TRANSFER_IN = struct.Struct("=QQIIQII")  # fuse_read_in and fuse_write_in
_WRITE_OUT = struct.Struct("=II")  # fuse_write_out
_OPEN_OUT = struct.Struct("=QII")  # fuse_open_out
_ATTR = struct.Struct("=QQQQQQIIIIIIIIII")  # fuse_attr
_ENTRY_OUT = struct.Struct("=QQQQII")  # fuse_entry_out before its attributes
_ATTR_OUT = struct.Struct("=QII")  # fuse_attr_out before its attributes
_STATFS_OUT = struct.Struct("=QQQQQIIII6I")  # fuse_statfs_out
_DIRENT = struct.Struct("=QQII")  # fuse_dirent before its name
# a WRITE up to its data: the one request whose data should begin at a page of the reader's
WRITE_HEAD_BYTES = _IN_HEADER.size + _TRANSFER_IN.size


@dataclass(frozen=True, slots=True)
class RequestHeader:
    """fuse_in_header: what is asked, the number that the answer carries, and the node that it is about."""

    length: int
    opcode: int
    unique: int
    node: int


def request_header(data: bytes | memoryview) -> tuple[RequestHeader, int]:
    """The header of a request and where its body begins."""
    length, opcode, unique, node, *_ = _IN_HEADER.unpack_from(data)
    return RequestHeader(length, opcode, unique, node), _IN_HEADER.size


@dataclass(frozen=True, slots=True)
class Transfer:
    """The body of READ and, before its data, of WRITE; in bytes."""

    offset: int
    size: int


def transfer(body: bytes | memoryview) -> Transfer:
    """fuse_read_in or fuse_write_in."""
    _, offset, size, *_ = _TRANSFER_IN.unpack_from(body)
    return Transfer(offset, size)


def answer_header(unique: int, body_bytes: int, error: int = 0) -> bytes:
    """fuse_out_header; `error` is an errno, 0 for none."""
    return _OUT_HEADER.pack(_OUT_HEADER.size + body_bytes, -error, unique)


@dataclass(frozen=True, slots=True)
class KernelOffer:
    """fuse_init_in: the protocol that the kernel speaks, its read-ahead in bytes, what it can do."""

    major: int
    minor: int
    readahead: int
    flags: int


def kernel_offer(body: bytes | memoryview) -> KernelOffer:
    """The body of INIT."""
    return KernelOffer(*_INIT_IN.unpack_from(body))


def init_answer(offer: KernelOffer, wanted: int, background: int, largest_write: int, page: int) -> bytes:
    """fuse_init_out: of the flags `wanted` what the kernel offers; `background` requests at once."""
    return _INIT_OUT.pack(
        MAJOR,
        MINOR,
        offer.readahead,
        offer.flags & wanted,
        background,
        background * 3 // 4,
        largest_write,
        1,  # a nanosecond is what times are exact to
        largest_write // page,
        0,
        0,
        *[0] * 7,
    )


def attributes(node: int, mode: int, size: int, block: int) -> bytes:
    """fuse_attr of a node that is root's, with no times."""
    links = 1
    return _ATTR.pack(node, size, -(-size // 512), *[0] * 6, mode, links, 0, 0, 0, block, 0)


def entry_answer(node: int, attr: bytes, valid_s: int) -> bytes:
    """fuse_entry_out: a name's node and its attributes, which the kernel may believe for so long."""
    return _ENTRY_OUT.pack(node, 0, valid_s, valid_s, 0, 0) + attr


def attr_answer(attr: bytes, valid_s: int) -> bytes:
    """fuse_attr_out."""
    return _ATTR_OUT.pack(valid_s, 0, 0) + attr


def open_answer() -> bytes:
    """fuse_open_out: no handle, no flags."""
    return _OPEN_OUT.pack(0, 0, 0)


def write_answer(size: int) -> bytes:
    """fuse_write_out."""
    return _WRITE_OUT.pack(size, 0)


def statfs_answer(blocks: int, free: int, block: int) -> bytes:
    """fuse_statfs_out."""
    return _STATFS_OUT.pack(blocks, free, free, 2, 0, block, 255, block, 0, *[0] * 6)


def directory_entry(node: int, following: int, mode: int, name: bytes) -> bytes:
    """fuse_dirent; `following` is the offset of the entry behind it."""
    entry = _DIRENT.pack(node, following, len(name), mode >> 12) + name
    return entry.ljust(-(-len(entry) // 8) * 8, b"\0")


def mount_options(fd: int, root_mode: int) -> str:
    """The data of mount(2) for a connection of root's over an open /dev/fuse."""
    return f"fd={fd},rootmode={root_mode:o},user_id=0,group_id=0,allow_other"
