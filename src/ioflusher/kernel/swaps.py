"""The text of /proc/swaps (mm/swapfile.c, swap_show)."""

from dataclasses import dataclass

from ioflusher.kernel.mountinfo import unescape


@dataclass(frozen=True, slots=True)
class SwapLine:
    """One swap area.

    Attributes:
        path: of the device or file, in the reader's mount namespace; " (deleted)" at its end as written.
        is_file: whether it is a regular file.
        size_kib, used_kib: KiB.
        priority: higher ones are used first.
    """

    path: bytes
    is_file: bool
    size_kib: int
    used_kib: int
    priority: int


def parse_swap(line: bytes) -> SwapLine:
    """The area in one line behind the heading.

    Raises:
        ValueError: where the line is not of that form.
    """
    # spaces in the path are escaped, but not the one before "(deleted)": the last four fields are plain
    fields = line.rsplit(None, 4)
    if len(fields) != 5 or fields[1] not in (b"file", b"partition"):
        raise ValueError(f"expected 'PATH file|partition SIZE USED PRIORITY', found {line[:120]!r}")
    path, kind, size, used, priority = fields
    return SwapLine(unescape(path.rstrip(b" \t")), kind == b"file", int(size), int(used), int(priority))
