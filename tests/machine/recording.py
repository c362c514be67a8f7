"""Real trees of /proc and /sys as one JSON file: what the storage collector read, and nothing else."""

import os
from pathlib import Path
from typing import TypedDict

from ioflusher.machine.collect.storage import collect_storage
from ioflusher.machine.collect.tree import LARGEST_ATTRIBUTE, Tree


class Recording(TypedDict):
    """By path: texts (a character a byte), targets of links, names in directories."""

    texts: dict[str, str]
    links: dict[str, str]
    names: dict[str, list[str]]


class Recorder(Tree):
    """Reads as a Tree does, and keeps what was there."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, lambda what, why: None)
        self.recording: Recording = {"texts": {}, "links": {}, "names": {}}

    def data(self, path: str, largest: int = LARGEST_ATTRIBUTE) -> bytes | None:
        data = super().data(path, largest)
        if data is not None:
            self.recording["texts"][path] = data.decode("latin-1")
        return data

    def names(self, path: str) -> list[str]:
        names = self.recording["names"][path] = super().names(path)
        return names

    def link(self, path: str) -> str | None:
        target = super().link(path)
        if target is not None:
            self.recording["links"][path] = target
        return target

    def exists(self, path: str) -> bool:
        found = super().exists(path)
        if found:
            self.recording["names"].setdefault(path, [])
        return found


def record(root: Path) -> Recording:
    """What collect_storage reads below the root."""
    recorder = Recorder(root)
    collect_storage(recorder)
    return recorder.recording


def lay_out(recording: Recording, root: Path) -> None:
    """The recorded tree as files below `root`."""
    for path, text in recording["texts"].items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text.encode("latin-1"))
    for path, target in recording["links"].items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(os.path.relpath(root / target.lstrip("/"), place.parent))
    for path, names in recording["names"].items():
        for place in (root / path, *(root / path / name for name in names)):
            if not os.path.lexists(place):
                place.mkdir(parents=True)
