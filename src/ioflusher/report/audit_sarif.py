"""An audit as SARIF 2.1.0, the OASIS format for results of static analysis, which CI services read."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from ioflusher import __version__
from ioflusher.audit.finding import AuditFinding, AuditReport, Remedy, SubjectKind
from ioflusher.audit.fleet import Judged
from ioflusher.audit.rules.rule import AuditRule
from ioflusher.audit.table import RULES

# The schema's identifier, as section 3.13.3 wants it named.
SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_INDEX = {rule.name: number for number, rule in enumerate(RULES)}


def sarif_log(results: Iterable[Judged]) -> dict[str, Any]:
    """The log as one object: one run, one result a finding; suppressed ones carry their justification."""
    kept = tuple(results)
    broken = [result for result in kept if result.report is None]
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "ioflusher",
                        "version": __version__,
                        "rules": [_rule(rule) for rule in RULES],
                    }
                },
                "invocations": [
                    {
                        "executionSuccessful": not broken,
                        "toolExecutionNotifications": [_notification(result) for result in broken],
                    }
                ],
                "results": [entry for result in kept if result.report for entry in _results(result)],
            }
        ],
    }


def _rule(rule: AuditRule) -> dict[str, Any]:
    return {
        "id": rule.name,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.reason},
        "help": {"text": f"{rule.details}\n\nRemedy: {rule.remedy}"},
        "defaultConfiguration": {"level": rule.severity.value},
    }


def _notification(result: Judged) -> dict[str, Any]:
    return {"level": "error", "message": {"text": result.trouble or "could not be used"}}


def _results(result: Judged) -> Iterable[dict[str, Any]]:
    report = result.report
    assert report is not None
    for finding in report.findings:
        yield _result(finding, report, result.input)
    for entry in report.suppressed:
        yield {
            **_result(entry.finding, report, result.input),
            "suppressions": [{"kind": "external", "justification": entry.reason}],
        }


def _result(finding: AuditFinding, report: AuditReport, name: str | None) -> dict[str, Any]:
    subject = finding.subject
    place = report.host if subject.kind is SubjectKind.MACHINE else f"{report.host}/{subject.words}"
    location: dict[str, Any] = {
        "logicalLocations": [{"name": subject.words, "fullyQualifiedName": place, "kind": subject.kind.value}]
    }
    if name is not None:
        location["physicalLocation"] = {"artifactLocation": {"uri": _uri(name)}}
    # without the process's number: the same trouble after a restart is the same result
    identity = "\0".join((report.host, finding.rule, subject.kind.value, subject.name))
    return {
        "ruleId": finding.rule,
        "ruleIndex": _INDEX[finding.rule],
        "level": finding.severity.value,
        "message": {"text": f"{finding.summary}. {finding.reason} {_words(finding.remedy)}"},
        "locations": [location],
        "partialFingerprints": {
            "ioflusherFinding/v1": hashlib.sha256(identity.encode("utf-8", "replace")).hexdigest()
        },
        "properties": {
            "host": report.host,
            "group": finding.group,
            "evidence": msgspec.to_builtins(finding.evidence),
            "remedy": msgspec.to_builtins(finding.remedy),
        },
    }


def _uri(name: str) -> str:
    """A file's name as a URI: absolute paths with their scheme, others relative to where the audit ran."""
    return Path(name).as_uri() if name.startswith("/") else quote(name)


def _words(remedy: Remedy) -> str:
    commands = "; ".join(remedy.commands)
    return f"{remedy.words} Commands: {commands}" if commands else remedy.words
