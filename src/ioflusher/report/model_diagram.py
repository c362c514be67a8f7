"""The end of a run, or an exploration's way to a freeze, as a sequence diagram: SVG, Mermaid and JSON.

A lane for each task, each device and memory. Where a step's arrow leads follows from what it changes: a
device's variables are named after it, and what is counted in units of memory is memory's. A step that changes
neither happens in its task's own lane.
"""

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from typing import TYPE_CHECKING

from ioflusher.model.halves import ModelHalf
from ioflusher.model.moments import StepTaken
from ioflusher.model.transitions import Step, TransitionSystem
from ioflusher.report.model_words import blocked, half_outcome
from ioflusher.support.text import counted

if TYPE_CHECKING:  # it loads numpy, which a run does not need
    from ioflusher.model.explore import Exploration, Standing

MOST_ARROWS = 60
# arrows that may come again and again together
MOST_FOLDED = 6
MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Lane:
    """What has a line of its own.

    Attributes:
        name: for people.
        kind: "task", "device" or "memory".
    """

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Arrow:
    """A step.

    Attributes:
        number: of the step in all, from 1.
        at_s: when, in seconds of virtual time; None in an exploration, which has no time.
        start, end: places of lanes; the same where it is about nobody else.
        text: what it does.
        completes: whether it completes a request.
        times: how many times it is taken: with the arrows around it that are taken as often, one after the
            other, each time round.
    """

    number: int
    at_s: float | None
    start: int
    end: int
    text: str
    completes: bool
    times: int = 1

    @property
    def words(self) -> str:
        """What it does, and how often."""
        return self.text if self.times == 1 else f"{self.text} ({self.times} times)"


@dataclass(frozen=True, slots=True)
class SequenceDiagram:
    """All of it.

    Attributes:
        title: what it shows.
        lanes: from left to right.
        left_out: steps before the first arrow.
        arrows: in their order.
        ends: places of lanes and what their tasks do in the end, such as "waits for a tag of nbd0".
    """

    title: str
    lanes: tuple[Lane, ...]
    left_out: int
    arrows: tuple[Arrow, ...]
    ends: tuple[tuple[int, str], ...]


def run_diagram(half: ModelHalf) -> SequenceDiagram:
    """The end of a half."""
    steps = [StepTaken(one.at_ns, one.program, one.step, one.values) for one in half.steps]
    places = {program.pid: number for number, program in enumerate(half.system.programs)}
    ends = {places[task.pid]: f"waits for {task.waits_for}" for task in blocked(half)} if half.frozen else {}
    title = f"{half.system.name}, {half.name} the state: {half_outcome(half)}"
    return sequence(half.system, steps, title=title, first=half.first, ends=ends)


def standing_words(standing: "Standing") -> str:
    """What a task does in a freeze; empty where it rests."""
    match standing.how.value:
        case "waits":
            return f"waits for {' or '.join(standing.waits_for)}"
        case "rests":
            return ""
        case other:
            return other


def exploration_diagram(found: "Exploration", title: str) -> SequenceDiagram:
    """The way to the freeze that was found; nothing but lanes where none was."""
    if found.freeze is None:
        return sequence(found.system, (), title=title)
    steps = [StepTaken(None, one.task, one.step, one.values) for one in found.freeze.way]
    ends = {one.task: words for one in found.freeze.standing if (words := standing_words(one))}
    return sequence(found.system, steps, title=title, ends=ends)


