"""The storage graph as text for Graphviz, and as the SVG picture that dot draws of it."""

import re
import tempfile
from collections.abc import Iterator
from html import escape
from pathlib import Path

from ioflusher.errors import IoflusherError
from ioflusher.machine.graph.nodes import Need, NodeKind
from ioflusher.report.map_layout import Layout, Line, layout
from ioflusher.report.map_view import Box, Picture, State
from ioflusher.support.programs import ProgramError, ProgramMissingError, find_program, run
from ioflusher.support.text import printable

DEADLINE_S = 120.0
CYCLE = "#c2410c"
INK, FAINT, LINE = "#1c2733", "#566573", "#8795a1"

# fill and border by kind; a picture on a dark ground has the second pair
_KINDS: dict[NodeKind, tuple[str, str, str]] = {  # shape, fill, border
    NodeKind.SWAP: ("box", "#f6e3f1", "#9b4d86"),
    NodeKind.MOUNT: ("tab", "#eef1f5", "#6b7b8c"),
    NodeKind.FILE_SYSTEM: ("folder", "#e3e9f2", "#5b7290"),
    NodeKind.DEVICE: ("cylinder", "#e6e2f5", "#6a5aa8"),
    NodeKind.PROCESS: ("box", "#ffffff", "#1c2733"),
    NodeKind.KERNEL_SERVER: ("box3d", "#f3f4f6", "#566573"),
    NodeKind.REMOTE: ("house", "#e2f3f0", "#2f7d6f"),
    NodeKind.SOCKET: ("ellipse", "#f3f4f6", "#566573"),
    NodeKind.CANDIDATES: ("diamond", "#f3f4f6", "#566573"),
    NodeKind.RECLAIM: ("octagon", "#fdebd3", "#b4690e"),
    NodeKind.SWAPPED: ("octagon", "#f6e3f1", "#9b4d86"),
    NodeKind.UNKNOWN: ("note", "#ffffff", "#566573"),
}
STATES: dict[State, tuple[str, str, str, str]] = {  # fill, border, style, sign
    State.COVERED: ("#d7ebfb", "#0b65a8", "filled,rounded", "\N{BLACK CIRCLE}"),
    State.PARTLY: ("#fff3c4", "#8a6d00", "filled,rounded,dashed", "\N{CIRCLE WITH LEFT HALF BLACK}"),
    State.BARE: ("#ffe0d6", "#a8401f", "filled,rounded,dotted", "\N{WHITE CIRCLE}"),
}
_DARK = {
    "#f6e3f1": "#43263b",
    "#9b4d86": "#d78fc3",
    "#eef1f5": "#262f39",
    "#6b7b8c": "#8fa1b3",
    "#e3e9f2": "#22303f",
    "#5b7290": "#86a5c9",
    "#e6e2f5": "#2c2746",
    "#6a5aa8": "#a99be6",
    "#ffffff": "#161b22",
    INK: "#e6edf3",
    FAINT: "#a8b5c2",
    LINE: "#748392",
    "#f3f4f6": "#20262d",
    "#e2f3f0": "#16332e",
    "#2f7d6f": "#69c0b0",
    "#fdebd3": "#46300f",
    "#b4690e": "#eea94a",
    "#d7ebfb": "#0d3250",
    "#0b65a8": "#6db6ee",
    "#fff3c4": "#423705",
    "#8a6d00": "#e3c23c",
    "#ffe0d6": "#4f2015",
    "#a8401f": "#ff9d7a",
    CYCLE: "#ff7a3d",
}


def render_dot(picture: Picture, title: str) -> str:
    """The picture in the language of Graphviz; everything from the machine is escaped."""
    return "\n".join(_lines(layout(picture), picture, printable(title))) + "\n"


