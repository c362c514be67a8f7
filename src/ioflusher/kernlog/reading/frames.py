"""One line of a kernel stack, as the kernel, crash, drgn and the decode scripts print it.

A stack is a tuple of `Frame`, the innermost call first, which is the order of every source.

A frame is found wherever it stands in a line: `name+0x30/0xb0` and the other forms are what is looked for,
and what stands before them is a prefix, whoever wrote it. What makes the same words no frame is their
neighbours: a register's or a lock's label before them ("RIP:", "at:"), an ordinary word of prose, or anything
behind them that no source prints there.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from ioflusher.kernlog.reading.patterns import LazyPattern


@dataclass(frozen=True, slots=True)
class Frame:
    """A return address on a kernel stack.

    Attributes:
        function: the symbol verbatim, with the compiler's suffixes (`shrink_slab.part.40`).
        offset: bytes from the symbol's start, None where the source does not print it.
        size: bytes of the symbol, None where the source does not print it.
        module: the module's name, None for the kernel image.
        reliable: False for the kernel's `?` frames, which may be left over from earlier calls.
    """

    function: str
    offset: int | None
    size: int | None
    module: str | None
    reliable: bool

    @property
    def name(self) -> str:
        """The symbol without what compilers and tracers add: `shrink_slab` for `shrink_slab.part.40`."""
        return plain_name(self.function)


# Oracle's kernels rename static functions for DTrace: __dta_xfs_reclaim_inode_3357
_RENAMED = LazyPattern(r"^__dta_(\w+?)_\d+$")


_LOCK_SECTION = "text.lock."


@lru_cache(maxsize=8192)
def plain_name(function: str) -> str:
    """A symbol without what compilers append (`.isra.15`) and DTrace puts around it.

    In old kernels the slow way to a lock that dquot.c takes is in `.text.lock.dquot`: `dquot_lock` here.
    """
    if function.startswith(_LOCK_SECTION):
        return f"{function.removeprefix(_LOCK_SECTION)}_lock"
    name = function.partition(".")[0]
    if name.startswith("__dta_") and (found := _RENAMED.match(name)):
        return found[1]
    return name


_SYMBOL = r"(?<![\w$.])\.?(?P<function>[A-Za-z_$][\w.$]*)"  # powerpc's old ABI writes a dot before it
# "[xfs]", "[9p]"; a mail may have broken it
_MODULE = r"(?:\s*\[(?P<module>(?:[A-Za-z_]|\d+[a-z])[\w-]*)[^\]]*(?:\]|$))?"
_DOUBT = r"(?:(?<![^\s\]])(?P<doubt>\?)\s*)?"
_OFFSET = r"\+0x(?P<offset>[0-9a-f]{1,8})"
_ADDRESS = r"(?:[0-9a-f]+|\.\.\.|\u2026)"  # "..." where an author cut it


class _Form(LazyPattern):
    """How a source prints a frame.

    Args:
        needle: what stands in every such line; spares most lines the expression.
        form: the frame itself, wherever it stands.
        alone: whether nothing but blanks and addresses may stand before it, since it looks like other things.
    """

    __slots__ = ("alone", "needle")

    def __init__(self, needle: str, form: str, alone: bool = False) -> None:
        super().__init__(form)
        self.needle = needle
        self.alone = alone

    def search(self, text: str) -> re.Match[str] | None:
        """Where the form is in the text."""
        return super().search(text) if self.needle in text else None


_SOURCES = (".c:", ".h:", ".S:", ".s:")
# "? shrink_slab.part.40+0x1fa/0x430 [xfs 0123abcd (OE)]", an old arm64's "func+0x1/0x2 (P)",
# and a trailing source place, as syzkaller prints it
_PRINTED = _Form("+0x", rf"{_DOUBT}{_SYMBOL}{_OFFSET}/0x(?P<size>[0-9a-f]{{1,8}}){_MODULE}(?P<rest>.*)$")
_FORMS = (
    # 32-bit ARM: "[<c0>] (schedule) from [<c1>] (schedule_timeout+0x1f6/0x2f0)", "schedule from foo+0x1/0x2"
    _Form(
        " from ",
        rf"{_SYMBOL}(?:{_OFFSET}/0x(?P<size>[0-9a-f]{{1,8}}))?{_MODULE}\)? from "
        r"(?:\[<[0-9a-f]+>\]\s*(?:\(?[A-Za-z_$]|0x)|\([A-Za-z_$]|[A-Za-z_$][\w.$]*\+0x|0x[0-9a-f])",
    ),
    _PRINTED,
    # drgn's and PyKdump's: "#3  shrink_slab+0x9c (mm/vmscan.c:12:3)", "#18  foo+0x16, 477 bytes of data"
    _Form(
        "#",
        rf"(?<!\S)#\d+\s+(?:\[{_ADDRESS}\]\s+)?{_SYMBOL}{_OFFSET}{_MODULE}"
        r"(?:\s+(?:\(.*|in .*)|, \d+ bytes of data)?\s*$",
    ),
    # kdb: "0xa00000020b8e6050 [xfs]xfs_iextract+0x190"
    _Form("+0x", rf"(?<!\S)0x[0-9a-f]{{8,16}}\s+(?:\[(?P<module>\w+)\])?{_SYMBOL}{_OFFSET}\s*$"),
    # ZFS's sdb prints a head and then names alone, far to the right
    _Form("  ", rf"^\s{{8,}}{_SYMBOL}{_OFFSET}\s*$"),
    # some vendors' dumps print no sizes: "[<ffffffd32ee7d910>] __switch_to+0x180"
    _Form("+0x", rf"(?<=\])\s*{_DOUBT}{_SYMBOL}(?:\[\w+\])?{_OFFSET}\s*$"),
    # crash: " #2 [ffff8813dedfb938] schedule at ffffffff8173f405 [dm_bufio]"; people cut off the number, the
    # "#" or the stack's address, and mail programs break the line behind "at"
    _Form(
        " at",
        rf"(?<!\S)(?:#?\d+\s+\[{_ADDRESS}\]\s+|#\d+\s+){_SYMBOL}(?:\+(?:0x[0-9a-f]+|\d+))? "
        rf"(?:\(via [^)]*\) )?at(?: {_ADDRESS}{_MODULE})?\s*$",
    ),
    _Form(" at", rf"{_SYMBOL}(?:\+(?:0x[0-9a-f]+|\d+))? at f[0-9a-f]{{15}}{_MODULE}\s*$"),
    # gdb: "#2  0xffffffff81e0f2ca in schedule () at kernel/sched/core.c:6634"
    _Form("#", rf"(?<!\S)#\d+\s+0x[0-9a-f]+ in {_SYMBOL}\s+(?:\(.*|in .*)$"),
    # decode_stacktrace.sh: "? shrink_slab (mm/vmscan.c:1234 (discriminator 3)) xfs"
    # drgn: "#4  shrink_node (mm/vmscan.c:12:3)"
    *(
        _Form(
            needle,
            rf"{_DOUBT}{_SYMBOL} +\((?:\./|/)?[\w./+-]+\.[chSs]\??:\d+(?::\d+)?(?: \(discriminator \d+\))?\)"
            r"(?: \(inlined(?: by)?\))?(?: \[?(?P<module>[A-Za-z_][\w-]*)\]?)?\s*$",
        )
        for needle in _SOURCES
    ),
    # syzkaller: "shrink_slab mm/vmscan.c:12 [inline]"; and what else has a place behind it
    *(
        _Form(needle, rf"{_DOUBT}{_SYMBOL} \(?(?:\./|/)?[\w./+-]+\.[chSs]\??:\d+(?::\d+)?\b.*$", alone=True)
        for needle in _SOURCES
    ),
    # "#3 shrink_slab", "#3  shrink_slab (...)"
    _Form(
        "#",
        rf"#\d+\s+(?:\[{_ADDRESS}\]\s+)?{_SYMBOL}{_MODULE}(?:\s+(?:\(.*|in .*))?\s*$",
        alone=True,
    ),
    # lcrash: " 3 nfs_create_request+390 [0x7c412]"
    _Form(" [0x", rf"(?<!\S)\d{{1,3}}\s+{_SYMBOL}\+\d+ \[0x[0-9a-f]+\]\s*$"),
    # crash's, broken behind the name
    _Form("] ", rf"(?<!\S)\[[0-9a-f]{{16}}\]\s+{_SYMBOL}\s*$"),
    # x86_64 before 2.6.18: "<ffffffff8806ea3d>{:xfs:xfs_iflush+173}"
    _Form(">{", rf"<[0-9a-f]{{8,16}}>\{{(?::(?P<module>\w+):)?{_SYMBOL}\+\d+\}}\s*$"),
    # klogd, which looked names up itself: "[kswapd+158/192]", "[ext3:ext3_dirty_inode+116/268]", in decimal
    _Form("]", rf"\[(?:(?P<module>[\w-]+):)?{_SYMBOL}\+(?P<within>\d{{1,6}})/\d{{1,6}}\]\s*$"),
    # ksymoops: "Trace; c012f4f6 <shrink_cache+306/390>", ">>EIP; c0111657 <[xfs]xfs_iflush+e7/110>   <====="
    _Form(
        " <",
        rf"(?<!\S)(?:Trace;\s+)?[0-9a-f]{{8,16}} <(?:\[(?P<module>[\w-]+)\])?{_SYMBOL}"
        r"\+(?P<offset>[0-9a-f]{1,8})/(?P<size>[0-9a-f]{1,8})>\s*(?:<=+\s*)?$",
    ),
    # Red Hat's 2.4: "[<c013604b>] do_try_to_free_pages [kernel] 0x1b"
    _Form(
        "] 0x",
        rf"(?<=>\])\s+{_SYMBOL} \[(?P<module>[\w-]+)\] (?P<within>0x[0-9a-f]{{1,8}})(?P<rest>.*)$",
    ),
    # perf script: "ffff81a0 schedule+0x2a ([kernel.kallsyms])", "ffffffffc0a12345 nbd_send_cmd ([nbd])"
    _Form(
        "([",
        rf"(?<!\S)[0-9a-f]{{8,16}} {_SYMBOL}(?:{_OFFSET})? \(\[(?P<module>[\w.-]+)\][^)]*\)\s*$",
    ),
    # bpftrace: "    schedule+46"
    _Form("+", rf"^\s{{4,}}{_SYMBOL}(?:\[(?P<module>\w+)\])?\+(?P<within>\d{{1,6}})\s*$"),
    # "schedule +0x670"
    _Form(" +0x", rf"{_SYMBOL} +{_OFFSET}(?:/0x(?P<size>[0-9a-f]{{1,8}}))?{_MODULE}\s*$", alone=True),
    # addresses with names alone: "08dcfb00:  [<08066f1c>] schedule"
    _Form(">]", rf"(?<=>\])\s+{_DOUBT}{_SYMBOL}{_MODULE}\s*$"),
)
# what one of the forms needs; most lines of a log have none of it
_MAYBE = LazyPattern(
    r"\+0x|>\{|#\d| from | at[ .]| at$|[>0-9a-f]\] +[\w$.?]|\.[chSs]\??:\d|\+\d+ \[0x"
    r"|\+\d+/\d+\]|[0-9a-f]{8} <[\[\w]|\w\+\d+\s*$|\(\["
)
# what stands for the kernel itself where a module may
_KERNEL = ("kernel", "kernel.kallsyms", "guest.kernel.kallsyms")
# addresses that belong to a frame: "[<ffffffff8173f405>]", "[<0>]", powerpc's "[c000...] [c000...]", and
# s390's "([<...>]"
_ADDRESSES = LazyPattern(r"(?:\(?\[<?[0-9a-fA-F]+>?\]\s*|<[0-9a-f]{8,16}>\s*|\()+$")
# labels behind which an address is no frame: registers, lockdep's "at:", interrupts, a warning's place
_LABEL = LazyPattern(
    r"(?:^|[\s,;({\[])(?:[ER]?IP|NIP|PC|pc|LR|lr|epc|ra|era|ERA|sepc|PSW|blink|ECR|TPC|RPC|sp|at|is|in|by|to|of|caller"
    r"|(?:EIP|PC|LR|NIP|RIP) is (?:at|in)|last +(?:enabled|disabled) at \(\d+\)|at \S+\.[chS]:\d+)"
    r"(?:\s*:)?(?:\s*[0-9a-f]{2,4}:)?\s*$"
)
# one ordinary word and one blank before a name: prose
_PROSE = LazyPattern(r"(?:^|[\s(\"'`])[A-Za-z][a-z']*[,;]? $")
# words that stand before a place in prose, and are no functions
_WORDS = frozenset({"at", "in", "from", "file", "line", "of", "by", "see", "and", "the", "to", "is", "with"})
# what may stand behind a frame, an author's remark included: "<-- waits here", "# takes ->i_mutex", and
# what tables and pages put around text
_AFTER_SYMBOL = LazyPattern(
    r"^\s*\)?\s*(?:[\"',|\\]*\s*(?:</?\w[^>]{0,40}>)*\s*$|\(|\S+\.[chSs]:\d+|/0x|(?<=\s)(?:<[-=<]|#|//|/\*|--|[-=]+>|\*\*|;))"
)


@lru_cache(maxsize=8192)  # tasks that wait for the same have the same frames
def find_frame(text: str) -> tuple[Frame, str] | None:
    """The frame that a line holds and what stands before it, or None where it holds something else.

    Args:
        text: one line, best without the log's usual prefixes (time stamp, caller, host).
    """
    if not _MAYBE.search(text):
        return None
    for form in _FORMS:
        found = form.search(text)
        if found is None:
            continue
        before = _ADDRESSES.compiled().sub("", text[: found.start()])
        if form.alone and before.strip():
            continue
        parts = found.groupdict()
        addressed = len(before) < found.start()
        if _LABEL.search(before) or (not addressed and _PROSE.search(before)) or found["function"] in _WORDS:
            continue
        rest = parts.get("rest") or ""
        if rest and not _AFTER_SYMBOL.match(rest):
            continue
        offset = int(parts["offset"], 16) if parts.get("offset") else None
        size = int(parts["size"], 16) if parts.get("size") else None
        # nobody returns to the first byte of a function: such a word is a pointer that lay on the stack
        first = (offset == 0 and size) or parts.get("within") in ("0", "0x0")
        doubt = parts.get("doubt") or first or "(unreliable)" in rest
        module = parts.get("module")
        name = None if module in _KERNEL else module
        return Frame(found["function"], offset, size, name, not doubt), before.strip()
    return None


# before 2.6.18 a line had several, each behind its address
_NEXT_FRAME = LazyPattern(
    r"(?<=[\S])\s*(?=\[?<[0-9a-f]{8,16}>[\]{ ]|\[(?:[\w-]+:)?[A-Za-z_.][\w.]*\+\d+/\d+\])"
)


def several_frames(text: str) -> tuple[Frame, ...]:
    """The frames of a line that holds more than one, as old kernels printed them; else none."""
    if text.count("+") < 2 or " from " in text or not ("<" in text or "/" in text):
        return ()
    frames = tuple(parse_frame(piece) for piece in _NEXT_FRAME.compiled().split(text))
    found = tuple(frame for frame in frames if frame is not None)
    return found if len(found) > 1 else ()


def repeated_word(text: str) -> str | None:
    """The word before what would be a frame without it; twice the same is no prose but a prefix."""
    found = _PRINTED.search(text) if "+0x" in text else None
    if found is None or not _AFTER_SYMBOL.match(found["rest"]):
        return None
    before = text[: found.start()]
    return before.strip() if _PROSE.search(before) and not _LABEL.search(before) else None


def parse_frame(text: str) -> Frame | None:
    """The frame that a line holds, or None where it holds something else."""
    found = find_frame(text)
    return found[0] if found else None


def parse_proc_stack(text: str) -> tuple[Frame, ...]:
    """The frames of /proc/PID/stack text, innermost first; lines of another form are passed over.

    The form is `[<0>] function+0x1/0x2 [module]` (fs/proc/base.c, proc_pid_stack); kernels before 4.15
    print addresses and end with `[<ffffffffffffffff>] 0xffffffffffffffff`.
    """
    frames = (parse_frame(line) for line in text.splitlines())
    return tuple(frame for frame in frames if frame is not None)
