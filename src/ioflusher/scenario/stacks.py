"""The stacks that a scenario may name: ways from a block device to a daemon in user space that serves it.

A row says what has to be known before anything boots; `ioflusher.lab.stacks` has what plays it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ioflusher.scenario.records import Store


# what lies on a block device: swap, or a file system
BLOCK_USES = ("swap", "ext4", "xfs", "btrfs")


@dataclass(frozen=True, slots=True)
class StackRow:
    """A kind of stack.

    Attributes:
        kind: its name in a scenario, `device.kind`.
        modules: kernel modules, with options, that it needs; a scenario may name them itself.
        places: for each `daemon.store` that the stack can use, the placeholders that `daemon.command` and
            `daemon.setup` must hold, each replaced by a path or an address in the guest.
        example: a `daemon.command`, for messages.
        own_daemon: whether there is a daemon of ours for a scenario without `daemon.command`.
        packages: the distribution's packages that it needs beside the daemon, each with a program of it.
        uses: what `device.use` may be.
        remote: the protocol of the server outside, for `daemon.store` "remote".
        faults: the kinds of `fault.kind` that it knows beside those that every stack has.
    """

    kind: str
    modules: tuple[str, ...]
    places: Mapping["Store", tuple[str, ...]]
    example: tuple[str, ...]
    own_daemon: bool = False
    packages: Mapping[str, str] = field(default_factory=dict)
    uses: tuple[str, ...] = BLOCK_USES
    remote: Literal["nbd", "iscsi"] = "nbd"
    faults: tuple[str, ...] = ()


STACKS: dict[str, StackRow] = {
    row.kind: row
    for row in (
        StackRow(
            kind="nbd",
            modules=("nbd nbds_max=1",),
            places={
                "file": ("{socket}", "{file}"),
                "disk": ("{socket}", "{file}"),
                "remote": ("{socket}", "{remote}"),
                "own": ("{socket}",),
            },
            example=("nbdkit", "-f", "-U", "{socket}", "file", "{file}"),
            own_daemon=True,
            faults=("connection-cut",),
        ),
        StackRow(
            kind="nbd-tcp",
            modules=("nbd nbds_max=1",),
            places={
                "file": ("{port}", "{file}"),
                "disk": ("{port}", "{file}"),
                "remote": ("{port}", "{remote}"),
                "own": ("{port}",),
            },
            example=("nbdkit", "-f", "-p", "{port}", "file", "{file}"),
            own_daemon=True,
            faults=("connection-cut",),
        ),
        StackRow(
            kind="nbd-device",
            modules=("nbd nbds_max=1",),
            places={
                "file": ("{device}", "{file}"),
                "disk": ("{device}", "{file}"),
                "own": ("{device}",),
            },
            example=("qemu-nbd", "-v", "-f", "raw", "-c", "{device}", "{file}"),
        ),
        StackRow(
            kind="fuse",
            modules=("fuse", "loop max_loop=1"),
            places={"file": ("{directory}", "{mount}"), "disk": ("{file}", "{mount}")},
            example=("bindfs", "-f", "{directory}", "{mount}"),
            own_daemon=True,
        ),
        StackRow(
            kind="stacked",
            modules=("nbd nbds_max=1", "fuse", "loop max_loop=1"),
            places={"file": ("{socket}", "{file}")},
            example=("nbdkit", "-f", "-U", "{socket}", "file", "{file}"),
            own_daemon=True,
            faults=("connection-cut",),
        ),
        StackRow(
            kind="ublk",
            modules=("ublk_drv",),
            places={"file": ("{file}",), "disk": ("{file}",)},
            example=("ublk", "add", "-t", "loop", "--foreground", "-f", "{file}"),
            own_daemon=True,
        ),
        StackRow(
            kind="tcmu",
            modules=("target_core_user", "tcm_loop", "sd_mod"),
            places={"file": ()},
            example=("tcmu-runner",),
            packages={"dbus": "dbus-daemon", "qemu-utils": "qemu-img"},
        ),
        StackRow(
            kind="iscsi",
            modules=("iscsi_tcp", "sd_mod"),
            places={"file": ("{portal}", "{file}"), "disk": ("{portal}", "{file}")},
            example=("my-target", "{portal}", "{file}"),
            packages={"open-iscsi": "iscsid"},
        ),
        StackRow(
            kind="iscsid",
            modules=("virtio_net", "iscsi_tcp", "sd_mod", "iscsi_target_mod", "target_core_file"),
            places={store: ("{initiatorname}", "{config}") for store in ("remote", "file")},
            example=("iscsid", "--foreground", "--initiatorname={initiatorname}", "--config={config}"),
            packages={"open-iscsi": "iscsiadm", "tgt": "tgtd"},
            remote="iscsi",
            faults=("connection-cut",),
        ),
        StackRow(
            kind="multipath",
            modules=("sd_mod", "dm_multipath", "dm_round_robin", "dm_service_time"),
            places={"own": ()},
            example=("multipathd", "-d"),
            packages={"multipath-tools": "multipathd", "udev": "/lib/systemd/systemd-udevd"},
            faults=("paths-offline",),
        ),
        StackRow(
            kind="nfs",
            modules=("nfsv4",),
            places={"file": ("{directory}", "{port}")},
            example=("my-nfs-server", "{directory}", "{port}"),
            packages={"nfs-common": "mount.nfs4"},
            uses=("nfs",),
        ),
    )
}
