"""The lines that say whose stack follows, in the forms that kernels since 2.6 and the tools print.

A head is found wherever it stands in a line, as frames are: what stands before it is a prefix.
"""

import re
from dataclasses import dataclass, fields

from ioflusher.kernlog.reading.patterns import LazyPattern
from ioflusher.kernlog.records import COMM_WIDTH, TASK_STATES, Source


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of the task before its frames come; the attributes are those of `TaskReport`."""

    source: Source
    comm: str | None = None
    pid: int | None = None
    tid: int | None = None
    state: str | None = None
    task_flags: int | None = None
    workqueue: str | None = None
    blocked_seconds: int | None = None
    owner: tuple[str, int] | None = None
    lock: str | None = None
    mode: str | None = None
    owner_mode: str | None = None
    io_wait: bool | None = None
    parent: int | None = None

    def same_task(self, other: "Head") -> bool:
        """Whether nothing speaks against both being of one task's one stack."""
        if self.source is Source.DUMP and other.source not in (Source.DUMP, Source.LOCKUP):
            return False  # what is printed of a task that runs ends there; another task's stack begins
        both = self.tid is not None and other.tid is not None
        if (both and self.tid == other.tid) or self.comm is None or other.comm is None:
            return True
        if both and self.source is other.source is Source.HUNG_TASK:
            return False  # two of the detector's tasks
        # lines cut short cut names; a re-typed log may even differ in the number
        return self.comm.startswith(other.comm) or other.comm.startswith(self.comm)

    def joined(self, later: "Head") -> "Head":
        """Both together; the later one wins, but for the source, where the first one said more."""
        values = {}
        for attribute in fields(Head):
            mine, theirs = getattr(self, attribute.name), getattr(later, attribute.name)
            values[attribute.name] = mine if theirs is None else theirs
        if self.source is not Source.BARE:
            values["source"] = self.source
        return Head(**values)


