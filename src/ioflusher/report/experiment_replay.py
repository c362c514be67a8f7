"""How a replayed experiment compares with the kept one, as lines for a terminal and as JSON."""

from collections.abc import Iterator, Sequence
from typing import Any

from ioflusher.lab.outcome import Half, half_words
from ioflusher.lab.replay import Difference, HalfComparison, came_out_alike
from ioflusher.support.text import printable


def difference_line(difference: Difference) -> str:
    """One difference in words."""
    kept, here = difference.kept or "not there", difference.here or "not there"
    return printable(f"{difference.what}: {kept} then, {here} now")


def replay_lines(
    name: str, differences: Sequence[Difference], comparisons: tuple[HalfComparison, ...]
) -> Iterator[str]:
    """The comparison with the run of that name."""
    yield ""
    yield f"compared with {name}:"
    for difference in differences:
        yield f"  {difference_line(difference)}"
    for one in comparisons:
        state = "with" if one.io_flusher else "without"
        alike = "alike" if one.alike else "NOT ALIKE"
        yield f"  {state}: {_tally(one.kept)} then, {_tally(one.here)} now: {alike}"
    if comparisons:
        did = "came" if came_out_alike(comparisons) else "did not come"
        yield f"  it {did} out as then"
    else:
        yield "  there is nothing to compare"


def _tally(halves: Sequence[Half]) -> str:
    """Halves by what became of them: "frozen 9 of 10 after 0.5 to 1.1 s, lost 1 of 10 after 90.0 s"."""
    fates: dict[str, list[float]] = {}
    for half in halves:
        fates.setdefault(half_words(half), []).append(half.when_s)
    parts = []
    for words, when in sorted(fates.items(), key=lambda fate: -len(fate[1])):
        times = f"{when[0]:.1f} s" if len(when) == 1 else f"{min(when):.1f} to {max(when):.1f} s"
        often = "" if len(halves) == 1 else f" {len(when)} of {len(halves)}"
        parts.append(f"{words}{often} after {times}")
    return ", ".join(parts)


def replay_record(
    of: str, differences: Sequence[Difference], comparisons: tuple[HalfComparison, ...]
) -> dict[str, Any]:
    """The same as JSON, under "replay" of the experiment's object."""
    return {
        "of": of,
        "alike": came_out_alike(comparisons),
        "differs_here": [{"what": one.what, "kept": one.kept, "here": one.here} for one in differences],
        "halves": [
            {
                "io_flusher": one.io_flusher,
                "alike": one.alike,
                "kept": [_half(half) for half in one.kept],
                "here": [_half(half) for half in one.here],
            }
            for one in comparisons
        ],
    }


def _half(half: Half) -> dict[str, Any]:
    return {"outcome": half_words(half), "when_s": round(half.when_s, 2)}
