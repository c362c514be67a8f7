"""Text from a machine or a log, made safe for a terminal."""


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