_HUNG = LazyPattern(
    r"task (?P<comm>.{1,64}?):(?P<tid>\d+) (?:(?:is )?blocked (?:for|(?P<io>in I/O wait) for)|can't die for) "
    r"more than(?: (?P<seconds>\d+) seconds)?"
)
_NEW = LazyPattern(r"task:(?P<comm>.{1,64}?)\s+state:(?P<state>[A-Za-z?])\b")
_NEW_TID = LazyPattern(r"\bpid:\s*(\d+)")
_NEW_TGID = LazyPattern(r"\btgid:\s*(\d+)")
_NEW_PPID = LazyPattern(r"\bppid:\s*(\d+)")
_NEW_FLAGS = LazyPattern(r"\btask_flags:\s*0x([0-9a-f]+)")
# sched_show_task() before 5.9: "%-15.15s %c" then an address, "running task" or nothing, stack, pid, parent
_OLD = LazyPattern(
    r"(?<=\s)(?P<state>[RSDTtXxZPIKWN?])\s*(?:(?<=\s)(?:[0-9a-fA-F]{8}(?:[0-9a-fA-F]{8})?|running task)\s+)?"
    r"(?P<stack>\d+)\s+(?P<tid>\d+)\s+(?P<parent>\d+)\s*"
    # old kernels print a child and two siblings, too, as far as there are any
    r"(?:(?:\s\d+\s*){0,3}\((?:NOTLB|L-TLB)\)\s*|\([^)]*\)\s*)?(?:0x[0-9a-f]+)?\s*$"
)
# a vendor's list of tasks: name, state, when it last ran, pid and more numbers
_TIMED = LazyPattern(
    r"^(?P<comm>\S.{0,31}?)\s+(?P<state>[RSDTtXZ])\s+\d+\.\d{6}\s+(?P<tid>\d+)(?: \d+){2} 0x[0-9a-f]+ 0x"
)
_PREFIX_ENDS = (": ", "] ", "> ", "| ", ") ")
_COMM = LazyPattern(
    r"CPU:?\s*\d+\s+(?:UID: \d+ )?PID:?\s*(?P<tid>\d+)\s+Comm:?\s*(?P<comm>.{1,64}?)"
    r"\s*(?:Not tainted|Tainted|Kdump|$)"
)
_OLD_COMM = LazyPattern(r"\bPid: (?P<tid>\d+), comm: (?P<comm>.{1,64}?)\s*(?:Not tainted|Tainted|$)")
_LOCKUP = LazyPattern(
    r"soft lockup - CPU#\d+ stuck for [^\[]{0,40}\[(?P<comm>[^\[\]]{1,64}):(?P<tid>\d{1,10})\]"
)
_CRASH = LazyPattern(
    r'\bPID:\s*(?P<tid>\d+)\s+(?:TASK:\s*\S+\s+)?(?:CPU:\s*\d+\s+)?COMMAND:\s*(?:[\'"](?P<comm>[^"]*)[\'"])?'
)
# where a mail program broke the line before the name
_QUOTED = LazyPattern(r'^\s*"(?P<comm>[^"]{1,16})"$')
# a number, a name and a state, as collections of /proc/PID/stack are headed, too: 838 btrfs-transacti D
_LISTED = LazyPattern(r"^\s*(?P<tid>\d{1,8})\s+(?P<comm>[^\s\"]{1,48})\s+(?P<state>[RSDTtZXI])\s*$")
# a state and a name, as people wrote them above copied stacks: "D  loop0:"
_STATED = LazyPattern(r"(?:^|(?<=\s))(?P<state>[RSD])\s{2,}(?P<comm>[^\s:]{1,15}):\s*$")
# tracers print a task above a kernel stack: ftrace and trace-cmd, perf script, bpftrace's keys
_FTRACE = LazyPattern(
    r"^\s*(?P<comm>\S.{0,15}?)-(?P<tid>\d+)\s+(?:\([\s\d-]+\)\s+)?\[\d+\].*<stack trace ?>\s*$"
)
_PERF = LazyPattern(
    r"^\s*(?P<comm>\S.{0,15}?)\s+(?:\d+/)?(?P<tid>\d+)\s+\[\d+\]\s+\d+\.\d+:.* sched:sched_switch: "
)
_PERF_STATE = LazyPattern(r"\bprev_state=(?P<state>[RSDTtXZ])\b")
_BPFTRACE = LazyPattern(r"^@\w*\[(?P<comm>[^,\]]{1,15}), (?P<tid>\d{1,8}),\s*$")
# ksymoops, of a list of all tasks
_PROC_NAME = LazyPattern(r"^Proc;\s+(?P<comm>\S{1,15})\s*$")
# drgn's prompt, and /proc/PID/stack as collections of them are headed: [58] "kcompactd0"
_DRGN = LazyPattern(r"\b(?:bt|stack_trace|prog\.stack_trace)\((?P<tid>\d+)\)")
_NUMBERED = LazyPattern(r'\[(?P<tid>\d{1,8})\]\s+"(?P<comm>[^"]{1,16})"\s*$')
_PROC = LazyPattern(
    r"/proc/(?P<pid>\d+)/(?:task/(?P<tid>\d+)/)?stack\b(?: <==\s+(?P<named>\S{1,32}) \((?P<state>[A-Z])\)$)?"
    r"|^(?:PID|pid|TID|tid)[ :=]+(?P<bare>\d+)"
    r"(?:[ ,:(]+(?:(?:COMM|comm|NAME|[Nn]ame)[:=] *)?(?P<comm>(?!\w?[pt]?g?id:)[^)]{1,32}?)\)?:?)?$"
)


# a shell's line: cat /proc/$(pidof NAME)/stack
_PROC_OF = LazyPattern(
    r"/proc/(?:\$\(|`)(?:pidof|pgrep)(?: -\S+)* (?P<comm>[^-\s)`]\S{0,62}?)(?:\)|`)/(?:task/\*/)?stack\b"
)

# gdb: 'Thread 3 (Thread 0x7f01 (LWP 123) "nbd-server"):', "[Switching to thread 214 (Thread 1234 (kswapd0))]"
_GDB = LazyPattern(
    r"(?:^|\s|\[Switching to )[Tt]hread [\d.]+ \((?:Thread (?:0x[0-9a-f]+ \()?)?(?:LWP )?(?P<tid>\d+)\)?"
    r"(?: (?:\"(?P<comm>[^\"]{1,32})\"|\((?P<extra>[^()]{1,32})\)))?\)[\]:]*"
    r"(?: \"(?P<behind>[^\"]{1,32})\")?:?\s*$"
)

