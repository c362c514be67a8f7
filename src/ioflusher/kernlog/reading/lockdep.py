"""One report of lockdep, line by line: who found it, which locks, in which order they are taken.

Lockdep prints a cycle of locks A, B, C, each of which was once taken while the one before it was held, in
three ways: "trying to acquire A ... already holding C", the links "-> #2 (C)", "-> #1 (B)", "-> #0 (A)" with
a stack each, in reverse order, and "Chain exists of: A --> B --> C" (kernel/locking/lockdep.c,
print_circular_bug()). Where some of them were cut, the others tell.
"""

from dataclasses import dataclass, field

from ioflusher.kernlog.reading.patterns import LazyPattern

MAX_LOCKS = 64
MAX_LINES = 600

_OPENS = LazyPattern(
    r"possible (?:circular locking|recursive locking|irq lock inversion|irq locking)|inconsistent lock state"
    r"|[\w-]+-safe -> [\w-]+-unsafe lock order detected"
)
_MIDDLE = LazyPattern(
    r"Chain exists of:|-> #\d+ \(|existing dependency chain|Possible unsafe locking scenario"
)
_USAGE = LazyPattern(r"inconsistent \{.*\} usage")
_LINK = LazyPattern(r"-> #(\d+) \(")
_TASK = LazyPattern(
    r"(?:^|(?<=\s))(?P<comm>\S.{0,31}?)/(?P<tid>\d+) (?:is trying to acquire lock|\[HC|just changed)"
)
# what stands before the kernel's own word for a report
_TITLE = LazyPattern(r"^.*?(?=\bWARNING: |\[ INFO: |\bINFO: )")
_MARK = "RECLAIM_FS"
LOST = "a report whose beginning is lost"


def opens(text: str) -> bool:
    """Whether a line begins a report, or belongs to one whose beginning is lost."""
    if not (
        "lock" in text or "Chain" in text or "-> #" in text or "existing dep" in text or "} usage" in text
    ):
        return False
    return bool(_OPENS.search(text) or _MIDDLE.search(text) or _USAGE.search(text))


def lock_names(text: str) -> list[str]:
    """The locks in a line: "(&sb->s_type){+.+.}" gives "&sb->s_type"; names may hold parentheses."""
    names = []
    end = text.find("){")
    while end >= 0:
        depth, begin = 1, end - 1
        while begin >= 0 and depth:
            depth += (text[begin] == ")") - (text[begin] == "(")
            begin -= 1
        if not depth and 0 < end - begin - 2 <= 160:
            names.append(text[begin + 2 : end])
        end = text.find("){", end + 1)
    return names


@dataclass(slots=True)
class LockdepText:
    """A report of which more lines may come.

    Attributes:
        title: the line that says what was found.
        comm, tid: the task in which it was found, None so far.
        over: whether the cycle is told: what follows lists held locks and where it was found.
        backtrace: whether the stack of the task in which it was found has begun.
        begins: where each stack begins, of the frames so far.
    """

    title: str = LOST
    comm: str | None = None
    tid: int | None = None
    over: bool = False
    backtrace: bool = False
    begins: list[int] = field(default_factory=list)
    _pair: dict[str, str] = field(default_factory=dict)  # what is wanted, what is held
    _expects: str = ""
    _links: list[str] = field(default_factory=list)
    _link: int | None = None  # the number of the last one
    _arrows: list[str] = field(default_factory=list)
    _others: list[str] = field(default_factory=list)
    _marks: list[str] = field(default_factory=list)
    _lines: int = 0
    _in_frames: bool = False

    def is_other(self, text: str) -> bool:
        """Whether a line begins another report than this one."""
        if _OPENS.search(text):
            return True
        link = _LINK.search(text)
        if link and self._link is not None and int(link[1]) >= self._link:
            return True
        return self.over and bool(self.begins) and bool(_MIDDLE.search(text))

    def take(self, text: str) -> bool:
        """Take a line that is no frame; False once the report has grown past all bounds."""
        self._lines += 1
        self._in_frames = False
        if _OPENS.search(text):
            self.title = _TITLE.compiled().sub("", text).strip()
        elif _USAGE.search(text):
            self.title = text.strip() if self.title == LOST else f"{self.title}; {text.strip()}"
        self._marks += [_MARK] * min(text.count(_MARK), MAX_LOCKS - len(self._marks))
        if found := _TASK.search(text):
            self.comm, self.tid = found["comm"], int(found["tid"])
        # what follows the cycle lists every lock that is held, whether it takes part or not
        self.over |= "held by" in text or "stack backtrace" in text
        self.backtrace |= "stack backtrace" in text
        if not self.over:
            self._take_names(text)
        return self._lines < MAX_LINES

    def take_frame(self, number: int) -> None:
        """Take a frame, of which so many stand before it."""
        if not self._in_frames:
            self.begins.append(number)
        self._in_frames = True

    def _take_names(self, text: str) -> None:
        if "trying to acquire" in text:
            self._expects = "wanted"
        elif "holding lock" in text or "holding the lock" in text:
            self._expects = "held"
        names = lock_names(text)
        if (link := _LINK.search(text)) and len(self._links) < MAX_LOCKS:
            self._link = int(link[1])
            self._links += names[:1]
        elif names and self._expects:
            self._pair.setdefault(self._expects, names[0])
            self._expects = ""
        if " -->" in text or text.strip().startswith("-->"):
            arrows = [name.strip() for name in text.split("-->") if name.strip()]
            self._arrows += arrows[: MAX_LOCKS - len(self._arrows)]
        if "lock(fs_reclaim)" in text:
            names.append("fs_reclaim")
        self._others += [name for name in names if name not in self._others][: MAX_LOCKS - len(self._others)]

    @property
    def locks(self) -> tuple[str, ...]:
        """The names in the order in which they are taken: each was taken while the one before it was held.

        The last one is held while the first one is taken, which closes the cycle. Where lockdep found no
        cycle, or its order was cut, the names come as they stand there.
        """
        if self._link == 0 and len(self._links) > 1:
            order = list(reversed(self._links))
        else:
            pair = [self._pair[which] for which in ("wanted", "held") if which in self._pair]
            order = [*(self._arrows or pair), *reversed(self._links), *self._others]
        return tuple(dict.fromkeys((*order, *self._marks)))
