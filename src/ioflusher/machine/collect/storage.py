"""The storage side of a snapshot: block devices, mounts, swap, and what user space stands behind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ioflusher.machine.collect.block import collect_block
from ioflusher.machine.collect.fuse import collect_fuse
from ioflusher.machine.collect.iscsi import collect_iscsi
from ioflusher.machine.collect.mounts import Devices, collect_mounts, collect_swaps
from ioflusher.machine.collect.nvme import collect_nvme
from ioflusher.machine.collect.tcmu import collect_tcmu
from ioflusher.machine.collect.tree import Tree
from ioflusher.machine.endpoints import FuseConnection, IscsiSession, NvmeController, TcmuDevice
from ioflusher.machine.storage import BlockDevice, Mount, Swap


@dataclass(frozen=True, slots=True)
class Storage:
    """The fields of the same names in a Snapshot."""

    devices: tuple[BlockDevice, ...]
    mounts: tuple[Mount, ...]
    swaps: tuple[Swap, ...]
    iscsi: tuple[IscsiSession, ...]
    tcmu: tuple[TcmuDevice, ...]
    fuse: tuple[FuseConnection, ...]
    nvme: tuple[NvmeController, ...]


def collect_storage(tree: Tree, namespaces: Mapping[int, Sequence[int]] | None = None) -> Storage:
    """What the machine stores on, read through `tree`, which notes all that could not be read.

    `namespaces`: the mount namespaces with their processes, from who has looked at those already; None: all
    processes are looked at for that.
    """
    devices = collect_block(tree)
    names = Devices(tree, devices)
    mounts = collect_mounts(tree, names, namespaces)
    return Storage(
        devices=devices,
        mounts=mounts,
        swaps=collect_swaps(tree, names, mounts),
        iscsi=collect_iscsi(tree, devices),
        tcmu=collect_tcmu(tree),
        fuse=collect_fuse(tree, mounts),
        nvme=collect_nvme(tree, devices),
    )
