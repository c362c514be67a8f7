"""Which hardening is sufficient, which necessary: from tallies, and no more than they show. Pure.

Within one context (a scenario, a kernel, one value of each axis that does not harden) a cell's half has a set
of hardenings: those keys of the plan's hardening axes whose value is not that of the axes' first values, and
the IO_FLUSHER state.

- Sufficient: with it alone the work is done in every run, while without any hardening the device freezes.
- Necessary: without it everything else freezes, all others together included, while something with it lives.

A set freezes if any of its runs did, since once is enough; it lives if all of its runs did. Where the cells
that an answer hangs on are missing, or came out in a third way, the answer is "not shown".
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from ioflusher.lab.matrix.cells import Cell
from ioflusher.lab.matrix.plan import MatrixPlan, value_label
from ioflusher.lab.matrix.tally import CellTally, HalfTally, Rate
from ioflusher.lab.trials import trial_key
from ioflusher.scenario.records import Scenario
from ioflusher.scenario.settings import setting_of

STATE = "the IO_FLUSHER state"
STATE_KEY = "hardening.state"  # on which threads it is, in the half that has it
STATE_DAEMON_KEY = "hardening.daemon"  # of which of two daemons they are
NO_HARDENING = "no hardening"


class Fate(Enum):
    """What becomes of a set of hardenings."""

    LIVES = "lives"
    FREEZES = "freezes"
    OTHERWISE = "otherwise"
    UNKNOWN = "unknown"


class Answer(Enum):
    """Whether something is so."""

    YES = "yes"
    NO = "no"
    NOT_SHOWN = "not shown"


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer and what it rests on."""

    answer: Answer
    why: str


@dataclass(frozen=True, slots=True)
class HardeningVerdict:
    """What is shown of one hardening in one context."""

    hardening: str
    sufficient: Shown
    necessary: Shown


@dataclass(frozen=True, slots=True)
class ContextJudgement:
    """What is shown of all hardenings in one context.

    Attributes:
        context: (name of the axis, label) of what is the same in all its cells, "scenario" first.
        verdicts: one for each hardening; none where nothing is measured.
        enough: the smallest sets of hardenings with which it lived; an empty one: it lives without any.
    """

    context: tuple[tuple[str, str], ...]
    verdicts: tuple[HardeningVerdict, ...]
    enough: tuple[frozenset[str], ...]

    @property
    def name(self) -> str:
        """The context in words."""
        scenario, *others = self.context
        return ", ".join((scenario[1], *(f"{axis} {label}" for axis, label in others)))


def cell_fate(half: HalfTally) -> Fate:
    """What becomes of the halves of a cell."""
    if not half.halves:
        return Fate.UNKNOWN
    if half.lived.count == len(half.halves):
        return Fate.LIVES
    return Fate.FREEZES if half.frozen.count else Fate.OTHERWISE


@dataclass(frozen=True, slots=True)
class _Hardening:
    """A setting beside that of the context's bare cell; key `STATE_KEY` for the state."""

    key: str
    name: str


_Set = frozenset[_Hardening]


def judge(plan: MatrixPlan, cells: Iterable[tuple[Cell, CellTally]]) -> tuple[ContextJudgement, ...]:
    """What the cells show of each hardening, a judgement for each context in the order of the plan."""
    contexts: dict[tuple[tuple[str, str], ...], list[tuple[Cell, CellTally]]] = {}
    for cell, counted in cells:
        others = tuple(pair for pair in cell.coordinates if pair[0] not in plan.hardening)
        contexts.setdefault((("scenario", cell.scenario_name), *others), []).append((cell, counted))
    return tuple(_judge_context(plan, context, inside) for context, inside in contexts.items())


def _judge_context(
    plan: MatrixPlan, context: tuple[tuple[str, str], ...], cells: list[tuple[Cell, CellTally]]
) -> ContextJudgement:
    sets = _sets(plan, cells)
    fates = {have: cell_fate(half) for have, half in sets.items()}
    if all(fate is Fate.UNKNOWN for fate in fates.values()):
        return ContextJudgement(context, (), ())
    found = {hardening: None for have in sets for hardening in sorted(have, key=lambda one: one.name)}
    living = [have for have, fate in fates.items() if fate is Fate.LIVES]
    smallest = [have for have in living if not any(other < have for other in living)]
    return ContextJudgement(
        context,
        tuple(
            HardeningVerdict(one.name, _sufficient(one, sets, fates), _necessary(one, list(found), fates))
            for one in found
        ),
        tuple(frozenset(one.name for one in have) for have in smallest),
    )


