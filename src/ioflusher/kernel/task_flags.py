"""The PF_* bits of a task, include/linux/sched.h, with what they were called in which kernel.

`task->flags` is field 9 of /proc/PID/stat and /proc/PID/task/TID/stat (fs/proc/array.c, do_task_stat),
readable by everybody who may see the process. This module imports nothing: daemons load it.
"""

PF_IO_WORKER = 0x00000010
PF_WQ_WORKER = 0x00000020
PF_MEMALLOC = 0x00000800
PF_USER_WORKER = 0x00004000  # since 6.4; before, an io_uring worker carries PF_IO_WORKER alone
PF_KSWAPD = 0x00020000  # since 4.12
PF_MEMALLOC_NOFS = 0x00040000  # since 4.12, commit 7dea19f9ee63; before, the bit was PF_KSWAPD
PF_MEMALLOC_NOIO = 0x00080000  # since 3.9, commit 21caf2fc1931
# a37b0715ddf3 "mm/writeback: replace PF_LESS_THROTTLE with PF_LOCAL_THROTTLE" (5.8): the same bit, a new name
PF_LOCAL_THROTTLE = 0x00100000
PF_LESS_THROTTLE = PF_LOCAL_THROTTLE
PF_KTHREAD = 0x00200000

# kernel/sys.c, PR_IO_FLUSHER
PF_IO_FLUSHER = PF_MEMALLOC_NOIO | PF_LOCAL_THROTTLE

Version = tuple[int, int]
NEWEST: Version = (99, 0)

# bit -> its names, oldest first, each with the release of Linux that brought it; "" where the bit fell
# out of use. Distributions move fixes between releases: a name is what mainline means by the bit, no more.
_NAMES: dict[int, tuple[tuple[Version, str], ...]] = {
    0x00000001: (((5, 10), "PF_VCPU"),),
    0x00000002: (((4, 10), "PF_IDLE"),),
    0x00000004: (((2, 6), "PF_EXITING"),),
    0x00000008: (((2, 6), "PF_EXITPIDONE"), ((5, 5), ""), ((5, 17), "PF_POSTCOREDUMP")),
    0x00000010: (((2, 6), "PF_VCPU"), ((5, 10), "PF_IO_WORKER")),
    0x00000020: (((2, 6), "PF_WQ_WORKER"),),
    0x00000040: (((2, 6), "PF_FORKNOEXEC"),),
    0x00000080: (((2, 6), "PF_MCE_PROCESS"),),
    0x00000100: (((2, 6), "PF_SUPERPRIV"),),
    0x00000200: (((2, 6), "PF_DUMPCORE"),),
    0x00000400: (((2, 6), "PF_SIGNALED"),),
    PF_MEMALLOC: (((2, 6), "PF_MEMALLOC"),),
    0x00001000: (((3, 1), "PF_NPROC_EXCEEDED"),),
    0x00002000: (((2, 6), "PF_USED_MATH"),),
    0x00004000: (((3, 8), "PF_USED_ASYNC"), ((5, 17), ""), ((6, 4), "PF_USER_WORKER")),
    0x00008000: (((2, 6), "PF_NOFREEZE"),),
    0x00010000: (((2, 6), "PF_FROZEN"), ((6, 1), ""), ((6, 12), "PF_KCOMPACTD")),  # 6.15 and 6.12.y
    0x00020000: (((2, 6), "PF_FSTRANS"), ((4, 12), "PF_KSWAPD")),
    PF_MEMALLOC_NOFS: (((2, 6), "PF_KSWAPD"), ((4, 12), "PF_MEMALLOC_NOFS")),
    PF_MEMALLOC_NOIO: (((3, 9), "PF_MEMALLOC_NOIO"),),
    PF_LOCAL_THROTTLE: (((2, 6), "PF_LESS_THROTTLE"), ((5, 8), "PF_LOCAL_THROTTLE")),
    PF_KTHREAD: (((2, 6), "PF_KTHREAD"),),
    0x00400000: (((2, 6), "PF_RANDOMIZE"),),
    0x00800000: (
        ((2, 6), "PF_SWAPWRITE"),
        ((5, 18), ""),
        ((6, 9), "PF_MEMALLOC_NORECLAIM"),
        ((6, 12), "PF_NO_NOTIFY_SIGNAL"),  # read in 6.12.117, where it came from a later release
    ),
    0x01000000: (((4, 20), "PF_MEMSTALL"), ((5, 7), ""), ((6, 9), "PF_MEMALLOC_NOWARN"), ((6, 12), "")),
    0x02000000: (((4, 17), "PF_UMH"), ((5, 9), "")),
    0x04000000: (((3, 10), "PF_NO_SETAFFINITY"),),
    0x08000000: (((2, 6), "PF_MCE_EARLY"),),
    0x10000000: (((5, 1), "PF_MEMALLOC_NOCMA"), ((5, 13), "PF_MEMALLOC_PIN")),
    0x20000000: (
        ((2, 6), "PF_MUTEX_TESTER"),
        ((5, 5), "PF_IO_WORKER"),
        ((5, 10), ""),
        ((6, 9), "PF_BLOCK_TS"),
    ),
    0x40000000: (((2, 6), "PF_FREEZER_SKIP"), ((6, 1), "")),
    0x80000000: (((3, 11), "PF_SUSPEND_TASK"),),
}


class TaskFlags(int):
    """The PF_* bits of one task: an int that knows its names."""

    __slots__ = ()

    @property
    def io_flusher(self) -> bool:
        """Whether the task carries both bits that PR_SET_IO_FLUSHER sets, as PR_GET_IO_FLUSHER judges."""
        return self & PF_IO_FLUSHER == PF_IO_FLUSHER

    @property
    def half_set(self) -> bool:
        """Whether the task carries one of the two bits without the other."""
        return self & PF_IO_FLUSHER not in (0, PF_IO_FLUSHER)

    @property
    def kernel_thread(self) -> bool:
        """Whether the task belongs to the kernel itself."""
        return bool(self & PF_KTHREAD)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the bits that are set, as the newest kernel has them; see `names_in`."""
        return self.names_in(NEWEST)

    def names_in(self, version: Version) -> tuple[str, ...]:
        """The names of the bits that are set, lowest bit first, as Linux `version` (major, minor) has them.

        A bit without a name in that version comes as its number, as 0x01000000.
        """
        bits = (1 << position for position in range(self.bit_length()))
        return tuple(_name(bit, version) for bit in bits if self & bit)

    def __repr__(self) -> str:
        return f"TaskFlags({int(self):#010x})"


def _name(bit: int, version: Version) -> str:
    names = [name for since, name in _NAMES.get(bit, ()) if since <= version]
    return (names[-1] if names else "") or f"{bit:#010x}"


def parse_flags(stat: bytes) -> TaskFlags:
    """Field 9 of the text of /proc/PID/stat, without the cost of the whole record.

    Raises:
        ValueError: where the text is not such a line.
    """
    # A name may hold spaces, newlines and parentheses: it ends at the last parenthesis of the text.
    fields = stat[stat.rfind(b")") + 1 :].split(None, 7)
    if len(fields) < 7:
        raise ValueError(f"expected 'PID (comm) state' and six numbers or more, found {stat[:80]!r}")
    return TaskFlags(fields[6])
