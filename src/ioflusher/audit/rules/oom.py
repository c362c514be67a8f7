"""Rules on the OOM killer: a daemon that it may take, and a control group in which it may take nobody."""

from collections import defaultdict
from collections.abc import Iterator

from ioflusher.audit.finding import Evidence, Remedy, Severity
from ioflusher.audit.rules.cgroup_limits import far_from, limit_file
from ioflusher.audit.rules.rule import MOST_NAMED, Found, evidence_of_service, more
from ioflusher.audit.thresholds import Thresholds
from ioflusher.audit.view import AuditedDaemon, Stake, View
from ioflusher.machine.process import MemoryLimit
from ioflusher.support.text import counted

# include/uapi/linux/oom.h OOM_SCORE_ADJ_MIN: never killed
NEVER = -1000
# killed when nobody else of the control group can be
LAST = -999


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
            _protect(daemon),
        )


def _protect(daemon: AuditedDaemon) -> Remedy:
    """The score that keeps the OOM killer off a daemon and leaves a limited control group a task to kill."""
    pid, groups = daemon.process.pid, daemon.process.cgroups
    limited = [group.path for group in groups or () if group.max is not None]
    if groups is not None and not limited:
        score, words = NEVER, "Keep the OOM killer off it: -1000 means never."
    else:
        where = f"its control group {limited[0]} has" if limited else "a control group of it may have"
        score = LAST
        words = (
            f"Keep the OOM killer off it by -999. Not by -1000, never: {where} a hard limit of memory, and "
            "where the kernel may kill no task of such a group, a task at the limit tries again for ever."
        )
    return Remedy(words, commands=(f"choom -n {score} -p {pid}",), unit=(f"OOMScoreAdjust={score}",))


def cgroup_unkillable(view: View, thresholds: Thresholds) -> Iterator[Found]:
    """Control groups with a hard limit of memory in which every task has an oom_score_adj of -1000."""
    groups: dict[MemoryLimit, list[AuditedDaemon]] = defaultdict(list)
    for daemon in view.daemons:
        for group in daemon.process.cgroups or ():
            if group.max is not None and daemon.process.oom_score_adj == NEVER:
                groups[group].append(daemon)
    scores = {process.pid: process.oom_score_adj for process in view.snapshot.processes}
    for group, daemons in groups.items():
        members = None if group.members is None else {pid: scores.get(pid) for pid in group.members}
        killable = [pid for pid, score in (members or {}).items() if score is not None and score != NEVER]
        if not killable:
            yield _unkillable(group, daemons, members, thresholds)


def _unkillable(
    group: MemoryLimit,
    daemons: list[AuditedDaemon],
    members: dict[int, int | None] | None,
    thresholds: Thresholds,
) -> Found:
    limit = group.max or 0
    unknown = [pid for pid, score in (members or {}).items() if score is None]
    certain = members is not None and not unknown
    daemon = daemons[0]
    who = "every task" if certain else f"{daemon.subject.words}, and as far as is known every other task,"
    return Found(
        Severity.NOTE if not certain or far_from(group, limit, thresholds) else Severity.WARNING,
        daemon.subject,
        f"the control group {group.path} has a limit of {limit} bytes, and {who} in it has an oom_score_adj "
        "of -1000: at the limit the kernel has nothing to kill",
        (
            Evidence(limit_file(group), str(limit)),
            *(
                Evidence(f"/proc/{pid}/oom_score_adj", "unknown" if score is None else str(score))
                for pid, score in list((members or {}).items())[:MOST_NAMED]
            ),
            *more(len(members or ()) - MOST_NAMED, "task"),
            *(() if members is not None else (Evidence(f"{group.path}, cgroup.procs", "unknown"),)),
            *evidence_of_service(daemon),
        ),
        Remedy(
            "Leave the kernel a task to kill: -999 makes a daemon the last choice of its group. Or lift the "
            f"limit of the group ({counted(len(daemons), 'daemon')} here), see memory-max.",
            commands=(f"choom -n {LAST} -p {daemon.process.pid}",),
            unit=(f"OOMScoreAdjust={LAST}",),
        ),
    )
