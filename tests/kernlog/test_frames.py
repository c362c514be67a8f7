"""Frame lines in the forms of kernels, tools and scripts."""

import pytest

from ioflusher.kernlog.reading.frames import Frame, parse_frame, parse_proc_stack


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        (" schedule+0x30/0xb0", Frame("schedule", 0x30, 0xB0, None, True)),
        ("[<0>] nbd_ioctl+0x1/0x2 [nbd]", Frame("nbd_ioctl", 1, 2, "nbd", True)),
        (" ? shrink_slab.part.40+0x1fa/0x430", Frame("shrink_slab.part.40", 0x1FA, 0x430, None, False)),
        (" [<ffffffff8173f405>] ? foo+0x1/0x2 [xfs]", Frame("foo", 1, 2, "xfs", False)),
        (
            " smb2_reconnect+0x33c/0x610 [cifs cb6635f7865b]",
            Frame("smb2_reconnect", 0x33C, 0x610, "cifs", True),
        ),
        (" nfsd_read+0xa7/0x1c0 [nfsd(OE)]", Frame("nfsd_read", 0xA7, 0x1C0, "nfsd", True)),
        ("[c0000000fe] [c00000000] .schedule+0x1/0x2 (unreliable)", Frame("schedule", 1, 2, None, False)),
        (" __switch_to+0x244/0x4e4 (T)", Frame("__switch_to", 0x244, 0x4E4, None, True)),
        (" do_truncate+0x58/0xa0              # takes i_mutex", Frame("do_truncate", 0x58, 0xA0, None, True)),
        ("xfs_bwrite+0x25/0x60 [xfs]\t<-- it issues I/O", Frame("xfs_bwrite", 0x25, 0x60, "xfs", True)),
        ("? lock_page (mm/filemap.c:12 (discriminator 3)) ", Frame("lock_page", None, None, None, False)),
        (" do_fsync fs/sync.c:212 [inline]", Frame("do_fsync", None, None, None, True)),
        (" do_fsync+0x1/0x2 fs/sync.c:212", Frame("do_fsync", 1, 2, None, True)),
        (
            " #2 [ffff8813dedfb938] schedule at ffffffff8173f405 [dm_bufio]",
            Frame("schedule", None, None, "dm_bufio", True),
        ),
        ("#3  shrink_slab+0x9c/0x2a0 (mm/vmscan.c:1:2)", Frame("shrink_slab", 0x9C, 0x2A0, None, True)),
        (
            "#2  0xffffffff81e0f2ca in schedule () at kernel/sched/core.c:6634",
            Frame("schedule", None, None, None, True),
        ),
        (" #3 [ffffb3] io_schedule+0xd0 at ffffffffb6a69ab0", Frame("io_schedule", None, None, None, True)),
        # ZFS's sdb: far to the right, without sizes
        (f"{' ' * 19}zio_free_gang+0x38", Frame("zio_free_gang", 0x38, None, None, True)),
        ("[<c08>] (schedule) from [<c07>] (foo+0x1/0x2)", Frame("schedule", None, None, None, True)),
    ],
)
def test_a_frame_of_every_form_is_read(text: str, frame: Frame) -> None:
    """The symbol, its place, the module and the doubt come out of every source's line."""
    assert parse_frame(text) == frame


@pytest.mark.parametrize(
    "text",
    [
        "RIP: 0010:shrink_slab+0x1/0x2",
        "Workqueue: dm-thin do_worker",
        "#0: ffff8881 (&rq->lock){-.-.}-{2:2}, at: raw_spin_rq_lock+0x2b/0x50",
        "pc : el0_svc+0x1/0x2",
        "shrink_slab+0x1",
        "Call Trace:",
        "the daemon (see mm/vmscan.c) waits",
        "shrink_slab+0x1/0x2 is where it waits",
        "",
    ],
)
def test_what_only_looks_like_a_frame_is_none(text: str) -> None:
    """Registers, lock lists and prose are no return addresses."""
    assert parse_frame(text) is None


def test_a_proc_stack_keeps_its_order() -> None:
    """/proc/PID/stack prints the innermost frame first, and so do we; foreign lines vanish."""
    text = "[<0>] do_epoll_wait+0x1/0x2\n[<0>] __x64_sys_epoll_wait+0x3/0x4\n"
    text += "[<ffffffffffffffff>] 0xffffffffffffffff\n"
    assert [frame.function for frame in parse_proc_stack(text)] == ["do_epoll_wait", "__x64_sys_epoll_wait"]


def test_a_compilers_suffix_is_no_part_of_the_name() -> None:
    """The table knows a function by the name in the source."""
    assert Frame("shrink_slab.part.40", 1, 2, None, True).name == "shrink_slab"
