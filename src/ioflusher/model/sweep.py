"""Who freezes where: a scenario played in the model over all combinations of a few settings.

An axis is a key of the scenario with its values. Every combination is played for several seeds, both
halves, on whatever executor it is handed: a process pool, or a cluster's workers.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_type_hints

from ioflusher.errors import IoflusherError
from ioflusher.kernel.task_flags import Version
from ioflusher.model.build import build
from ioflusher.model.run import RunOutcome, run
from ioflusher.scenario.records import Scenario
from ioflusher.scenario.settings import setting_path, with_settings
from ioflusher.support.sizes import SizeError, parse_size
from ioflusher.support.text import did_you_mean

MOST_VALUES = 1024
MOST_CELLS = 100_000


class SweepError(IoflusherError):
    """An axis does not say what an axis must say."""


@dataclass(frozen=True, slots=True)
class SweepAxis:
    """A key of the scenario and the values that it takes.

    Attributes:
        key: its dotted name.
        values: as a scenario's file has them.
    """

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class SweptHalf:
    """A half over its seeds.

    Attributes:
        frozen, done: how many came out so; the others ran out of time or memory.
        seeds: how many were played.
        longest_s: the longest time that requests were in flight and none ended, of those that were done.
    """

    frozen: int
    done: int
    seeds: int
    longest_s: float


@dataclass(frozen=True, slots=True)
class SweepCell:
    """A combination.

    Attributes:
        place: the number of its value on each axis.
        values: its value on each axis.
        without, with_: its halves; None where it cannot be played.
        why_not: why it cannot.
    """

    place: tuple[int, ...]
    values: tuple[Any, ...]
    without: SweptHalf | None = None
    with_: SweptHalf | None = None
    why_not: str = ""


def parse_axis(text: str) -> SweepAxis:
    """An axis from KEY=A,B,C or KEY=A..B (doubling) or KEY=A..B:STEP.

    The key may be the last part of a dotted name where no other key ends so: queue_depth.

    Raises:
        SweepError: what is wrong, and how it is written.
    """
    key, equals, given = text.partition("=")
    if not equals or not given:
        raise SweepError(f"{text!r} is no axis", hint="write KEY=A,B,C or KEY=A..B or KEY=A..B:STEP")
    key = _full_key(key)
    first, dots, rest = given.partition("..")
    if not dots:
        values: tuple[Any, ...] = tuple(_value(each) for each in given.split(","))
    else:
        last, colon, step = rest.partition(":")
        values = tuple(_range(text, _number(text, first), _number(text, last), step if colon else None))
    if len(set(values)) < len(values):
        raise SweepError(f"{text!r} has a value twice")
    return SweepAxis(key, values)


def sweep(
    scenario: Scenario,
    axes: Sequence[SweepAxis],
    executor: Executor,
    *,
    version: Version,
    seeds: int = 5,
    on_cell: Callable[[SweepCell], None] = lambda cell: None,
) -> tuple[SweepCell, ...]:
    """Play every combination.

    Args:
        scenario: what to play.
        axes: in which to change it; at least one.
        executor: what plays them.
        version: of Linux.
        seeds: runs of each half.
        on_cell: told each combination when it is known.

    Returns:
        All of them, the last axis the fastest.

    Raises:
        SweepError: too many combinations.
        ScenarioError: a key or value is none of a scenario.
    """
    places = list(itertools.product(*(range(len(axis.values)) for axis in axes)))
    if len(places) > MOST_CELLS:
        raise SweepError(f"{len(places):,} combinations; expected at most {MOST_CELLS:,}")
    cells = list(_cells(scenario, axes, places))
    waiting = {
        executor.submit(play_cell, played, cell, version, seeds): number
        for number, (cell, played) in enumerate(cells)
        if played is not None
    }
    found = [cell for cell, _ in cells]
    for cell, played in cells:
        if played is None:
            on_cell(cell)
    for future in as_completed(waiting):
        found[waiting[future]] = future.result()
        on_cell(future.result())
    return tuple(found)


def play_cell(scenario: Scenario, cell: SweepCell, version: Version, seeds: int) -> SweepCell:
    """Play one combination; what a worker does."""
    try:
        without, with_ = (_half(scenario, version, seeds, io_flusher=state) for state in (False, True))
    except IoflusherError as error:
        return SweepCell(cell.place, cell.values, why_not=str(error))
    return SweepCell(cell.place, cell.values, without, with_)


def _half(scenario: Scenario, version: Version, seeds: int, *, io_flusher: bool) -> SweptHalf:
    system = build(scenario, io_flusher=io_flusher, version=version)
    results = [run(system, seed=seed, stalled_s=scenario.frozen.stalled_s) for seed in range(seeds)]
    done = [result for result in results if result.outcome is RunOutcome.DONE]
    longest = max((ns for result in done for ns in result.longest_ns.values()), default=0)
    frozen = sum(result.outcome is RunOutcome.FROZEN for result in results)
    return SweptHalf(frozen, len(done), seeds, longest / 1e9)


def _cells(
    scenario: Scenario, axes: Sequence[SweepAxis], places: Sequence[tuple[int, ...]]
) -> Iterator[tuple[SweepCell, Scenario | None]]:
    for place in places:
        values = tuple(axis.values[number] for axis, number in zip(axes, place, strict=True))
        settings = {axis.key: value for axis, value in zip(axes, values, strict=True)}
        try:
            yield SweepCell(place, values), with_settings(scenario, settings)
        except IoflusherError as error:
            yield SweepCell(place, values, why_not=str(error)), None


def _full_key(key: str) -> str:
    """The dotted name of a key, which may be its last part alone."""
    if "." in key:
        setting_path(key)
        return key
    known = [name for name in _keys(Scenario) if name.rpartition(".")[2] == key]
    if len(known) == 1:
        return known[0]
    if known:
        raise SweepError(f"{key!r} may be {' or '.join(known)}", hint="write the whole name")
    raise SweepError(f"scenarios have no key {key!r}", hint=did_you_mean(key, set(_keys(Scenario))))


def _keys(table: Any, before: str = "") -> Iterator[str]:
    hints = get_type_hints(table)
    for item in fields(table):
        if is_dataclass(hints[item.name]):
            yield from _keys(hints[item.name], f"{before}{item.name}.")
        else:
            yield before + item.name


def _value(text: str) -> Any:
    """A value of a list: true, a number, a size as bytes, or a word."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return parse_size(text)
    except SizeError:
        return int(text) if text.lstrip("-").isdigit() else text


def _number(axis: str, text: str) -> int:
    try:
        return parse_size(text)
    except SizeError as error:
        raise SweepError(f"{axis!r}: expected a number or a size such as 8M, found {text!r}") from error


def _range(axis: str, first: int, last: int, step: str | None) -> Iterator[int]:
    if last < first or (step is None and first < 1):
        raise SweepError(f"{axis!r}: expected a range that goes up, from 1 or more where it doubles")
    width = None if step is None else _number(axis, step)
    if width == 0 or (width and (last - first) // width >= MOST_VALUES):
        raise SweepError(f"{axis!r}: expected a step that gives at most {MOST_VALUES} values")
    at = first
    while at < last:
        yield at
        at = at * 2 if width is None else at + width
    if at == last or width is None:
        yield last
