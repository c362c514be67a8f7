"""Rules on the OOM killer."""

from collections.abc import Iterator

from ioflusher.audit.finding import Evidence, Remedy, Severity
from ioflusher.audit.rules.rule import Found, evidence_of_service
from ioflusher.audit.thresholds import Thresholds
from ioflusher.audit.view import Stake, View


def oom_killable(view: View, thresholds: Thresholds) -> Iterator[Found]:
    """Daemons that the OOM killer may take."""
    for daemon in view.daemons:
        score = daemon.process.oom_score_adj
        if daemon.stake < Stake.UNUSED or score is None or score <= thresholds.oom_score_adj:
            continue
        pid = daemon.process.pid
        # a client that merely holds its device is needed as much: killed, it takes the device along
        steps = min(
            target.low_stake_steps + (0 if target.holder else target.uncertainty_steps)
            for target in daemon.targets
        )
        yield Found(
            Severity.WARNING.lowered(steps),
            daemon.subject,
            f"{daemon.serves}: its oom_score_adj is {score}, so it may be killed when memory is short",
            (Evidence(f"/proc/{pid}/oom_score_adj", str(score)), *evidence_of_service(daemon)),
            Remedy(
                "Keep the OOM killer off it: -1000 means never.",
                commands=(f"choom -n -1000 -p {pid}",),
                unit=("OOMScoreAdjust=-1000",),
            ),
        )
