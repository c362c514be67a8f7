"""A matplotlib figure as a picture, the same for the same figure. Needs the extra `ioflusher[lab]`."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from ioflusher.errors import IoflusherError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".svg", ".png")
DPI = 160


def figure_svg(name: str, draw: Callable[[], "Figure"]) -> str:
    """A figure as an SVG element, the same for the same one. Raises ImportError without matplotlib."""
    import matplotlib

    salt = f"ioflusher {name}"
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 10}):
        buffer = io.StringIO()
        draw().savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def figure_file(name: str, draw: Callable[[], "Figure"], suffix: str) -> bytes:
    """A figure as the content of a file with that suffix, one of SUFFIXES.

    Raises:
        IoflusherError: matplotlib is not installed.
    """
    try:
        if suffix == ".svg":
            return b'<?xml version="1.0" encoding="UTF-8"?>\n' + figure_svg(name, draw).encode()
        buffer = io.BytesIO()
        draw().savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        return buffer.getvalue()
    except ImportError as error:
        raise IoflusherError(
            "pictures are drawn with a package that is not installed: matplotlib",
            hint="pip install 'ioflusher[lab]'",
        ) from error
