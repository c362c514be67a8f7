"""What a drawn picture needs beyond the boxes: one direction, and no hairball."""

from collections import Counter, defaultdict
from dataclasses import dataclass, replace

from ioflusher.machine.graph.nodes import Need, NodeKind, Reason
from ioflusher.report.map_view import Arrow, Box, Picture

# More arrows back than this in one picture, and only those of the ways round that are printed are drawn.
MOST_BACK = 12
# More needs at start than this, and none is drawn.
MOST_STARTS = 12
# More processes than this that need one and the same thing, and it is written in their boxes.
MOST_TO_ONE = 6

_STORAGE = frozenset((NodeKind.SWAP, NodeKind.MOUNT, NodeKind.FILE_SYSTEM, NodeKind.DEVICE))
# arrows between neighbours whose shapes say it
_PLAIN = frozenset(
    (Reason.MOUNT, Reason.LIES_ON, Reason.SWAP, Reason.PARTITION, Reason.SERVED, Reason.CANDIDATE)
)
_HUBS = frozenset((NodeKind.RECLAIM, NodeKind.SWAPPED))
_ACTORS = _HUBS | {NodeKind.PROCESS, NodeKind.KERNEL_SERVER, NodeKind.SOCKET, NodeKind.CANDIDATES}


@dataclass(frozen=True, slots=True)
class Line:
    """An arrow as it is drawn.

    Attributes:
        arrow: it.
        back: whether it leads against the picture's direction.
        label: what stands at it; nothing where the shapes of its ends say it.
        long: whether it passes the column of the file systems by.
    """

    arrow: Arrow
    back: bool
    label: str
    long: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """Boxes and lines in one direction, from swap and mounts to what daemons stand on.

    Attributes:
        boxes: the picture's.
        again: stand-ins at the far end for storage that daemons need, so that no arrow leads back to it; by
            the identifier that lines use, "again:" and the box's own.
        lines: all arrows but those that notes count.
        notes: for some boxes, lines on what is not drawn.
        starts: how many needs at start are not drawn.
        front: processes that serve storage themselves: they stand in one column.
    """

    boxes: tuple[Box, ...]
    again: tuple[Box, ...]
    lines: tuple[Line, ...]
    notes: dict[str, tuple[str, ...]]
    starts: int
    front: tuple[str, ...]


def layout(picture: Picture) -> Layout:
    """How to draw a picture. Arrows back are drawn where they close a cycle; else a stand-in is led to."""
    kinds = {box.id: box.kind for box in picture.boxes}
    by_id = {box.id: box for box in picture.boxes}
    again: dict[str, Box] = {}
    lines: list[Line] = []
    notes: defaultdict[str, list[str]] = defaultdict(list)
    left, come = Counter[str](), Counter[str]()
    starts = sum(a.need is Need.START for a in picture.arrows)
    arrows = [a for a in picture.arrows if a.need is not Need.START or starts <= MOST_STARTS]
    crowded = sum(bool(_back(a, kinds) and a.cycle) for a in arrows) > MOST_BACK
    needed = Counter(a.target for a in arrows if _is_need(a, kinds))
    for arrow in arrows:
        if _is_need(arrow, kinds) and needed[arrow.target] > MOST_TO_ONE:
            if kinds[arrow.target] in _HUBS:
                come[arrow.target] += 1
            else:
                notes[arrow.source].append(f"{arrow.label}: {by_id[arrow.target].title}")
        elif not _back(arrow, kinds):
            lines.append(_line(arrow, kinds, back=False))
        elif arrow.cycle and (arrow.witness or not crowded):
            lines.append(_line(arrow, kinds, back=True))
        elif kinds[arrow.source] in _HUBS:
            left[arrow.source] += 1
        else:
            box = by_id[arrow.target]
            stand_in = replace(box, id=f"again:{box.id}", lines=box.lines[:1])
            again[stand_in.id] = stand_in
            line = _line(arrow, kinds, back=False)
            lines.append(replace(line, arrow=replace(arrow, target=stand_in.id)))
    for hub, count in come.items():
        notes[hub].append(f"arrows of {count} more are not drawn")
    for hub, count in left.items():
        notes[hub].append(f"arrows to {count} more are not drawn")
    front = dict.fromkeys(
        arrow.target
        for arrow in picture.arrows
        if kinds[arrow.target] is NodeKind.PROCESS and kinds[arrow.source] in _STORAGE
    )
    return Layout(
        boxes=picture.boxes,
        again=tuple(again.values()),
        lines=tuple(lines),
        notes={box: tuple(found) for box, found in notes.items()},
        starts=starts if starts > MOST_STARTS else 0,
        front=tuple(front),
    )


def _is_need(arrow: Arrow, kinds: dict[str, NodeKind]) -> bool:
    """Whether a process needs storage or memory, and no cycle is closed by that."""
    target = kinds[arrow.target]
    return kinds[arrow.source] is NodeKind.PROCESS and target in _STORAGE | _HUBS and not arrow.cycle


def _back(arrow: Arrow, kinds: dict[str, NodeKind]) -> bool:
    return kinds[arrow.source] in _ACTORS and kinds[arrow.target] in _STORAGE


def _line(arrow: Arrow, kinds: dict[str, NodeKind], *, back: bool) -> Line:
    source, target = kinds[arrow.source], kinds[arrow.target]
    said = set(arrow.reasons) <= _PLAIN or source in _HUBS or target in _HUBS
    long = source is NodeKind.SWAP and target is NodeKind.DEVICE
    when = "in recovery" if arrow.need is Need.RECOVERY else ""
    return Line(arrow, back, when if said else arrow.label, long)
