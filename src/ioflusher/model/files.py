"""Files that a daemon, a kernel thread or a program writes, through the page cache or past it; fs/."""

from dataclasses import dataclass
from typing import Protocol

from ioflusher.model.block import BioPool, BlockDriver, bio_alloc_bioset, bio_put
from ioflusher.model.code import Code
from ioflusher.model.gfp import GFP_HIGHUSER_MOVABLE
from ioflusher.model.linux import Linux
from ioflusher.model.memcg import mem_cgroup_charge
from ioflusher.model.memory import alloc_pages
from ioflusher.model.transitions import Changes, Variable
from ioflusher.model.versions import holds
from ioflusher.model.writeback import BackingDevice, balance_dirty_pages

# threads of a daemon at most, `count` of ioflusher.scenario.records.ThreadTable
MOST_WRITERS = 256


class File(Protocol):
    """Something that takes a buffered write, a unit at a time."""

    def write(self, code: Code, linux: Linux, also: Changes, *, realtime: bool = False) -> None:
        """file_operations.write_iter() of a unit; `also` changes with it."""


@dataclass(frozen=True, slots=True)
class BufferedFile:
    """A file of a file system, or a block device itself: a page for the data, then the dirty limits.

    Attributes:
        backing: where its dirty pages belong.
        write_iter: the functions from write_iter() to the loop over the data.
        write_begin: the functions from there to the one that asks for a page.
        direct: what writes with O_DIRECT; None where nobody does.
    """

    backing: BackingDevice
    write_iter: tuple[str, ...]
    write_begin: tuple[str, ...]
    direct: "DirectWrites | None" = None

    def write(self, code: Code, linux: Linux, also: Changes, *, realtime: bool = False) -> None:
        """generic_perform_write() or iomap_write_iter()."""
        dirty = self.backing.dirty
        with code.call(*self.write_iter):
            with code.call(*self.write_begin, "__filemap_get_folio"):
                mem_cgroup_charge(code, linux, GFP_HIGHUSER_MOVABLE)
                alloc_pages(
                    code,
                    linux,
                    GFP_HIGHUSER_MOVABLE,
                    {dirty: dirty + 1, **also},
                    realtime=realtime,
                    label=f"a page of a file on {self.backing.device.name}",
                )
            sem = self.backing.i_data_sem
            if sem is not None:
                with code.call(*self.write_begin, "ext4_da_get_block_prep", "down_read"):
                    code.wait(sem.is_(0), f"i_data_sem of a file on {self.backing.device.name}")
            balance_dirty_pages(code, linux, self.backing, realtime=realtime)

    def write_direct(self, code: Code, linux: Linux) -> None:
        """iomap_dio_rw(), fs/iomap/direct-io.c."""
        assert self.direct is not None
        device, done = self.backing.device, self.direct.done
        with code.call(self.write_iter[0], "iomap_dio_rw", "__iomap_dio_rw"):
            bio_alloc_bioset(code, linux, self.direct.pool)
            device.submit(code, "direct")
            code.step(
                "written",
                {done: done - 1},
                when=done > 0,
                waits_for=f"a write to {device.name}",
            )


@dataclass(frozen=True, slots=True)
class DirectWrites:
    """Writes with O_DIRECT to a device that takes requests of the kind "direct".

    Attributes:
        pool: of their bios. done: those that are completed and whose writers have not seen it yet.
    """

    pool: BioPool
    done: Variable


def direct_writes(linux: Linux, device: BlockDriver, pool: BioPool) -> DirectWrites:
    """Register them with the device."""
    done = linux.variable(
        f"{device.name}_direct_done",
        0,
        MOST_WRITERS,  # each may have one that is done and that it has not seen, whatever the queue holds
        what=f"direct writes to {device.name} that are done",
    )
    device.completions["direct"] = {done: done + 1, **bio_put(pool)}
    return DirectWrites(pool, done)


def ext4_file(backing: BackingDevice, direct: DirectWrites | None = None) -> BufferedFile:
    """fs/ext4/file.c, fs/ext4/inode.c with delayed allocation."""
    return BufferedFile(
        backing,
        ("ext4_file_write_iter", "ext4_buffered_write_iter", "generic_perform_write"),
        ("ext4_da_write_begin",),
        direct,
    )


def xfs_file(backing: BackingDevice) -> BufferedFile:
    """fs/xfs/xfs_file.c, fs/iomap/buffered-io.c."""
    return BufferedFile(
        backing,
        ("xfs_file_write_iter", "xfs_file_buffered_write", "iomap_file_buffered_write", "iomap_write_iter"),
        ("iomap_write_begin",),
    )


def block_device_file(
    linux: Linux, backing: BackingDevice, direct: DirectWrites | None = None
) -> BufferedFile:
    """block/fops.c; through iomap in later releases."""
    if holds("block_device_writes_by_iomap", linux.version):
        return BufferedFile(
            backing,
            ("blkdev_write_iter", "iomap_file_buffered_write", "iomap_write_iter"),
            ("iomap_write_begin",),
            direct,
        )
    return BufferedFile(
        backing, ("blkdev_write_iter", "generic_perform_write"), ("blkdev_write_begin",), direct
    )


def nfs_file(backing: BackingDevice) -> BufferedFile:
    """fs/nfs/file.c."""
    return BufferedFile(backing, ("nfs_file_write", "generic_perform_write"), ("nfs_write_begin",))
