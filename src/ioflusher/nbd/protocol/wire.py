"""Numbers and layouts of the NBD protocol, in wire order, big-endian.

Source: the NBD project's doc/proto.md ("The NBD protocol"); names are the document's.
"""

import errno
from enum import IntEnum, IntFlag
from struct import Struct

NBDMAGIC = 0x4E42444D41474943  # "NBDMAGIC"
IHAVEOPT = 0x49484156454F5054  # "IHAVEOPT"
OPTION_REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668E33EF
EXTENDED_REQUEST_MAGIC = 0x21E41C71
EXTENDED_REPLY_MAGIC = 0x6E8A278C

# The server's greeting: NBDMAGIC, IHAVEOPT, handshake flags.
GREETING = Struct(">QQH")
# Client's answer: its flags.
CLIENT_FLAGS = Struct(">I")
# IHAVEOPT, option, length of the data that follows.
OPTION = Struct(">QII")
# OPTION_REPLY_MAGIC, option answered, reply type, length of the data that follows.
OPTION_REPLY = Struct(">QIII")
# Answer to NBD_OPT_EXPORT_NAME: size in bytes, transmission flags; EXPORT_ZEROES zeroes unless agreed off.
EXPORT_REPLY = Struct(">QH")
EXPORT_ZEROES = 124
# Magic, command flags, command, cookie, offset, length; the data of a WRITE follows.
REQUEST = Struct(">IHHQQI")
# Magic, error, cookie; the data of a READ follows when the error is 0.
SIMPLE_REPLY = Struct(">IIQ")
# A chunk of a structured reply: magic, flags, type, cookie, length of the payload that follows.
STRUCTURED_REPLY = Struct(">IHHQI")
# With extended headers: magic, flags, command (of a chunk: its type), cookie, offset, length.
EXTENDED_REQUEST = Struct(">IHHQQQ")
EXTENDED_REPLY = Struct(">IHHQQQ")

# Payloads of chunks.
CHUNK_OFFSET = Struct(">Q")  # NBD_REPLY_TYPE_OFFSET_DATA: offset; the data follows
CHUNK_HOLE = Struct(">QI")  # NBD_REPLY_TYPE_OFFSET_HOLE: offset, length
CHUNK_ERROR = Struct(">IH")  # NBD_REPLY_TYPE_ERROR: error, length of the message that follows
CHUNK_CONTEXT = Struct(">I")  # NBD_REPLY_TYPE_BLOCK_STATUS: context; descriptors follow
CHUNK_EXTENT = Struct(">II")  # one of those: length, flags
CHUNK_CONTEXT_EXT = Struct(">II")  # NBD_REPLY_TYPE_BLOCK_STATUS_EXT: context, number of descriptors
CHUNK_EXTENT_EXT = Struct(">QQ")

# NBD_CMD_BLOCK_STATUS with a payload: the length that is asked about; numbers of contexts follow.
STATUS_LENGTH = Struct(">Q")

# Parts of option data.
LENGTH = Struct(">I")
INFO_TYPE = Struct(">H")
INFO_EXPORT = Struct(">HQH")  # NBD_INFO_EXPORT, size, transmission flags
INFO_BLOCK_SIZE = Struct(">HIII")  # NBD_INFO_BLOCK_SIZE, minimum, preferred, maximum payload

CONTEXT_NUMBER = Struct(">I")  # of a metadata context; its name follows, or another number

MAX_STRING = 4096  # bytes of an export name or a message
DEFAULT_PORT = 10809
# What a client may send when nothing else was agreed ("Block size constraints").
DEFAULT_MAX_PAYLOAD = 32 << 20


class HandshakeFlag(IntFlag):
    """NBD_FLAG_FIXED_NEWSTYLE and NBD_FLAG_NO_ZEROES; the client's NBD_FLAG_C_* have the same values."""

    FIXED_NEWSTYLE = 1 << 0
    NO_ZEROES = 1 << 1