def sequence(
    system: TransitionSystem,
    steps: Sequence[StepTaken],
    *,
    title: str,
    first: int = 0,
    ends: Mapping[int, str] | None = None,
    most: int = MOST_ARROWS,
) -> SequenceDiagram:
    """The last of some steps; those without a label are left out.

    Args:
        system: what was played.
        steps: in their order.
        title: what it shows.
        first: how many steps were taken before those.
        ends: what tasks do in the end, by their places.
        most: how many arrows there may be.
    """
    devices = [name for name, _ in system.in_flight]
    tasks = [number for number, program in enumerate(system.programs) if not program.hardware]
    lanes = [
        Lane(f"{system.programs[number].name} ({system.programs[number].pid})", "task") for number in tasks
    ]
    place = {number: lane for lane, number in enumerate(tasks)}
    memory = len(lanes)
    lanes.append(Lane(MEMORY, "memory"))
    targets = {}
    for name in devices:
        targets[name] = len(lanes)
        lanes.append(Lane(name, "device"))
    for number, program in enumerate(system.programs):
        if program.hardware:  # what a device does by itself is in its lane
            place[number] = targets.get(program.name, memory)
    told = [(first + number, taken) for number, taken in enumerate(steps, 1) if taken.step.label]
    drawn = [
        Arrow(
            number,
            None if taken.at_ns is None else taken.at_ns / 1e9,
            place[taken.program],
            _target(taken.step, place[taken.program], memory, targets),
            taken.step.label,
            bool(taken.step.completes),
        )
        for number, taken in told
    ]
    arrows = tuple(_folded(drawn)[-most:])
    return SequenceDiagram(
        title,
        tuple(lanes),
        arrows[0].number - 1 if arrows else 0,
        arrows,
        tuple(sorted((place[task], text) for task, text in (ends or {}).items())),
    )


def _folded(arrows: Sequence[Arrow]) -> list[Arrow]:
    """A few arrows that come again and again, nothing else between, as one round of them."""

    def same(one: int, other: int, length: int) -> bool:
        pairs = zip(arrows[one : one + length], arrows[other : other + length], strict=False)
        found = [(a.start, a.end, a.text) == (b.start, b.end, b.text) for a, b in pairs]
        return len(found) == length and all(found)

    found: list[Arrow] = []
    place = 0
    while place < len(arrows):
        length, times = 1, 1
        for tried in range(1, MOST_FOLDED + 1):
            again = 1
            while same(place, place + again * tried, tried):
                again += 1
            if again > 1 and again * tried > length * times:
                length, times = tried, again
        found += [replace(arrow, times=times) for arrow in arrows[place : place + length]]
        place += length * times
    return found


def _target(step: Step, own: int, memory: int, devices: Mapping[str, int]) -> int:
    """The lane that a step is about."""
    if step.completes:
        return devices.get(step.completes, own)
    for variable, _ in step.changes:
        for name, lane in devices.items():
            if variable.name.startswith(f"{name}_") and variable.unit != "memory" and lane != own:
                return lane
    return memory if any(variable.unit == "memory" for variable, _ in step.changes) else own


# -- JSON


def diagram_json(diagram: SequenceDiagram) -> str:
    """For programs."""
    return json.dumps(asdict(diagram)) + "\n"


# -- Mermaid, https://mermaid.js.org/syntax/sequenceDiagram.html


def diagram_mermaid(diagram: SequenceDiagram) -> str:
    """As text that Mermaid draws."""
    lines = ["sequenceDiagram", f"    title {_mermaid(diagram.title)}"]
    lines += [
        f"    participant L{place} as {_mermaid(lane.name)}" for place, lane in enumerate(diagram.lanes)
    ]
    if diagram.left_out:
        over = f"L0,L{len(diagram.lanes) - 1}"
        lines.append(f"    Note over {over}: {counted(diagram.left_out, 'step')} before")
    for arrow in diagram.arrows:
        sign = "-->>" if arrow.completes else "->>"
        lines.append(f"    L{arrow.start}{sign}L{arrow.end}: {_mermaid(arrow.words)}")
    lines += [f"    Note over L{lane}: {_mermaid(text)}" for lane, text in diagram.ends]
    return "\n".join(lines) + "\n"


def _mermaid(text: str) -> str:
    """What ends a statement or begins a comment in Mermaid becomes its entity."""
    return "".join(f"#{ord(each)};" if each in ";#%<>\n" else each for each in text)


# -- SVG

