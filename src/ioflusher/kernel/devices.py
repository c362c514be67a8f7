"""The text of /proc/devices (block/genhd.c, blkdev_show): which driver registered which major number."""


def parse_block_majors(text: bytes) -> dict[int, str]:
    """Driver names by major number, of block devices. Lines of another form are passed over.

    "nbd" (43), "loop" (7), "md" (9) and "sd" (8 and more) have numbers of their own; device-mapper, zram,
    bcache and virtblk are given one when they load; blkext (259) is shared: NVMe and ublk disks, and
    partitions beyond a driver's own range.
    """
    majors = {}
    _, _, block = text.partition(b"Block devices:")
    for line in block.splitlines():
        number, _, name = line.strip().partition(b" ")
        if number.isdigit() and name:
            majors[int(number)] = name.strip().decode("utf-8", "backslashreplace")
    return majors
