"""Words for people: text that a terminal may have, names of threads, numbers with their noun, columns, near
names."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def printable(text: str) -> str:
    """The text with everything that a terminal could obey written as an escape: \\x1b, \\n, \\u202e.

    Lone surrogates, which stand for bytes that were not UTF-8, become \\udcXX.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def text_of(data: bytes) -> str:
    """Bytes of the kernel or of a program as text; those that are no UTF-8 become \\xNN.

    A thread's name, for example, holds any bytes but zero (prctl(2), PR_SET_NAME). What comes back may still
    steer a terminal: see `printable`.
    """
    return data.decode("utf-8", "backslashreplace")


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: "1 thread", "2 threads"; `plural` where that is not the noun with an s."""
    return f"{number} {noun}" if number == 1 else f"{number} {plural or noun + 's'}"


def columns(head: "Sequence[str]", rows: "Iterable[Sequence[str]]") -> list[str]:
    """A head and rows of cells as lines, each column as wide as its widest cell."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def did_you_mean(name: str, known: "Iterable[str]", prefix: str = "") -> str:
    """A hint for a name that is not known: the one that it looks like, behind `prefix`, or all there are."""
    import difflib  # not above: `import ioflusher` loads this file, and a hint is rare

    names = sorted(known)
    near = difflib.get_close_matches(name, names, 1)
    return f"did you mean {prefix}{near[0]}?" if near else f"it may be one of {', '.join(names)}"