_LANE, _ROW, _TOP, _LEFT = 150, 26, 74, 92
_STYLE = """
  :root { color-scheme: light dark; }
  svg { --ink: #1c2733; --faint: #8a96a3; --ground: #ffffff; --box: #eef2f6; --bad: #c2410c;
    --badbox: #fff1ea; --good: #0b65a8; background: var(--ground); font: 11px system-ui, sans-serif; }
  @media (prefers-color-scheme: dark) { svg { --ink: #e6edf3; --faint: #77838f; --ground: #0f141a;
    --box: #1c252e; --bad: #ff8a50; --badbox: #2b1a12; --good: #6db6ee; } }
  text { fill: var(--ink); } .faint { fill: var(--faint); } .title { font-size: 14px; font-weight: 600; }
  .lane { stroke: var(--faint); stroke-dasharray: 3 4; } .head { fill: var(--box); stroke: var(--faint); }
  .arrow { stroke: var(--ink); fill: none; } .tip { fill: var(--ink); } .completes { stroke: var(--good); }
  .completes.tip { fill: var(--good); } .end { fill: var(--badbox); stroke: var(--bad); }
  .bad { fill: var(--bad); }
  .halo { paint-order: stroke; stroke: var(--ground); stroke-width: 3px; }
"""


def diagram_svg(diagram: SequenceDiagram) -> str:
    """As a picture, light or dark as its viewer is."""
    width = _LEFT + _LANE * len(diagram.lanes) + 20
    first = _TOP + (2 if diagram.left_out else 1) * _ROW
    notes = {lane: textwrap.wrap(text, 22) for lane, text in diagram.ends}
    tallest = max((len(lines) for lines in notes.values()), default=0)
    end = first + _ROW * len(diagram.arrows)
    height = end + 16 * tallest + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-label="{escape(diagram.title)}">',
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="12" y="22">{escape(diagram.title)}</text>',
    ]
    for place, head in enumerate(diagram.lanes):
        x = _x(place)
        parts.append(f'<line class="lane" x1="{x}" y1="{_TOP - 10}" x2="{x}" y2="{end}"/>')
        corner = 4 if head.kind == "task" else 15
        parts.append(
            f'<rect class="head" x="{x - 68}" y="{_TOP - 38}" width="136" height="28" rx="{corner}"/>'
            f'<text x="{x}" y="{_TOP - 20}" text-anchor="middle">{escape(_short(head.name, 24))}</text>'
        )
    if diagram.left_out:
        words = f"{counted(diagram.left_out, 'step')} before"
        parts.append(f'<text class="faint" x="{_LEFT}" y="{first - _ROW + 4}">{words}</text>')
    for row, arrow in enumerate(diagram.arrows):
        parts += _arrow(arrow, first + _ROW * row)
    for lane, lines in notes.items():
        parts += _end(lines, _x(lane), end + 6)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _x(lane: int) -> int:
    return _LEFT + _LANE * lane + _LANE // 2


def _arrow(arrow: Arrow, y: int) -> Iterator[str]:
    when = f"{arrow.at_s:.6f} s" if arrow.at_s is not None else f"{arrow.number}."
    yield f'<text class="faint" x="12" y="{y + 4}">{when}</text>'
    kind = " completes" if arrow.completes else ""
    start, end = _x(arrow.start), _x(arrow.end)
    text = escape(_short(arrow.words, 44))
    if start == end:
        yield f'<circle class="tip{kind}" cx="{start}" cy="{y}" r="3"/>'
        yield f'<text class="halo" x="{start + 8}" y="{y + 4}">{text}</text>'
        return
    way = 1 if end > start else -1
    yield f'<line class="arrow{kind}" x1="{start}" y1="{y}" x2="{end - 6 * way}" y2="{y}"/>'
    yield f'<path class="tip{kind}" d="M{end} {y} l{-8 * way} -4 v8 z"/>'
    anchor = "start" if way > 0 else "end"
    yield f'<text class="halo" x="{start + 8 * way}" y="{y - 4}" text-anchor="{anchor}">{text}</text>'


def _end(lines: Sequence[str], x: int, y: int) -> Iterator[str]:
    yield f'<rect class="end" x="{x - 70}" y="{y}" width="140" height="{16 * len(lines) + 8}" rx="3"/>'
    for row, line in enumerate(lines):
        yield f'<text class="bad" x="{x}" y="{y + 16 + 16 * row}" text-anchor="middle">{escape(line)}</text>'


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


FORMS = {".svg": diagram_svg, ".mmd": diagram_mermaid, ".json": diagram_json}
