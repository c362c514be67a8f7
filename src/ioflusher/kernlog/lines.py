"""One line of a log without what the log added: time stamp, host, caller, priority, colour."""

import re
from typing import NamedTuple

# The kernel cuts its messages at 1,024 bytes; what stands behind that and a log's prefixes is cut here.
MAX_LINE = 1280


class Line(NamedTuple):
    """A line of kernel text.

    Attributes:
        text: what the kernel printed, control characters removed.
        seconds: the kernel's time stamp in seconds since boot, None where the line has none.
        caller: CONFIG_PRINTK_CALLER's column, such as "T123" or "C1", else "".
    """

    text: str
    seconds: float | None = None
    caller: str = ""


# a mail's blanks at the end of a line, and where it broke one; some programs write brackets so, too
_QUOTED_PRINTABLE = re.compile(r"(?:=20|=C2=A0|=A0|=0D|=0A)*=?$")
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_CONTROLS = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if code != 9} | {9: " "}

_CLOCK = r"\d{1,2}:\d\d:\d\d(?:[.,]\d+)?"
# taken off again and again until none fits: a console capture of a syslog has several
_PREFIX = re.compile(
    "|".join((
        r"\s*\[\s*(?P<seconds>\d{1,9}\.\d{3,9})(?:@\d+|,\d+| *< *\d+\.\d+>)?\](?: ?\(\d+\)\[[^\]]*\])?",
        r"\s*\[ *[+<] *\d{1,9}\.\d{3,9}>?\]",  # dmesg --reltime, --show-delta
        r"\s*\[\s*(?P<caller>[TC]\d+)\]",
        r"<\d{1,3}>1 \S{1,64} \S{1,255} kernel \S{1,128} \S{1,32} (?:-|\[[^\]]{0,256}\]) ",  # RFC 5424
        r"\s*<\d{1,3}>",
        r"\d{1,3},\d{1,12},(?P<micros>\d{1,15}),[^; ]{0,40};",  # /dev/kmsg
        rf"\s*\[[^\[\]<>]{{0,32}}{_CLOCK}[^\[\]<>]{{0,12}}\]",
        rf"\d{{4}}[-/]\d\d[-/]\d\d[T ]{_CLOCK}(?: ?Z| ?[+-]\d\d:?\d\d)?(?= |$)",
        rf"[^\W\d]\w{{1,4}}\.? +\d{{1,2}},? (?:\d{{4}} )?{_CLOCK}(?= |$)",
        rf"\d\d-\d\d +{_CLOCK}(?: +\S+){{0,3}} +[VDIWEF](?: *:| (?:[\w./-]{{1,32}} *: )?)",
        rf"(?:\d{{4}}-\d\d-\d\dT{_CLOCK}Z? )?std(?:out|err) [FP] ",  # a container's log
        r"(?:kern|user|daemon|syslog) *:(?:emerg|alert|crit|err|warn|notice|info|debug) *: ",  # dmesg -x
        rf"{_CLOCK}(?= )",
        r"(?:[\w.-]{0,16}\.(?:emerg|alert|crit|err|warn|warning|notice|info|debug)\s+)?"
        r"\s?(?:[\w.:-]{1,64}\s+)?(?:kernel|klogd|vmunix|kern)(?:\[\d+\])?:(?= |$)",
        # a host alone counts only where the kernel's own time stamp follows
        r"[\w.:-]{1,64} (?=\[\s*\d+\.\d{3,9}\]|\d{1,3},\d{1,12},\d{1,15},)",
        r"MESSAGE=|data: (?=\{)",
        r"(?:[>|] ?)+(?=\s|\S)",
        r"[#*](?= )",  # a comment in a script or a C file
        r"\d*\.\d{6}\](?= )",
        r"\](?= [\w.$]+\+0x)",  # a mail broke the line behind the address
    ))
)  # fmt: skip

# whatever a syslog daemon's template writes before its name for the kernel
_TEMPLATE = re.compile(r"[^\[\]<>+]{1,100}?\bkernel(?:\[\d{1,8}\])?:(?= )")

# a frame in the kernel's own format, with nothing else to take off: seconds, caller, the frame
COMMON_FRAME = re.compile(
    rb"\[ {0,11}(\d{1,9}\.\d{3,9})\](?:\[ {0,8}([TC]\d{1,9})\])? "
    rb"( (?:\? )?[\w.$]+\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[\w+\])?)\r?$"
)


def clean(raw: bytes) -> str:
    """The bytes of one line as text on one line: undecodable bytes replaced, control characters removed."""
    text = raw[:MAX_LINE].decode("utf-8", "replace")
    if "&lt;" in text or "&gt;" in text:
        import html  # some milliseconds, for the few logs that were copied out of a web page

        text = html.unescape(text)
    if text.endswith(("=", "=20", "=A0", "=0A")) or "=A0" in text:
        text = _QUOTED_PRINTABLE.sub("", text).replace("=C2=A0", " ").replace("=A0", " ")
    if "=5B" in text or "=5D" in text:
        text = text.replace("=5B", "[").replace("=5D", "]")
    if text.isprintable():
        return text
    if "\x1b" in text:
        text = _ESCAPES.sub("", text)
    return text.translate(_CONTROLS)


def parse_line(raw: bytes) -> Line:
    """Take the log's own prefixes off a line; never fails."""
    text = clean(raw)
    if text.startswith(("{", "data: {")):
        text = _json_message(raw.lstrip(b"\x1e").removeprefix(b"data: ")) or text
    elif text.lstrip().startswith('"MESSAGE"') and (found := _PRETTY.match(text)):
        text = _json_message(b"{" + found[0].encode() + b"}") or text
    seconds: float | None = None
    caller = ""
    if text[:1] == " " and _PREFIX.match(bare := text.lstrip()):
        text = bare  # a log that was set in as a whole
    for _ in range(8):
        found = _PREFIX.match(text)
        if not found or not found.end():
            found = _TEMPLATE.match(text) if "kernel" in text else None
        if not found:
            break
        if found.re is _PREFIX and found.lastgroup:
            stamp, caller, micros = found["seconds"], found["caller"] or caller, found["micros"]
            seconds = float(stamp) if stamp else int(micros) / 1e6 if micros else seconds
        text = text[found.end() :]
        # one blank parts the prefix from the text; more belong to the text
        text = text.removeprefix(" ")
    return Line(text.rstrip(), seconds, caller)


# `journalctl -o json-pretty`
_PRETTY = re.compile(r'^\s*"MESSAGE"\s*:\s*".*"(?=,?\s*$)')


def _json_message(raw: bytes) -> str | None:
    """The message of a line of `journalctl -o json` or of a container's log, None where it is none."""
    import json

    try:
        entry = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    message = entry.get("MESSAGE", entry.get("log")) if isinstance(entry, dict) else None
    if isinstance(message, list):  # journald writes what is not valid UTF-8 as numbers
        try:
            message = bytes(message).decode("utf-8", "replace")
        except (TypeError, ValueError):
            return None
    return clean(message.encode("utf-8", "replace")) if isinstance(message, str) else None