def _sets(plan: MatrixPlan, cells: list[tuple[Cell, CellTally]]) -> dict[_Set, HalfTally]:
    """The halves by their set of hardenings; empty where the bare cell, to compare with, fits none."""
    axes = [axis for axis in plan.axes if axis.name in plan.hardening]
    bare = tuple((axis.name, axis.choices[0].label) for axis in axes)
    first = next((cell.scenario for cell, _ in cells if set(bare) <= set(cell.coordinates)), None)
    if first is None:
        return {}
    keys = dict.fromkeys(key for axis in axes for choice in axis.choices for key, _ in choice.settings)
    for key in (STATE_KEY, STATE_DAEMON_KEY):
        keys.pop(key, None)
    sets: dict[_Set, HalfTally] = {}
    counted_in: set[tuple[_Set, str]] = set()
    for cell, counted in cells:
        if cell.scenario is None:
            continue
        values = {key: setting_of(cell.scenario, key) for key in keys}
        labels = dict(cell.coordinates)  # as the plan writes them, a size with its unit
        own = frozenset(
            _Hardening(key, key if value is True else f"{key} = {labels.get(key) or _label(value)}")
            for key, value in values.items()
            if value != setting_of(first, key)
        )
        for io_flusher in (False, True):
            if plan.only in (None, "with" if io_flusher else "without"):
                have = own | {_state(cell.scenario)} if io_flusher and plan.only is None else own
                half = counted.half(io_flusher)
                # two cells may come to the same scenario, and have the same runs then
                played = trial_key(cell.scenario, "", "", {})
                if (have, played) in counted_in:
                    continue
                counted_in.add((have, played))
                before = sets[have].halves if have in sets else ()
                sets[have] = HalfTally(io_flusher, (*before, *half.halves))
    return sets


def _state(scenario: Scenario) -> _Hardening:
    """The state as the scenario gives it to the daemons' threads: a hardening of its own for each way."""
    table = scenario.hardening
    threads = "" if table.state == "all" else f" on {table.state}"
    daemon = "" if table.daemon == "both" else f" on the {table.daemon} daemon"
    return _Hardening(STATE_KEY, f"{STATE}{threads}{daemon}")


def _label(value: object) -> str:
    return value_label(list(value) if isinstance(value, tuple) else value)


def _sufficient(one: _Hardening, sets: Mapping[_Set, HalfTally], fates: Mapping[_Set, Fate]) -> Shown:
    match fates.get(frozenset(), Fate.UNKNOWN):
        case Fate.UNKNOWN:
            return Shown(Answer.NOT_SHOWN, f"{NO_HARDENING} is not measured")
        case Fate.LIVES:
            return Shown(Answer.NOT_SHOWN, "it lives without any hardening")
        case Fate.OTHERWISE:
            return Shown(Answer.NOT_SHOWN, f"{NO_HARDENING} neither freezes nor lives")
    alone = frozenset({one})
    match fates.get(alone, Fate.UNKNOWN):
        case Fate.LIVES:
            return Shown(Answer.YES, f"lives with it alone, {_of(sets[alone].lived)}")
        case Fate.FREEZES:
            return Shown(Answer.NO, f"freezes with it alone, {_of(sets[alone].frozen)}")
        case Fate.OTHERWISE:
            words = ", ".join(f"{words} {count}" for words, count in sets[alone].other_words)
            return Shown(Answer.NOT_SHOWN, f"with it alone: {words} of {len(sets[alone].halves)}")
        case Fate.UNKNOWN:
            return Shown(Answer.NOT_SHOWN, "it alone is not measured")


def _of(rate: Rate) -> str:
    return f"{rate.count} of {rate.of}"


def _necessary(one: _Hardening, found: list[_Hardening], fates: Mapping[_Set, Fate]) -> Shown:
    lacking = {have: fate for have, fate in fates.items() if one not in have}
    lives = min((have for have, fate in lacking.items() if fate is Fate.LIVES), key=len, default=None)
    if lives is not None:
        return Shown(Answer.NO, f"lives without it, with {set_words(h.name for h in lives)}")
    unclear = [have for have, fate in lacking.items() if fate is not Fate.FREEZES]
    if unclear:
        words = set_words(h.name for h in min(unclear, key=len))
        how = "is not measured" if lacking[min(unclear, key=len)] is Fate.UNKNOWN else "is unclear"
        return Shown(Answer.NOT_SHOWN, f"{words} {how}")
    others = {hardening.key for hardening in found} - {one.key}
    if not any(others <= {hardening.key for hardening in have} for have in lacking):
        return Shown(Answer.NOT_SHOWN, "everything else together is not measured")
    if not any(fate is Fate.LIVES for have, fate in fates.items() if one in have):
        return Shown(Answer.NOT_SHOWN, "nothing lives with it, either")
    return Shown(Answer.YES, "everything else freezes without it")


def set_words(names: Iterable[str]) -> str:
    """A set of hardenings in words."""
    return " and ".join(sorted(names)) or NO_HARDENING