_HEX = frozenset("0123456789abcdef")
# where memory was allocated, freed, read or written: history, nobody waits there
_HISTORY = LazyPattern(
    r"(?:(?:Allocated|Freed|(?:(?:race at unknown origin|read|write|read-write|assert no \w+)"
    r"(?: \(.{1,20}\))? to 0x[0-9a-f]+ of \d+ bytes)) by (?:task (?P<tid>\d+)|interrupt)"
    r"|(?:Last|Second to last) potentially related work"
    r"|(?<!stack )(?<!inexact )\bbacktrace\b(?: \(crc \w+\))?:"
    r"|page last (?:allocated|free)|Uninit was (?:stored|created)|\[\d+/\d+\] (?:ALLOC|FREE): PFN)"
)
# lcrash, which read the dumps of Linux 2.4
_LCRASH = LazyPattern(r"\bSTACK TRACE FOR TASK: 0x[0-9a-f]+ \((?P<comm>.{1,16}?)\)\s*$")
# crash's extension PyKdump
_PYKDUMP = LazyPattern(r"\bPID=\s*(?P<tid>\d+)\s+CPU=\s*\d+\s+CMD=(?P<comm>.{1,16}?)\s*$")
_VENDOR = LazyPattern(r"\bTask name: (?P<comm>.{1,64}?) \[affinity.*?\bpid: (?P<tid>\d+)")
# kdb's "Stack traceback for pid 1234", and below: task, pid, parent, whether it runs, processor, state
_KDB = LazyPattern(r"\bStack traceback for pid (?P<tid>\d+)\s*$")
_KDB_STATE = LazyPattern(
    r"(?<!\S)0x[0-9a-f]{8,16}\s+(?P<tid>\d+)\s+\d+\s+\d+\s+\d+\s+(?P<state>[RSDTZX])"
    r"\s*(?:0x[0-9a-f]+\s+\*?(?P<comm>\S{1,15})\s*$|0x|\*|$)"
)
# the registers of an oops end with it before Linux 3.x
_OOPS = LazyPattern(r"\bProcess (?P<comm>.{1,15}?) \(pid: (?P<tid>\d+), (?:threadinfo|stack|ti)\b")
_PROC_COMM = LazyPattern(r"/proc/(?P<pid>\d+)/(?:task/(?P<tid>\d+)/)?comm\b\s*[:=]\s*(?P<comm>.{1,32}?)\s*$")


