"""What the lab and its scenarios need of the distribution's packages: said before a boot, and installed."""

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ioflusher.lab.errors import LabError
from ioflusher.lab.qemu import find_qemu
from ioflusher.lab.tree import GUEST_PATH, is_shown
from ioflusher.scenario.file import builtin_scenarios
from ioflusher.scenario.records import Scenario
from ioflusher.scenario.stacks import STACKS
from ioflusher.support.programs import ProgramError, locate, run

INSTALL_DEADLINE_S = 900.0
# package -> a program of it, for the lab itself
PACKAGES = {
    "qemu-system-x86": "qemu-system-x86_64",
    "kmod": "depmod",
    "e2fsprogs": "mkfs.ext4",
    "xfsprogs": "mkfs.xfs",
    "util-linux": "setpriv",
    "mount": "swapon",
}
# package -> a program of it, for what lies on a device; the lab itself has the others
_USE_PACKAGES = {"btrfs": {"btrfs-progs": "mkfs.btrfs"}}
# a program -> its package in Debian, for daemons and what they start; `daemon.command` may name any other
_DAEMON_PACKAGES = {
    "/usr/lib/openssh/sftp-server": "openssh-sftp-server",
    "bindfs": "bindfs",
    "fuse-overlayfs": "fuse-overlayfs",
    "ganesha.nfsd": "nfs-ganesha-vfs",
    "iscsid": "open-iscsi",
    "istgt": "istgt",
    "multipathd": "multipath-tools",
    "nbd-server": "nbd-server",
    "nbdkit": "nbdkit",
    "qemu-nbd": "qemu-utils",
    "qemu-storage-daemon": "qemu-system-common",
    "rbd-nbd": "rbd-nbd",
    "sshfs": "sshfs",
    "tcmu-runner": "tcmu-runner",
    "tgtadm": "tgt",
    "tgtd": "tgt",
}


def needed_programs(scenario: Scenario) -> dict[str, str | None]:
    """Programs that the scenario runs in its guest beside the lab's own, each with its package.

    None for a daemon whose package is not known.
    """
    packages = {**STACKS[scenario.device.kind].packages, **_USE_PACKAGES.get(scenario.device.use, {})}
    needed: dict[str, str | None] = {program: package for package, program in packages.items()}
    for command in (scenario.daemon.command, *scenario.daemon.setup):
        for program in command[:1]:
            needed.setdefault(program, _DAEMON_PACKAGES.get(program))
        # also those that it starts, or that a shell is told to start
        for program in " ".join(command[1:]).split():
            if program in _DAEMON_PACKAGES:
                needed.setdefault(program, _DAEMON_PACKAGES[program])
    return needed


def missing_programs(scenario: Scenario) -> dict[str, str | None]:
    """Those of `needed_programs` that this machine does not have."""
    return {
        program: package for program, package in needed_programs(scenario).items() if not _is_here(program)
    }


def check_programs(scenario: Scenario) -> None:
    """See that the programs are here which the scenario runs in its guest; guests see this machine's.

    Raises:
        LabError: names those that are not, with their packages, and how to install them.
    """
    missing = missing_programs(scenario)
    if not missing:
        return
    hints = [
        f"{program} is at {place}, where guests do not look: give that path"
        for program, place in ((program, locate(program)) for program in missing if "/" not in program)
        if place is not None
    ]
    if None in missing.values():
        hints.append("daemon.command begins with a program's name or its absolute path; install that one")
    if any(missing.values()):
        known = scenario.name in builtin_scenarios()
        hints.append(f"run `ioflusher lab setup {scenario.name if known else 'FILE'}`, which installs them")
    raise LabError(
        f"{scenario.name} needs what this machine does not have: {_named(missing)}", hint="; ".join(hints)
    )


def daemon_files(scenario: Scenario) -> tuple[Path, ...]:
    """The daemon's program and what it is a link to, where guests do not see them without being shown."""
    found = []
    for program in scenario.daemon.command[:1]:
        path = Path(program)
        if path.is_absolute() and path.is_file():
            found += [place for place in dict.fromkeys((path, path.resolve())) if not is_shown(place)]
    return tuple(found)


def _is_here(program: str) -> bool:
    # a guest's programs start in another directory than ours, and are looked for in other places
    if os.path.isabs(program):
        return os.access(program, os.X_OK)
    return "/" not in program and _find_in_guest(program) is not None


def _find_in_guest(program: str) -> str | None:
    return shutil.which(program, path=GUEST_PATH)


def _named(programs: Mapping[str, str | None]) -> str:
    return ", ".join(
        f"{program} (package {package})" if package else f"{program} (of no package that is known here)"
        for program, package in programs.items()
    )


def missing_packages() -> list[str]:
    """The packages of the lab itself whose program is not here."""
    return [package for package, program in PACKAGES.items() if locate(program) is None]


def install_missing(progress: Callable[[str], None], scenarios: Iterable[Scenario] = ()) -> list[str]:
    """Install what the lab and the scenarios lack, as root or with sudo; returns what was installed.

    Raises:
        LabError: names the packages where that cannot be done, and programs whose package is not known.
    """
    missing = missing_packages()
    for scenario in scenarios:
        lacking = missing_programs(scenario)
        unknown = {program: package for program, package in lacking.items() if package is None}
        if unknown:
            raise LabError(
                f"{scenario.name} needs what cannot be installed from here: {_named(unknown)}",
                hint="install it yourself; daemon.command begins with a program's name or absolute path",
            )
        missing += [package for package in lacking.values() if package and package not in missing]
    if not missing:
        return []
    names = " ".join(missing)
    hint = f"install these packages: {names}"
    if shutil.which("apt-get") is None:
        raise LabError("this machine has no apt-get, so nothing can be installed", hint=hint)
    if os.geteuid() == 0:
        prefix: list[str] = []
    elif shutil.which("sudo"):
        prefix = ["sudo", "-n"]
    else:
        raise LabError("missing packages can only be installed as root or with sudo", hint=hint)
    try:
        progress("updating the package lists")
        run([*prefix, "apt-get", "update", "-q"], deadline_s=INSTALL_DEADLINE_S)
        progress(f"installing {names}")
        install = (
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "install",
            "-yq",
            "--no-install-recommends",
        )
        run([*prefix, *install, *missing], deadline_s=INSTALL_DEADLINE_S)
    except ProgramError as error:
        raise LabError(f"packages could not be installed: {error}", hint=hint) from error
    find_qemu()
    return missing
