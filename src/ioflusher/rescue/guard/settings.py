"""What a guard is told, and its form on the command line of the process that it becomes."""

import json
from dataclasses import asdict, dataclass
from enum import Enum


class GuardPolicy(Enum):
    """What a guard does about a freeze."""

    REPORT = "report"  # stores what was seen
    LOSSLESS = "lossless"  # and does what loses nothing
    MORE = "more"  # and, for devices that it was allowed for, what loses what they have not written


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """How a guard works.

    Attributes:
        policy: what it does.
        allow_loss: names of devices for which it may do more.
        stalled_s: seconds without a completed request, with some in flight.
        settle_s: seconds after which what was changed is put back in any case.
        reserve: bytes of memory that it holds to give them back.
        history: the file that keeps what was seen; None for none.
        scout_s: seconds between two looks for served devices.
        priority: SCHED_RR, 1 to 99.
    """

    policy: GuardPolicy = GuardPolicy.LOSSLESS
    allow_loss: tuple[str, ...] = ()
    stalled_s: float = 5.0
    settle_s: float = 20.0
    reserve: int = 0
    history: str | None = None
    scout_s: float = 30.0
    priority: int = 10

    def dump(self) -> str:
        """As one word."""
        return json.dumps({**asdict(self), "policy": self.policy.value})


def load_settings(text: str) -> GuardSettings:
    """What `GuardSettings.dump` gave."""
    fields = json.loads(text)
    return GuardSettings(
        **{**fields, "policy": GuardPolicy(fields["policy"]), "allow_loss": tuple(fields["allow_loss"])}
    )
