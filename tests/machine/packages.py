"""The distribution's storage daemons for guests: unpacked, never installed, so that none starts here.

Installing open-iscsi, multipath-tools or tgt would enable services that take hold of a machine's disks at
its next boot. So packages are downloaded and unpacked into a directory of the lab's cache, with what they
need and this machine lacks; a guest lays that directory over its /usr.
"""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ioflusher.lab.kernels import cache_directory
from ioflusher.support.programs import find_program, run

DAEMONS = (
    *("open-iscsi", "tgt", "tcmu-runner", "multipath-tools", "dbus-daemon", "dbus-bin", "udev"),
    *("nbd-client", "nbd-server", "nbdkit", "qemu-utils", "qemu-system-common"),
    *("sshfs", "openssh-sftp-server", "fuse-overlayfs", "ntfs-3g", "fuse3"),
    *("nfs-kernel-server", "nfs-ganesha", "nfs-ganesha-vfs", "samba"),
    *("iproute2", "dmsetup", "btrfs-progs"),
)
CEPH = ("rbd-nbd", "ceph-mon", "ceph-osd", "ceph-common", "iproute2")

_INSTALLED = re.compile(r"^Inst (\S+) .*?\((\S+) ", re.MULTILINE)


def unpacked(packages: Sequence[str]) -> Path:
    """A directory with usr, etc and var of the packages and of what they need that is not installed here.

    Raises:
        LabError: where the packages are not to be had.
    """
    apt = find_program("apt-get", package="apt")
    plan = run([apt, "-s", "install", "--no-install-recommends", *packages], deadline_s=120)
    wanted = sorted(_INSTALLED.findall(plan))
    key = hashlib.sha256(repr(wanted).encode()).hexdigest()[:16]
    place = cache_directory() / "daemons" / key
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=place.parent) as name:
        archives, tree = Path(name, "archives"), Path(name, "tree")
        archives.mkdir()
        for directory in ("bin", "sbin", "lib", "lib64"):
            # the packages know some files below /lib and some below /usr/lib: one place for both
            (tree / "usr" / directory).mkdir(parents=True)
            (tree / directory).symlink_to(f"usr/{directory}")
        if wanted:
            run([apt, "download", *(package for package, _ in wanted)], deadline_s=900, cwd=archives)
        for archive in archives.glob("*.deb"):
            content = archives / "content.tar"
            run(
                ["sh", "-c", 'dpkg-deb --fsys-tarfile "$0" > content.tar', archive.name],
                deadline_s=120,
                cwd=archives,
            )
            run(
                ["tar", "-x", "--keep-directory-symlink", "-C", str(tree), "-f", str(content)], deadline_s=120
            )
        for unused in ("usr/share/doc", "usr/share/man", "usr/share/locale"):
            shutil.rmtree(tree / unused, ignore_errors=True)
        if not place.is_dir():  # another run may have been faster
            tree.rename(place)
    return place
