"""A daemon's profile for a terminal."""

from collections.abc import Iterator

from ioflusher.lab.profile import DaemonProfile, Spread, WorkProfile
from ioflusher.support.sizes import format_size
from ioflusher.support.text import counted, printable

# below this share of a call for each request a line is noise of the rounds
_SMALLEST = 0.05


def profile_lines(profile: DaemonProfile) -> Iterator[str]:
    """Lines that are safe to print: mean, and from the lowest round to the highest in brackets."""
    state = "with" if profile.io_flusher else "without"
    yield printable(profile.served)
    yield printable(
        f"Linux {profile.kernel}, {profile.accelerator}, {state} the IO_FLUSHER state; {profile.device}, "
        f"{counted(profile.threads, 'thread')}"
    )
    for event in profile.missing:
        yield printable(f"this kernel does not record {event}: what it would show is missing below")
    for work in profile.works:
        yield ""
        yield from map(printable, _work(work))


def _work(work: WorkProfile) -> Iterator[str]:
    rounds = counted(work.rounds, "round")
    requests = counted(work.requests, "request")
    yield f"a {work.work} of {format_size(work.size)}, for each of {requests} in {rounds}:"
    if work.lost:
        yield "  events were lost: the numbers are too small"
    yield f"  {'system calls':<24}{'calls':>18}{'allocate':>18}{'objects':>18}{'bytes':>22}{'pages':>18}"
    for call in work.syscalls:
        if max(call.calls.mean, call.objects.mean, call.pages.mean) < _SMALLEST:
            continue
        cells = (call.calls, call.allocating, call.objects)
        yield (
            f"  {call.name:<24}{''.join(f'{_number(cell):>18}' for cell in cells)}"
            f"{_number(call.object_bytes):>22}{_number(call.pages):>18}"
        )
    if any(use.count.mean >= _SMALLEST for use in work.gfp):
        yield f"  {'allocations':<24}{'count':>18}{'bytes':>22}  flags"
    for use in work.gfp:
        if use.count.mean >= _SMALLEST:
            yield f"  {use.event:<24}{_number(use.count):>18}{_number(use.size):>22}  {use.flags}"
    yield f"  {'waits for locks':<24}{_number(work.futex_waits):>18}   {_milliseconds(work.futex_wait_s)}"
    yield f"  {'page faults':<24}{_number(work.faults):>18}"
    yield f"  {'threads at work':<24}{_number(work.threads):>18}"
    yield f"  {'time':<24}{_milliseconds(work.latency_s):>18}"


def _number(spread: Spread) -> str:
    if spread.low == spread.high:
        return f"{spread.mean:.4g}"
    return f"{spread.mean:.4g} [{spread.low:.4g}, {spread.high:.4g}]"


def _milliseconds(spread: Spread) -> str:
    return _number(Spread(spread.mean * 1e3, spread.low * 1e3, spread.high * 1e3)) + " ms"
