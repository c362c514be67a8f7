"""The mappings of a process: the text of /proc/PID/maps (fs/proc/task_mmu.c, show_map_vma)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mapping:
    """One line.

    Attributes:
        start, end: addresses in bytes, `end` exclusive.
        permissions: four letters, as "r-xp".
        path: what is mapped, or a name as "[vdso]"; empty for anonymous memory.
        device: "major:minor" of the file system that the file lies on (its super block's), "0:0" for none.
    """

    start: int
    end: int
    permissions: str
    path: bytes
    device: str = "0:0"

    @property
    def executable(self) -> bool:
        """Whether code in it may run."""
        return self.permissions[2] == "x"


def parse_maps(text: bytes) -> tuple[Mapping, ...]:
    """The mappings in the text of /proc/PID/maps, lowest address first.

    Raises:
        ValueError: where a line is not of that form.
    """
    mappings = []
    for line in text.split(b"\n"):
        if not line:
            continue
        # address permissions offset device inode path; the kernel writes a newline in a path as \012
        fields = line.split(None, 5)
        start, dash, end = fields[0].partition(b"-")
        if len(fields) < 5 or not dash or len(fields[1]) != 4:
            raise ValueError(f"expected 'start-end perms offset device inode', found {line[:80]!r}")
        path = fields[5] if len(fields) == 6 else b""
        mappings.append(
            Mapping(int(start, 16), int(end, 16), fields[1].decode("ascii"), path, _device(fields[3]))
        )
    return tuple(mappings)


def _device(field: bytes) -> str:
    """ "fe:01", which is hexadecimal, as "254:1"."""
    major, _, minor = field.partition(b":")
    return f"{int(major, 16)}:{int(minor, 16)}"
