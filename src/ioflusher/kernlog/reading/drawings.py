"""Tasks side by side, as people draw them: a column each, below its name, callers above those they call.

processA               | kworker              | kswapd
-----------------------+----------------------+-----------------
| xfs_log_commit_cil   |                      |
| kmem_alloc           |                      |
|                      | xlog_cil_push        |
|                      |                      | shrink_page_list
"""

from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field

from ioflusher.kernlog.reading.frames import Frame
from ioflusher.kernlog.reading.patterns import LazyPattern
from ioflusher.kernlog.reading.scan import RawLine

# the line between the names and the calls
_RULE = LazyPattern(r"^[\s>|]*-{4,}(?:\+-{4,})+[\s+|-]*$")
_CALL = LazyPattern(r"^(?P<function>[A-Za-z_][\w.]{3,})(?:\(.{0,40}\))?$")
_MOST = 8  # columns


@dataclass(slots=True)
class Drawing:
    """A drawing of which more lines may come.

    Attributes:
        names: the tasks', one a column.
        borders: where in a line each column but the first begins.
        begin: the line below the names.
        calls: of each column, whoever calls first.
    """

    names: tuple[str, ...]
    borders: tuple[int, ...]
    begin: RawLine
    calls: tuple[list[str], ...] = field(init=False)

    def __post_init__(self) -> None:
        self.calls = tuple([] for _ in self.names)

    def take(self, line: str) -> bool:
        """Take one line; False for one that is behind the drawing."""
        if "|" not in line or _RULE.match(line):
            return False
        place = 0
        for cell in line.split("|"):
            if call := _CALL.match(cell.strip()):
                at = place + len(cell) - len(cell.lstrip())
                self.calls[bisect(self.borders, at)].append(call["function"])
            place += len(cell) + 1
        return True

    def stacks(self) -> Iterator[tuple[str, list[Frame]]]:
        """Each task's name and its stack, innermost first."""
        for name, calls in zip(self.names, self.calls, strict=True):
            yield name, [Frame(call, None, None, None, True) for call in reversed(calls)]


def drawing_below(header: bytes, rule: RawLine) -> Drawing | None:
    """The drawing that a line of names and the one under it begin; None for none."""
    text = rule.data.decode("utf-8", "replace")
    if not _RULE.match(text):
        return None
    borders = tuple(place for place, sign in enumerate(text) if sign == "+")
    names = tuple(name.strip(" >") for name in header.decode("utf-8", "replace").split("|"))
    if len(names) != len(borders) + 1 or len(names) > _MOST or not all(names):
        return None
    return Drawing(names, borders, rule)
