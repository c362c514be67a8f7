"""Which actions could end a freeze, those first that lose least. Pure."""

from dataclasses import dataclass

from ioflusher.machine.snapshot import Memory
from ioflusher.rescue.actions.action import NotApplicable, RescueAction, RescueStep
from ioflusher.rescue.actions.daemon_state import DaemonState
from ioflusher.rescue.actions.dirty_limits import DirtyLimits
from ioflusher.rescue.actions.fuse_abort import FuseAbort
from ioflusher.rescue.actions.min_free import MinFree
from ioflusher.rescue.actions.multipath_queueing import MultipathQueueing
from ioflusher.rescue.actions.nbd_disconnect import NbdDisconnect
from ioflusher.rescue.actions.nbd_send_buffer import NbdSendBuffer
from ioflusher.rescue.actions.nbd_take_over import NbdTakeOver
from ioflusher.rescue.actions.reserve import Reserve
from ioflusher.rescue.actions.ublk_recovery import UblkRecovery
from ioflusher.rescue.freeze import DeviceFreeze

# In the order in which those that lose the same are done: docs/rescue.md has what was measured.
ACTIONS: tuple[RescueAction, ...] = (
    DirtyLimits(),
    DaemonState(),
    NbdSendBuffer(),
    Reserve(),
    MinFree(),
    NbdTakeOver(),
    UblkRecovery(),
    MultipathQueueing(),
    FuseAbort(),
    NbdDisconnect(),
)
NAMES = tuple(action.name for action in ACTIONS)


@dataclass(frozen=True, slots=True)
class RescuePlan:
    """What could end one freeze.

    Attributes:
        freeze: it.
        steps: the actions that could, in the order in which they are done.
        others: the actions that do not apply, each with the reason.
    """

    freeze: DeviceFreeze
    steps: tuple[RescueStep, ...]
    others: tuple[NotApplicable, ...]


def plan(
    freeze: DeviceFreeze,
    memory: Memory,
    *,
    only: tuple[str, ...] = (),
    actions: tuple[RescueAction, ...] = ACTIONS,
) -> RescuePlan:
    """The plan for this freeze; `only` names those of `actions` to look at, none for all."""
    looked = [action.plan(freeze, memory) for action in actions if not only or action.name in only]
    steps = [found for found in looked if isinstance(found, RescueStep)]
    return RescuePlan(
        freeze,
        tuple(sorted(steps, key=lambda step: step.loss)),
        tuple(found for found in looked if isinstance(found, NotApplicable)),
    )
