"""A back end in a line of text: KIND[,OPTION...]:VALUE, as on the command line.

What follows the colon is the kind's own and may contain anything, so that no path needs quoting; where it is
again such a line, a kind can stand on another: ask `open_backend` with it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ioflusher.nbd.address import parse_uri
from ioflusher.nbd.backends.backend import Backend, BackendError
from ioflusher.nbd.backends.file import FileBackend
from ioflusher.nbd.backends.memory import MemoryBackend
from ioflusher.nbd.backends.remote import RemoteBackend
from ioflusher.support.sizes import parse_size


@dataclass(frozen=True, slots=True)
class BackendKind:
    """A kind of back end.

    Attributes:
        form: how it is written, for people.
        options: the names of those that it takes.
        open: makes one of the value and the options, of which those without `=` have the value "".
    """

    form: str
    options: frozenset[str]
    open: Callable[[str, dict[str, str]], Backend]


def _memory(value: str, options: dict[str, str]) -> Backend:
    return MemoryBackend(parse_size(value))


def _file(value: str, options: dict[str, str]) -> Backend:
    return FileBackend(value, readonly="readonly" in options, direct="direct" in options)


def _remote(value: str, options: dict[str, str]) -> Backend:
    return RemoteBackend(parse_uri(value))


KINDS = {
    "memory": BackendKind("memory:SIZE", frozenset(), _memory),
    "file": BackendKind("file[,direct][,readonly]:PATH", frozenset({"direct", "readonly"}), _file),
    "remote": BackendKind("remote:URI", frozenset(), _remote),
}


def open_backend(text: str) -> Backend:
    """The back end that the text describes.

    Raises:
        BackendError: there is no such kind or option, or it cannot be opened.
        IoflusherError: the value is none of its kind.
    """
    head, colon, value = text.partition(":")
    name, *words = head.split(",")
    kind = KINDS.get(name)
    if kind is None or not colon:
        raise BackendError(f"{text!r} is no back end; expected one of {_forms()}")
    options = {}
    for word in words:
        option, _, argument = word.partition("=")
        if option not in kind.options or option in options:
            why = "is there twice" if option in options else "is not one of its options"
            raise BackendError(f"back end {text!r}: {option!r} {why}; expected {kind.form}")
        options[option] = argument
    return kind.open(value, options)


def _forms() -> str:
    return ", ".join(kind.form for kind in KINDS.values())
