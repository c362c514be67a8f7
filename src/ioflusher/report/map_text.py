"""The storage graph for a terminal: a tree from swap and mounts down to daemons, then the cycles in words."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from rich.text import Text

from ioflusher.machine.graph.nodes import Cycle, Graph, Node, NodeKind, Reason
from ioflusher.machine.snapshot import Snapshot
from ioflusher.report.map_view import Arrow, Box, Picture, State, picture
from ioflusher.report.map_words import headline, not_read, others, remedies, steps, title
from ioflusher.support.text import printable

_HUBS = frozenset((NodeKind.RECLAIM, NodeKind.SWAPPED))
_NAMING = ((Reason.SERVED,), (Reason.CANDIDATE,))
_PLAIN = frozenset((Reason.MOUNT, Reason.LIES_ON, Reason.SWAP, Reason.PARTITION))
_STATES = {State.COVERED: "green", State.PARTLY: "yellow", State.BARE: "red"}
_CYCLE = "bold red"
_DEEPEST = 40


@dataclass(frozen=True, slots=True)
class Signs:
    """What the tree is drawn with."""

    branch: str = "├─ "
    last: str = "└─ "
    through: str = "│  "
    arrow: str = " → "


UNICODE = Signs()
ASCII = Signs("|- ", "`- ", "|  ", " -> ")


def render_text(
    snapshot: Snapshot,
    graph: Graph,
    *,
    everything: bool = False,
    only_cycles: bool = False,
    signs: Signs = UNICODE,
) -> Iterator[Text]:
    """Lines with their styles; all text is safe to print."""
    system = snapshot.system
    where = printable(f"{system.hostname}, Linux {system.release}, {system.taken}")
    yield Text(where, "bold")
    yield Text(headline(graph), _CYCLE if graph.cycles else "bold green")
    yield from (Text(f"not read: {line}", "yellow") for line in not_read(snapshot))
    nodes = {node.id: node for node in graph.nodes}
    numbered = list(enumerate(graph.cycles, 1))
    # what a command would bring comes before what is there
    yield from _cycle_lines([c for c in numbered if c[1].hypothetical], graph, nodes, signs)
    if not only_cycles:
        drawn = picture(graph, everything=everything)
        yield Text("")
        yield from _Tree(drawn, signs).lines()
        if drawn.left_out:
            yield Text(
                f"not shown, as nothing stands behind them: {drawn.left_out} (--all shows them)", "dim"
            )
    yield from _cycle_lines([c for c in numbered if not c[1].hypothetical], graph, nodes, signs)


def _cycle_lines(
    cycles: Iterable[tuple[int, Cycle]], graph: Graph, nodes: dict[str, Node], signs: Signs
) -> Iterator[Text]:
    """The cycles in words, each with its number."""
    for number, cycle in cycles:
        yield Text("")
        yield Text(title(cycle, number, nodes), _CYCLE)
        for sentence, evidence in steps(cycle, nodes):
            yield Text.assemble(f"  {sentence}  ", (f"({evidence})", "dim"))
        if not cycle.shortest:
            yield Text("  there may be a shorter way round: not all were tried", "dim")
        for path in others(cycle, graph, nodes, signs.arrow):
            yield Text.assemble(("  also    ", "bold"), path)
        for remedy in remedies(cycle, graph.edges, nodes):
            yield Text.assemble(("  remedy  ", "bold"), remedy)


@dataclass
class _Tree:
    """The tree; a box that was printed already is only named."""

    picture: Picture
    signs: Signs
    printed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.boxes = {box.id: box for box in self.picture.boxes}
        self.below: dict[str, list[Arrow]] = {}
        for arrow in self.picture.arrows:
            self.below.setdefault(arrow.source, []).append(arrow)

    def lines(self) -> Iterator[Text]:
        """Swap and mounts first, then what nothing leads to from there."""
        for box in self.picture.boxes:
            if box.id not in self.printed and box.kind not in _HUBS:
                yield from self._lines(box, Text(), "", "")

    def _lines(self, box: Box, before: Text, first: str, rest: str) -> Iterator[Text]:
        """The box and what is below it, without recursion: a hostile chain may be long."""
        waiting: list[tuple[Box, Text, str, str]] = [(box, before, first, rest)]
        while waiting:
            box, before, first, rest = waiting.pop()
            line = Text(first) + before
            arrows = self._print(box, line)
            while len(arrows) == 1 and self._storage(box) and self._storage(self.boxes[arrows[0].target]):
                arrow, box = arrows[0], self.boxes[arrows[0].target]
                line.append(self.signs.arrow + self._why(arrow))
                arrows = self._print(box, line)
            yield line
            below = []
            for place, arrow in enumerate(arrows):
                last = place == len(arrows) - 1
                why = Text(self._why(arrow), _CYCLE if arrow.cycle else "")
                down = rest if len(rest) > 3 * _DEEPEST else rest + ("   " if last else self.signs.through)
                branch = rest + (self.signs.last if last else self.signs.branch)
                below.append((self.boxes[arrow.target], why, branch, down))
            waiting += reversed(below)

    def _storage(self, box: Box) -> bool:
        return box.kind in (NodeKind.SWAP, NodeKind.MOUNT, NodeKind.FILE_SYSTEM, NodeKind.DEVICE)

    def _why(self, arrow: Arrow) -> str:
        doubt = "" if arrow.certain or Reason.CANDIDATE in arrow.reasons else " (not certain)"
        if set(arrow.reasons) <= _PLAIN or self.boxes[arrow.target].kind in _HUBS:
            return ""
        return f"{arrow.label}{doubt}{' ' if arrow.reasons in _NAMING else ': '}"

    def _print(self, box: Box, line: Text) -> list[Arrow]:
        """Adds the box to a line; returns the arrows to what is still to be printed below it."""
        known = box.id in self.printed
        self.printed.add(box.id)
        below = [] if known else self.below.get(box.id, [])
        line.append(
            f"swap {box.title}" if box.kind is NodeKind.SWAP else box.title, _CYCLE if box.cycle else "bold"
        )
        if box.lines and not known and box.kind not in _HUBS:
            words = ", ".join(box.lines)
            style = _STATES[box.state] if box.state else ""
            line.append(f" ({words})" if self._storage(box) else f": {words}", style)
        if box.cycle:
            line.append(f" [cycle {box.cycle}]", _CYCLE)
        if box.kind in _HUBS and not known:
            line.append(self._targets(box))
            return []
        if known and self.below.get(box.id):
            line.append(" (see above)", "dim")
        return below

    def _targets(self, hub: Box) -> str:
        """What a hub leads to, members of its cycle first: all of them are printed elsewhere."""
        arrows = sorted(self.below.get(hub.id, []), key=lambda arrow: not arrow.cycle)
        names = [self._named(arrow) for arrow in arrows[:4]]
        more = f" and {len(arrows) - 4} more" if len(arrows) > 4 else ""
        if not names:
            return ""
        return (
            f", which may {'write to' if hub.kind is NodeKind.RECLAIM else 'lie on'} "
            + ", ".join(names)
            + more
        )

    def _named(self, arrow: Arrow) -> str:
        box = self.boxes[arrow.target]
        swap = "swap " if box.kind is NodeKind.SWAP else ""
        return f"{swap}{box.title}{' [cycle]' if arrow.cycle else ''}"
