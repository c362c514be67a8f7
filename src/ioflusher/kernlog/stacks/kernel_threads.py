"""The kernel's own threads, by name: the rows of threads.txt."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ioflusher.kernlog.stacks.things import Thing

THREAD_TABLE = "threads.txt"


@dataclass(frozen=True, slots=True)
class KernelThread:
    """A line of the table of the kernel's own threads.

    Attributes:
        name: the task's name; `*` at the end is any rest, `#` a digit and any rest.
        gives: what others wait for it to bring about, None where its stack tells.
        family: whose it is, None for no particular one.
        about: a few words on it.
    """

    name: str
    gives: Thing | None
    family: str | None
    about: str


@lru_cache(maxsize=1)
def known_threads() -> tuple[KernelThread, ...]:
    """The table of the kernel's own threads, in its order."""
    text = Path(__file__).with_name(THREAD_TABLE).read_text("utf-8")
    lines = (line.split(None, 3) for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return tuple(
        KernelThread(
            name, None if gives == "-" else Thing(gives), None if whose == "-" else whose, about.strip()
        )
        for name, gives, whose, about in lines
    )


@lru_cache(maxsize=4096)
def kernel_thread_named(comm: str | None) -> KernelThread | None:
    """The kernel's thread with this name, None for none."""
    if not comm:
        return None
    return next((thread for thread in known_threads() if _is_called(thread.name, comm)), None)


def _is_called(pattern: str, comm: str) -> bool:
    begin = pattern.rstrip("*#")
    if pattern.endswith("#"):
        return comm.startswith(begin) and comm[len(begin) : len(begin) + 1].isdigit()
    return comm.startswith(begin) if pattern.endswith("*") else comm == pattern
