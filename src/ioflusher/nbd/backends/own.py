"""A back end of the user's own, found by name in a module or in a file."""

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from ioflusher.nbd.backends.backend import Backend, BackendError


def own_class(reference: str) -> type[Backend]:
    """The class that MODULE:CLASS or FILE.py:CLASS names; :CLASS may be left out where there is one alone.

    Raises:
        BackendError: there is none, or the user's code fails while it is loaded.
    """
    path, name = reference, ""
    if ":" in reference and not reference.endswith(".py"):
        path, _, name = reference.rpartition(":")
    module = _load_file(path) if path.endswith(".py") else _import(path)
    if name:
        found = getattr(module, name, None)
        if not (isinstance(found, type) and issubclass(found, Backend)):
            raise BackendError(f"{path!r} has no class {name!r} that is an ioflusher.nbd.backends.Backend")
        return found
    own = [
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Backend) and each.__module__ == module.__name__
    ]
    if len(own) != 1:
        raise BackendError(
            f"{reference!r} defines {len(own)} classes that are an ioflusher.nbd.backends.Backend; "
            "expected one",
            hint=f"name the one that is meant: {reference}:CLASS",
        )
    return own[0]


def _import(name: str) -> ModuleType:
    sys.path.insert(0, os.getcwd())  # as `python -m` does
    try:
        return _run(name, lambda: importlib.import_module(name))
    finally:
        sys.path.remove(os.getcwd())


def _load_file(path: str) -> ModuleType:
    name = re.sub(r"\W", "_", Path(path).stem)
    spec = importlib.util.spec_from_file_location(name, os.path.abspath(path))
    if spec is None or spec.loader is None:
        raise BackendError(f"cannot load {path!r}")
    module, loader = importlib.util.module_from_spec(spec), spec.loader

    def execute() -> ModuleType:
        sys.modules.setdefault(name, module)  # dataclasses look there
        loader.exec_module(module)
        return module

    return _run(path, execute)


def _run(name: str, load: Callable[[], ModuleType]) -> ModuleType:
    """The user's code: whatever goes wrong in it is told as theirs."""
    try:
        return load()
    except Exception as error:
        raise BackendError(f"cannot load {name!r}: {type(error).__name__}: {error}") from error
