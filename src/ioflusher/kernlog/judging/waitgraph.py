"""Who waits for whom: one graph over a log's tasks, and the cycles in it that have an allocation in them.

A node is a task; an edge says what it waits for, to whom that is up, and how sure either end is. A task that
waits for itself is a cycle of one edge.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ioflusher.kernlog.judging.ends import End, Key, Meeting, Meets, meeting, meeting_itself
from ioflusher.kernlog.judging.facts import Facts
from ioflusher.kernlog.judging.findings import Case, Confidence, Edge
from ioflusher.kernlog.judging.gifts import gifts
from ioflusher.kernlog.judging.needs import asks_again, needs
from ioflusher.kernlog.judging.unshown import unshown
from ioflusher.kernlog.records import TaskReport
from ioflusher.kernlog.stacks.anatomy import Wait
from ioflusher.kernlog.stacks.things import Thing
from ioflusher.support.graphs import strong_components, way_back

# tasks of one component that are looked at: beyond, a log is a flood
MAX_MEMBERS = 256
# an edge that is merely possible is two of them, another of which something is missing one
MAX_DOUBTS = 3

Cycle = tuple[Edge, ...]
_WEIGHTS = {Confidence.CERTAIN: 1, Confidence.PROBABLE: 16, Confidence.POSSIBLE: 256}
SURENESS = {Confidence.CERTAIN: 0, Confidence.PROBABLE: 1, Confidence.POSSIBLE: 2}


@dataclass(frozen=True, slots=True)
class _Task:
    case: Case
    needs: tuple[End, ...]
    gifts: tuple[End, ...]
    owner: int | None  # the task that the kernel names as a lock's owner


class WaitGraph:
    """The graph of a log's tasks.

    Args:
        cases: the tasks, each known by its place here.
        facts: what the log tells besides.
        places: which of them a thread is, by its number; those of the cases themselves where not given.
    """

    def __init__(self, cases: Sequence[Case], facts: Facts, places: Mapping[int, int] | None = None) -> None:
        if places is None:
            tids = ((case.report.tid, number) for number, case in enumerate(cases))
            places = {tid: number for tid, number in tids if tid is not None}
        self._tasks = _tasks(cases, facts, places)
        self._shown = len(self._tasks)
        self._tasks += [_Task(case, wanted, given, None) for case, wanted, given in unshown(cases, facts)]

    def cycles(self) -> list[Cycle | None]:
        """For each task the surest cycle that it is in and that has an allocation in it, its own edge first.

        None where it is in none, or where too much of it is guessed.
        """
        best: list[Cycle | None] = [_own_cycle(task) for task in self._tasks[: self._shown]]
        for cycle in _cycles_of_several(self._tasks):
            for place, number in enumerate(cycle.members):
                if number >= self._shown:
                    continue
                turned = (*cycle.edges[place:], *cycle.edges[:place])
                best[number] = min((best[number] or turned, turned), key=_weight)
        return [cycle if cycle and _shown(cycle) else None for cycle in best]

    def ends(self, number: int) -> tuple[tuple[End, ...], tuple[End, ...]]:
        """What a task waits for, and what it holds or has to bring about."""
        return self._tasks[number].needs, self._tasks[number].gifts


def _weight(cycle: Cycle) -> int:
    """What makes one cycle surer than another: its guesses, then the tasks that the log does not show.

    Of two that are alike the first one counts.
    """
    return sum(_WEIGHTS[edge.known] + (not edge.giver.report.frames) for edge in cycle)


def _shown(cycle: Cycle) -> bool:
    """Whether so little is guessed that it may be told: one mere possibility, and one thing more missing."""
    doubts = sum(2 if edge.known is Confidence.POSSIBLE else bool(edge.missing) for edge in cycle)
    return doubts <= MAX_DOUBTS


def _tasks(cases: Sequence[Case], facts: Facts, places: Mapping[int, int]) -> list[_Task]:
    tasks = []
    for case in cases:
        owner = places.get(case.report.owner[1]) if case.report.owner else None
        wanted = needs(case, facts)
        if _is_anothers(case.report):
            # it waits for that one lock: whose it might be need not be guessed
            wanted = tuple(end for end in wanted if end.thing not in _LOCKS)
        tasks.append(_Task(case, wanted, gifts(case, facts), owner))
    return tasks


def _is_anothers(report: TaskReport) -> bool:
    """Whether the kernel is sure that another task has the lock."""
    return report.owner is not None and report.owner[1] != report.tid and not _doubt(report)


_LOCKS = frozenset({Thing.HELD, Thing.INODE_LOCK, Thing.MMAP_LOCK})


def allocates(case: Case) -> bool:
    """Whether a task waits in reclaim, for a killed task's memory, a reserve of its own, or for dirty pages.

    Without one that does, a cycle is a deadlock of another kind.
    """
    body = case.body
    waits = body.wait in (Wait.OOM, Wait.DIRTY_THROTTLE)
    return body.reclaim is not None or waits or body.writes_back or asks_again(body)


# -- a task that waits for itself


def _own_cycle(task: _Task) -> Cycle | None:
    if not allocates(task.case):
        return None
    needed = {end.key: end for end in task.needs if end.meets is not Meets.OTHERS}
    loops = [
        (_edge(task.case, needed[gift.key], task.case, gift),)
        for gift in task.gifts
        if gift.key in needed and gift.meets is not Meets.OTHERS
    ]
    return min(loops, key=_weight, default=None)


# -- several tasks


@dataclass(frozen=True, slots=True)
class _Members:
    members: tuple[int, ...]
    edges: Cycle


def _cycles_of_several(tasks: Sequence[_Task]) -> Iterator[_Members]:
    """For each task of each component the surest way round through another one, if one of them allocates."""
    for members in _components(tasks):
        edges: dict[int, dict[int, Edge]] = {}
        for number, other, edge in _edges_among(tasks, members):
            known = edges.setdefault(number, {}).setdefault(other, edge)
            if _WEIGHTS[edge.known] < _WEIGHTS[known.known]:
                edges[number][other] = edge
        weights = {
            number: {other: _weight((edge,)) for other, edge in others.items()}
            for number, others in edges.items()
        }
        for number in members:
            way = way_back(weights, number)
            round_ = tuple(edges[one][two] for one, two in pairwise((*way, number)))
            if any(allocates(edge.waiter) for edge in round_):
                yield _Members(way, round_)


def _components(tasks: Sequence[_Task]) -> list[tuple[int, ...]]:
    """The sets of tasks that wait for one another; tasks and things are the nodes, so edges stay few."""
    ways: dict[int | Key, list[int | Key]] = {}
    for number, task in enumerate(tasks):
        ways[number] = [end.key for end in task.needs if end.meets is not Meets.OWN]
        if task.owner is not None:
            ways[number].append(task.owner)
        for end in task.gifts:
            if end.meets is not Meets.OWN:
                ways.setdefault(end.key, []).append(number)
    found = []
    for component in strong_components(ways):
        members = sorted(node for node in component if isinstance(node, int))
        if len(members) > 1 and any(allocates(tasks[number].case) for number in members):
            found.append(_unlike(tasks, members))
    return found


def _unlike(tasks: Sequence[_Task], members: Sequence[int]) -> tuple[int, ...]:
    """At most `MAX_MEMBERS` of a component, as many sorts of tasks among them as there are."""
    seen: Counter[object] = Counter()
    turns = []
    for number in members:
        task = tasks[number]
        sort = frozenset(end.key for end in task.needs), frozenset(end.key for end in task.gifts)
        turns.append((seen[sort], number))
        seen[sort] += 1
    return tuple(sorted(number for _, number in sorted(turns)[:MAX_MEMBERS]))


def _edges_among(tasks: Sequence[_Task], members: Iterable[int]) -> Iterator[tuple[int, int, Edge]]:
    inside = tuple(members)
    givers: dict[Key, list[tuple[int, End]]] = {}
    for number in inside:
        for end in tasks[number].gifts:
            if end.meets is not Meets.OWN:
                givers.setdefault(end.key, []).append((number, end))
    for number in inside:
        task = tasks[number]
        if task.owner in inside and task.owner != number:
            yield number, task.owner, _owner_edge(task.case, tasks[task.owner].case)
        for need in task.needs:
            for other, gift in () if need.meets is Meets.OWN else givers.get(need.key, ()):
                if other != number:
                    yield number, other, _edge(task.case, need, tasks[other].case, gift)


def _edge(waiter: Case, need: End, giver: Case, gift: End) -> Edge:
    """The edge where a need and a gift meet; two tasks may mean different things by them."""
    if waiter is giver:
        between = meeting_itself(need.key)
    else:
        between = meeting(need.key, exact=need.scope is not None and need.scope == waiter.report.device)
    # what the least sure of them lacks
    ends: tuple[End | Meeting, ...] = (gift, between, need)
    doubts = sorted(ends, key=lambda end: -SURENESS[end.known])
    known = doubts[0].known
    missing = (end.missing.format(giver=giver.name) for end in doubts if end.missing)
    lacks = next(missing, None) if known is not Confidence.CERTAIN else None
    return Edge(waiter, giver, need.thing, need.scope, known, need.because, gift.because, lacks)


def _owner_edge(waiter: Case, owner: Case) -> Edge:
    doubt = _doubt(waiter.report)
    return Edge(
        waiter,
        owner,
        None,
        None,
        Confidence.PROBABLE if doubt else Confidence.CERTAIN,
        _lock_in_words(waiter.report),
        "the kernel names it as the lock's owner",
        doubt and doubt.format(owner=owner.name),
    )


def _doubt(report: TaskReport) -> str | None:
    """What the kernel is not sure of, of the owner that it names (hung_task.c); None for nothing."""
    if report.lock == "semaphore":
        return "whether {owner}, which had the semaphore last, still has it"
    if report.owner_mode == "reader":
        return "whether {owner} still has the lock, or another reader"
    return None


def _lock_in_words(report: TaskReport) -> str:
    kind = report.lock or "lock"
    article = "an" if kind.startswith("rw-") else "a"
    return f"{article} {kind}" + (f", as a {report.mode}" if report.mode else "")
