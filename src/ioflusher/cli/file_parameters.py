"""Names of files on the command line, of which - is standard input or standard output."""

import os
from pathlib import Path
from typing import Any

import click

DASH = Path("-")


class OutputFile(click.Path):
    """A file to write, or - for standard output: DASH. A file of that name is ./-, as everywhere."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, allow_dash=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = super().convert(value, param, ctx)
        # Path("./-") is Path("-")
        return Path(os.path.abspath(path)) if path == DASH and value not in ("-", DASH) else path


class InputFile(OutputFile):
    """A file to read from beginning to end, or - for standard input: DASH, which can be named once."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = super().convert(value, param, ctx)
        if path == DASH and ctx is not None:
            key = f"{__name__}.standard_input"
            if key in ctx.meta:
                self.fail("standard input (-) is named twice, and can be read once", param, ctx)
            ctx.meta[key] = True
        return path
