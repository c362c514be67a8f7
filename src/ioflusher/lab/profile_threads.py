"""From what a daemon was seen to do for one request to its description for the model. Pure."""

from ioflusher.lab.errors import LabError
from ioflusher.lab.event_counter import OUTSIDE, PAGES
from ioflusher.lab.profile import DaemonProfile, SyscallProfile, WorkProfile
from ioflusher.scenario.records import Action, ThreadTable

PAGE_BYTES = 4096
# how often a call is made for a request at least, to be part of it
SELDOM = 0.5
WRITES = ("write", "writev", "pwrite64", "pwritev", "pwritev2", "io_uring_enter", "io_submit")
SENDS = ("sendto", "sendmsg", "sendmmsg")


def threads_of_profile(profile: DaemonProfile) -> tuple[ThreadTable, ...]:
    """The daemon's threads, as alike as the profile shows them, by its largest write.

    What counts is what is as much as the request: pages of page faults are "allocate"; a call that writes is
    "store" where it takes pages or writes at an offset, a send that takes pages is "send". Which thread does
    what a profile does not tell, nor which lock it waits for, nor whether a store was direct.

    Raises:
        LabError: no write was profiled.
    """
    works = [work for work in profile.works if work.work == "write"]
    if not works:
        raise LabError("the profile has no writes, of which a description is made")
    work = max(works, key=lambda each: each.size)
    does: list[Action] = []
    for call in work.syscalls:
        action = _action(call, work)
        if action is not None and action not in does:
            does.append(action)
    name = profile.command[0].rpartition("/")[2] if profile.command else f"{profile.kind or 'storage'}-daemon"
    order: tuple[Action, ...] = ("allocate", "store", "send")
    count = min(256, max(1, round(work.threads.mean)))
    return (ThreadTable(name, tuple(action for action in order if action in does), count=count),)


def notes_of_profile(profile: DaemonProfile) -> tuple[str, ...]:
    """What to know of such a description: whose it is, and what is not in it."""
    kernel = f", as profiled on {profile.kernel}" if profile.kernel is not None else ""
    notes = [f"{profile.served}{kernel}", "which thread does what is not seen"]
    if f"kmem/{PAGES}" in profile.missing:
        notes.append("nor whether a call or a page fault takes pages: kmem/mm_page_alloc was not recorded")
    return (*notes, *(f"in no number: {left_out}" for left_out in profile.left_out))


def _action(call: SyscallProfile, work: WorkProfile) -> Action | None:
    """What a call is for a request; None for nothing that counts."""
    large = call.pages.mean * PAGE_BYTES >= work.size / 2
    if call.name == OUTSIDE:
        return "allocate" if large else None
    if call.calls.mean < SELDOM:
        return None
    if call.name in SENDS:
        return "send" if large else None
    if call.name in WRITES and (large or call.name.startswith("pwrite")):
        return "store"
    return None
