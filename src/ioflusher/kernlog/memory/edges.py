"""What a stack's own variables say in a kernel's memory: whose lock, which device.

Two tables: how a function begins, one of its variables, and how the answer is reached from there.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

# drgn's objects have no static types
Program = Any
Object = Any
Table = tuple[tuple[str, str, Callable[[Object], Any]], ...]


def text_of(characters: Object) -> str:
    """An array of characters as text."""
    return str(characters.string_().decode("utf-8", "replace"))


def first_answer(trace: Sequence[Any], table: Table) -> Any:
    """The innermost answer: the first frame whose function begins so and has such a variable."""
    import drgn

    for step in trace:
        for function, variable, answer in table:
            if not (step.name or "").startswith(function):
                continue
            # the compiler may have optimised the variable away
            with suppress(KeyError, LookupError, drgn.FaultError, drgn.ObjectAbsentError, AttributeError):
                if (found := answer(step[variable])) is not None:
                    return found
    return None


def _task_name(task: Object) -> tuple[str, int] | None:
    return (text_of(task.comm), task.pid.value_()) if task else None


def _mutex_owner(lock: Object) -> tuple[str, int] | None:
    from drgn.helpers.linux.locking import mutex_owner

    return _task_name(mutex_owner(lock))


def _rwsem_owner(lock: Object) -> tuple[str, int] | None:
    from drgn.helpers.linux.locking import rwsem_owner

    return _task_name(rwsem_owner(lock))


def _disk(block_device: Object) -> str | None:
    return text_of(block_device.bd_disk.disk_name) if block_device else None


def _queue_device(queue: Object) -> str | None:
    return text_of(queue.disk.disk_name) if queue.disk else None


def _folio_device(folio: Object) -> str | None:
    """The device that holds a page: its file system's, or its swap area's."""
    mapping = folio.mapping.value_()
    # PAGE_MAPPING_ANON: the lowest bit (include/linux/page-flags.h); such a page's place is in swap
    if mapping & 1 or not mapping:
        return _swap_device(folio)
    super_block = folio.mapping.host.i_sb
    return _disk(super_block.s_bdev) or text_of(super_block.s_id)


def _swap_device(folio: Object) -> str | None:
    # include/linux/swapops.h: the area's number stands above SWP_TYPE_SHIFT, 63 - MAX_SWAPFILES_SHIFT
    area = folio.prog_["swap_info"][folio.swap.val.value_() >> 58]
    return _disk(area.bdev) if area else None


def _dirtiest(program: Program) -> str | None:
    """The disk with most pages to be written: the one that a throttled writer waits for."""
    from drgn.helpers.linux.block import disk_name, for_each_disk

    items = [program[name].value_() for name in ("WB_RECLAIMABLE", "WB_WRITEBACK")]
    pages = {
        disk_name(disk).decode(): sum(disk.bdi.wb.stat[item].count.value_() for item in items)
        for disk in for_each_disk(program)
        if disk.bdi
    }
    return max(pages, key=pages.__getitem__) if any(pages.values()) else None


LOCK_OWNERS: Table = (
    ("__mutex_lock", "lock", _mutex_owner),
    ("mutex_lock", "lock", _mutex_owner),
    ("rwsem_down_", "sem", _rwsem_owner),
)
# function, one of its variables, how a device's name is reached from there
DEVICES: Table = (
    ("blk_mq_get_tag", "data", lambda data: _queue_device(data.q)),
    ("bio_alloc_bioset", "bdev", _disk),
    ("blk_mq_submit_bio", "bio", lambda bio: _disk(bio.bi_bdev)),
    ("__submit_bio", "bio", lambda bio: _disk(bio.bi_bdev)),
    ("submit_bio", "bio", lambda bio: _disk(bio.bi_bdev)),
    ("blk_mq_submit_bio", "q", _queue_device),
    ("blk_mq_dispatch_rq_list", "hctx", lambda hctx: _queue_device(hctx.queue)),
    ("blk_mq_plug_issue_direct", "rq", lambda request: _queue_device(request.q)),
    ("__blk_mq_issue_directly", "rq", lambda request: _queue_device(request.q)),
    ("nbd_", "nbd", lambda nbd: text_of(nbd.disk.disk_name)),
    ("swap_writepage", "sis", lambda area: _disk(area.bdev)),
    ("swap_writepage", "folio", _swap_device),
    ("__swap_writepage", "folio", _swap_device),
    ("folio_wait_", "folio", _folio_device),
    ("shrink_folio_list", "folio", _folio_device),
    ("pageout", "folio", _folio_device),
    ("xfs_buf_iowait", "bp", lambda buffer: _disk(buffer.b_target.bt_bdev)),
    ("balance_dirty_pages", "wb", lambda wb: _dirtiest(wb.prog_)),
    ("super_cache_scan", "sb", lambda super_block: _disk(super_block.s_bdev)),
)
