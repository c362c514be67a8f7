"""An open file of a process: the text of /proc/PID/fdinfo/N (fs/proc/fd.c, seq_show)."""

from dataclasses import dataclass

# The access mode and flags that every architecture numbers alike, include/uapi/asm-generic/fcntl.h;
# O_DIRECT and O_DIRECTORY differ between architectures, see os.O_DIRECT.
O_ACCMODE = 0o3
O_WRONLY = 0o1
O_RDWR = 0o2
O_APPEND = 0o2000
O_PATH = 0o10000000


@dataclass(frozen=True, slots=True)
class FdInfo:
    """A few of its lines.

    Attributes:
        flags: O_* as open(2) takes them.
        mount_id: of the mount that it was opened through, as in mountinfo; None before Linux 3.15.
        fuse_connection: of an open /dev/fuse, the number of the connection, where the kernel shows it
            (fs/fuse/dev.c, fuse_dev_show_fdinfo).
    """

    flags: int
    mount_id: int | None = None
    fuse_connection: int | None = None

    @property
    def writable(self) -> bool:
        """Whether it is open for writing."""
        return self.flags & O_ACCMODE in (O_WRONLY, O_RDWR)


def parse_fdinfo(text: bytes) -> FdInfo:
    """The record in the text of /proc/PID/fdinfo/N.

    Raises:
        ValueError: where the text has no line 'flags:', or a value is no number.
    """
    lines: dict[bytes, bytes] = {}
    for line in text.split(b"\n"):
        name, colon, value = line.partition(b":")
        if colon:
            lines.setdefault(name, value)
    if b"flags" not in lines:
        raise ValueError(f"expected a line 'flags:', found {text[:80]!r}")
    mount, connection = lines.get(b"mnt_id"), lines.get(b"fuse_connection")
    return FdInfo(
        flags=int(lines[b"flags"], 8),
        mount_id=None if mount is None else int(mount),
        fuse_connection=None if connection is None else int(connection),
    )
