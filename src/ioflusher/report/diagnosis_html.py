"""A diagnosis as one HTML file that loads nothing from elsewhere."""

from collections.abc import Iterator
from html import escape

from ioflusher.kernlog.diagnosis import Episode
from ioflusher.kernlog.fleet import LogResult
from ioflusher.kernlog.stacks.roles import Role
from ioflusher.kernlog.stacks.waits import MarkedFrame
from ioflusher.report.diagnosis_text import (
    daemon_state,
    edge_text,
    function_text,
    headline,
    outside_in,
    subject,
    sureness,
)
from ioflusher.support.text import counted, printable

_STYLE = """
:root { color-scheme: light dark; --red: #c0392b; --blue: #1f6fb2; --quiet: #777; --shade: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .3rem; overflow-wrap: anywhere; }
h3 { margin: 0; font-size: 1.1rem; } p { margin: .5rem 0; } a { color: inherit; }
section { border-left: .4rem solid var(--blue); padding: .1rem 0 .1rem 1rem; margin: 1.8rem 0; }
section.recursion { border-color: var(--red); }
.mark { color: #fff; background: var(--blue); border-radius: .3rem; padding: 0 .5rem; font-size: .85rem; }
.recursion .mark { background: var(--red); }
.sure, dt, .role, .doubtful, .event { color: var(--quiet); } .sure { font-weight: normal; font-size: .9rem; }
.event { font-size: .9rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }
dd { margin: 0; overflow-wrap: anywhere; }
dd.remedy { background: var(--shade); padding: 0 .5rem; margin-left: -.5rem; }
summary { cursor: pointer; }
table { border-collapse: collapse; } td { padding: .1rem 1rem .1rem 0; vertical-align: top; }
.list td { border-top: 1px solid #8884; } .list td:first-child { white-space: nowrap; }
.stack { font: 13px/1.45 ui-monospace, monospace; display: block; overflow-x: auto; }
.stack td { white-space: nowrap; padding-top: 0; padding-bottom: 0; }
tr.begins td { border-top: 1px solid #8884; } tr.waits td { font-weight: bold; }
"""
# the roles that tell the story: what was asked for memory, what reclaim did, where it stands
_STRONG = frozenset({Role.ALLOCATION, Role.DIRECT_RECLAIM})


def render_html(results: tuple[LogResult, ...]) -> str:
    """The page's text; everything from the logs is escaped."""
    return "\n".join(_page(results)) + "\n"


def _page(results: tuple[LogResult, ...]) -> Iterator[str]:
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8"><title>ioflusher diagnose</title>'
    yield '<meta name="viewport" content="width=device-width">'
    yield f"<style>{_STYLE}</style></head><body><h1>Who waited on whom</h1>"
    for place, result in enumerate(results, 1):
        yield f"<h2>{_safe(headline(result.diagnosis, result.name))}</h2>"
        if result.trouble:
            yield f"<p>{_safe(result.trouble)}</p>"
        if result.diagnosis.memory:
            yield f"<p>{_safe(result.diagnosis.memory)}</p>"
        for event in result.diagnosis.events:
            lines = counted(event.count, "line")
            yield f'<p class="event">{_safe(event.kind.value)}, {lines}: {_safe(event.first.strip())}</p>'
        names = [f"e{place}.{number}" for number in range(1, len(result.diagnosis.episodes) + 1)]
        if len(names) > 1:
            yield from _contents(names, result.diagnosis.episodes)
        for name, episode in zip(names, result.diagnosis.episodes, strict=True):
            yield from _episode(name, episode)
    yield "</body></html>"


def _contents(names: list[str], episodes: tuple[Episode, ...]) -> Iterator[str]:
    yield '<table class="list">'
    for name, episode in zip(names, episodes, strict=True):
        kind = "recursion" if episode.recursion else "other"
        yield (
            f'<tr class="{kind}"><td><a class="mark" href="#{name}">{_safe(episode.kind.value)}</a></td>'
            f"<td>{_safe(subject(episode))}: {_safe(episode.sentence)}</td></tr>"
        )
    yield "</table>"


def _episode(name: str, episode: Episode) -> Iterator[str]:
    kind, verdict = ("recursion", "recursion") if episode.recursion else ("other", "no recursion")
    yield f'<section class="{kind}" id="{name}"><h3><span class="mark">{_safe(episode.kind.value)}</span>'
    yield f'{verdict} <span class="sure">{_safe(sureness(episode))}</span></h3>'
    yield f"<p><strong>{_safe(subject(episode))}</strong>: {_safe(episode.sentence)}.</p>"
    yield f"<p>Why: {_safe(episode.why)}.</p><dl>"
    facts = (
        ("tasks", ", ".join(task.name for task in episode.tasks)),
        ("reports alike", str(episode.count) if episode.count > 1 else None),
        ("device", episode.device),
        ("daemon", f"{episode.daemon}{daemon_state(episode)}" if episode.daemon else None),
        ("needs", episode.needs),
        ("cycle", " \N{RIGHTWARDS ARROW} ".join(episode.cycle)),
        *(("edge", edge_text(edge)) for edge in episode.edges),
        ("kernel", episode.kernel),
        *(("known", note) for note in episode.notes),
        ("missing", episode.missing),
        *(("remedy", remedy) for remedy in episode.remedies),
    )
    for title, value in facts:
        if value:
            yield f'<dt>{title}</dt><dd class="{title.split()[0]}">{_safe(value)}</dd>'
    yield f"</dl><details{' open' if episode.recursion else ''}>"
    yield "<summary>the stack, from the outside in</summary>"
    for stack in episode.stacks:
        yield '<table class="stack">'
        steps = list(outside_in(stack))
        for number, (depth, label, step) in enumerate(steps, 1):
            yield _step(depth, label, step, last=number == len(steps))
        yield "</table>"
    yield "</details><details><summary>all of it, innermost first</summary>"
    yield '<table class="stack">'
    yield from (_row(step) for step in episode.chain)
    yield "</table></details></section>"


def _step(depth: int, label: str, step: MarkedFrame, last: bool) -> str:
    """A line of the indented stack; where it waits is the last."""
    classes = [name for name, holds in (("begins", label), ("waits", last or step.role in _STRONG)) if holds]
    return (
        f'<tr class="{" ".join(classes)}"><td class="role">{_safe(label)}</td>'
        f'<td style="padding-left: {depth}rem">{_safe(function_text(step))}</td></tr>'
    )


def _row(step: MarkedFrame) -> str:
    doubtful = "" if step.frame.reliable else ' class="doubtful"'
    return (
        f'<tr{doubtful}><td class="role">{_safe(step.label)}</td>'
        f"<td>{_safe(function_text(step))}</td><td>{_safe(step.reason)}</td></tr>"
    )


def _safe(text: str) -> str:
    return escape(printable(text))
