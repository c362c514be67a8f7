"""The kernel's NBD client as its two interfaces name it: ioctls and generic netlink.

Source: include/uapi/linux/nbd.h, include/uapi/linux/nbd-netlink.h, drivers/block/nbd.c (6.1, 6.12).
"""

from enum import IntEnum

# include/uapi/linux/nbd.h: _IO(0xab, n)
NBD_SET_SOCK = 0xAB00  # takes over one connected socket; call it once a connection
NBD_SET_BLKSIZE = 0xAB01  # bytes, a power of two from 512 up to the page size
NBD_SET_SIZE = 0xAB02  # bytes
NBD_DO_IT = 0xAB03  # serves the device; returns when it is disconnected
NBD_CLEAR_SOCK = 0xAB04
NBD_CLEAR_QUE = 0xAB05
NBD_SET_SIZE_BLOCKS = 0xAB07  # in blocks of NBD_SET_BLKSIZE
NBD_DISCONNECT = 0xAB08  # sends NBD_CMD_DISC on every connection
NBD_SET_TIMEOUT = 0xAB09  # seconds; 0: wait for ever
NBD_SET_FLAGS = 0xAB0A  # the server's transmission flags

NBD_MIN_BLKSIZE = 512
NBD_MAJOR = 43  # include/uapi/linux/major.h

# include/uapi/linux/nbd-netlink.h
NBD_GENL_FAMILY_NAME = "nbd"
NBD_GENL_VERSION = 1


class NbdGenlCommand(IntEnum):
    """Generic netlink commands, NBD_CMD_* of nbd-netlink.h."""

    CONNECT = 1
    DISCONNECT = 2
    RECONFIGURE = 3
    LINK_DEAD = 4
    STATUS = 5


class NbdAttr(IntEnum):
    """Attributes of those commands, NBD_ATTR_*."""

    INDEX = 1
    SIZE_BYTES = 2
    BLOCK_SIZE_BYTES = 3
    TIMEOUT = 4
    SERVER_FLAGS = 5
    CLIENT_FLAGS = 6
    SOCKETS = 7  # nest of NBD_SOCK_ITEM, each a nest of NBD_SOCK_FD
    DEAD_CONN_TIMEOUT = 8
    DEVICE_LIST = 9
    BACKEND_IDENTIFIER = 10  # since 5.14


NBD_SOCK_ITEM = 1
NBD_SOCK_FD = 1
