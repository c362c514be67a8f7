"""The text of /proc/PID/mountinfo (fs/proc_namespace.c, show_mountinfo), a line a mount."""

import re
from dataclasses import dataclass

# fs/seq_file.c, mangle_path and seq_escape: what would break a line is a backslash and three octal digits
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")


@dataclass(frozen=True, slots=True)
class MountLine:
    """One mount.

    Attributes:
        mount_id, parent_id: numbers, unique on the machine while the mounts live.
        number: "major:minor" of the file system (st_dev, but for file systems such as btrfs).
        root, point: what of the file system is mounted, and where; unescaped.
        options: of the mount itself, as written, not unescaped.
        fstype: with the subtype that FUSE adds, "fuse.sshfs".
        source: device, server or any word; may be empty.
        super_options: of the file system, as written, not unescaped.
    """

    mount_id: int
    parent_id: int
    number: str
    root: bytes
    point: bytes
    options: tuple[bytes, ...]
    fstype: bytes
    source: bytes
    super_options: tuple[bytes, ...]


def unescape(field: bytes) -> bytes:
    """The field with \\NNN, as the kernel's text files write spaces and the like, turned back into bytes."""
    if b"\\" not in field:
        return field
    return _OCTAL.sub(lambda match: bytes((int(match[1], 8),)), field)


def parse_mount(line: bytes) -> MountLine:
    """The mount in one line without its newline.

    Raises:
        ValueError: where the line is not of that form.
    """
    # split at each single space: a source may be empty
    fields = line.split(b" ")
    try:
        dash = fields.index(b"-", 6)
        fstype, source, *rest = fields[dash + 1 :]
        major, minor = fields[2].split(b":")
        return MountLine(
            mount_id=int(fields[0]),
            parent_id=int(fields[1]),
            number=f"{int(major)}:{int(minor)}",
            root=unescape(fields[3]),
            point=unescape(fields[4]),
            options=tuple(fields[5].split(b",")),
            fstype=unescape(fstype),
            source=unescape(source),
            # a file system that does not escape a space in its options must not break the line
            super_options=tuple(b" ".join(rest).split(b",")),
        )
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"expected 'ID PARENT MAJOR:MINOR ROOT POINT OPTIONS ... - TYPE SOURCE OPTIONS', "
            f"found {line[:120]!r}"
        ) from error
