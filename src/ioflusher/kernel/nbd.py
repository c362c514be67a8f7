"""The ioctls of the kernel's NBD client.

Source: include/uapi/linux/nbd.h, drivers/block/nbd.c (6.1, 6.12).
"""

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
