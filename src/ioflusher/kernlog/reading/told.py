"""The name of a stack's task where a person wrote it above the stack: "tcmu-runner call trace:".

Only names of storage daemons and of the kernel's threads count: any other word there may be prose ("full",
"the", "first"), and an ordinary program's name changes nothing. The name has to be the one whose stack it is:
"the stack of rclone:" counts, "the stack of a program on rclone's mount:" does not.
"""

from ioflusher.kernlog.reading.heads import Head
from ioflusher.kernlog.reading.patterns import LazyPattern
from ioflusher.kernlog.records import Source
from ioflusher.kernlog.stacks.askers import daemon_named, known_daemons
from ioflusher.kernlog.stacks.kernel_threads import kernel_thread_named

_STACK = r"(?:call |back|stack )?trace|stack"
_NUMBER = r"(?: ?\((?:pid |PID )?(?P<tid>\d{1,8})\))?"
_BEFORE = LazyPattern(
    rf"(?i)^\s*(?:\d+[.)] )?(?:the )?[\"'`]?(?P<comm>[\w.-]{{2,15}})[\"'`]?{_NUMBER}(?:'s)?"
    rf"(?: (?:\w+ )?(?:task|thread|process|daemon))?(?:'s)? (?:kernel )?(?:{_STACK})\s*:\s*$",
)
_BEHIND = LazyPattern(
    rf"(?i)\b(?:{_STACK}) (?:of|from|for) (?:the )?[\"'`]?(?P<comm>[\w.-]{{2,15}})[\"'`]?{_NUMBER}"
    r"(?: (?:\w+ )?(?:task|thread|process|daemon))?(?: is| was)?\s*:\s*$",
)
# patterns with a star fit words that are no task's name, such as functions
_WHOLE_NAMES = frozenset(
    daemon.name for daemon in known_daemons() if "*" not in daemon.name and not daemon.where_seen
)


def told_head(text: str) -> Head | None:
    """The daemon whose stack a line of prose announces, or None."""
    if not text.rstrip().endswith(":") or not ("race" in text or "tack" in text):
        return None
    found = _BEFORE.search(text) or _BEHIND.search(text)
    if found is None:
        return None
    comm = found["comm"]
    named = comm in _WHOLE_NAMES or ("-" in comm and daemon_named(comm) is not None)
    named = named or kernel_thread_named(comm) is not None
    return Head(Source.BARE, comm, None, int(found["tid"]) if found["tid"] else None) if named else None
