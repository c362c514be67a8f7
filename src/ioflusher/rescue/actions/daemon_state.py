"""The IO_FLUSHER state put on the daemon's threads, by ptrace(2).

A thread in uninterruptible sleep does not stop for it; one that is paused in balance_dirty_pages() does when
it leaves the system call. So it ends no freeze; but asked for beforehand it takes effect at the moment at
which another action lets the thread go, and keeps the next freeze away.
"""

from ioflusher.flag import FlagError
from ioflusher.flag.attach import ThreadResult, put_state
from ioflusher.machine.snapshot import Memory
from ioflusher.rescue.actions.action import Loss, NotApplicable, Prepared, RescueAction, RescueStep
from ioflusher.rescue.errors import RescueError
from ioflusher.rescue.freeze import DeviceFreeze, FreezeWay

TIMEOUT_S = 60.0


class DaemonState(RescueAction):
    """`ioflusher set` on the daemons that do not carry the state."""

    name = "daemon-state"

    def plan(self, freeze: DeviceFreeze, memory: Memory) -> RescueStep | NotApplicable:
        if freeze.way not in (FreezeWay.DIRTY_THROTTLING, FreezeWay.RECLAIM, FreezeWay.UNKNOWN):
            return self.no(f"the daemon is not held up by an allocation or a pause: {freeze.way.value}")
        if freeze.kernel_waits:
            return self.no(
                f"{freeze.waits} waits, and nothing puts the state on a thread of the kernel; a store "
                "without the page cache keeps the next freeze away: LIO's backstore block instead of "
                "fileio, nvmet's buffered_io=0"
            )
        bare = [daemon for daemon in freeze.device.daemons if not daemon.covered]
        if not bare:
            return self.no("every daemon carries the state, or none is known")
        return RescueStep(
            action=self.name,
            loss=Loss.NOTHING,
            loses="nothing",
            reason=", ".join(daemon.name for daemon in bare)
            + " does not carry the IO_FLUSHER state: with it the next allocation starts no I/O and the next "
            "store is not paused; what a thread waits in now has to be ended by another action",
            commands=tuple(f"ioflusher set --timeout {TIMEOUT_S:g} {daemon.pid}" for daemon in bare),
            background=True,
            wait_s=15.0,
        )

    def prepare(self, freeze: DeviceFreeze, step: RescueStep) -> Prepared:
        return _State(tuple(daemon.pid for daemon in freeze.device.daemons if not daemon.covered))


class _State(Prepared):
    """The daemons, by number."""

    def __init__(self, pids: tuple[int, ...]) -> None:
        self._pids = pids

    def do(self) -> str:
        said = []
        failed = True
        for pid in self._pids:
            try:
                outcome = put_state(pid, True, timeout=TIMEOUT_S)
            except FlagError as error:
                said.append(f"{pid}: {error}")
                continue
            done = sum(t.outcome in (ThreadResult.DONE, ThreadResult.ALREADY) for t in outcome.threads)
            said.append(f"{done} of {len(outcome.threads)} threads of {pid} carry the state")
            failed = failed and not done
        if failed:
            raise RescueError("the state was put on no thread: " + ", ".join(said))
        return ", ".join(said)

    def undo(self) -> str:
        return ""  # it is what the daemon should have had
