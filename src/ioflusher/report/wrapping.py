"""Prose in lines for a terminal: words stay whole, names of functions and devices too."""

import textwrap

WIDTH = 100


def wrapped(text: str, first: str = "", others: str = "", width: int = WIDTH) -> list[str]:
    """Lines of at most so many columns where words allow it; `first` and `others` stand before them."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def stack_lines(calls: tuple[str, ...]) -> list[str]:
    """Where a task stands, the innermost function first; none for a task that is in no function."""
    if not calls:
        return []
    return wrapped(f"in {' < '.join(f'{function}()' for function in calls)}", "      ", "         ")
