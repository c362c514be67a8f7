"""The audit of one snapshot: every rule is asked, the configuration decides what counts."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from ioflusher.audit.config import Config
from ioflusher.audit.finding import AuditFinding, AuditReport, FindingGroup, Looked, Suppressed, joined
from ioflusher.audit.rules.rule import AuditRule, evidence_of_service
from ioflusher.audit.table import BY_NAME, RULES
from ioflusher.audit.view import View
from ioflusher.machine.graph.analysis import Analysis
from ioflusher.machine.serving.service import StorageService
from ioflusher.machine.snapshot import Snapshot

DEFAULT = Config()


def audit(
    snapshot: Snapshot,
    config: Config = DEFAULT,
    *,
    services: tuple[StorageService, ...] | None = None,
) -> AuditReport:
    """Judge a machine.

    Args:
        snapshot: the machine.
        config: what is off and accepted, and thresholds.
        services: who serves what on it, where that is known already; None: it is inferred.
    """
    view = View(Analysis(snapshot, services))
    reasons = dict(config.off)
    kept: list[AuditFinding] = []
    suppressed: list[Suppressed] = []
    for rule in RULES:
        for finding in _findings(rule, view, config):
            reason = reasons.get(rule.name) or _accepted(finding, snapshot.system.hostname, config)
            if reason is None:
                kept.append(finding)
            else:
                suppressed.append(Suppressed(finding, reason))
    kept.sort(key=lambda finding: -finding.severity.rank)  # stable: rules stay in the order of the table
    return AuditReport(
        host=snapshot.system.hostname,
        taken=snapshot.system.taken,
        release=snapshot.system.release,
        findings=tuple(kept),
        groups=grouped(kept, view),
        suppressed=tuple(suppressed),
        looked=_looked(view, config),
    )


def grouped(findings: Iterable[AuditFinding], view: View) -> tuple[FindingGroup, ...]:
    """Findings by the daemon that they belong to, the most dangerous group first, each with one remedy."""
    members: dict[str, list[AuditFinding]] = defaultdict(list)
    for finding in findings:
        members[finding.group].append(finding)
    daemons = {daemon.subject.words: daemon for daemon in view.daemons}
    groups = [
        FindingGroup(
            name,
            daemons[name].serves if name in daemons else "",
            evidence_of_service(daemons[name]) if name in daemons else (),
            tuple(kept),
            joined(one.remedy for one in sorted(kept, key=lambda one: BY_NAME[one.rule].remedy_step)),
        )
        for name, kept in members.items()
    ]
    return tuple(sorted(groups, key=lambda group: group.danger, reverse=True))


def _findings(rule: AuditRule, view: View, config: Config) -> Iterator[AuditFinding]:
    for found in rule.judge(view, config.thresholds):
        yield AuditFinding(
            rule=rule.name,
            severity=found.severity,
            subject=found.subject,
            group=(found.group or found.subject).words,
            summary=found.summary,
            reason=rule.reason,
            evidence=found.evidence,
            remedy=found.remedy,
        )


def _accepted(finding: AuditFinding, host: str, config: Config) -> str | None:
    return next((entry.reason for entry in config.suppress if entry.fits(finding, host)), None)


def _looked(view: View, config: Config) -> Looked:
    snapshot = view.snapshot
    return Looked(
        processes=len(snapshot.processes),
        devices=len(snapshot.devices),
        mounts=len(snapshot.mounts),
        swaps=len(snapshot.swaps),
        daemons=tuple(f"{daemon.subject.words}: {daemon.serves}" for daemon in view.daemons),
        rules=tuple(rule.name for rule in RULES if rule.name not in dict(config.off)),
        off=config.off,
    )
