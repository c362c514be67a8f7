"""Which programs an experiment was played with, so that a later one can say what is different.

A program that belongs to a package of the distribution is told by the package's version; one that does not,
such as a daemon that somebody just built, by a digest of its file.
"""

import contextlib
import hashlib
import os
import platform
from pathlib import Path

from ioflusher import __version__
from ioflusher.errors import IoflusherError
from ioflusher.lab.qemu import qemu_version
from ioflusher.lab.setup import needed_programs
from ioflusher.scenario.records import Scenario
from ioflusher.support.programs import ProgramError, locate, run

PACKAGE_DEADLINE_S = 30.0


def versions(scenario: Scenario) -> dict[str, str]:
    """What matters of this machine's software to the scenario, by name: "nbdkit": "1.32.5-1".

    What is not known is left out.
    """
    found = {"ioflusher": __version__, "Python": platform.python_version()}
    with contextlib.suppress(IoflusherError):
        found["QEMU"] = qemu_version().removeprefix("QEMU emulator version ")
    for program in needed_programs(scenario):
        if path := locate(program):
            found |= _version(Path(path))
    # a daemon may be a script: an interpreter's name comes first then
    for word in scenario.daemon.command[1:]:
        if os.path.isabs(word) and os.path.isfile(word):
            found |= _digest(Path(word))
    return found


def _version(path: Path) -> dict[str, str]:
    return _package(path) or _digest(path)


def _package(path: Path) -> dict[str, str]:
    """The package that brings the file, with its version; nothing where none does."""
    real = path.resolve()
    # dpkg knows a file of a merged /usr under the name that its package has
    names = dict.fromkeys((str(path), str(real), str(real).removeprefix("/usr")))
    for name in names:
        try:
            owner = run(["dpkg-query", "--search", name], deadline_s=PACKAGE_DEADLINE_S)
            package = owner.partition(": ")[0].partition(",")[0]
            shown = run(
                ["dpkg-query", "--show", "--showformat", "${Version}", package],
                deadline_s=PACKAGE_DEADLINE_S,
            )
        except ProgramError:
            continue
        return {package.partition(":")[0]: shown}
    return {}


def _digest(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return {}
    return {str(path): f"sha256 {digest[:16]}"}
