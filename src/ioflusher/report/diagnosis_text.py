"""A diagnosis for people to read on a terminal."""

from collections.abc import Iterator

from ioflusher.kernlog.diagnosis import Diagnosis, Episode, Link
from ioflusher.kernlog.judging.findings import Confidence
from ioflusher.kernlog.records import NO_PLACE
from ioflusher.kernlog.stacks.roles import Role, RoleRow, role_of, tagged_rows
from ioflusher.kernlog.stacks.waits import MarkedFrame
from ioflusher.report.wrapping import wrapped
from ioflusher.support.text import counted, printable

_QUIET = {Role.SCHEDULE, Role.WAIT_BIT}


def render_diagnosis(
    diagnosis: Diagnosis, name: str | None = None, *, explain: bool = False
) -> Iterator[str]:
    """Lines for the terminal, safe to print.

    Args:
        diagnosis: of one log.
        name: the log's where there are several.
        explain: with edges, what each task waits for and holds, and the tables' rows for its stack.
    """
    yield headline(diagnosis, name)
    if diagnosis.memory:
        yield f"memory: {diagnosis.memory}"
    for event in diagnosis.events:
        yield printable(
            f"also: {event.kind.value}, {counted(event.count, 'line')}, first: {event.first.strip()}"
        )
    if diagnosis.dropped:
        yield f"{diagnosis.dropped} further stacks, each different, did not fit and were not judged"
    for number, episode in enumerate(diagnosis.episodes, 1):
        yield ""
        yield from _episode(number, episode)
        if explain:
            yield from _explanation(episode)


def _explanation(episode: Episode) -> Iterator[str]:
    """Why the episode was judged so: every edge, every end of one, every row that counted."""
    told = (
        *(("edge", edge_text(edge)) for edge in episode.edges),
        *(("waits", end) for end in episode.waits),
        *(("gives", end) for end in episode.gives),
        *(("row", row) for row in _rows(episode)),
    )
    for name, value in told:
        yield from _wrapped(name, value)


def _rows(episode: Episode) -> Iterator[str]:
    for step in reversed(episode.chain):
        if step.frame.reliable:
            rows = rows_text(step.frame.function)
            yield from (f"{step.frame.function}(): {row}" for row in rows or ("not in the tables",))


def rows_text(function: str) -> list[str]:
    """What the tables of kernel functions say of one, a line for each row; empty where they have none."""
    own = role_of(function)
    rows = (*((own,) if own else ()), *(row for row in tagged_rows(function) if row is not own))
    return [_row_text(row) for row in rows]


def _row_text(row: RoleRow) -> str:
    """A row in a line: "shrinker, holds a file system's s_umount (super_cache_scan; part fs; ...): ..."."""
    kernels = f"kernels {row.kernels}" if row.kernels else "kernels not recorded"
    part = f"part {row.part}" if row.part else "no part in particular"
    deeds = [f"{tag.verb.value} {tag.thing.words}" for tag in row.tags]
    what = ", ".join(([row.role.value] if row.role else []) + deeds)
    return f"{what} ({row.pattern}; {part}; {kernels}): {row.reason}"


def headline(diagnosis: Diagnosis, name: str | None = None) -> str:
    """The answer in one line."""
    where = f"{printable(name)}: " if name else ""
    recursions = sum(episode.recursion for episode in diagnosis.episodes)
    read = counted(diagnosis.reports, "stack") + " read"
    if recursions:
        all_of_them = counted(len(diagnosis.episodes), "episode")
        return f"{where}RECLAIM RECURSION in {recursions} of {all_of_them}; {read}"
    if diagnosis.episodes:
        others = counted(len(diagnosis.episodes), "episode")
        return f"{where}no reclaim recursion; {others} of other kinds; {read}"
    return f"{where}no reclaim recursion and no task that waits; {read}"


def sureness(episode: Episode) -> str:
    """The confidence, and for a recursion what makes it certain."""
    if episode.recursion and episode.confidence is Confidence.CERTAIN:
        return "certain: both ends of the wait are shown"
    return episode.confidence.value


def _episode(number: int, episode: Episode) -> Iterator[str]:
    verdict = "recursion" if episode.recursion else "no recursion"
    yield f"{number}. {episode.kind.value}: {verdict}, {sureness(episode)}"
    version = f"Linux {episode.kernel}" if episode.kernel else None
    facts = (
        ("who", _tasks(episode)),
        ("what", f"{subject(episode)}: {episode.sentence}"),
        ("why", episode.why),
        ("needs", episode.needs),
        ("device", episode.device),
        ("daemon", f"{episode.daemon}{daemon_state(episode)}" if episode.daemon else None),
        ("cycle", " -> ".join(episode.cycle)),
        ("missing", episode.missing),
        *(("kernel", note) for note in (version, *episode.notes)),
        *(("remedy", remedy) for remedy in episode.remedies),
    )
    for name, value in facts:
        if value:
            yield from _wrapped(name, value)
    if episode.recursion:
        for number, stack in enumerate(episode.stacks, 1):
            yield from _stack(stack, f" {number}" if len(episode.stacks) > 1 else "")


def edge_text(edge: Link) -> str:
    """One edge of a cycle: who waits for what, to whom that is up, and how sure that is."""
    to = "itself" if edge.giver == edge.waiter else edge.giver
    known = edge.known.value + (f", missing: {edge.missing}" if edge.missing else "")
    return f"{edge.waiter} waits for {edge.waits}, which is up to {to}: {edge.gives} [{known}]"


def _wrapped(name: str, value: str) -> list[str]:
    return wrapped(printable(value), f"   {name:<9}", " " * 12)


def subject(episode: Episode) -> str:
    """The task that the episode's sentence is about."""
    return episode.tasks[0].name if episode.tasks else "a task"


def _tasks(episode: Episode) -> str:
    first = episode.tasks[0]
    place = f", line {first.line}" if first.line is not None else f", byte {first.offset}"
    place = "" if first.offset == NO_PLACE else place
    state = f", state {first.state}" if first.state else ""
    blocked = f", blocked for more than {first.blocked_seconds} s" if first.blocked_seconds else ""
    others = f"; {episode.count} stacks alike" if episode.count > 1 else ""
    return f"{first.name}{state}{blocked}{place}{others}"


def daemon_state(episode: Episode) -> str:
    """Whether the daemon carried the state, as the end of a sentence; empty where the log does not tell."""
    match episode.tasks[0].io_flusher:
        case True:
            return ", which carried the IO_FLUSHER state"
        case False:
            return ", which did not carry the IO_FLUSHER state"
    return ""


def _stack(chain: tuple[MarkedFrame, ...], number: str) -> Iterator[str]:
    """The stack from the system call inwards, one line for each step that says something."""
    yield f"   stack{number}, from the outside in:"
    for depth, label, step in outside_in(chain):
        yield printable(f"     {label:<17} {'  ' * depth}{function_text(step)}")


def outside_in(chain: tuple[MarkedFrame, ...]) -> Iterator[tuple[int, str, MarkedFrame]]:
    """The steps that say something, from the system call inwards: depth, a role where it begins, step."""
    previous = None
    depth = 0
    for step in reversed(chain):
        if step.role is None or step.role in _QUIET or not step.frame.reliable:
            continue
        begins = step.role is not previous
        depth += begins
        previous = step.role
        yield min(depth - 1, 12), step.label if begins else "", step


def function_text(step: MarkedFrame) -> str:
    """A function with its module: "nbd_queue_rq() [nbd]"."""
    return f"{step.frame.function}()" + (f" [{step.frame.module}]" if step.frame.module else "")
