"""An audit for people to read on a terminal: lines of rich text, safe to print."""

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator

from rich.text import Text

from ioflusher.audit.finding import (
    AuditFinding,
    AuditReport,
    Evidence,
    FindingGroup,
    Remedy,
    Severity,
    SubjectKind,
)
from ioflusher.audit.fleet import Judged
from ioflusher.audit.rules.rule import AuditRule
from ioflusher.audit.thresholds import RANGES, Thresholds
from ioflusher.support.text import counted, printable

STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
_LABEL = 10
# the source of evidence that says how much more there is
_AND = "and"
# the number of a thread in the name of a file
_THREAD = re.compile(r"^(/proc/\d+/task/)\d+(/)")


def render_audit(results: Iterable[Judged], width: int = 100) -> Iterator[Text]:
    """Lines for the terminal: of each machine its daemons, the most dangerous first, and at the end why.

    Prose is wrapped; commands stand whole on one line.
    """
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
    yield from _reasons((result.report for result in kept if result.report is not None), width)
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
    accused = {group.name for group in report.groups}
    for daemon in looked.daemons:
        if daemon.partition(": ")[0] not in accused:
            yield from _prose("daemon", f"{daemon}: no findings", width)
    for name, reason in looked.off:
        yield from _prose("rule off", f"{name}: {reason}", width)
    shown: set[Evidence] = set()
    for number, group in enumerate(report.groups, 1):
        yield Text()
        yield from _group(f"{number}.", report.host, group, shown, width)
    for entry in report.suppressed:
        yield Text()
        yield Text.assemble(
            "suppressed ",
            _severity(entry.finding),
            f": {entry.finding.rule}: {printable(entry.finding.subject.words)} on {printable(report.host)}",
        )
        yield from _prose("what", entry.finding.summary, width)
        yield from _prose("because", entry.reason, width)


def _severity(finding: AuditFinding) -> tuple[str, str]:
    return finding.severity.value, STYLES[finding.severity]


def _group(mark: str, host: str, group: FindingGroup, shown: set[Evidence], width: int) -> Iterator[Text]:
    """What was found of one daemon: each finding with what was read, then what to do about all of them.

    A fact that is in `shown` was printed before; those that are printed here are added.
    """
    yield Text.assemble(
        f"{mark} ",
        (printable(group.name), "bold"),
        f"{' itself' if group.name == host else f' on {printable(host)}'}: {_numbers(group.findings)}",
    )
    for fact in group.evidence:
        yield from _prose("serves", f"{fact.source}: {fact.said}", width)
    shown.update(group.evidence)
    for finding in group.findings:
        subject = finding.subject
        about = f" ({subject.words})" if group.evidence and subject.kind is SubjectKind.DEVICE else ""
        yield from _prose(
            finding.severity.value,
            f"{finding.rule}{about}: {finding.summary.removeprefix(f'{group.serves}: ')}",
            width,
            style=STYLES[finding.severity],
        )
        for line in _facts([fact for fact in finding.evidence if fact not in shown]):
            yield from _prose("read", line, width)
        shown.update(fact for fact in finding.evidence if fact.source != _AND)
        yield from _prose("do", finding.remedy.words, width)
    yield from _commands(group.remedy)


def _facts(evidence: list[Evidence]) -> Iterator[str]:
    """What was read, a line a file; threads of a process together, as their files say the same mostly."""
    files: dict[str, list[Evidence]] = {}
    for fact in evidence:
        path = _THREAD.sub(r"\1*\2", fact.source)
        if fact.source.startswith("/") and path == fact.source:
            path = path.partition(" ")[0].rstrip(",")
        if fact.source == _AND and files:
            next(reversed(files.values())).append(fact)
        else:
            files.setdefault(path, []).append(fact)
    for path, facts in files.items():
        if len(facts) == 1:
            yield f"{facts[0].source}: {facts[0].said}"
            continue
        numbers = Counter(f"{_rest(fact, path)}{fact.said}" for fact in facts)
        yield f"{path}: " + "; ".join(
            words if number == 1 else f"{words} ({number} times)" for words, number in numbers.items()
        )


def _rest(fact: Evidence, path: str) -> str:
    """What of a fact's source is not in `path`, which several facts share: the field of the file."""
    if fact.source == _AND:
        return f"{_AND} "
    rest = fact.source.removeprefix(path).strip(", ") if fact.source.startswith(path) else ""
    return f"{rest} " if rest else ""


def _commands(remedy: Remedy) -> Iterator[Text]:
    """What to execute, in this order; each command whole on one line."""
    for label, lines in (
        ("now", remedy.commands),
        ("for good", remedy.lasting),
        ("unit", remedy.unit),
    ):
        for line in lines:
            yield Text.assemble((f"   {label:<{_LABEL}}", "dim"), (printable(line), "bold"))


def _reasons(reports: Iterable[AuditReport], width: int) -> Iterator[Text]:
    """Why each rule that found something matters, once, in the order in which the findings come."""
    reasons = {finding.rule: finding.reason for report in reports for finding in _in_order(report)}
    if reasons:
        yield Text()
        yield Text("why", "bold")
        for name, reason in reasons.items():
            yield from _prose("", f"{name}: {reason}", width, indent=3)
        yield from _prose("", "`ioflusher audit --explain RULE` says more of one.", width, indent=3)


def _in_order(report: AuditReport) -> Iterator[AuditFinding]:
    return (finding for group in report.groups for finding in group.findings)


def _prose(
    label: str, words: str, width: int, *, indent: int = 3 + _LABEL, style: str = "dim"
) -> Iterator[Text]:
    space = " " * indent
    lines = textwrap.wrap(
        printable(words), max(40, width - indent), break_long_words=False, break_on_hyphens=False
    )
    for number, line in enumerate(lines):
        yield Text.assemble((space if number or not label else f"   {label:<{_LABEL}}", style), line)


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
