"""Runs inside a guest, as root: rbd-nbd and krbd on a Ceph cluster of one monitor and one store in memory.

Usage: guest_rbd.py TREE, the directory of `packages.unpacked`. Prints what `guest.play` prints.
"""

import sys
from pathlib import Path

from tests.machine.guest import RUN, lay_over, play, run, until, write


def rbd_nbd() -> None:
    """The cluster, and an image of it as a disk."""
    cluster, osd = "11111111-2222-4333-8444-555555555555", "22222222-2222-4333-8444-555555555555"
    for name in ("ceph", "mon", "osd"):
        (RUN / name).mkdir()
    Path("/etc/ceph").mkdir(exist_ok=True)
    monitor = "[v2:127.0.0.1:3300,v1:127.0.0.1:6789]"
    no_keys = (f"auth {what} required = none\n" for what in ("cluster", "service", "client"))
    write(
        Path("/etc/ceph/ceph.conf"),
        f"[global]\nfsid = {cluster}\nmon host = {monitor}\nmon data = {RUN}/mon\nosd data = {RUN}/osd\n"
        f"public addr = 127.0.0.1\nlog file = {RUN}/ceph/$name.log\n{''.join(no_keys)}"
        "mon allow pool size one = true\nosd pool default size = 1\nosd crush chooseleaf type = 0\n"
        "osd objectstore = memstore\nmemstore device bytes = 134217728\n",
    )
    run("monmaptool", "--create", "--addv", "a", monitor, "--fsid", cluster, f"{RUN}/monmap")
    run("ceph-mon", "--mkfs", "-i", "a", "--monmap", f"{RUN}/monmap")
    run("ceph-mon", "-i", "a")
    run("ceph", "osd", "new", osd)
    run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
    run("ceph-osd", "-i", "0")
    run("ceph", "osd", "pool", "create", "rbd", "1")
    run("rbd", "create", "--size", "16", "rbd/image")
    run("rbd-nbd", "map", "--device", "/dev/nbd0", "rbd/image")


def krbd() -> None:
    """The kernel's own client: what `rbd map` writes."""
    run("rbd", "create", "--size", "16", "--image-feature", "layering", "rbd/kernel")
    write(Path("/sys/bus/rbd/add_single_major"), "127.0.0.1:6789 name=admin rbd kernel -")
    until("rbd0", Path("/sys/block/rbd0").exists)
    run("dd", "if=/dev/rbd0", "of=/dev/null", "bs=64k", "count=4", "iflag=direct")


if __name__ == "__main__":
    lay_over(sys.argv[1])
    play("all", rbd_nbd)
    play("krbd", krbd)