def parse_head(text: str) -> Head | None:
    """The task whose stack a line announces, or None."""
    if "state:" in text and (found := _NEW.search(text)):
        return _new_head(found, text)
    if " more than" in text and (found := _HUNG.search(text)):
        seconds = found["seconds"]
        return Head(
            Source.HUNG_TASK,
            found["comm"],
            None,
            int(found["tid"]),
            blocked_seconds=int(seconds) if seconds else None,
            io_wait=found["io"] is not None,
        )
    if "omm:" in text and (found := _COMM.search(text) or _OLD_COMM.search(text)):
        return Head(Source.DUMP, found["comm"], None, int(found["tid"]))
    if "soft lockup" in text and (found := _LOCKUP.search(text)):
        return Head(Source.LOCKUP, found["comm"], None, int(found["tid"]))
    if "Task name:" in text and (found := _VENDOR.search(text)):
        return Head(Source.TASK_LIST, found["comm"], None, int(found["tid"]))
    if "Process " in text and (found := _OOPS.search(text)):
        return Head(Source.DUMP, found["comm"], None, int(found["tid"]))
    if "traceback" in text and (found := _KDB.search(text)):
        return Head(Source.CRASH, None, None, int(found["tid"]))
    if " 0x" in text and (found := _KDB_STATE.search(text)):
        return Head(Source.CRASH, found["comm"], None, int(found["tid"]), found["state"])
    if "<stack trace" in text and (found := _FTRACE.search(text)):
        return Head(Source.PROC, found["comm"], None, int(found["tid"]))
    if "sched_switch" in text and (found := _PERF.search(text)):
        state = _PERF_STATE.search(text)
        return Head(Source.PROC, found["comm"], None, int(found["tid"]), state and state["state"])
    if text[:1] == "@" and (found := _BPFTRACE.search(text)):
        return Head(Source.PROC, found["comm"], None, int(found["tid"]))
    if "STACK TRACE" in text and (found := _LCRASH.search(text)):
        return Head(Source.CRASH, found["comm"])
    if "PID=" in text and (found := _PYKDUMP.search(text)):
        return Head(Source.CRASH, found["comm"], None, int(found["tid"]))
    if _may_be_history(text) and (found := _HISTORY.search(text)):
        return Head(Source.DUMP, None, None, int(found["tid"]) if found["tid"] else None)
    if "COMMAND:" in text and (found := _CRASH.search(text)):
        return Head(Source.CRASH, found["comm"], None, int(found["tid"]))
    if '"' in text and (found := _QUOTED.match(text)):
        return Head(Source.BARE, found["comm"])
    if '"' in text and (found := _NUMBERED.search(text)):
        return Head(Source.PROC, found["comm"], None, int(found["tid"]))
    if text[-1:] in TASK_STATES and (found := _LISTED.match(text)):
        return Head(Source.PROC, found["comm"], None, int(found["tid"]), found["state"])
    if text.rstrip().endswith(":") and (found := _STATED.search(text)):
        return Head(Source.BARE, found["comm"], None, None, found["state"])
    if text.startswith("Proc;") and (found := _PROC_NAME.match(text)):
        return Head(Source.TASK_LIST, found["comm"])
    if "hread " in text and (found := _GDB.search(text)):
        named = found["comm"] or found["extra"] or found["behind"]
        return Head(Source.CRASH, named and named[:COMM_WIDTH], None, int(found["tid"]))
    if "stack_trace(" in text and (found := _DRGN.search(text)):
        return Head(Source.CRASH, None, None, int(found["tid"]))
    if "/comm" in text and (found := _PROC_COMM.search(text)):
        return Head(Source.PROC, found["comm"], int(found["pid"]), int(found["tid"] or found["pid"]))
    if "/stack" in text and (found := _PROC_OF.search(text)):
        return Head(Source.PROC, found["comm"][:COMM_WIDTH])
    # "(NOTLB)" stands at the end in Linux 2.6
    if (text[-1:] in _HEX or text.endswith("TLB)")) and (found := _OLD.search(text)):
        return _old_head(found)
    if " 0x" in text and (found := _TIMED.match(text.lstrip())):
        return Head(Source.TASK_LIST, found["comm"], None, int(found["tid"]), found["state"])
    if ("/proc/" in text or text[:3].lower() in ("pid", "tid")) and (found := _PROC.search(text)):
        tid = found["tid"] or found["pid"] or found["bare"]
        pid = int(found["pid"]) if found["pid"] else None
        return Head(Source.PROC, found["comm"] or found["named"], pid, int(tid), found["state"])
    return None


# bcc's offcputime and others print whose a stack was below it: "    -                nbdkit (1234)"
_BELOW = LazyPattern(r"^\s+-\s+(?P<comm>\S.{0,15}?) \((?P<tid>\d{1,8})\)\s*$")


def head_below(text: str) -> Head | None:
    """The task whose stack stands above a line, or None."""
    found = _BELOW.search(text) if text.endswith(")") and "- " in text else None
    return Head(Source.PROC, found["comm"], None, int(found["tid"])) if found else None


def _may_be_history(text: str) -> bool:
    return (
        " by " in text
        or "related work" in text
        or "backtrace" in text
        or "page last" in text
        or "Uninit was" in text
        or "PFN" in text
    )


def _old_head(found: re.Match[str]) -> Head | None:
    """The name is padded to its full width, so what stands before that is a prefix."""
    before = found.string[: found.start("state") - 1].lstrip()
    comm = before.rstrip()
    if len(before) > COMM_WIDTH:
        cut = len(before) - COMM_WIDTH
        whole = not (before[cut - 1].isalnum() and before[cut].isalnum())
        # a mail may have made one blank of many: then the last word has to do
        comm = before[cut:].strip() if whole else comm.split()[-1] if comm else ""
        if comm[:2] in _PREFIX_ENDS:
            comm = comm[2:].lstrip()  # Linux 2.6 kept 13 characters
    if not comm or len(comm) > 31:
        return None
    return Head(Source.TASK_LIST, comm, None, int(found["tid"]), found["state"])


def _new_head(found: re.Match[str], text: str) -> Head:
    tid, tgid, flags = _NEW_TID.search(text), _NEW_TGID.search(text), _NEW_FLAGS.search(text)
    parent = _NEW_PPID.search(text)
    return Head(
        Source.TASK_LIST,
        found["comm"],
        int(tgid[1]) if tgid else None,
        int(tid[1]) if tid else None,
        found["state"],
        int(flags[1], 16) if flags else None,
        parent=int(parent[1]) if parent else None,
    )
