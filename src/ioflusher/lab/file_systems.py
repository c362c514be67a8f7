"""What is looked through after a workload: the file system on the device, unmounted, by its own program."""

from dataclasses import dataclass

# program and options that look and change nothing; each ends with 0 where all is well (e2fsck(8),
# xfs_repair(8), btrfs-check(8))
CHECKERS = {
    "ext4": ("e2fsck", "-fn"),
    "xfs": ("xfs_repair", "-n"),
    "btrfs": ("btrfs", "check", "--readonly"),
}


@dataclass(frozen=True, slots=True)
class FileSystemCheck:
    """What was found.

    Attributes:
        command: what looked, as in "e2fsck -fn /dev/nbd0".
        clean: whether all was well; None where it was not looked through.
        said: what the command printed, the last of it; or why it was not run.
    """

    command: str
    clean: bool | None
    said: str
