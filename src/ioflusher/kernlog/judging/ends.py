"""The two ends of an edge: what a task waits for, and what a task holds or brings about.

An edge joins a wait of one task to a deed of another (or the same) where both are about one thing. Each end
knows how it is known, in what words, and what the log does not show of it.
"""

from dataclasses import dataclass
from enum import Enum

from ioflusher.kernlog.judging.findings import Confidence
from ioflusher.kernlog.stacks.things import Thing

# what a thing belongs to: a family of subsystems, or a device by its name; None is "some device", "some page"
Key = tuple[Thing, str | None]


class Meets(Enum):
    """Whose ends an end may meet."""

    EVERYBODYS = "everybody's"
    OWN = "own"  # those of the same task
    OTHERS = "others"  # those of other tasks


@dataclass(frozen=True, slots=True)
class End:
    """One end of an edge.

    Attributes:
        thing, scope: about what; ends meet where both are the same.
        known: how sure this end is.
        because: the words: what is waited for ("I/O that xfs started"), or why it is up to the task ("it is
            in kthreadd()").
        missing: what the log does not show of it, None for nothing.
        meets: whose ends it may meet.
    """

    thing: Thing
    scope: str | None
    known: Confidence
    because: str
    missing: str | None = None
    meets: Meets = Meets.EVERYBODYS

    @property
    def key(self) -> Key:
        """What it is about."""
        return self.thing, self.scope


@dataclass(frozen=True, slots=True)
class Meeting:
    """How sure it is that two different tasks' ends are about the same one thing.

    Attributes:
        known: how sure.
        missing: what would decide it, None for nothing.
    """

    known: Confidence
    missing: str | None = None


_ONLY_ONE = Meeting(Confidence.CERTAIN)
# Of each thing: may there be several, so that two tasks may mean different ones?
_MEETINGS = {
    Thing.ANSWER: Meeting(Confidence.PROBABLE, "whether {giver} serves the file system that is waited for"),
    Thing.HELD: Meeting(Confidence.PROBABLE, "whether {giver} holds what is waited for"),
    Thing.TRANSACTION: Meeting(Confidence.PROBABLE, "whether it is the same file system"),
    Thing.FS_IO: Meeting(Confidence.PROBABLE, "whether {giver} ends the I/O that is waited for"),
    Thing.PAGE: Meeting(Confidence.POSSIBLE, "whether it is the same page"),
    Thing.WRITEBACK: Meeting(Confidence.PROBABLE, "whether the page is one of those"),
    Thing.DIRTY: Meeting(Confidence.PROBABLE, "whose dirty pages fill the limit"),
    Thing.INODE: Meeting(Confidence.POSSIBLE, "whether it is the same inode"),
    Thing.INODE_LOCK: Meeting(Confidence.POSSIBLE, "whether it is the same inode"),
    Thing.MMAP_LOCK: Meeting(Confidence.POSSIBLE, "whether it is the same process"),
    Thing.WORK: Meeting(Confidence.PROBABLE, "whether {giver} does the work that is waited for"),
    Thing.QUEUE: Meeting(Confidence.POSSIBLE, "whether it is the same queue"),
    Thing.S_UMOUNT: _ONLY_ONE,
    Thing.THAW: _ONLY_ONE,
    Thing.SHRINKERS: _ONLY_ONE,
    Thing.THREAD: _ONLY_ONE,
    Thing.KSWAPD: _ONLY_ONE,
    Thing.RECLAIM: _ONLY_ONE,
    Thing.VICTIM: _ONLY_ONE,
}
_SOME_DEVICE = Meeting(Confidence.POSSIBLE, "whether the device is the one that is waited for")
_OF_A_FAMILY = Meeting(Confidence.PROBABLE, "whether the device is the one that is waited for")


# the same of a task that waits for what it has itself: what it has may be another page than what it waits for
_WITHIN = {
    Thing.PAGE: Meeting(Confidence.PROBABLE),
    Thing.INODE: Meeting(
        Confidence.PROBABLE, "the log does not show that the other inode is one of those that it frees"
    ),
    Thing.INODE_LOCK: Meeting(Confidence.POSSIBLE, "whether it is the same inode"),
    Thing.TRANSACTION: Meeting(Confidence.PROBABLE, "whether it is the same file system"),
}


def meeting_itself(key: Key) -> Meeting:
    """How sure it is that a task which waits for a thing and has one waits for the one that it has."""
    return _WITHIN.get(key[0], _ONLY_ONE)


def meeting(key: Key, exact: bool) -> Meeting:
    """How sure it is that two tasks mean the same by a thing; `exact` where its scope names one device."""
    thing, scope = key
    if exact:
        return _ONLY_ONE
    if thing is Thing.IO:
        return _OF_A_FAMILY if scope else _SOME_DEVICE
    return _MEETINGS[thing]
