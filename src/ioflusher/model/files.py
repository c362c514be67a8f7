"""Files that a daemon, a kernel thread or a program writes, through the page cache or past it; fs/."""

from dataclasses import dataclass
from typing import Protocol

from ioflusher.model.block import BioPool, BlockDriver, bio_alloc_bioset, bio_put
from ioflusher.model.code import Code
from ioflusher.model.gfp import GFP_HIGHUSER_MOVABLE
from ioflusher.model.linux import Linux
from ioflusher.model.memcg import mem_cgroup_charge
from ioflusher.model.memory import alloc_pages, filemap_alloc_folio
from ioflusher.model.transitions import Changes, Variable
from ioflusher.model.versions import holds
from ioflusher.model.writeback import BackingDevice, balance_dirty_pages

# threads of a daemon at most, `count` of ioflusher.scenario.records.ThreadTable
MOST_WRITERS = 256


class File(Protocol):
    """Something that takes a buffered write, a unit at a time."""

    def write(self, code: Code, linux: Linux, also: Changes, *, realtime: bool = False) -> None:
        """file_operations.write_iter() of a unit; `also` changes with it."""

    def read(self, code: Code, linux: Linux, *, realtime: bool = False) -> None:
        """file_operations.read_iter() of a unit that is not in the page cache."""


@dataclass(frozen=True, slots=True)
class BufferedFile:
    """A file of a file system, or a block device itself: a page for the data, then the dirty limits.

    Attributes:
        backing: where its dirty pages belong.
        write_iter: the functions from write_iter() to the loop over the data.
        write_begin: the functions from there to the one that asks for a page.
        direct: requests that somebody waits for, of reads and of what writes with O_DIRECT; None where there
            are none.
        read_iter: the functions from read_iter() to filemap_read().
    """

    backing: BackingDevice
    write_iter: tuple[str, ...]
    write_begin: tuple[str, ...]
    direct: "AwaitedRequests | None" = None
    read_iter: tuple[str, ...] = ()

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
            blocks = self.backing.blocks
            if blocks is not None:
                with code.call(*self.write_begin, "ext4_da_get_block_prep", "down_read"):
                    code.wait(blocks.i_data_sem.is_(0), f"i_data_sem of a file on {self.backing.device.name}")
            balance_dirty_pages(code, linux, self.backing, realtime=realtime)

    def write_direct(self, code: Code, linux: Linux) -> None:
        """iomap_dio_rw(), fs/iomap/direct-io.c."""
        with code.call(self.write_iter[0], "iomap_dio_rw", "__iomap_dio_rw"):
            self._request(code, linux)

    def read_direct(self, code: Code, linux: Linux) -> None:
        """The same."""
        with code.call(self.read_iter[0], "iomap_dio_rw", "__iomap_dio_rw"):
            self._request(code, linux)

    def read(self, code: Code, linux: Linux, *, realtime: bool = False) -> None:
        """filemap_read(): a page, and a request for what belongs into it."""
        name = self.backing.device.name
        with code.call(*self.read_iter, "filemap_read", "filemap_get_pages"):
            with code.call("page_cache_ra_unbounded"):
                mem_cgroup_charge(code, linux, GFP_HIGHUSER_MOVABLE)
                filemap_alloc_folio(code, linux, f"a page for what is read of {name}", realtime=realtime)
            self._request(code, linux)

    def _request(self, code: Code, linux: Linux) -> None:
        assert self.direct is not None
        device, done = self.backing.device, self.direct.done
        bio_alloc_bioset(code, linux, self.direct.pool)
        device.submit(code, "direct")
        code.step(
            f"{device.name} has done it",
            {done: done - 1},
            when=done > 0,
            waits_for=f"a request of {device.name}",
        )


@dataclass(frozen=True, slots=True)
class AwaitedRequests:
    """Requests to a device that somebody waits for, of the kind "direct".

    Attributes:
        pool: of their bios. done: those that are completed and whose waiters have not seen it yet.
    """

    pool: BioPool
    done: Variable


def awaited_requests(linux: Linux, device: BlockDriver, pool: BioPool) -> AwaitedRequests:
    """Register them with the device."""
    done = linux.variable(
        f"{device.name}_direct_done",
        0,
        MOST_WRITERS,  # each may have one that is done and that it has not seen, whatever the queue holds
        what=f"requests of {device.name} that are done",
    )
    device.completions["direct"] = {done: done + 1, **bio_put(pool)}
    return AwaitedRequests(pool, done)


def ext4_file(backing: BackingDevice, direct: AwaitedRequests | None = None) -> BufferedFile:
    """fs/ext4/file.c, fs/ext4/inode.c with delayed allocation."""
    return BufferedFile(
        backing,
        ("ext4_file_write_iter", "ext4_buffered_write_iter", "generic_perform_write"),
        ("ext4_da_write_begin",),
        direct,
        ("ext4_file_read_iter", "generic_file_read_iter"),
    )


def xfs_file(backing: BackingDevice) -> BufferedFile:
    """fs/xfs/xfs_file.c, fs/iomap/buffered-io.c."""
    return BufferedFile(
        backing,
        ("xfs_file_write_iter", "xfs_file_buffered_write", "iomap_file_buffered_write", "iomap_write_iter"),
        ("iomap_write_begin",),
    )


def block_device_file(
    linux: Linux, backing: BackingDevice, direct: AwaitedRequests | None = None
) -> BufferedFile:
    """block/fops.c; through iomap in later releases."""
    read_iter = ("blkdev_read_iter",)
    if holds("block_device_writes_by_iomap", linux.version):
        by_iomap = ("blkdev_write_iter", "iomap_file_buffered_write", "iomap_write_iter")
        return BufferedFile(backing, by_iomap, ("iomap_write_begin",), direct, read_iter)
    by_page = ("blkdev_write_iter", "generic_perform_write")
    return BufferedFile(backing, by_page, ("blkdev_write_begin",), direct, read_iter)


def nfs_file(backing: BackingDevice) -> BufferedFile:
    """fs/nfs/file.c."""
    return BufferedFile(backing, ("nfs_file_write", "generic_perform_write"), ("nfs_write_begin",))
