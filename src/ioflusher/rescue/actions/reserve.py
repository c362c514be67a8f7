"""Memory that was locked beforehand, given back: free pages at the moment at which nobody gets any.

A daemon in reclaim waits in mempool_alloc() for a bio that only its own device gives back, and asks the page
allocator again after five seconds at most (mm/mempool.c). With free pages it gets one. Clean page cache is
no substitute: dropped, there is nothing left that reclaim could take without I/O, and who reclaims goes on
writing to the frozen device until its queue is full.
"""

from ioflusher.harden import HardenError, MemoryReserve
from ioflusher.machine.snapshot import Memory
from ioflusher.rescue.actions.action import Loss, NotApplicable, Prepared, RescueAction, RescueStep
from ioflusher.rescue.errors import RescueError
from ioflusher.rescue.freeze import DeviceFreeze, FreezeWay


class Reserve(RescueAction):
    """Memory of this process, locked; a guard holds some. Of no size where nobody does."""

    name = "reserve"

    def __init__(self, size: int = 0) -> None:
        self._memory = MemoryReserve(size)
        self.hold()

    @property
    def held(self) -> bool:
        """Whether it is there to be given back."""
        return self._memory.held > 0

    @property
    def size(self) -> int:
        """Bytes."""
        return self._memory.size

    def hold(self) -> None:
        """Take it; it is locked and present at once.

        Raises:
            RescueError: the kernel does not give it.
        """
        try:
            self._memory.hold()
        except HardenError as error:
            raise RescueError(str(error), errno=error.errno, hint=error.hint) from error

    def give_back(self) -> None:
        """Let the kernel have it."""
        self._memory.give_back()

    def plan(self, freeze: DeviceFreeze, memory: Memory) -> RescueStep | NotApplicable:
        if freeze.way is not FreezeWay.RECLAIM:
            return self.no(f"the daemon does not wait for memory: {freeze.way.value}")
        if not self.held:
            return self.no(
                "only `ioflusher guard --reserve SIZE`, started beforehand, holds memory to give back"
            )
        return RescueStep(
            action=self.name,
            loss=Loss.NOTHING,
            loses="nothing",
            reason=f"an allocation of the daemon's waits, and {self.size >> 20} MiB become free at once",
            commands=(),
            wait_s=12.0,
        )

    def prepare(self, freeze: DeviceFreeze, step: RescueStep) -> Prepared:
        return _GivenBack(self)


class _GivenBack(Prepared):
    """Its owner takes it again once there is plenty of memory."""

    def __init__(self, reserve: Reserve) -> None:
        self._reserve = reserve

    def do(self) -> str:
        self._reserve.give_back()
        return f"{self._reserve.size >> 20} MiB are given back"

    def undo(self) -> str:
        return ""
