"""A cycle of the graph as a finding: which kind it is, how sure, why, and what is missing."""

from ioflusher.kernlog.judging.findings import Case, Confidence, Edge, Finding, Kind
from ioflusher.kernlog.judging.needs import OF_RESERVES
from ioflusher.kernlog.judging.waitgraph import SURENESS, Cycle, allocates
from ioflusher.kernlog.stacks.anatomy import Reclaim, Step, Wait
from ioflusher.kernlog.stacks.roles import Role
from ioflusher.kernlog.stacks.things import Thing, Verb

_INVERSIONS = {Thing.SHRINKERS, Thing.S_UMOUNT, Thing.THAW}
_LOCKS = {None, Thing.HELD, Thing.TRANSACTION, Thing.INODE_LOCK, Thing.MMAP_LOCK, Thing.VICTIM}


def recursion(cycle: Cycle) -> Finding:
    """The finding for the task with whose edge the cycle begins."""
    case = cycle[0].waiter
    known = max((edge.known for edge in cycle), key=SURENESS.__getitem__)
    lacks = sorted((e for e in cycle if e.missing), key=lambda e: -SURENESS[e.known])
    missing = "; ".join(dict.fromkeys(edge.missing for edge in lacks if edge.missing))
    giver = cycle[0].giver
    return Finding(
        _kind(cycle),
        True,
        known,
        _why(cycle),
        missing if missing and known is not Confidence.CERTAIN else None,
        cycle,
        giver if giver is not case else None,
    )


def _kind(cycle: Cycle) -> Kind:
    things = {edge.thing for edge in cycle}
    if things & _INVERSIONS:
        return Kind.SHRINKER_INVERSION
    if Thing.DIRTY in things:
        return Kind.THROTTLED_DAEMON
    locks = (edge for edge in cycle if edge.thing in _LOCKS and edge.scope != OF_RESERVES)
    outside = any(edge.waiter.body.reclaim is None for edge in locks)
    if outside and Thing.THREAD not in things:
        return Kind.LOCK_HELD_IN_RECLAIM
    answers = next((edge.scope for edge in cycle if edge.thing is Thing.ANSWER), None)
    if answers and len(cycle) > 1:
        return Kind.NETWORK_FS_RECURSION if answers in _NETWORKED else Kind.USER_FS_RECURSION
    reclaims = [edge.waiter for edge in cycle if allocates(edge.waiter)]
    return _through(max(reclaims, key=_tells))


_NETWORKED = {"nfs", "ceph", "cifs", "gfs2", "ocfs2", "9p"}


def _tells(case: Case) -> tuple[bool, int]:
    """Of several reclaimers the one whose stack says more of what reclaim was about."""
    return case.body.reclaim is Reclaim.DIRECT and len(case.body.inner) > _BARE, len(case.body.inner)


_BARE = 6  # frames of a reclaimer that only sleeps


def _why(cycle: Cycle) -> str:
    if len(cycle) == 1:
        (edge,) = cycle
        return f"{_place(edge.waiter)} {edge.waits}, and {edge.gives}"
    first, *others = cycle
    parts = [f"{_place(first.waiter)} {first.waits}, which is up to {first.giver.name}: {first.gives}"]
    parts += [_part(edge, back=edge.giver is first.waiter) for edge in others]
    return "; ".join(parts)


def _part(edge: Edge, back: bool) -> str:
    to = "the first" if back else edge.giver.name
    return f"{edge.waiter.name} waits for {edge.waits}, which is up to {to}: {edge.gives}"


def _place(case: Case) -> str:
    if case.body.reclaim is Reclaim.DIRECT:
        return "its allocation waits in reclaim for"
    return "it reclaims and waits for" if case.body.reclaim is not None else "it waits for"


def _through(case: Case) -> Kind:
    """Through what reclaim came back: swap, a daemon's file system, writeback, inodes or another shrinker."""
    body = case.body
    roles = {step.role for step in body.inner}
    if Role.SWAP_OUT in roles:
        return Kind.SWAP_RECURSION
    if body.wait is Wait.DAEMON or Role.USER_FS in roles:
        return Kind.USER_FS_RECURSION
    if Role.NETWORK_FS in roles:
        return Kind.NETWORK_FS_RECURSION
    if any(_gives_up_inodes(step) for step in body.inner):
        return Kind.INODE_RECURSION
    if Role.SHRINKER in roles:
        return Kind.SHRINKER_RECURSION
    return Kind.WRITEBACK_RECURSION


def _gives_up_inodes(step: Step) -> bool:
    """Whether a file system's inodes or directory entries, whose last user an inode may be, are freed."""
    return step.does(Verb.FREES, Thing.INODE) or (step.role is Role.SHRINKER and step.part == "fs")
