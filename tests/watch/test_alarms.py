"""What is a near miss and what a stall, for what reason, and what is neither."""

import subprocess
import sys

from ioflusher.kernel.stall import SelfWait
from ioflusher.kernel.task_flags import PF_KTHREAD
from ioflusher.watch.alarms import Alarm, AlarmKind, judge
from ioflusher.watch.sample import MachineSample
from tests.watch.samples import BARE, COVERED, KERNEL, NOIO, entries, sample, thread


def only(before: MachineSample | None, now: MachineSample) -> Alarm:
    """The one alarm."""
    (alarm,) = judge(before, now)
    return alarm


def test_nothing_happens() -> None:
    """No alarm, however many entries there were before."""
    busy = sample(thread(reclaim=(entries(KERNEL, 9),), dirty_pauses=4))
    assert judge(busy, busy) == ()
    assert judge(None, busy) == ()


def test_reclaim_with_io_allowed() -> None:
    """Counted since the sample before, with the flags that rose; the state is the advice."""
    before = sample(thread(reclaim=(entries(KERNEL, 2),)))
    alarm = only(before, sample(thread(reclaim=(entries(KERNEL, 5), entries(NOIO, 3)))))
    assert (alarm.kind, alarm.wait, alarm.count) == (AlarmKind.NEAR_MISS, SelfWait.RECLAIM, 3)
    assert alarm.gfp_flags == ("GFP_KERNEL",)
    assert alarm.what == (
        "nbd-server (10), thread worker (11), was in direct reclaim with I/O allowed: 3 times, GFP_KERNEL"
    )
    assert alarm.advice == "ioflusher set 10"


def test_reclaim_without_io_is_none() -> None:
    """What the state is for: the thread reclaims and cannot wait for its own device."""
    before = sample(thread(flags=COVERED))
    held = thread(flags=COVERED, reclaim=(entries(NOIO, 7),), wait=SelfWait.RECLAIM)
    assert judge(before, sample(held)) == ()


def test_seen_in_reclaim() -> None:
    """Without counts, a look that finds it there is enough, unless its flags forbid I/O."""
    alarm = only(None, sample(thread(flags=BARE, wait=SelfWait.RECLAIM)))
    assert (alarm.count, alarm.what[-9:]) == (0, ": goes on")


def test_dirty_throttling() -> None:
    """A pause counts whether the thread has the state or not, and then `set` is no advice."""
    alarm = only(sample(thread(dirty_pauses=1)), sample(thread(dirty_pauses=2)))
    assert (alarm.wait, alarm.count, alarm.advice) == (SelfWait.DIRTY_THROTTLING, 1, "ioflusher set 10")
    alarm = only(sample(thread()), sample(thread(dirty_pauses=2, flags=COVERED)))
    assert alarm.covered
    assert alarm.advice.startswith("ioflusher audit ")


def test_a_thread_of_the_kernels_own_target() -> None:
    """`ioflusher set` could not reach it; it counts for a stall as a daemon does."""
    paused = thread(flags=PF_KTHREAD, dirty_pauses=2, wait=SelfWait.DIRTY_THROTTLING)
    alarm = only(sample(thread()), sample(paused))
    assert alarm.advice.startswith("a store without the page cache: nothing puts the state on")
    now = sample(paused, oldest_s=7.0)
    assert only(None, now).advice == "ioflusher rescue --plan /dev/nbd0"
    assert not only(None, now).takes_state
    assert now.daemons[0].to_cover == ()


def test_counts_that_were_begun_anew_are_not_negative() -> None:
    """Fewer pauses than before: what goes on is told, without a number."""
    now = sample(thread(dirty_pauses=2, wait=SelfWait.DIRTY_THROTTLING))
    alarm = only(sample(thread(dirty_pauses=5)), now)
    assert (alarm.count, alarm.what[-9:]) == (0, ": goes on")


def test_a_restarted_daemon_starts_from_nothing() -> None:
    """The same number, another process: its counts are not compared with those of the old one."""
    old = sample(thread(reclaim=(entries(KERNEL, 9),)))
    assert only(old, sample(thread(reclaim=(entries(KERNEL, 2),)), started=6)).count == 2


def test_a_stall() -> None:
    """Old request, daemon held up: both are needed, and the alarm names them."""
    held = thread(wait=SelfWait.DIRTY_THROTTLING, dirty_pauses=30)
    stall = only(sample(thread()), sample(held, oldest_s=6.25))  # no near miss besides
    assert (stall.kind, stall.device, stall.seconds) == (AlarmKind.STALL, "nbd0", 6.25)
    assert stall.what == (
        "nbd-server (10), thread worker (11), is in dirty throttling"
        " while a request of /dev/nbd0 has waited for 6.2 s"
    )
    assert stall.advice == "ioflusher rescue --plan /dev/nbd0"


def test_a_stall_of_a_covered_daemon() -> None:
    """It can do no I/O in reclaim, and still gets nowhere below the watermark."""
    alarm = only(None, sample(thread(flags=COVERED, wait=SelfWait.RECLAIM), oldest_s=30))
    assert (alarm.kind, alarm.covered) == (AlarmKind.STALL, True)


def test_what_is_no_stall() -> None:
    """A slow device alone, a request that is younger, one of unknown age."""
    assert judge(None, sample(thread(), oldest_s=99)) == ()
    in_reclaim = thread(flags=COVERED, wait=SelfWait.RECLAIM)
    assert judge(None, sample(in_reclaim, oldest_s=4.99)) == ()
    assert judge(None, sample(in_reclaim, oldest_s=None)) == ()
    assert judge(None, sample(in_reclaim, oldest_s=4.99), stalled_s=4.9) != ()


def test_the_rule_needs_the_standard_library_alone() -> None:
    """A service that has to act in a frozen machine loads it."""
    code = (
        "import sys; before = set(sys.modules); import ioflusher.watch.alarms;"
        " print(*(name.split('.')[0] for name in set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert set(done.stdout.split()) <= sys.stdlib_module_names | {"ioflusher"}
