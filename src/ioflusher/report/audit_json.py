"""An audit as `ioflusher audit --json` prints it."""

from collections.abc import Iterable
from typing import Any

import msgspec

from ioflusher.audit.fleet import Judged, worst


def audit_record(results: Iterable[Judged]) -> dict[str, Any]:
    """One object: the findings of all machines, each with its host, and what was looked at on each.

    A finding's `group` names the daemon that it belongs with; `hosts[].groups` has them in the order of the
    text report, each with the remedies of its findings as one.
    """
    kept = tuple(results)
    reports = [(result.input, result.report) for result in kept if result.report is not None]
    highest = worst(kept)
    return {
        "worst": highest.value if highest else None,
        "findings": [
            {"host": report.host, **msgspec.to_builtins(finding)}
            for _, report in reports
            for finding in report.findings
        ],
        "suppressed": [
            {"host": report.host, "because": entry.reason, **msgspec.to_builtins(entry.finding)}
            for _, report in reports
            for entry in report.suppressed
        ],
        "hosts": [
            {
                "host": report.host,
                "input": name,
                "taken": report.taken,
                "release": report.release,
                "findings": len(report.findings),
                "groups": [
                    {
                        "group": group.name,
                        "serves": group.serves,
                        "evidence": msgspec.to_builtins(group.evidence),
                        "findings": len(group.findings),
                        "remedy": msgspec.to_builtins(group.remedy),
                    }
                    for group in report.groups
                ],
                "looked": {**msgspec.to_builtins(report.looked), "off": dict(report.looked.off)},
            }
            for name, report in reports
        ],
        "errors": [
            {"input": result.input, "error": result.trouble, "hint": result.hint}
            for result in kept
            if result.report is None
        ],
    }
