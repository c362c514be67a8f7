"""Through what reclaim came back to where it started."""

from ioflusher.kernlog.judging.findings import Case, Kind
from ioflusher.kernlog.stacks.anatomy import Step, Wait
from ioflusher.kernlog.stacks.roles import Role
from ioflusher.kernlog.stacks.things import Thing, Verb


def recursion_kind(case: Case) -> Kind:
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