class TransmissionFlag(IntFlag):
    """NBD_FLAG_*: what an export is and what its server understands."""

    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    ROTATIONAL = 1 << 4
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6
    SEND_DF = 1 << 7
    CAN_MULTI_CONN = 1 << 8
    SEND_RESIZE = 1 << 9  # experimental: doc/proto.md of the branch extension-resize
    SEND_CACHE = 1 << 10
    SEND_FAST_ZERO = 1 << 11
    BLOCK_STATUS_PAYLOAD = 1 << 12  # with extended headers: BLOCK_STATUS may name contexts


class Opt(IntEnum):
    """NBD_OPT_*: what a client may ask during the handshake."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10
    EXTENDED_HEADERS = 11


_ERROR_BIT = 1 << 31


class Rep(IntEnum):
    """NBD_REP_*: how a server answers an option; errors have the top bit set."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = _ERROR_BIT | 1
    ERR_POLICY = _ERROR_BIT | 2
    ERR_INVALID = _ERROR_BIT | 3
    ERR_PLATFORM = _ERROR_BIT | 4
    ERR_TLS_REQD = _ERROR_BIT | 5
    ERR_UNKNOWN = _ERROR_BIT | 6
    ERR_SHUTDOWN = _ERROR_BIT | 7
    ERR_BLOCK_SIZE_REQD = _ERROR_BIT | 8
    ERR_TOO_BIG = _ERROR_BIT | 9
    ERR_EXT_HEADER_REQD = _ERROR_BIT | 10


class Info(IntEnum):
    """NBD_INFO_*: pieces of information about an export."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class Cmd(IntEnum):
    """NBD_CMD_*: requests of the transmission phase."""

    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    CACHE = 5
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7
    RESIZE = 8


class CmdFlag(IntFlag):
    """NBD_CMD_FLAG_*: modifiers of a request."""

    FUA = 1 << 0
    NO_HOLE = 1 << 1
    DF = 1 << 2
    REQ_ONE = 1 << 3
    FAST_ZERO = 1 << 4
    PAYLOAD_LEN = 1 << 5  # with extended headers: the length is that of a payload


class ReplyFlag(IntFlag):
    """NBD_REPLY_FLAG_*: DONE marks the last chunk of a reply."""

    DONE = 1 << 0


_ERROR_TYPE = 1 << 15


class ReplyType(IntEnum):
    """NBD_REPLY_TYPE_*: what a chunk of a structured reply has; errors have the top bit set."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    BLOCK_STATUS_EXT = 6
    ERROR = _ERROR_TYPE | 1
    ERROR_OFFSET = _ERROR_TYPE | 2


# "Error values": the document fixes these numbers, which are Linux's own.
WIRE_ERRORS: frozenset[int] = frozenset(
    {
        errno.EPERM,
        errno.EIO,
        errno.ENOMEM,
        errno.EINVAL,
        errno.ENOSPC,
        errno.EOVERFLOW,
        errno.EOPNOTSUPP,
        errno.ESHUTDOWN,
    }
)
# Errors of a back end that the protocol has no value for, and the nearest one.
_NEAREST: dict[int, int] = {
    errno.EROFS: errno.EPERM,
    errno.EACCES: errno.EPERM,
    errno.EDQUOT: errno.ENOSPC,
    errno.EFBIG: errno.ENOSPC,
}


REPLIES: frozenset[int] = frozenset(Rep)


def is_error(reply: int) -> bool:
    """Whether an option reply's type is one of NBD_REP_ERR_*, known or not."""
    return bool(reply & _ERROR_BIT)


def is_error_chunk(kind: int) -> bool:
    """Whether a chunk's type is one of NBD_REPLY_TYPE_ERROR*, known or not."""
    return bool(kind & _ERROR_TYPE)


def errno_to_wire(number: int | None) -> int:
    """The protocol's error value for a Linux error number; EIO where it has none."""
    if number is None:
        return errno.EIO
    number = _NEAREST.get(number, number)
    return number if number in WIRE_ERRORS else errno.EIO


def wire_to_errno(value: int) -> int:
    """The Linux error number for the protocol's; the document asks to treat unknown ones as EINVAL."""
    return value if value in WIRE_ERRORS else errno.EINVAL
