"""Which lines say nothing: those around a stack take most of a long log's time.

What any head, event, mark or frame has in it stands here once more as plain words. A line without one of them
is noise, and so are all lines that differ from it in numbers only; these are then known at first sight.
"""

from ioflusher.kernlog.reading.events import WORDS as OF_EVENTS
from ioflusher.kernlog.reading.patterns import LazyPattern

# shapes beyond are read as ever
MAX_SHAPES = 4096
_WORDS = (
    *OF_EVENTS,
    # frames.py
    *(
        "0x",
        ">{",
        "([",
        " from [",
        " from (",
        " at",
        "at:",
        "#",
        ".c:",
        ".h:",
        ".S:",
        ".s:",
        ".c?:",
        ".h?:",
        ".S?:",
        ".s?:",
    ),
    # heads.py, told.py, and the beginning of those that a mail broke
    *("task", "Task", "state:", "omm:", "PID", "pid", "TID", "tid", "COMMAND", "stack", "race", "tack"),
    *("sched_switch", "/comm", " more than", " by ", "related work", "page last", "Uninit", "PFN", "TLB)"),
    # processes.py
    *(" ? ", " pts/", " tty"),
    # lockdep.py
    *("locking", "lock state", "lock order", "Chain exists", "existing dep", "} usage", "unsafe"),
    # console.py
    *("BUG", "Unable to", "Oops", "protection fault", "WARNING", "ainted", "Linux version", "queue: "),
    *(
        "IP:",
        "IP;",
        "Proc;",
        "CS:",
        "IRQ>",
        "NMI>",
        "TASK>",
        "EOI>",
        "EOE>",
        "Code: ",
        "[ end trace",
        "MESSAGE",
        "```",
    ),
)
# what has no word of its own, where numbers may be missing: an offset, a frame without one, a clock, a name
# alone or in quotes, a mark of doubt, a register, numbers at the end, a person's mark for what was left out
_FORMS = LazyPattern(
    r"(?<![A-Za-z])x[a-f]*(?![\w])|\] +[\w$.?]|::|^(?:\S+\s+){0,2}\S*$|^\s*\"|\]\s+\"|\?$"
    r"|IP(?: [0-9a-f]*:)?\s*(?:\[<[0-9a-f]*>\])?$|\d*\s\d*\s+\d*$|\s[RSDTtXxZPIKWN?](?:\s+[0-9a-f\s]*)?$"
    r"|\+[0-9a-f]*/[0-9a-f]*[\]>]|(?:\.{3}|\u2026|(?i:snip(?:ped)?))\W*$"
)
_DIGITS = b"0123456789"


class Noise:
    """What is known of shapes: lines' bytes without digits."""

    def __init__(self) -> None:
        self._shapes: dict[bytes, bool] = {}

    def knows(self, data: bytes) -> bool:
        """Whether a line differs in numbers only from one that said nothing."""
        return self._shapes.get(data.translate(None, _DIGITS), False)

    def learn(self, data: bytes, text: str) -> None:
        """Take in a line: `text` is what is left of its bytes without prefixes.

        Where something was taken off, another line of that shape may have another prefix.
        """
        shape = data.translate(None, _DIGITS)
        if shape not in self._shapes and len(self._shapes) < MAX_SHAPES:
            self._shapes[shape] = data == text.encode() and is_noise(shape.decode())


def is_noise(text: str) -> bool:
    """Whether a line without its prefixes, with its numbers or without, can be no part of what is read."""
    return not any(word in text for word in _WORDS) and _FORMS.search(text) is None
