"""What threads wait for, hold and bring about: the words of the tables' tags, such as `holds:s_umount`."""

from dataclasses import dataclass
from enum import Enum


class Thing(Enum):
    """What one thread can wait for and another, or it itself, can hold or bring about."""

    IO = "io"  # a request of a device or of a file system ends
    FS_IO = "fs-io"  # a file system's request is ended by the file system
    ANSWER = "answer"  # of a file system's daemon or server
    HELD = "held"  # something of a subsystem: a lock, a worker's turn, its own progress
    TRANSACTION = "transaction"  # a journal's transaction ends, and with it room in the log
    PAGE = "page"  # a page's lock
    WRITEBACK = "writeback"  # a page under writeback has been written
    DIRTY = "dirty"  # fewer pages are dirty
    INODE = "inode"  # an inode that is being freed is gone
    INODE_LOCK = "inode-lock"  # struct inode, i_rwsem, before 4.7 i_mutex
    MMAP_LOCK = "mmap-lock"  # struct mm_struct, mmap_lock, before 5.8 mmap_sem
    S_UMOUNT = "s_umount"  # struct super_block, s_umount
    THAW = "thaw"  # a frozen file system is thawed
    SHRINKERS = "shrinkers"  # every shrinker that runs has ended
    THREAD = "thread"  # a kernel thread has been made
    QUEUE = "queue"  # a frozen request queue takes requests again
    RECLAIM = "reclaim"  # others' reclaim makes progress
    KSWAPD = "kswapd"  # kswapd makes progress
    VICTIM = "oom-victim"  # the task that the OOM killer chose is gone
    SWAPPED = "swapped"  # a task's own memory is back from swap
    WORK = "work"  # a work queue's work, or another kernel thread's, is done
    STACK = "stack"  # the stack itself, for the functions that stand at its two ends

    @property
    def words(self) -> str:
        """The thing as the end of "it waits for"."""
        return _WORDS[self]


_WORDS = {
    Thing.IO: "I/O",
    Thing.FS_IO: "I/O that the file system has to end",
    Thing.ANSWER: "the answer of a file system's daemon or server",
    Thing.HELD: "something of a subsystem",
    Thing.TRANSACTION: "a journal's transaction, or room in its log",
    Thing.PAGE: "a page's lock",
    Thing.WRITEBACK: "a page under writeback",
    Thing.DIRTY: "dirty pages to be written",
    Thing.INODE: "an inode that is being freed",
    Thing.INODE_LOCK: "an inode's lock",
    Thing.MMAP_LOCK: "a process's mmap lock",
    Thing.S_UMOUNT: "a file system's s_umount",
    Thing.THAW: "a frozen file system to be thawed",
    Thing.SHRINKERS: "every shrinker that runs",
    Thing.THREAD: "a kernel thread to be made",
    Thing.QUEUE: "a frozen request queue",
    Thing.RECLAIM: "others' reclaim to make progress",
    Thing.KSWAPD: "kswapd to make progress",
    Thing.VICTIM: "the OOM killer's choice to be gone",
    Thing.SWAPPED: "its memory to come back from swap",
    Thing.WORK: "a kernel work queue's work",
    Thing.STACK: "a thread's stack",
}


class Verb(Enum):
    """What a function does with a thing."""

    WAITS = "waits"  # whoever stands in it waits for the thing
    TAKES = "takes"  # waits for the thing where only a lock's own functions stand below it, else it has it
    HOLDS = "holds"  # it has the thing
    COMPLETES = "completes"  # others wait until it is done
    FREES = "frees"  # reclaim wants to be rid of it
    BEGINS = "begins"  # nothing stands outside it
    ENDS = "ends"  # nothing stands inside it


@dataclass(frozen=True, slots=True)
class Tag:
    """One word beside a function's role.

    Attributes:
        verb: what the function does.
        thing: with what.
    """

    verb: Verb
    thing: Thing


def parse_tag(text: str) -> Tag:
    """The tag that a table's `verb:thing` means.

    Raises:
        ValueError: it is none.
    """
    verb, _, thing = text.partition(":")
    return Tag(Verb(verb), Thing(thing))
