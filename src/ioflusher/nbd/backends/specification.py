"""A back end in a line of text: KIND[,OPTION...]:VALUE, as on the command line.

What follows the colon is the kind's own and may contain anything, so that no path needs quoting; where it is
again such a line, a kind stands on another: `slow,read=0.01:file:/disk.img`. A class of the user's own is
`python:MODULE:CLASS` or `python:FILE.py`; without options MODULE:CLASS will do. The options are the arguments
of the kind's class, with their names; one without `=` is switched on. Sizes may be written as "64M".
"""

import importlib
import inspect
import re
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass

from ioflusher.nbd.address import Address, parse_uri
from ioflusher.nbd.backends.backend import Backend, BackendError
from ioflusher.nbd.backends.own import own_class
from ioflusher.support.sizes import SizeError, parse_size

JOINT = " + "  # between the parts of a concatenation


@dataclass(frozen=True, slots=True)
class BackendKind:
    """A kind of back end.

    Attributes:
        form: how it is written, for people.
        module, name: of the class. The module is loaded when one is asked for.
        value: makes the class's first arguments of what follows the colon; whoever opens a back end there
            leaves it to the class.
    """

    form: str
    module: str
    name: str
    value: Callable[[str], tuple[object, ...]]

    def load(self) -> type[Backend]:
        """The class."""
        found: type[Backend] = getattr(
            importlib.import_module(f"ioflusher.nbd.backends.{self.module}"), self.name
        )
        return found


def _text(value: str) -> tuple[object, ...]:
    return (value,)


def _another(value: str) -> tuple[object, ...]:
    return (open_backend(value),)


def _several(value: str) -> tuple[object, ...]:
    opened: list[Backend] = []
    try:
        for part in value.split(JOINT):
            opened.append(open_backend(part.strip()))
    except BaseException:
        _close(opened)
        raise
    return tuple(opened)


KINDS = {
    "memory": BackendKind("memory[,give_back]:SIZE", "memory", "MemoryBackend", _text),
    "file": BackendKind("file[,direct][,readonly]:PATH", "file", "FileBackend", _text),
    "remote": BackendKind("remote[,connections=N][,patience=SECONDS]:URI", "remote", "RemoteBackend", _text),
    "concat": BackendKind("concat:BACKEND + BACKEND...", "concatenation", "ConcatenatedBackend", _several),
    "part": BackendKind("part,offset=SIZE[,size=SIZE]:BACKEND", "part", "PartBackend", _another),
    "s3": BackendKind("s3[,size=SIZE][,piece=SIZE]:https://HOST/BUCKET[/PREFIX]", "s3", "S3Backend", _text),
    "overlay": BackendKind(
        "overlay[,layer=PATH][,block=SIZE][,direct]:BACKEND", "overlay", "OverlayBackend", _another
    ),
    "slow": BackendKind(
        "slow[,seconds=SECONDS][,read=SECONDS]...:BACKEND", "trouble", "SlowBackend", _another
    ),
    "failing": BackendKind("failing[,error=NAME][,rate=N]...:BACKEND", "trouble", "FailingBackend", _another),
}
OWN = "python"
_OWN_ALONE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
OWN_FORM = "python[,OPTION=VALUE]...:MODULE:CLASS or FILE.py"


def open_backend(text: str) -> Backend:
    """The back end that the text describes; those that it stands on belong to it and are closed with it.

    Raises:
        BackendError: there is no such kind or option, or it cannot be opened; nothing stays open then.
        IoflusherError: the value is none of its kind.
    """
    head, colon, value = text.partition(":")
    name, *words = head.split(",")
    kind = KINDS.get(name)
    if kind is None and _OWN_ALONE.fullmatch(text):
        name, words, value = OWN, [], text
    if not colon or (kind is None and name != OWN):
        raise BackendError(f"{text!r} is no back end; expected one of {_forms()}")
    made, form = (own_class(value), OWN_FORM) if kind is None else (kind.load(), kind.form)
    parameters = inspect.signature(made).parameters
    hints = typing.get_type_hints(made.__init__)
    options: dict[str, object] = {}
    for word in words:
        option, equals, argument = word.partition("=")
        if option not in parameters or option in options:
            why = "is there twice" if option in options else "is not one of its options"
            raise BackendError(f"back end {text!r}: {option!r} {why}; expected {form}")
        options[option] = _fit(text, option, hints.get(option), argument if equals else True)
    positional = () if kind is None else kind.value(value)
    try:
        first = next(iter(parameters), "")
        fitted = [
            each if isinstance(each, Backend) else _fit(text, first, hints.get(first), each)
            for each in positional
        ]
        try:
            inspect.signature(made).bind(*fitted, **options)
        except TypeError as error:
            raise BackendError(f"back end {text!r}: {error}; expected {form}") from error
        return made(*fitted, **options)
    except BaseException:
        _close([each for each in positional if isinstance(each, Backend)])
        raise


def _fit(text: str, name: str, wanted: object, value: object) -> object:
    """A value as a parameter of that type wants it; `wanted` None: the class does not say."""
    choices = typing.get_args(wanted) if isinstance(wanted, types.UnionType) else (wanted,)
    if value is True:
        if bool in choices or wanted is None:
            return True
        raise BackendError(f"back end {text!r}: {name} needs a value, as in {name}=VALUE")
    assert isinstance(value, str)
    if Address in choices:
        return parse_uri(value)
    if bool in choices:
        raise BackendError(f"back end {text!r}: {name} takes no value")
    if int in choices:
        try:
            return parse_size(value)
        except SizeError as error:
            raise BackendError(f"back end {text!r}: {name}: {error}", hint=error.hint) from error
    if float in choices:
        try:
            return float(value)
        except ValueError as error:
            raise BackendError(f"back end {text!r}: {name}: expected a number, found {value!r}") from error
    return value


def _close(backends: list[Backend]) -> None:
    for backend in backends:
        backend.close()


def _forms() -> str:
    return ", ".join([*(kind.form for kind in KINDS.values()), OWN_FORM])
