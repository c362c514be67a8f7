"""One line of a log without what the log added: time stamp, host, caller, priority, colour.

Logs put all sorts of things before a line, and mails and web pages change its characters. The usual
prefixes are taken off by their form; behind any other one the kernel's own time stamp is looked for, which
ends whatever stands before it. What is still left is no concern here: frames and heads are found wherever
they stand in the text.
"""

import re
from typing import NamedTuple

from ioflusher.kernlog.reading.patterns import LazyPattern

# The kernel cuts its messages at 1,024 bytes; what stands behind that and a log's prefixes is cut here.
MAX_LINE = 1280


class Line(NamedTuple):
    """A line of kernel text.

    Attributes:
        text: what the kernel printed, control characters removed.
        seconds: the kernel's time stamp in seconds since boot, None where the line has none.
        caller: who printed it, as far as the log says: CONFIG_PRINTK_CALLER's column, such as "T123" or
            "C1", or the processor in a vendor's column, "C1" too; else "".
        before: what stood before the kernel's time stamp and has no form that is known, else "".
    """

    text: str
    seconds: float | None = None
    caller: str = ""
    before: str = ""


# a mail's blanks at the end of a line, and where it broke one
_MAIL_END = LazyPattern(r"(?:=20|=C2=A0|=A0|=0D|=0A)*=?$")
# what quoted-printable writes for characters that frames and heads consist of; only codes with a letter in
# them, which no decimal number can be
_MAIL_CODES = {
    "=C2=A0": " ",
    "=A0": " ",
    **{f"={code:02X}": chr(code) for code in b"*+,-./:;<=>?[\\]_{|}~" if f"{code:02X}"[1] in "ABCDEF"},
}
_MAIL_CODE = LazyPattern("|".join(_MAIL_CODES))
_ENTITY = LazyPattern(r"&(?:[A-Za-z]{2,6}|#\d{1,5}|#x[0-9A-Fa-f]{1,4});")
_ESCAPES = LazyPattern(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_CONTROLS = {code: None for code in (*range(0x20), *range(0x7F, 0xA0))} | {9: " "}
# every blank is a blank (U+DCA0 stands for Latin-1's byte), what has no width goes, bytes that are no UTF-8
_ODD = {
    **{code: "\ufffd" for code in range(0xDC80, 0xDD00)},
    **{code: " " for code in (0xA0, 0xDCA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000)},
    **{code: None for code in (0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF)},
}

_CLOCK = r"\d{1,2}:\d\d:\d\d(?:[.,]\d+)?"
# taken off again and again until none fits: a console capture of a syslog has several
_PREFIX = re.compile(
    "|".join((
        r"\s*\[\s*(?P<seconds>\d{1,9}\.\d{3,9})(?:@\d+|,\d+| *< *\d+\.\d+>)?\]",
        r"\s*\[ *[+<] *\d{1,9}\.\d{3,9}>?\]",  # dmesg --reltime, --show-delta
        r"\s*\[\s*(?P<caller>[TC]\d+)\]",
        # vendors' columns: "c2 701", "I[4: swapper/4: 0]", "(3)[110:khungtaskd]"
        r"\s*c(?P<core>\d{1,3}) +\d{1,8}(?= |$)",
        r"\s*[A-Z]?\[ *(?P<processor>\d{1,3}): *[^\[\]:]{1,16}: *\d{1,8} *\]",
        r"\s*-?\((?P<cpu>\d{1,3})\)\[\d{1,8}:[^\[\]]{1,16}\]",
        r"<\d{1,3}>1 \S{1,64} \S{1,255} kernel \S{1,128} \S{1,32} (?:-|\[[^\]]{0,256}\]) ",  # RFC 5424
        r"\s*<\d{1,3}>",
        r"\d{1,3},\d{1,12},(?P<micros>\d{1,15}),[^; ]{0,40};",  # /dev/kmsg
        rf"\s*\[[^\[\]<>]{{0,32}}{_CLOCK}[^\[\]<>]{{0,12}}\]",
        rf"\d{{4}}[-/]\d\d[-/]\d\d[T ]{_CLOCK}(?: ?Z| ?[+-]\d\d:?\d\d)?(?= |$)",
        rf"[^\W\d]\w{{1,4}}\.? +\d{{1,2}},? (?:\d{{4}} )?{_CLOCK}(?= |$)",
        rf"\d\d-\d\d +{_CLOCK}(?: +[\w.-]+(?= +\d))?(?: +\d+){{0,2}} +[VDIWEF]"
        r"(?: *:| (?:[\w./-]{1,32} *: )?)",
        rf"(?:\d\d-\d\d +{_CLOCK} +)?[VDIWEF]/[\w.-]{{1,32}} *(?:\( *\d{{1,8}}\))? *:(?= )",
        rf"(?:\d{{4}}-\d\d-\d\dT{_CLOCK}Z? )?std(?:out|err) [FP] ",  # a container's log
        r"(?:kern|user|daemon|syslog) *:(?:emerg|alert|crit|err|warn|notice|info|debug) *: ",  # dmesg -x
        rf"{_CLOCK}(?= )",
        r"(?:[\w.-]{0,16}\.(?:emerg|alert|crit|err|warn|warning|notice|info|debug)\s+)?"
        r"\s?(?:[\w.:-]{1,64}\s+)?(?:kernel|klogd|vmunix|kern)(?:\[\d+\])?:(?= |$)",
        # a host alone counts only where the kernel's own time stamp follows
        r"[\w.:-]{1,64} (?=\[\s*\d+\.\d{3,9}\]|\d{1,3},\d{1,12},\d{1,15},)",
        r"MESSAGE=|data: (?=\{)",
        r"(?:[>|] ?)+",
        r"[#*](?= )",  # a comment in a script or a C file
        r"\d*\.\d{6}\](?= )",
        r"\](?= [\w.$]+\+0x)",  # a mail broke the line behind the address
    ))
)  # fmt: skip

# whatever a syslog daemon's template writes before its name for the kernel
_TEMPLATE = LazyPattern(r"[^<>+]{1,100}?\bkernel(?:\[\d{1,8}\])?:(?= )")
# whatever stands before the kernel's own time stamp
_STAMP = LazyPattern(r"\[ {0,11}\d{1,9}\.\d{6}(?:@\d+|,\d+| *< *\d+\.\d+>)?\]")

# what a line in the kernel's own format begins with: seconds, caller
_STAMPED = re.compile(rb"\[ {0,11}\d{1,9}\.\d{3,9}\](?:\[ {0,8}([TC]\d{1,9})\])? ")


def stamped(raw: bytes) -> tuple[str, bytes] | None:
    """The caller and the text of a line that begins with the kernel's own time stamp, None for another."""
    found = _STAMPED.match(raw)
    if found is None:
        return None
    caller = found[1]
    return (caller.decode() if caller else ""), raw[found.end() :]


def clean(raw: bytes) -> str:
    """The bytes of one line as text on one line: undecodable bytes replaced, control characters removed."""
    text = raw[:MAX_LINE].decode("utf-8", "surrogateescape")
    if "&" in text and _ENTITY.search(text):
        import html  # some milliseconds, for the few logs that were copied out of a web page

        text = html.unescape(text)
    if "=" in text:
        if text.endswith(("=", "=20", "=A0", "=0A", "=0D")):
            text = _MAIL_END.compiled().sub("", text)
        if text.startswith("=20") or text.count("=20") > 1:
            text = text.replace("=20", " ")
        text = _MAIL_CODE.compiled().sub(lambda found: _MAIL_CODES[found[0]], text)
    if not text.isascii():
        text = text.translate(_ODD)
    if text.isprintable():
        return text
    if "\x1b" in text:
        text = _ESCAPES.compiled().sub("", text)
    return text.translate(_CONTROLS)


# RFC 2045: a line of quoted-printable has 76 characters at most, and "=" at its end is no part of the text. A
# line that was broken for its length alone has as many, or one less. All of them are ASCII.
_MAIL_LINE = 76
_MAIL_BYTE = re.compile(rb"=[0-9A-F]{2}")
_LOG_LINE = re.compile(rb"\s*(?:>|<\d|\[ *\d+\.\d|\w{3} +\d{1,2} \d\d:|\d{4}-\d\d-\d\d)")


def breaks_softly(raw: bytes) -> bool:
    """Whether a mail's coding broke a line here, so that the next line may go on in it."""
    data = raw.removesuffix(b"\r")
    ends = data.isascii() and data.endswith(b"=") and not data.endswith(b"=0A=") and len(data) <= _MAIL_LINE
    return ends and (len(data) >= _MAIL_LINE - 1 or _MAIL_BYTE.search(data) is not None)


def goes_on(raw: bytes) -> bool:
    """Whether a line can be the rest of a broken one: it does not begin as lines of logs and quotes do."""
    return _LOG_LINE.match(raw) is None


def parse_line(raw: bytes) -> Line:
    """Take the log's own prefixes off a line; never fails."""
    text = clean(raw)
    if text.startswith(("{", "data: {")):
        text = _json_message(raw.lstrip(b"\x1e").removeprefix(b"data: ")) or text
    elif text.lstrip().startswith('"MESSAGE"') and (found := _PRETTY.match(text)):
        text = _json_message(b"{" + found[0].encode() + b"}") or text
    seconds: float | None = None
    caller = before = ""
    if text[:1] == " " and _PREFIX.match(bare := text.lstrip()):
        text = bare  # a log that was set in as a whole
    for _ in range(12):
        found = _PREFIX.match(text)
        if not found or not found.end():
            found = _TEMPLATE.match(text) if "kernel" in text else None
        if not found:
            # some other prefix: the kernel's own stamp ends it
            stamped = _STAMP.search(text[:200]) if seconds is None and "." in text else None
            if not stamped:
                break
            before, text = text[: stamped.start()].strip(), text[stamped.start() :]
            continue
        if found.re is _PREFIX and found.lastgroup:
            stamp, micros = found["seconds"], found["micros"]
            seconds = float(stamp) if stamp else int(micros) / 1e6 if micros else seconds
            core = found["core"] or found["processor"] or found["cpu"]
            caller = found["caller"] or (f"C{core}" if core else caller)
        text = text[found.end() :]
        # one blank parts the prefix from the text; more belong to the text
        text = text.removeprefix(" ")
    return Line(text.rstrip(), seconds, caller, before)


# `journalctl -o json-pretty`
_PRETTY = LazyPattern(r'^\s*"MESSAGE"\s*:\s*".*"(?=,?\s*$)')


# the journal's, containers', and what collectors of logs call it
_MESSAGE_KEYS = ("MESSAGE", "log", "message", "msg", "short_message")


def _json_message(raw: bytes) -> str | None:
    """The message of a line of `journalctl -o json` or of a container's log, None where it is none."""
    import json

    try:
        entry = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    found = (entry.get(key) for key in _MESSAGE_KEYS) if isinstance(entry, dict) else ()
    message = next((text for text in found if text is not None), None)
    if isinstance(message, list):  # journald writes what is not valid UTF-8 as numbers
        try:
            message = bytes(message).decode("utf-8", "replace")
        except (TypeError, ValueError):
            return None
    return clean(message.encode("utf-8", "replace")) if isinstance(message, str) else None