def render_svg(picture: Picture, title: str) -> str:
    """The picture as one SVG element, drawn by Graphviz, for light and dark grounds.

    Raises:
        IoflusherError: dot is not installed, failed, or was not ready after 120 s.
    """
    try:
        dot = find_program("dot", package="graphviz")
    except ProgramMissingError as error:
        raise IoflusherError(
            "the picture is drawn by Graphviz, and its program dot is not installed",
            hint="install it: apt-get install graphviz; or take --format mermaid or text, which need nothing",
        ) from error
    with tempfile.TemporaryDirectory(prefix="ioflusher-map-") as directory:
        source, target = Path(directory, "map.dot"), Path(directory, "map.svg")
        source.write_text(render_dot(picture, title), "utf-8")
        try:
            run([dot, "-Tsvg", "-o", str(target), str(source)], deadline_s=DEADLINE_S)
        except ProgramError as error:
            raise IoflusherError(
                f"Graphviz could not draw the picture: {error}",
                hint="a part is drawn sooner: give a device, a mount point or a process, or --cycles",
            ) from error
        text = target.read_text("utf-8")
    return _dressed(text[text.index("<svg") :])


def _dressed(svg: str) -> str:
    """The drawing with a style that turns its colours around on a dark ground."""
    rules = "".join(
        f'[fill="{light}"]{{fill:{dark}}}[stroke="{light}"]{{stroke:{dark}}}' for light, dark in _DARK.items()
    )
    style = (
        "<style>svg{background:#ffffff}text{font-family:system-ui,Helvetica,Arial,sans-serif}"
        f"@media(prefers-color-scheme:dark){{svg{{background:#0f141a}}{rules}text:not([fill]){{fill:#e6edf3}}}}</style>"
    )
    return re.sub(r"(<svg[^>]*>)", lambda match: match[1] + style, svg, count=1)


def _lines(drawn: Layout, picture: Picture, title: str) -> Iterator[str]:
    names = {box.id: f"n{number}" for number, box in enumerate((*drawn.boxes, *drawn.again))}
    yield "digraph ioflusher {"
    yield '  graph [rankdir=LR, nodesep=0.22, ranksep=0.55, fontname="Helvetica", bgcolor="transparent",'
    yield f"    labelloc=b, labeljust=l, label={_legend(drawn, picture)}];"
    yield f'  node [fontname="Helvetica", fontsize=10, fontcolor="{INK}", margin="0.13,0.07", height=0.3];'
    yield f'  edge [fontname="Helvetica", fontsize=9, fontcolor="{FAINT}", color="{LINE}", arrowsize=0.7];'
    yield f'  subgraph cluster_all {{ peripheries=0; labelloc=t; fontsize=15; fontcolor="{INK}";'
    yield f"  label={_quoted(title)};"
    for box in drawn.boxes:
        yield f"  {names[box.id]} {_box(box, drawn.notes.get(box.id, ()))};"
    for box in drawn.again:
        yield f"  {names[box.id]} {_box(box, (), again=True)};"
    if drawn.front:
        yield f"  {{ rank=same; {' '.join(names[node] + ';' for node in drawn.front)} }}"
    for line in drawn.lines:
        yield f"  {names[line.arrow.source]} -> {names[line.arrow.target]} {_line(line)};"
    yield "  }"
    yield "}"


def _box(box: Box, notes: tuple[str, ...], *, again: bool = False) -> str:
    shape, fill, border = _KINDS[box.kind]
    rows = [f"<b>{_text(box.title)}</b>"]
    style, sign, width = "filled,diagonals" if box.kind is NodeKind.SWAP else "filled", "", 1.0
    if box.state is not None:
        fill, border, style, sign = STATES[box.state]
        width = 1.6
    if box.kind is NodeKind.DEVICE:
        rows.insert(0, '<font point-size="4"> </font>')  # below the cylinder's lid
    if box.kind is NodeKind.UNKNOWN or again:
        style = "filled,dashed"
    for line in (*box.lines, *notes):
        mark = f"{sign} " if sign and line.endswith(("covered", "half set")) else ""
        rows.append(f'<font point-size="9" color="{FAINT}">{mark}{_text(line)}</font>')
    if box.cycle and not again:
        border, width = CYCLE, 2.6
        mark = "\N{ANTICLOCKWISE OPEN CIRCLE ARROW}"
        rows.append(f'<font point-size="9" color="{CYCLE}"><b>{mark} cycle {box.cycle}</b></font>')
    tip = f"{box.kind.value}: {box.title}" + "".join(f"; {line}" for line in box.lines)
    return (
        f'[shape={shape}, style="{style}", fillcolor="{fill}", color="{border}", penwidth={width}, '
        f"label=<{'<br/>'.join(rows)}>, tooltip={_quoted(tip)}]"
    )


