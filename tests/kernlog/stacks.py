"""The stacks of stacks.txt: written from the kernel's sources, each a title, a task's name and functions."""

from pathlib import Path
from string import Template


def read_stacks() -> tuple[dict[str, str], dict[str, dict[str, tuple[str, str]]]]:
    """The definitions of stacks.txt, and its stacks: verdict -> title -> (task's name, functions)."""
    defined: dict[str, str] = {}
    stacks: dict[str, dict[str, tuple[str, str]]] = {"recursion": {}, "other": {}}
    head = ""
    for line in (Path(__file__).parent / "stacks.txt").read_text("utf-8").splitlines():
        if line.startswith("    "):
            names = Template(line).substitute(defined)
            verdict, _, rest = head.partition(" ")
            if verdict == "define":
                defined[rest] = defined.get(rest, "") + names
            else:
                comm, _, title = rest.partition(": ")
                before = stacks[verdict].get(title, ("", ""))[1]
                stacks[verdict][title] = (comm, before + names)
        elif line and not line.startswith("#"):
            head = line
    return defined, stacks


DEFINED, STACKS = read_stacks()


def log(comm: str, names: str) -> bytes:
    """A stack as a kernel prints it for a task that sleeps; "frob_run[zfs]" is a module's function."""
    return f"{comm:<15} D    0   100      1 0x00000000\nCall Trace:\n".encode() + frames(names)


def frames(names: str) -> bytes:
    """The lines of a stack alone."""
    parts = (name.partition("[") for name in names.split())
    lines = (f" {name}+0x1/0x20{f' [{module}' if module else ''}\n" for name, _, module in parts)
    return "".join(lines).encode()
