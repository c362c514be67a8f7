"""Programs that use the device, and what else needs memory meanwhile."""

from collections.abc import Callable

from ioflusher.model.code import Code
from ioflusher.model.daemon import SYSTEM_CALL
from ioflusher.model.files import BufferedFile
from ioflusher.model.gfp import GFP_HIGHUSER_MOVABLE
from ioflusher.model.linux import Linux
from ioflusher.model.memcg import mem_cgroup_charge
from ioflusher.model.memory import alloc_pages, filemap_alloc_folio
from ioflusher.model.transitions import Changes, Expression, Variable, all_of
from ioflusher.model.xfs import XfsInodes

# the control group of whoever uses the device
WORKLOAD = "workload"


def add_writer(
    linux: Linux, file: BufferedFile, units: int, *, inodes: XfsInodes | None = None, inode_units: int = 0
) -> None:
    """Writes files, then syncs.

    Args:
        inodes: where files are created, for a file system whose inodes count; then all is read back.
        inode_units: of them, in all.
    """
    left = linux.variable("to_write", units, units, what="units that are still to be written")
    backing = file.backing
    code = Code(group=WORKLOAD)
    with code.call(*SYSTEM_CALL):
        with code.loop(), code.choice() as ways:
            journal = backing.journal
            sound = None if journal is None else journal.aborted.is_(0)
            if journal is not None:
                with ways.way(when=(left > 0) & (journal.aborted > 0)):
                    code.step("is refused", fails="EROFS: the file system can only be read")
                    code.end()
            with ways.way(when=all_of(left > 0, sound)):
                if inodes is not None and inode_units:
                    _create(code, linux, inodes, left, max(1, units // inode_units))
                with code.call("ksys_write", "vfs_write"):
                    file.write(code, linux, {left: left - 1})
            with ways.otherwise("syncs", {backing.sync_wanted: 1}):
                code.leave()
        with code.call("ksys_sync", "wb_wait_for_completion"):
            code.step(
                "all is written",
                {backing.sync_wanted: 0},
                when=backing.unwritten.is_(0),
                waits_for=f"writeback of {backing.device.name}",
            )
        if backing.journal is not None:
            with code.choice() as ways:
                with ways.way(when=backing.journal.failed > 0):
                    code.step("reads it back", fails="EIO: what was written is not there")
                    code.end()
                with ways.otherwise():
                    pass
        if inodes is not None and inode_units:
            _read_back(code, linux, inodes, units, max(1, units // inode_units))
    linux.add(code, "writer", works=True)


def _every(left: Variable, every: int) -> Expression:
    """Whether a number of so many is reached."""
    return (left - left // every * every).is_(0)


def _read_back(code: Code, linux: Linux, inodes: XfsInodes, units: int, every: int) -> None:
    """Each file is read, by a request of its own."""
    left = linux.variable("to_read", units, units, what="units that are still to be read")
    with code.loop(), code.choice() as ways:
        with ways.way(when=left > 0), code.call("ksys_read", "vfs_read"):
            inodes.read_file(code, {left: left - 1}, inode=_every(left, every))
        with ways.otherwise():
            code.leave()


def _create(code: Code, linux: Linux, inodes: XfsInodes, left: Variable, every: int) -> None:
    """A unit of inodes for each so many units of data."""
    with code.choice() as ways:
        with ways.way(when=_every(left, every)), code.call("do_sys_open"):
            inodes.create(code, {})
        with ways.otherwise():
            pass


def add_toucher(
    linux: Linux,
    units: int,
    *,
    chunk_units: int = 1,
    pause_ns: int = 0,
    passes: int = 1,
    compares: bool = False,
) -> Variable:
    """Touches anonymous memory, and touches it again in further passes.

    Args:
        compares: whether it reads all of it in the end, to compare.

    Returns:
        Units that it has not touched yet.
    """
    left = linux.variable("to_touch", units, units, what="units that are still to be touched")
    code = Code(group=WORKLOAD)
    pause_ns //= chunk_units
    _touch_all(code, linux, left, _touch, pause_ns)
    if passes > 1:
        again = units * (passes - 1)
        more = linux.variable("to_touch_again", again, again, what="units that are to be touched again")
        _touch_all(code, linux, more, _touch_again, pause_ns)
    if compares:
        unread = linux.variable("to_compare", units, units, what="units that are still to be compared")
        _touch_all(code, linux, unread, _look_at, 0)
    linux.add(code, "toucher", works=True)
    return left


def add_presser(linux: Linux, units: int, touched: Expression) -> None:
    """Touches memory of its own over and over.

    Args:
        touched: what the workload has touched, once, which goes to swap before what is touched all the time.
    """
    assert linux.swap is not None
    left = linux.variable("to_press", units, units, what="units that the pressure has not touched yet")
    code = Code()
    with code.loop(), code.choice() as ways:
        with ways.way(when=left > 0):
            _touch(code, linux, {left: left - 1})
        with ways.otherwise():
            code.leave()
    with code.loop():
        code.rest()
        code.wait(linux.swap.swapped > touched, "nothing", interruptible=True)
        linux.swap.swap_in(code, linux, {}, writes=True)
    linux.add(code, "presser")


def _touch_all(
    code: Code, linux: Linux, left: Variable, touch: Callable[[Code, Linux, Changes], None], pause_ns: int
) -> None:
    """Unit after unit, with a pause behind each, until none is left."""
    with code.loop(), code.choice() as ways:
        with ways.way(when=left > 0):
            touch(code, linux, {left: left - 1})
            if pause_ns:
                code.step("pauses", takes_ns=pause_ns)
        with ways.otherwise():
            code.leave()


def _touch(code: Code, linux: Linux, also: Changes) -> None:
    zone = linux.zone
    with code.call("asm_exc_page_fault", "exc_page_fault", "handle_mm_fault", "do_anonymous_page"):
        mem_cgroup_charge(code, linux, GFP_HIGHUSER_MOVABLE)
        gives = {zone.anonymous: zone.anonymous + 1, **also}
        alloc_pages(code, linux, GFP_HIGHUSER_MOVABLE, gives, label="touches memory")


def _touch_again(code: Code, linux: Linux, also: Changes) -> None:
    """Memory is touched in order, so that what comes next was left alone longest."""
    assert linux.swap is not None
    linux.swap.touch_again(code, linux, also)


def _look_at(code: Code, linux: Linux, also: Changes) -> None:
    assert linux.swap is not None
    linux.swap.touch_again(code, linux, also, writes=False)


def add_reader(linux: Linux, units: int, *, unit_ns: int) -> None:
    """Reads a disk over and over: its page cache is clean, and is there until it is reclaimed."""
    zone = linux.zone
    code = Code()
    with code.call(*SYSTEM_CALL, "ksys_read", "vfs_read", "filemap_read"), code.loop():
        code.rest()
        code.step("", when=zone.clean < units, waits_for="nothing", takes_ns=unit_ns, interruptible=True)
        with code.call("page_cache_ra_unbounded"):
            filemap_alloc_folio(code, linux, "reads")
    linux.add(code, "reader")