def _line(line: Line) -> str:
    arrow = line.arrow
    style = {Need.WORK: "solid", Need.RECOVERY: "dashed", Need.START: "dotted"}[arrow.need]
    parts = [f'style="{style}"', f"tooltip={_quoted(chr(10).join(arrow.evidence))}"]
    if not arrow.certain:
        parts.append("arrowhead=empty")
    if arrow.cycle:
        # two lines side by side: distinct without colour, too
        parts += [f'color="{CYCLE}:invis:{CYCLE}"', f'fontcolor="{CYCLE}"', "penwidth=1.7"]
    if line.label:
        parts.append(f"label={_quoted(line.label.replace(', ', chr(10)))}")
    if line.back:
        parts.append("constraint=false")
    if line.long:
        parts.append("minlen=2")
    return f"[{', '.join(parts)}]"


def _legend(drawn: Layout, picture: Picture) -> str:
    """One row of signs for what the picture uses."""
    cells = ["an arrow: waits for"]
    states = {box.state for box in drawn.boxes}
    for state, (fill, border, _, sign) in STATES.items():
        if state in states:
            cells.append(_sign(sign, f"process {state.value}", border, fill))
    if picture.cycles:
        cells.append(_sign("<b>\N{IDENTICAL TO}&gt;</b>", "cycle: can wait for itself", CYCLE))
    needs = {line.arrow.need for line in drawn.lines}
    if Need.RECOVERY in needs:
        cells.append(_sign("- - -&gt;", "waits only in recovery"))
    if Need.START in needs:
        cells.append(_sign("\N{MIDDLE DOT}\N{MIDDLE DOT}\N{MIDDLE DOT}&gt;", "needed at start, no wait"))
    if not all(line.arrow.certain for line in drawn.lines):
        cells.append(_sign("\N{EM DASH}\N{WHITE RIGHT-POINTING TRIANGLE}", "not certain"))
    if drawn.again:
        cells.append(_sign("- -", "drawn once more"))
    if drawn.starts:
        cells.append(f"{drawn.starts} needs at start are not drawn")
    row = "".join(cell if cell.startswith("<td") else f"<td>{_small(cell)}</td>" for cell in cells)
    return f'<<table border="0" cellborder="0" cellspacing="4" cellpadding="2"><tr>{row}</tr></table>>'


def _sign(sign: str, words: str, border: str = LINE, fill: str = "#ffffff") -> str:
    shown = f'<font point-size="9" color="{border}">{sign}</font>'
    return (
        f'<td border="1" color="{border}" bgcolor="{fill}">{shown}</td><td align="left">{_small(words)}</td>'
    )


def _small(words: str) -> str:
    return f'<font point-size="9" color="{FAINT}">{words}</font>'


def _text(text: str) -> str:
    """Text of the machine for a label.

    Graphviz takes \\N for the node's name, and how often a backslash must be doubled depends on the place and
    the version: the sign that looks like it means nothing to anybody.
    """
    return escape(text).replace("\\", "\N{SET MINUS}")


def _quoted(text: str) -> str:
    """A string of the language, of one line or several; entities in it stand for their characters."""
    return '"' + "\\n".join(_text(line) for line in text.split("\n")) + '"'
