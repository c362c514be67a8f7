"""An audit for people to read on a terminal: lines of rich text, safe to print."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator

from rich.text import Text

from ioflusher.audit.finding import AuditFinding, AuditReport, Severity
from ioflusher.audit.fleet import Judged
from ioflusher.audit.rules.rule import AuditRule
from ioflusher.audit.thresholds import RANGES, Thresholds
from ioflusher.support.text import counted, printable

STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
_LABEL = 10


def render_audit(results: Iterable[Judged], width: int = 100) -> Iterator[Text]:
    """Lines for the terminal; prose is wrapped, commands stand whole on one line."""
    kept = tuple(results)
    for number, result in enumerate(kept):
        if number:
            yield Text()
        if result.report is None:
            yield Text(f"{printable(result.input or 'this machine')}: could not be judged", "bold red")
            yield from _prose("error", result.trouble or "", width)
            yield from _prose("hint", result.hint or "", width)
        else:
            yield from _report(result.report, width)
    if len(kept) > 1:
        yield Text()
        yield _sum(kept)


def _sum(results: tuple[Judged, ...]) -> Text:
    reports = [result.report for result in results if result.report is not None]
    findings = [finding for report in reports for finding in report.findings]
    clean = sum(not report.findings for report in reports)
    broken = len(results) - len(reports)
    return Text(
        f"{counted(len(reports), 'machine')} judged, {clean} clean, {_numbers(findings)}"
        + (f"; {counted(broken, 'file')} could not be judged" if broken else ""),
        "bold",
    )


def _numbers(findings: Iterable[AuditFinding]) -> str:
    numbers = Counter(finding.severity for finding in findings)
    words = [counted(numbers[severity], severity.value) for severity in STYLES if numbers[severity]]
    return ", ".join(words) or "no findings"


def _report(report: AuditReport, width: int) -> Iterator[Text]:
    looked = report.looked
    yield Text(f"{printable(report.host)}: {_numbers(report.findings)}", "bold")
    yield from _prose(
        "looked at",
        f"Linux {report.release} at {report.taken}: {counted(looked.processes, 'process', 'processes')}, "
        f"{counted(looked.devices, 'block device')}, "
        f"{counted(looked.mounts, 'mount')}, {counted(looked.swaps, 'swap area')}; "
        f"{counted(len(looked.rules), 'rule')} asked",
        width,
    )
    if not looked.daemons:
        yield from _prose("daemons", "none stands in the I/O path", width)
    for daemon in looked.daemons:
        yield from _prose("daemon", daemon, width)
    for name, reason in looked.off:
        yield from _prose("rule off", f"{name}: {reason}", width)
    for number, finding in enumerate(report.findings, 1):
        yield Text()
        yield from _finding(f"{number}.", report.host, finding, width)
    for entry in report.suppressed:
        yield Text()
        yield from _head("suppressed", report.host, entry.finding)
        yield from _prose("what", entry.finding.summary, width)
        yield from _prose("because", entry.reason, width)


def _head(mark: str, host: str, finding: AuditFinding) -> Iterator[Text]:
    yield Text.assemble(
        f"{mark} ",
        (finding.severity.value, STYLES[finding.severity]),
        f": {finding.rule}: {printable(finding.subject.words)} on {printable(host)}",
    )


def _finding(mark: str, host: str, finding: AuditFinding, width: int) -> Iterator[Text]:
    yield from _head(mark, host, finding)
    yield from _prose("what", finding.summary, width)
    yield from _prose("why", finding.reason, width)
    for fact in finding.evidence:
        yield from _prose("read", f"{fact.source}: {fact.said}", width)
    yield from _prose("do", finding.remedy.words, width)
    for label, lines in (
        ("now", finding.remedy.commands),
        ("for good", finding.remedy.lasting),
        ("unit", finding.remedy.unit),
    ):
        for line in lines:
            yield Text.assemble((f"   {label:<{_LABEL}}", "dim"), (printable(line), "bold"))


def _prose(label: str, words: str, width: int) -> Iterator[Text]:
    indent = " " * (3 + _LABEL)
    lines = textwrap.wrap(
        printable(words), max(40, width - len(indent)), break_long_words=False, break_on_hyphens=False
    )
    for number, line in enumerate(lines):
        yield Text.assemble((indent if number else f"   {label:<{_LABEL}}", "dim"), line)


def render_rule(rule: AuditRule, width: int = 100) -> Iterator[Text]:
    """All that is to be said of one rule."""
    yield Text.assemble((rule.name, "bold"), ": ", (rule.severity.value, STYLES[rule.severity]))
    for label, words in (
        ("what", rule.title),
        ("why", rule.reason),
        ("how", rule.details),
        ("do", rule.remedy),
    ):
        yield from _prose(label, words[0].upper() + words[1:], width)
    for name in rule.thresholds:
        yield from _prose("set", f"{name} = {getattr(Thresholds(), name)}: {RANGES[name][2]}", width)


def render_rules(rules: Iterable[AuditRule]) -> Iterator[Text]:
    """One line a rule."""
    for rule in rules:
        yield Text.assemble(
            f"{rule.name:<22}", (f"{rule.severity.value:<9}", STYLES[rule.severity]), rule.title
        )
