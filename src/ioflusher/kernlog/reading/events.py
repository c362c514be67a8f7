"""Single lines of a kernel log that report something: panic, OOM, hung task, a device in trouble."""

import re

from ioflusher.kernlog.reading.lines import Line
from ioflusher.kernlog.reading.patterns import LazyPattern
from ioflusher.kernlog.reading.scan import RawLine
from ioflusher.kernlog.records import Event, EventKind

_TASK = r"(?P<subject>.{1,64}?)"
# a name at the line's beginning, or what stands behind a prefix: names have 15 characters
_COMM = r"(?:^|(?<=\s)|(?<=[\]:>]))(?P<subject>\S.{0,14}?)"

# (a word that must stand in the line, kind, form); the word spares most lines the expression
_FORMS = tuple(
    (word, kind, LazyPattern(form))
    for word, kind, form in (
        ("Kernel panic", EventKind.PANIC, r"Kernel panic - not syncing: (?P<subject>.*)"),
        (
            "blocked",
            EventKind.HUNG_TASK,
            rf"(?:INFO: )?task {_TASK}:(?P<number>\d+) blocked (?:for more than|in I/O wait for more than)",
        ),
        (
            "Kill",
            EventKind.OOM_KILL,
            r"(?:(?:Out of memory|[Mm]emory cgroup out of memory)[^:]{0,40}:.{0,80}?Kill(?:ed)?|Killed) "
            r"process (?P<number>\d+),? "
            r"?\(?(?P<subject>[^)]{1,64})\)?",
        ),
        ("unable to reap", EventKind.OOM_KILL, rf"unable to reap pid:(?P<number>\d+) \({_TASK}\)"),
        ("invoked oom-killer", EventKind.OOM_INVOKED, rf"{_COMM} invoked oom-killer"),
        (
            "lockup",
            EventKind.LOCKUP,
            r"(?:soft lockup|hard LOCKUP|Hard LOCKUP)"
            r"(?:[^\[]{0,60}\[(?P<subject>[^\[\]]{1,32}):(?P<number>\d{1,10})\])?",
        ),
        (
            "detected",
            EventKind.LOCKUP,
            r"rcu.{0,80}?detected (?:stalls|expedited stalls|self-detected)(?P<subject>)",
        ),
        ("self-detected stall", EventKind.LOCKUP, r"self-detected stall(?P<subject>)"),
        ("allocation failure", EventKind.ALLOCATION_FAILURE, rf"{_COMM}: page allocation failure"),
        (
            " stalls for",
            EventKind.ALLOCATION_STALL,
            rf"{_COMM}(?:\((?P<number>\d+)\))?: (?:page allocation|shrink_\w+\(\)) stalls for",
        ),
        # a patch of the OOM killer's tester, in many reports of 2014 to 2017
        ("MemAlloc:", EventKind.OOM_KILL, rf"MemAlloc: {_TASK}\((?P<number>\d+)\) .*\bvictim$"),
        ("MemAlloc:", EventKind.ALLOCATION_STALL, rf"MemAlloc: {_TASK}\((?P<number>\d+)\) .*\bdelay=\d{{5}}"),
        ("MemAlloc-Info:", EventKind.ALLOCATION_STALL, r"MemAlloc-Info: stalling=[1-9]\d* "),
        (
            "possible memory allocation deadlock",
            EventKind.ALLOCATION_STALL,
            rf"XFS: (?:{_TASK}\((?P<number>\d+)\) )?possible memory allocation deadlock",
        ),
        # a work that a task waits for and that no worker has begun
        (
            "BAR(",
            EventKind.WORKQUEUE_STALL,
            r"^\s*pending: .{0,4096}?\b(?P<subject>\w{1,64}) BAR\((?P<number>\d{1,10})\)",
        ),
        ("workqueue lockup", EventKind.WORKQUEUE_STALL, r"BUG: workqueue lockup - pool (?P<subject>.*)"),
        ("not responding", EventKind.DEVICE_TROUBLE, r"server (?P<subject>\S{1,64}) not responding"),
        (
            "I/O error",
            EventKind.DEVICE_TROUBLE,
            r"I/O error,? (?:on )?(?:dev(?:ice)? )?(?P<subject>[\w!-]{1,32})",
        ),
        (
            "block nbd",
            EventKind.DEVICE_TROUBLE,
            r"block (?P<subject>nbd\d+): .{0,80}?(?:timed out|[Dd]ead|shutting|error|[Ff]ailed|disconnect)",
        ),
        # drivers/block/nbd.c, nbd_xmit_timeout()
        ("stuck request", EventKind.STUCK_REQUEST, r"block (?P<subject>nbd\d+): Possible stuck request"),
        (
            "detected conn error",
            EventKind.DEVICE_TROUBLE,
            r"(?P<subject>connection\d+:\d+): detected conn error",
        ),
        (
            "session recovery timed out",
            EventKind.DEVICE_TROUBLE,
            r"(?P<subject>session\d+): session recovery",
        ),
        (
            "I/O to offline device",
            EventKind.DEVICE_TROUBLE,
            r"(?P<subject>sd [\d:]{1,20}): .{0,80}?offline device",
        ),
        ("timeout, aborting", EventKind.DEVICE_TROUBLE, r"(?P<subject>nvme\S{0,16}): I/O .{0,80}?timeout"),
        ("task abort", EventKind.DEVICE_TROUBLE, r"(?P<subject>sd [\d:]{1,20}): .{0,80}?task abort"),
    )
)
_TRIGGER = LazyPattern("|".join(sorted({re.escape(word) for word, _, _ in _FORMS})))
# what a line that reports something has in it
WORDS = (*(word for word, _, _ in _FORMS), "free:", "){")
_ZONE = LazyPattern(r"\bNode (\d+) (\w+) free:(\d+)kB(?: boost:\d+kB)? min:(\d+)kB")
_HELD = LazyPattern(r"(?<!\S)#\d+:\s+(?:[0-9a-fx]+\s+)?\((?P<name>.{1,120}?)\)\{[^}]*\}")


def event_of(line: Line, raw: RawLine) -> Event | None:
    """The event that a line reports, None for a line that reports none; `raw` says where it stands."""
    text = line.text
    if "free:" in text:
        zone = _ZONE.search(text)
        if zone:
            margin = int(zone[3]) - int(zone[4])
            return Event(
                EventKind.ZONE, text, f"node {zone[1]} {zone[2]}", margin, line.seconds, raw.line, raw.offset
            )
    if "){" in text:
        held = _HELD.search(text)
        if held:
            return Event(EventKind.HELD_LOCK, text, held["name"], None, line.seconds, raw.line, raw.offset)
    if not _TRIGGER.search(text):
        return None
    for word, kind, form in _FORMS:
        found = form.search(text) if word in text else None
        if found:
            parts = found.groupdict()
            tid = parts.get("number")
            subject = parts.get("subject") or None
            return Event(kind, text, subject, int(tid) if tid else None, line.seconds, raw.line, raw.offset)
    return None
