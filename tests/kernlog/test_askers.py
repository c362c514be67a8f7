"""Who a waiting thread is to others, from its name, its stack and its work queue."""

from dataclasses import replace

import pytest
from tests.kernlog.stacks import log

from ioflusher.kernlog.reading.console import task_reports
from ioflusher.kernlog.records import DeviceServer
from ioflusher.kernlog.stacks.anatomy import dissect
from ioflusher.kernlog.stacks.askers import Asker, Service, asker_of, asking_parts

RECLAIM = "shrink_node do_try_to_free_pages try_to_free_pages __alloc_pages_slowpath "


def asker(comm: str, names: str, workqueue: str | None = None, server: DeviceServer | None = None) -> Asker:
    (report,) = task_reports(log(comm, names))
    return asker_of(replace(report, workqueue=workqueue), dissect(report.frames, comm), server=server)


@pytest.mark.parametrize(
    ("workqueue", "completes"),
    [
        ("events frob_work [dm_crypt]", "dm"),  # the module in brackets tells
        ("kcryptd kcryptd_crypt", "dm"),  # so does the function alone
        ("kcryptd_io frob_work", None),  # a queue's name is no function's, whatever it begins with
    ],
)
def test_a_works_function_tells_whose_a_cut_stack_is(workqueue: str, completes: str | None) -> None:
    """The kernel prints "Workqueue: QUEUE FUNCTION [MODULE]"."""
    found = asker("kworker/0:1", RECLAIM + "alloc_pages", workqueue)
    assert (found.completes, found.service is Service.KERNEL) == (completes, completes is not None)


def test_a_worker_that_sends_for_two_drivers_is_the_outer_ones() -> None:
    """The inner one is what the worker's own driver hands its data to."""
    names = "schedule tcp_sendmsg frob_xmit[frob] glue_send[glue] process_one_work worker_thread"
    assert asker("kworker/0:1", names).completes == "glue"


def test_who_is_known_to_serve_a_device_keeps_its_name() -> None:
    """A kernel's memory tells what a program of any name completes."""
    daemon = asker("frobd", "schedule do_syscall_64", server=DeviceServer("nbd3", 100, "frobd")).daemon
    assert daemon is not None
    assert (daemon.name, daemon.about) == ("frobd", "serves nbd3")


WRITES_BACK = "schedule io_schedule get_request_wait submit_bio ext3_writepage balance_dirty_pages "


@pytest.mark.parametrize(
    ("names", "serves"),
    [
        # the page that it writes back is another's, of FUSE: that tells nothing of its own work
        ("schedule fuse_writepage balance_dirty_pages generic_file_buffered_write sys_write", True),
        # its own write goes to FUSE, so it uses such a file system
        (WRITES_BACK + "fuse_file_write sys_write", False),
    ],
)
def test_a_throttled_writers_own_work_stands_outside_what_it_writes_back(names: str, serves: bool) -> None:
    """Before Linux 2.6.37 a throttled writer wrote pages of anybody back itself."""
    assert (asker("glusterfs", names).service is Service.DAEMON) is serves


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        ("kmem_alloc", ("xfs",)),
        ("__alloc_pages spl_kmem_alloc kmem_alloc", ("xfs",)),  # the outermost one asked
    ],
)
def test_a_stack_that_is_cut_behind_an_allocator_asks_for_its_subsystem(
    names: str, parts: tuple[str, ...]
) -> None:
    """Where nothing stands outside a subsystem's own allocator, that subsystem asked."""
    (report,) = task_reports(log("dd", RECLAIM + names))
    assert asking_parts(dissect(report.frames, "dd")) == parts
