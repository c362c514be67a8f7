"""A daemon's profile for a terminal."""

from collections.abc import Iterator

from ioflusher.lab.profile import DaemonProfile, Spread, WorkProfile
from ioflusher.support.sizes import format_size
from ioflusher.support.text import counted, printable

# below this share of a call for each request a line is noise of the rounds
_SMALLEST = 0.05


def profile_lines(profile: DaemonProfile) -> Iterator[str]:
    """Lines that are safe to print: mean, and from the lowest round to the highest in brackets."""
    state = {True: "with", False: "without", None: "with or without"}[profile.io_flusher]
    machine = ", ".join(
        (f"Linux {profile.kernel or 'of a release that is not told'}", *filter(None, [profile.accelerator]))
    )
    device = profile.device or "a device that is not told"
    yield printable(profile.served)
    yield printable(
        f"{machine}, {state} the IO_FLUSHER state; {device}, {counted(profile.threads, 'thread')}"
    )
    source = "this trace does not have" if profile.recorded else "this kernel does not record"
    for event in profile.missing:
        yield printable(f"{source} {event}: what it would show is missing below")
    for left_out in profile.left_out:
        yield printable(f"in no number below: {left_out}")
    for work in profile.works:
        yield ""
        yield from map(printable, _work(work))


def _work(work: WorkProfile) -> Iterator[str]:
    rounds = counted(work.rounds, "round")
    requests = counted(work.requests, "request")
    yield f"a {work.work} of {format_size(work.size)}, for each of {requests} in {rounds}:"
    if work.lost:
        yield "  events were lost: the numbers are too small"
    yield _row("system calls", "calls", "allocate", "objects", "bytes", "pages")
    for call in work.syscalls:
        if max(call.calls.mean, call.objects.mean, call.pages.mean) >= _SMALLEST:
            cells = (call.calls, call.allocating, call.objects, call.object_bytes, call.pages)
            yield _row(call.name, *map(_number, cells))
    if any(use.count.mean >= _SMALLEST for use in work.gfp):
        yield _row("allocations", "count", "bytes") + "  flags"
    for use in work.gfp:
        if use.count.mean >= _SMALLEST:
            yield _row(use.event, _number(use.count), _number(use.size)) + f"  {use.flags}"
    yield _row("waits for locks", _number(work.futex_waits)) + f"   {_milliseconds(work.futex_wait_s)}"
    yield _row("page faults", _number(work.faults))
    yield _row("threads at work", _number(work.threads))
    yield _row("time", "not told" if work.latency_s is None else _milliseconds(work.latency_s))


def _row(name: str, *cells: str) -> str:
    """A name and its columns, with a space between any two, however long they are."""
    return "".join((f"  {name:<24}", *(f" {cell:>20}" for cell in cells)))


def _number(spread: Spread) -> str:
    if spread.low == spread.high:
        return f"{spread.mean:.4g}"
    return f"{spread.mean:.4g} [{spread.low:.4g}, {spread.high:.4g}]"


def _milliseconds(spread: Spread) -> str:
    return _number(Spread(spread.mean * 1e3, spread.low * 1e3, spread.high * 1e3)) + " ms"
