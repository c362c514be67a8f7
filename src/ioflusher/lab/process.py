"""The one place that runs programs on this machine: no input, fixed locale, a deadline, clear failures."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ioflusher.lab.errors import LabError

# where Debian keeps depmod and mkfs, which a user's PATH often lacks
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


def find_program(name: str, *, package: str) -> str:
    """Absolute path of a program; raises LabError that names the package which brings it."""
    path = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":" + SYSTEM_PATH)
    if path is None:
        raise LabError(
            f"the program {name} is not installed",
            hint=f"run `ioflusher lab setup` as root, or install the package {package}",
        )
    return path


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment with messages in English."""
    return {**os.environ, "LC_ALL": "C.UTF-8", **(extra or {})}


def run(argv: Sequence[str], *, deadline_s: float, cwd: Path | None = None) -> str:
    """Run a program to its end and return what it printed.

    Raises LabError when it is missing, fails, dies of a signal or takes longer than `deadline_s` seconds;
    the message holds the command as it can be repeated in a shell and the last lines it wrote.
    """
    shown = shlex.join(argv)
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment(),
            cwd=cwd,
            timeout=deadline_s,
            text=True,
            errors="backslashreplace",
        )
    except FileNotFoundError as error:
        raise LabError(f"no such program: {argv[0]}", errno=error.errno) from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{shown}` was still running after {deadline_s:g} s") from error
    if done.returncode:
        how = f"died of signal {-done.returncode}" if done.returncode < 0 else f"exited {done.returncode}"
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-6:])
        raise LabError(f"`{shown}` {how}:\n{said}")
    return done.stdout
