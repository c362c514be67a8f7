"""The storage graph for Mermaid, which draws it in pages of documentation."""

from collections.abc import Iterator

from ioflusher.machine.graph.nodes import Need, NodeKind
from ioflusher.report.map_dot import CYCLE, INK, STATES
from ioflusher.report.map_layout import Line, layout
from ioflusher.report.map_view import Box, Picture, State
from ioflusher.support.text import printable

_SHAPES: dict[NodeKind, tuple[str, str]] = {
    NodeKind.SWAP: ("[[", "]]"),
    NodeKind.MOUNT: ("[", "]"),
    NodeKind.FILE_SYSTEM: ("[/", "/]"),
    NodeKind.DEVICE: ("[(", ")]"),
    NodeKind.PROCESS: ("(", ")"),
    NodeKind.KERNEL_SERVER: ("[", "]"),
    NodeKind.REMOTE: (">", "]"),
    NodeKind.SOCKET: ("([", "])"),
    NodeKind.CANDIDATES: ("{{", "}}"),
    NodeKind.RECLAIM: ("{{", "}}"),
    NodeKind.SWAPPED: ("{{", "}}"),
    NodeKind.UNKNOWN: ("[", "]"),
}
_CLASSES = {State.COVERED: "covered", State.PARTLY: "partly", State.BARE: "bare"}
_DASHES = {State.COVERED: "0", State.PARTLY: "6 3", State.BARE: "2 3"}
# what would end a label, begin markup or be taken for an entity
_SPECIAL = str.maketrans({c: f"#{ord(c)};" for c in '#"<>&`'})


def render_mermaid(picture: Picture, title: str) -> str:
    """The picture as a flow chart; everything from the machine is escaped."""
    return "\n".join(_lines(picture, title)) + "\n"


def _lines(picture: Picture, title: str) -> Iterator[str]:
    drawn = layout(picture)
    boxes = (*drawn.boxes, *drawn.again)
    names = {box.id: f"n{number}" for number, box in enumerate(boxes)}
    yield f"%% {printable(title).translate(_SPECIAL)}"
    yield "flowchart LR"
    for box in boxes:
        yield f"  {names[box.id]}{_box(box, drawn.notes.get(box.id, ()))}"
    for line in drawn.lines:
        arrow = line.arrow
        yield f"  {names[arrow.source]} {_arrow(line)} {names[arrow.target]}"
    for state, (fill, border, _, _) in STATES.items():
        style = f"fill:{fill},stroke:{border},color:{INK},stroke-dasharray:{_DASHES[state]}"
        yield f"  classDef {_CLASSES[state]} {style}"
    yield f"  classDef cycle stroke:{CYCLE},stroke-width:3px"
    yield "  classDef vague stroke-dasharray:6 3"
    for class_name, members in _members(boxes):
        if members:
            yield f"  class {','.join(names[box.id] for box in members)} {class_name}"
    cyclic = [str(number) for number, line in enumerate(drawn.lines) if line.arrow.cycle]
    if cyclic:
        yield f"  linkStyle {','.join(cyclic)} stroke:{CYCLE},color:{CYCLE}"


def _members(boxes: tuple[Box, ...]) -> Iterator[tuple[str, list[Box]]]:
    for state, name in _CLASSES.items():
        yield name, [box for box in boxes if box.state is state]
    yield "cycle", [box for box in boxes if box.cycle and not box.id.startswith("again:")]
    yield "vague", [b for b in boxes if b.kind is NodeKind.UNKNOWN or b.id.startswith("again:")]


def _box(box: Box, notes: tuple[str, ...]) -> str:
    opening, closing = _SHAPES[box.kind]
    extra = list(notes)
    if box.cycle and not box.id.startswith("again:"):
        extra.append(f"cycle {box.cycle}")
    title = f"<b>{box.title.translate(_SPECIAL)}</b>"
    label = "<br/>".join([title, *(line.translate(_SPECIAL) for line in (*box.lines, *extra))])
    return f'{opening}"{label}"{closing}'


def _arrow(line: Line) -> str:
    arrow = line.arrow
    label = line.label
    if not arrow.certain:
        label = f"{label}, not certain".removeprefix(", ")
    if arrow.cycle:
        return f'== "{label.translate(_SPECIAL)}" ==>' if label else "==>"
    if arrow.need is Need.WORK:
        return f'-- "{label.translate(_SPECIAL)}" -->' if label else "-->"
    return f'-. "{label.translate(_SPECIAL)}" .->' if label else "-.->"
