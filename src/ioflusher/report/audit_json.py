"""An audit as `ioflusher audit --json` prints it."""

from collections.abc import Iterable
from typing import Any

import msgspec

from ioflusher.audit.fleet import Judged, worst


def audit_record(results: Iterable[Judged]) -> dict[str, Any]:
    """One object: the findings of all machines, each with its host, and what was looked at on each."""
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
