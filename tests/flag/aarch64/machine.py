"""A small emulated arm64 machine: Debian's kernel, its Python in memory, one command, its output and status.

    python -m tests.flag.aarch64.machine         fetch and unpack what it needs, once (about 50 MB)

`make aarch64` does that and runs the tests.

Nothing is installed on this machine: the packages are those of this distribution for another architecture,
found and fetched with a package configuration of their own, and only unpacked. The console is for people;
output and status come back over ports of their own.
"""

import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ioflusher.lab.initramfs import newc
from ioflusher.lab.kernels import cache_directory
from ioflusher.support.programs import run

QEMU = "qemu-system-aarch64"
COMPILER = "aarch64-linux-gnu-gcc"
DOWNLOAD_S = 600.0

Entry = tuple[str, int, bytes]

_INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
export PATH=/usr/bin:/bin:/usr/sbin:/sbin HOME=/root LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
ip link set lo up
sh /command </dev/null >/dev/vport0p1 2>&1
echo $? >/dev/vport0p2
poweroff -f
"""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a machine is made of: the kernel's image and a directory with its user space."""

    kernel: Path
    root: Path

    @property
    def python(self) -> str:
        """The path of Python in that user space."""
        (found,) = (self.root / "usr/bin").glob("python3.[0-9][0-9]")
        return f"/usr/bin/{found.name}"


@dataclass(frozen=True, slots=True)
class Done:
    """How the command ended; `status` is None where the machine ended without a word."""

    status: int | None
    output: str
    console: str


def missing() -> str:
    """What this machine lacks for it, as one sentence; empty where nothing."""
    programs = [name for name in (QEMU, COMPILER) if shutil.which(name) is None]
    if programs:
        return f"no {' and no '.join(programs)}: `make aarch64` installs them"
    return "" if parts_directory().is_dir() else "its packages are not fetched: `make aarch64` does that"


def parts_directory() -> Path:
    """Where the unpacked packages lie."""
    return cache_directory() / "aarch64"


def parts() -> Parts:
    """What was fetched before."""
    (kernel,) = (parts_directory() / "boot").glob("vmlinuz-*")
    return Parts(kernel, parts_directory() / "root")


def fetch() -> Parts:
    """Fetch and unpack kernel and user space, unless that is done. Raises LabError where a program fails."""
    place = parts_directory()
    if place.is_dir():
        return parts()
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=place.parent) as name:
        work = Path(name)
        apt = _apt(work)
        run([*apt, "update", "-q"], deadline_s=DOWNLOAD_S)
        newest = _newest_kernel(work)
        archives = work / "cache/archives"
        wanted = ("python3-minimal", "libpython3-stdlib", "busybox-static", "util-linux")
        command = ["install", "-y", "--download-only", "--no-install-recommends", *wanted]
        run([*apt, *command], deadline_s=DOWNLOAD_S)
        for archive in archives.glob("*.deb"):
            run(["dpkg-deb", "-x", str(archive), str(work / "new/root")], deadline_s=120)
        run([*apt, "download", newest], deadline_s=DOWNLOAD_S, cwd=work)
        (kernel,) = work.glob("linux-image-*.deb")
        run(["dpkg-deb", "-x", str(kernel), str(work / "kernel")], deadline_s=120)
        (work / "kernel/boot").rename(work / "new/boot")
        (work / "new").rename(place)
    return parts()


def _apt(work: Path) -> list[str]:
    """The package manager with a state of its own and one architecture, which is not this machine's."""
    for directory in ("state/lists/partial", "cache/archives/partial", "new/root"):
        (work / directory).mkdir(parents=True)
    (work / "status").touch()
    configuration = work / "apt.conf"
    configuration.write_text(
        f'Dir::State "{work}/state"; Dir::State::status "{work}/status"; Dir::Cache "{work}/cache";\n'
        'APT::Architecture "arm64"; APT::Architectures { "arm64"; };\n'
        'Debug::NoLocking "1"; APT::Sandbox::User "root";\n'
    )
    return ["env", f"APT_CONFIG={configuration}", "apt-get"]


def _newest_kernel(work: Path) -> str:
    """The name of the newest signed cloud kernel package."""
    command = ["env", f"APT_CONFIG={work}/apt.conf", "apt-cache", "pkgnames", "linux-image-"]
    names = run(command, deadline_s=120).split()
    kernels = [name for name in names if re.fullmatch(r"linux-image-\d+\.\d+[^-]*(-\d+)?-cloud-arm64", name)]
    return max(kernels, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])


def boot(machine: Parts, files: Iterable[Entry], command: str, *, deadline_s: float) -> Done:
    """Run the shell command in a fresh machine that has the files on top of its user space.

    Raises subprocess.TimeoutExpired after `deadline_s` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="ioflusher-aarch64-") as name:
        work = Path(name)
        own = [("init", 0o100755, _INIT.encode()), ("command", 0o100644, command.encode())]
        (work / "root.cpio").write_bytes(newc([*tree(machine.root, ""), *files, *own]))
        argv = ["setpriv", "--pdeathsig", "KILL", "--", QEMU, "-nodefaults", "-no-user-config"]
        # every extension that the emulator knows, the slow signing of pointers in the emulator's own way
        argv += ["-machine", "virt", "-cpu", "max,pauth-impdef=on", "-accel", "tcg,thread=multi"]
        argv += ["-smp", "2", "-m", "2G", "-display", "none", "-no-reboot"]
        argv += ["-kernel", str(machine.kernel), "-initrd", str(work / "root.cpio")]
        argv += ["-append", "console=ttyAMA0 panic=-1 loglevel=5 random.trust_cpu=on mitigations=off"]
        argv += ["-chardev", f"file,id=console,path={work}/console", "-serial", "chardev:console"]
        argv += ["-device", "virtio-serial-pci,id=serial"]
        for number, port in enumerate(("output", "status"), 1):
            argv += ["-chardev", f"file,id={port},path={work}/{port}"]
            argv += ["-device", f"virtserialport,bus=serial.0,nr={number},chardev={port},name={port}"]
        subprocess.run(argv, stdin=subprocess.DEVNULL, check=True, timeout=deadline_s)
        said = {part: _text(work / part) for part in ("console", "output", "status")}
    status = said["status"].strip()
    return Done(int(status) if status else None, said["output"], said["console"])


def tree(directory: Path, prefix: str) -> list[Entry]:
    """A directory's files, links and directories as entries of the archive, below `prefix`."""
    entries: list[Entry] = []
    for parent, directories, names in os.walk(directory):
        directories[:] = sorted(name for name in directories if name != "__pycache__")
        place = Path(prefix, Path(parent).relative_to(directory))
        for name in [*directories, *sorted(names)]:
            path, target = Path(parent, name), str(place / name)
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                entries.append((target, mode, os.fsencode(os.readlink(path))))
            elif stat.S_ISDIR(mode):
                entries.append((target, mode, b""))
            elif stat.S_ISREG(mode):
                entries.append((target, mode, path.read_bytes()))
    return entries


def _text(path: Path) -> str:
    return path.read_text(errors="backslashreplace") if path.exists() else ""


if __name__ == "__main__":
    print(fetch().kernel.name)
