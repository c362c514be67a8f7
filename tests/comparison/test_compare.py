"""Prediction and observation: what is alike, what differs, and what nobody observed."""

from dataclasses import replace

from ioflusher.comparison.check import Allowance, check_half
from ioflusher.comparison.compare import Agreement, Comparison, compared
from ioflusher.comparison.observed import observed_halves
from ioflusher.comparison.summary import FigureSpread, HalfRun, summary
from ioflusher.lab.outcome import GAVE_UP, Half, HalfOutcome, Run
from ioflusher.model.explore import Bounds
from ioflusher.scenario.file import find_scenario
from ioflusher.scenario.settings import with_settings


def frozen(after_s: float = 3.0, *waits: str) -> HalfRun:
    return HalfRun("frozen", frozen_after_s=after_s, waits=waits or ("reclaim-io",))


FINISHED = HalfRun("finished", longest_request_s=0.5)


def test_a_summary_counts_and_spreads() -> None:
    """Most frequent outcome first; figures over the runs that have them; a wait once for each run."""
    found = summary([frozen(2.0), frozen(4.0, "reclaim-io", "reclaim-io"), FINISHED])
    assert found.outcomes == (("frozen", 2), ("finished", 1))
    assert found.frozen_after_s == FigureSpread(2.0, 3.0, 4.0)
    assert found.longest_request_s == FigureSpread(0.5, 0.5, 0.5)
    assert found.waits == (("reclaim-io", 2),)
    assert found.share("frozen") == 2 / 3
    assert summary([]).share("frozen") == 0.0


def test_alike() -> None:
    """All runs came out alike, and the daemon waits in the same place."""
    half = compared((frozen(),) * 3, (frozen(),) * 2, io_flusher=False)
    assert (half.outcome, half.waits) == (Agreement.ALIKE, Agreement.ALIKE)
    assert Comparison("one", "6.12", (half,)).alike


def test_different() -> None:
    """What the model says never happened, or the daemon waited elsewhere."""
    other = compared((FINISHED,) * 3, (frozen(),) * 2, io_flusher=False)
    assert other.outcome is Agreement.DIFFERENT
    elsewhere = compared((frozen(1.0, "dirty-throttled"),), (frozen(),), io_flusher=False)
    assert (elsewhere.outcome, elsewhere.waits) == (Agreement.ALIKE, Agreement.DIFFERENT)
    assert not Comparison("one", "6.12", (elsewhere,)).alike


def test_partly() -> None:
    """Chance decides: some runs of either came out as those of the other."""
    assert compared((frozen(), FINISHED), (frozen(),), io_flusher=False).outcome is Agreement.PARTLY
    mostly = compared((FINISHED, FINISHED, frozen()), (frozen(),), io_flusher=False)
    assert mostly.outcome is Agreement.PARTLY
    more = compared((frozen(),), (frozen(1.0, "reclaim-io", "reclaim-lock"),), io_flusher=False)
    assert more.waits is Agreement.PARTLY


def test_unknown() -> None:
    """Nothing observed is no agreement."""
    half = compared((), (frozen(),), io_flusher=False)
    assert (half.outcome, half.waits) == (Agreement.UNKNOWN, Agreement.UNKNOWN)
    assert not Comparison("one", "6.12", (half,)).alike


def lost(detail: str) -> Run:
    half = Half(True, HalfOutcome.LOST, detail, boot_s=1.0, wall_s=9.0, when_s=5.0)
    return Run(None, half)


def test_a_workload_that_gave_up_is_observed() -> None:
    """A half that was lost says nothing, unless the workload got an error."""
    gave_up = lost(f"{GAVE_UP} 1 before it had read everything back.")
    silent = lost("Neither done nor frozen after 150 s.")
    found = observed_halves((gave_up, silent), io_flusher=True)
    assert [half.outcome for half in found] == ["lost"]
    assert compared(found, (HalfRun("lost"),), io_flusher=True).outcome is Agreement.ALIKE


def test_whether_the_model_allows_a_loss() -> None:
    """Where a run of it is lost as well; of a half that says nothing nothing is asked."""
    fault = {"kind": "daemon-killed", "at_s": 0.6}
    killed = with_settings(find_scenario("ext4-on-nbd-throttled"), {"fault": [fault]})
    half = lost(f"{GAVE_UP} 1 before it had read everything back.").with_
    assert half is not None
    assert check_half(killed, half, (6, 12), Bounds()).allowance is Allowance.ALLOWED
    sound = find_scenario("ext4-on-nbd-throttled")
    assert check_half(sound, half, (6, 12), Bounds()).allowance is Allowance.UNKNOWN
    nothing = replace(half, detail="Neither done nor frozen after 150 s.")
    assert check_half(killed, nothing, (6, 12), Bounds()).deeds == ()
