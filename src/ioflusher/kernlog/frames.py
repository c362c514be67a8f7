"""One line of a kernel stack, as the kernel, crash, drgn and the decode scripts print it.

A stack is a tuple of `Frame`, the innermost call first, which is the order of every source.
"""

import re
from dataclasses import dataclass
from functools import lru_cache


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
_RENAMED = re.compile(r"^__dta_(\w+?)_\d+$")


def plain_name(function: str) -> str:
    """A symbol without what compilers append (`.isra.15`) and DTrace puts around it."""
    name = function.partition(".")[0]
    if name.startswith("__dta_") and (found := _RENAMED.match(name)):
        return found[1]
    return name


# "[<ffffffff8173f405>]", "[<0>]", powerpc's "[c000...] [c000...]", s390's "([<...>]"
_ADDRESS = r"\(?(?:\[<?[0-9a-fA-F]+>?\]\s*)*"
_SYMBOL = r"[A-Za-z_$][\w.$]*"  # powerpc's old ABI writes a dot before it, which is no part of the name
_MODULE = r"(?:\s*\[(?P<module>[A-Za-z_][\w-]*)[^\]]*\])?"

# "? shrink_slab.part.40+0x1fa/0x430 [xfs 0123abcd (OE)]", an old arm64's "func+0x1/0x2 (P)",
# and a trailing source place, as syzkaller prints it
_PRINTED = re.compile(
    rf"^\s*{_ADDRESS}(?P<doubt>\?\s*)?\.?(?P<function>{_SYMBOL})"
    rf"\+0x(?P<offset>[0-9a-f]{{1,8}})/0x(?P<size>[0-9a-f]{{1,8}}){_MODULE}(?P<rest>.*)$"
)
# decode_stacktrace.sh: "? shrink_slab (mm/vmscan.c:1234 (discriminator 3)) xfs"
# syzkaller: "shrink_slab mm/vmscan.c:12 [inline]"
_DECODED = re.compile(
    rf"^\s*{_ADDRESS}(?P<doubt>\?\s*)?\.?(?P<function>{_SYMBOL}) "
    r"\(?(?:\./|/)?[\w./+-]+\.[chSs](?:\?)?:\d+(?::\d+)?\b.*$"
)
# crash: " #2 [ffff8813dedfb938] schedule at ffffffff8173f405 [dm_bufio]"; people cut off the number, the
# "#" or the stack's address, and mail programs break the line behind "at"
_CRASH = re.compile(
    rf"^\s*(?:#?\d+\s+\[[0-9a-f]+\]\s+|#\d+\s+)(?P<function>{_SYMBOL})(?:\+(?:0x[0-9a-f]+|\d+))? "
    rf"(?:\(via [^)]*\) )?at(?: [0-9a-f]+{_MODULE})?\s*$"
)
_CRASH_BARE = re.compile(
    rf"^\s*(?P<function>{_SYMBOL})(?:\+(?:0x[0-9a-f]+|\d+))? at f[0-9a-f]{{15}}{_MODULE}\s*$"
)
# drgn: "#3  shrink_slab+0x9c/0x2a0 (mm/vmscan.c:12:3)"; "#4  shrink_node (mm/vmscan.c:12:3)"
# gdb: "#2  0xffffffff81e0f2ca in schedule () at kernel/sched/core.c:6634"
# PyKdump, and its last frame: "#13  evict+0xa9", "#18  system_call_fastpath+0x16, 477 bytes of data"
_DRGN = re.compile(
    rf"^\s*#\d+\s+(?:\[[0-9a-f]+\]\s+|0x[0-9a-f]+ in )?(?P<function>{_SYMBOL})"
    rf"(?:\+0x(?P<offset>[0-9a-f]{{1,8}})(?:/0x(?P<size>[0-9a-f]{{1,8}}))?)?"
    rf"{_MODULE}(?:\s+(?:\(.*|in .*)|, \d+ bytes of data)?\s*$"
)
# 32-bit ARM: "[<c0>] (schedule) from [<c1>] (schedule_timeout+0x1f6/0x2f0)", or the same without addresses
_ARM = re.compile(
    rf"^\s*(?:\[<[0-9a-f]+>\]\s*)?\(?(?P<function>{_SYMBOL})(?:\+0x(?P<offset>[0-9a-f]{{1,8}})/0x(?P<size>[0-9a-f]{{1,8}}))?"
    rf"{_MODULE}\)? from (?:\[<[0-9a-f]+>\]\s*)?\(?{_SYMBOL}"
)
# some vendors' dumps print no sizes: "[<ffffffd32ee7d910>] __switch_to+0x180"
_SIZELESS = re.compile(
    rf"^\s*\[<[0-9a-f]+>\]\s*(?P<doubt>\?\s*)?(?P<function>{_SYMBOL})(?:\[\w+\])?\+0x(?P<offset>[0-9a-f]{{1,8}})\s*$"
)
_PLACE = re.compile(r"\.[chSs]:\d")
# what may stand behind a frame, an author's remark included: "<-- waits here", "# takes ->i_mutex"
_AFTER_SYMBOL = re.compile(
    r"^\s*\)?\s*(?:$|\(|\S+\.[chSs]:\d+|/0x|(?<=\s)(?:<[-=<]|#|//|/\*|--|[-=]+>|\*\*|;))"
)


@lru_cache(maxsize=8192)  # tasks that wait for the same have the same frames
def parse_frame(text: str) -> Frame | None:
    """The frame that a line holds, or None where it holds something else.

    Args:
        text: one line without the log's own prefix (time stamp, caller, host).
    """
    if "+0x" in text:
        found = _PRINTED.match(text)
        if found and _AFTER_SYMBOL.match(found["rest"]):
            offset, size = int(found["offset"], 16), int(found["size"], 16)
            # nobody returns to the first byte of a function: such a word is a pointer that lay on the stack
            reliable = bool(offset) and not found["doubt"] and "(unreliable)" not in found["rest"]
            return Frame(found["function"], offset, size, found["module"], reliable)
        found = (_ARM.match(text) if " from " in text else None) or _DRGN.match(text) or _SIZELESS.match(text)
        if found is None and " at" in text:  # crash's "bt -sx"
            found = _CRASH.match(text) or _CRASH_BARE.match(text)
    elif " from " in text:
        found = _ARM.match(text)
    elif " at" in text and (crash := _CRASH.match(text) or _CRASH_BARE.match(text)):
        found = crash
    elif "#" in text:
        found = _DRGN.match(text)
    else:
        found = _DECODED.match(text) if _PLACE.search(text) else None
    if found is None:
        return None
    parts = found.groupdict()
    return Frame(
        found["function"],
        int(parts["offset"], 16) if parts.get("offset") else None,
        int(parts["size"], 16) if parts.get("size") else None,
        parts.get("module"),
        not parts.get("doubt"),
    )


def parse_proc_stack(text: str) -> tuple[Frame, ...]:
    """The frames of /proc/PID/stack text, innermost first; lines of another form are passed over.

    The form is `[<0>] function+0x1/0x2 [module]` (fs/proc/base.c, proc_pid_stack); kernels before 4.15
    print addresses and end with `[<ffffffffffffffff>] 0xffffffffffffffff`.
    """
    frames = (parse_frame(line) for line in text.splitlines())
    return tuple(frame for frame in frames if frame is not None)
