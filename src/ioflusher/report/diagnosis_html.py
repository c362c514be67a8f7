"""A diagnosis as one HTML file that loads nothing from elsewhere."""

from collections.abc import Iterator
from html import escape

from ioflusher.kernlog.diagnosis import Episode
from ioflusher.kernlog.fleet import LogResult
from ioflusher.kernlog.waits import MarkedFrame
from ioflusher.report.diagnosis_text import SURENESS, counted, headline, subject
from ioflusher.report.plain import printable

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .3rem; }
section { border-left: .4rem solid #1f6fb2; padding-left: 1rem; margin: 1.5rem 0; }
section.recursion { border-color: #c0392b; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }
dt { color: #666; } dd { margin: 0; }
table { border-collapse: collapse; font: 13px/1.4 ui-monospace, monospace; }
td { padding: 0 1rem 0 0; vertical-align: top; white-space: nowrap; }
td.role { color: #666; } tr.doubtful { color: #aaa; }
"""


def render_html(results: tuple[LogResult, ...]) -> str:
    """The page's text; everything from the logs is escaped."""
    return "\n".join(_page(results)) + "\n"


def _page(results: tuple[LogResult, ...]) -> Iterator[str]:
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8"><title>ioflusher diagnose</title>'
    yield f"<style>{_STYLE}</style></head><body><h1>Who waited on whom</h1>"
    for result in results:
        yield f"<h2>{_safe(headline(result.diagnosis, result.name))}</h2>"
        if result.trouble:
            yield f"<p>{_safe(result.trouble)}</p>"
        if result.diagnosis.memory:
            yield f"<p>{_safe(result.diagnosis.memory)}</p>"
        for event in result.diagnosis.events:
            lines = counted(event.count, "line")
            yield f"<p>{_safe(event.kind.value)}, {lines}: {_safe(event.first.strip())}</p>"
        for episode in result.diagnosis.episodes:
            yield from _episode(episode)
    yield "</body></html>"


def _episode(episode: Episode) -> Iterator[str]:
    kind = "recursion" if episode.recursion else "other"
    surely = SURENESS[episode.confidence]
    yield f'<section class="{kind}"><h3>{_safe(episode.kind.value)}, {_safe(surely)}</h3>'
    yield f"<p>{_safe(subject(episode))}: {_safe(episode.sentence)}.</p><p>{_safe(episode.why)}.</p><dl>"
    facts = (
        ("tasks", ", ".join(task.name for task in episode.tasks)),
        ("reports alike", str(episode.count)),
        ("device", episode.device),
        ("daemon", episode.daemon),
        ("needs", episode.needs),
        ("cycle", " \N{RIGHTWARDS ARROW} ".join(episode.cycle)),
        ("kernel", episode.kernel),
        *(("known", note) for note in episode.notes),
        ("missing", episode.missing),
        *(("remedy", remedy) for remedy in episode.remedies),
    )
    for name, value in facts:
        if value:
            yield f"<dt>{name}</dt><dd>{_safe(value)}</dd>"
    yield "</dl><details><summary>the stack, innermost first</summary><table>"
    yield from (_row(step) for step in episode.chain)
    yield "</table></details></section>"


def _row(step: MarkedFrame) -> str:
    doubtful = "" if step.frame.reliable else ' class="doubtful"'
    module = f" [{step.frame.module}]" if step.frame.module else ""
    return (
        f'<tr{doubtful}><td class="role">{_safe(step.label)}</td>'
        f"<td>{_safe(step.frame.function + module)}</td><td>{_safe(step.reason)}</td></tr>"
    )


def _safe(text: str) -> str:
    return escape(printable(text))
