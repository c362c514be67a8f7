"""What a daemon's threads do, counted: system calls, allocations in them, locks, page faults. Pure.

The same for events of a guest's own ring buffer and for those of a trace that somebody recorded: both name
system calls and flags, and tell events in the order of their time.
"""

from collections import Counter, defaultdict

from ioflusher.lab.messages import GfpUse, ProfileRound, SyscallUse

KMALLOC, SLAB, PAGES = "kmalloc", "kmem_cache_alloc", "mm_page_alloc"
OUTSIDE = "outside system calls"
# include/uapi/linux/futex.h: those that wait; the other bits say how
_FUTEX_WAITS = frozenset({0, 6, 9, 11})
_FUTEX_COMMAND = 0x7F


class EventCounter:
    """Counts events of the daemon's threads between two calls of `take_round`.

    `page_bytes` is the size of a page of the machine on which they happened.
    """

    def __init__(self, page_bytes: int) -> None:
        self._page_bytes = page_bytes
        self._in_call: dict[int, tuple[str, int, bool]] = {}  # tid -> name, since when, whether on a futex
        self._clear()

    def _clear(self) -> None:
        self._calls: Counter[str] = Counter()
        self._allocating: Counter[str] = Counter()
        self._objects: Counter[str] = Counter()
        self._object_bytes: Counter[str] = Counter()
        self._pages: Counter[str] = Counter()
        self._gfp: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        self._allocated_in: set[int] = set()  # threads whose call has allocated
        self._tids: set[int] = set()
        self._faults = 0
        self._futex_waits = 0
        self._futex_wait_ns = 0

    def enter(self, time_ns: int, tid: int, name: str, operation: int = 0) -> None:
        """A thread begins a system call; `operation` is the second argument, which says what futex() does."""
        self._tids.add(tid)
        self._calls[name] += 1
        waits = name == "futex" and operation & _FUTEX_COMMAND in _FUTEX_WAITS
        self._futex_waits += waits
        self._in_call[tid] = name, time_ns, waits
        self._allocated_in.discard(tid)

    def leave(self, time_ns: int, tid: int) -> None:
        """It returns from the one that it is in."""
        self._tids.add(tid)
        call = self._in_call.pop(tid, None)
        if call is not None and call[2]:
            self._futex_wait_ns += time_ns - call[1]
        self._allocated_in.discard(tid)

    def fault(self, tid: int) -> None:
        """A page fault in user space."""
        self._tids.add(tid)
        self._faults += 1

    def allocate(self, tid: int, event: str, amount: int, flags: str) -> None:
        """The kernel allocates for it: so many bytes, or of PAGES that order."""
        self._tids.add(tid)
        call = self._in_call.get(tid)
        # a page fault, or a call that began before anybody looked
        name = OUTSIDE if call is None else call[0]
        if call is not None and tid not in self._allocated_in:
            self._allocated_in.add(tid)
            self._allocating[name] += 1
        if event == PAGES:
            self._pages[name] += 1 << amount
        else:
            self._objects[name] += 1
            self._object_bytes[name] += amount
        use = self._gfp[event, flags]
        use[0] += 1
        use[1] += self._page_bytes << amount if event == PAGES else amount

    def take_round(self) -> ProfileRound:
        """What was counted since the last one; what the caller knows itself is 0 in it."""
        names = sorted({*self._calls, *self._objects, *self._pages})
        counted = ProfileRound(
            work="",
            size=0,
            requests=0,
            duration_s=0.0,
            watched_s=0.0,
            lost=False,
            syscalls=tuple(
                SyscallUse(
                    name=name,
                    calls=self._calls[name],
                    allocating=self._allocating[name],
                    objects=self._objects[name],
                    object_bytes=self._object_bytes[name],
                    pages=self._pages[name],
                )
                for name in names
            ),
            gfp=tuple(
                GfpUse(event=event, flags=flags, count=count, size=size)
                for (event, flags), (count, size) in sorted(self._gfp.items())
            ),
            faults=self._faults,
            futex_waits=self._futex_waits,
            futex_wait_s=self._futex_wait_ns / 1e9,
            threads=len(self._tids),
        )
        self._clear()
        return counted
