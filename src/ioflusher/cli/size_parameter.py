"""A size on the command line."""

import click

from ioflusher.support.sizes import SizeError, parse_size


def size(text: str) -> int:
    """A size as `support.sizes` reads it, for click."""
    try:
        return parse_size(text)
    except SizeError as error:
        raise click.BadParameter(f"{error}; expected a number of bytes such as 4096, 64M or 2GiB") from error
