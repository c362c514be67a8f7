"""Making holes and zeroes in files and block devices by ioctl, as Linux names it.

Source: include/uapi/linux/falloc.h (struct space_resv), fs/ioctl.c, include/uapi/linux/fs.h. Since 5.5
("fs: add generic UNRESVSP and ZERO_RANGE ioctl handlers") fs/ioctl.c maps the two FS_IOC calls to
fallocate(2) with FALLOC_FL_PUNCH_HOLE and FALLOC_FL_ZERO_RANGE for every file system.
"""

from struct import Struct

# __s16 l_type; __s16 l_whence; __s64 l_start; __s64 l_len; __s32 l_sysid; __u32 l_pid; __s32 l_pad[4]
SPACE_RESV = Struct("@hhqqiI16x")
FS_IOC_UNRESVSP64 = 0x4030582B  # _IOW('X', 43, struct space_resv): punch a hole, keep the size
FS_IOC_ZERO_RANGE = 0x40305839  # _IOW('X', 57, struct space_resv): zeroes without writing them

# Modes of fallocate(2). On a block device FALLOC_FL_PUNCH_HOLE zeroes without writing, or fails with
# EOPNOTSUPP (block/fops.c, blkdev_fallocate, BLKDEV_ZERO_NOFALLBACK), which no ioctl does.
FALLOC_FL_KEEP_SIZE = 0x01
FALLOC_FL_PUNCH_HOLE = 0x02

# uint64_t range[2]: start and length in bytes
BLOCK_RANGE = Struct("@QQ")
BLKDISCARD = 0x1277  # _IO(0x12, 119)
BLKZEROOUT = 0x127F  # _IO(0x12, 127)
BLKSSZGET = 0x1268  # _IO(0x12, 104): logical block size, an int
