"""The smaller scenario as a file: what it needs and why, and what it does not need. Pure."""

from collections.abc import Collection
from dataclasses import replace

from ioflusher.lab.minimise.reductions import SIZES
from ioflusher.lab.minimise.search import Search
from ioflusher.scenario.records import Scenario
from ioflusher.scenario.settings import setting_of
from ioflusher.scenario.writer import scenario_toml, size_text
from ioflusher.support.text import counted


def minimal_scenario(search: Search) -> Scenario:
    """The smallest scenario that was found, under a name of its own."""
    best = search.best
    return replace(best, name=f"{best.name}-minimal", title=f"{best.title}, made smaller")


def minimal_toml(search: Search, *, kernel: str, runs: int, tries: int, ending: str) -> str:
    """The text of its file.

    Args:
        search: what was found.
        kernel: the release that it was played on.
        runs: how often each try was played.
        tries: how many there were.
        ending: how the search ended.
    """
    base = search.base
    head = [
        f"made by `ioflusher lab minimise` from {base.name} on Linux {kernel}: "
        f"{counted(tries, 'try', 'tries')} of {counted(runs, 'run')}, {ending}",
    ]
    if search.removed:
        head.append("not needed: " + ", ".join(part.key for part in search.removed))
    gone = {part.key for part in search.removed}
    comments: dict[str, list[str]] = {}
    for part in search.kept:
        if part.key in search.needed:
            key = _place(part.key, base, gone)
            comments.setdefault(key, []).append(f"needed; without it: {search.needed[part.key]}")
    for key in SIZES:
        words = comments.setdefault(key, [])
        if key in search.sizes:
            words.append(f"{size_text(setting_of(base, key))} in {base.name}")
        if key in search.not_half:
            words.append(f"with half of it: {search.not_half[key]}")
    said = {key: "; ".join(words) for key, words in comments.items() if words}
    return scenario_toml(minimal_scenario(search), head=head, comments=said)


def _place(key: str, base: Scenario, gone: Collection[str]) -> str:
    """Where a part of the base stands in the smaller scenario: a fault's number may be another one."""
    before, _, number = key.partition(" ")
    if before != "fault":
        return key
    left = [one for one in range(1, len(base.fault) + 1) if f"fault {one}" not in gone]
    return f"fault {left.index(int(number)) + 1}"
