"""Halves of experiments put together by hand, one for each outcome that there is."""

from ioflusher.kernlog.reading.frames import parse_proc_stack
from ioflusher.kernlog.stacks.waits import explain_stack
from ioflusher.lab.near_misses import NearMisses, ReclaimEntries
from ioflusher.lab.outcome import (
    DaemonThread,
    Experiment,
    Half,
    HalfOutcome,
    HostLoad,
    OneHalf,
    Plan,
    Run,
    Sample,
)
from ioflusher.scenario.file import builtin_scenarios, parse_scenario

# as a guest with kernel 6.12 printed it: the daemon's send allocated memory, reclaim wrote to its own device
STACK_IN_RECLAIM = """\
[<0>] nbd_queue_rq+0x1a2/0x400 [nbd]
[<0>] __blk_mq_issue_directly+0x48/0xb0
[<0>] blk_mq_flush_plug_list+0x5a3/0x690
[<0>] blk_finish_plug+0x29/0x40
[<0>] shrink_lruvec+0x8fa/0xd40
[<0>] shrink_node+0x2b6/0x730
[<0>] do_try_to_free_pages+0xcd/0x600
[<0>] try_to_free_pages+0xe6/0x200
[<0>] __alloc_pages_slowpath.constprop.0+0x37b/0xdc0
[<0>] __alloc_skb+0x5e/0x1b0
[<0>] tcp_stream_alloc_skb+0x36/0x150
[<0>] tcp_sendmsg_locked+0x9d1/0xee0
[<0>] tcp_sendmsg+0x2c/0x50
[<0>] __sys_sendmsg+0x9a/0xf0
[<0>] do_syscall_64+0x82/0x190
[<0>] entry_SYSCALL_64_after_hwframe+0x76/0x7e
"""
STACK_IDLE = "[<0>] do_epoll_wait+0x61a/0x7a0\n[<0>] __x64_sys_epoll_wait+0x6f/0x110\n"
PF_MEMALLOC_NOIO_LOCAL_THROTTLE = 0x00180000


def thread(stack: str, *, io_flusher: bool, tid: int = 169, comm: str = "python") -> DaemonThread:
    """A thread of the daemon with its stack explained."""
    return DaemonThread(
        tid=tid,
        comm=comm,
        state="D" if stack == STACK_IN_RECLAIM else "S",
        flags=0x00400940 | (PF_MEMALLOC_NOIO_LOCAL_THROTTLE if io_flusher else 0),
        io_flusher=io_flusher,
        explanation=explain_stack(parse_proc_stack(stack)) if stack else None,
        stack=stack,
    )


def samples(completed: int) -> tuple[Sample, ...]:
    """Four looks at a guest whose memory fills up."""
    free = (102 << 10, 40 << 10, 9 << 10, 12 << 10)
    return tuple(
        Sample(
            time_s=float(number),
            completed=completed * number // 3,
            in_flight=2 if number == 3 else 0,
            memory_kib={
                "MemFree": kib,
                "Active(file)": 80 << 10,
                "Inactive(file)": 40 << 10,
                "Dirty": 512,
                "Writeback": 1434,
            },
        )
        for number, kib in enumerate(free)
    )


FROZEN = Half(
    io_flusher=False,
    outcome=HalfOutcome.FROZEN,
    detail="The daemon waits for itself: its tcp_sendmsg() allocated memory.",
    boot_s=3.3,
    wall_s=21.9,
    when_s=3.1,
    completed=10,
    in_flight=2,
    samples=samples(10),
    threads=(
        thread(STACK_IDLE, io_flusher=False, tid=168),
        thread(STACK_IN_RECLAIM, io_flusher=False, tid=169),
    ),
    waiting=(("kswapd0", "it waits for I/O, in the kernel's own reclaim thread"),),
    console="[    0.000000] Linux version 6.12.117\n[    9.1] nbd0: detected capacity change\n",
    near_misses=NearMisses(
        reclaim=(
            ReclaimEntries("GFP_KERNEL", io=True, fs=True, cgroup=False, entered=31, spent_s=9.5),
            ReclaimEntries("GFP_NOFS|__GFP_NOWARN", io=True, fs=False, cgroup=False, entered=4, spent_s=0.25),
        ),
        throttled_s=0.021,
        dirty_pauses=0,
        dirty_paused_s=0.0,
        longest_request_s=8.2,
        oldest_in_flight_s=8.2,
    ),
)
FROZEN_UNSEEN = Half(
    io_flusher=False,
    outcome=HalfOutcome.FROZEN,
    detail="None of the daemon's threads was seen waiting for itself.",
    boot_s=3.0,
    wall_s=22.0,
    when_s=4.0,
    completed=12,
    in_flight=1,
    samples=samples(12),
    threads=(thread(STACK_IDLE, io_flusher=False),),
)
FINISHED = Half(
    io_flusher=True,
    outcome=HalfOutcome.FINISHED,
    detail="All that was written came back.",
    boot_s=2.8,
    wall_s=20.3,
    when_s=10.1,
    completed=776,
    in_flight=0,
    verified_bytes=188 << 20,
    wrong_chunks=0,
    samples=samples(776),
    threads=(thread("", io_flusher=True, tid=168), thread("", io_flusher=True, tid=169)),
    near_misses=NearMisses(
        reclaim=(ReclaimEntries("GFP_NOIO", io=False, fs=False, cgroup=True, entered=1, spent_s=0.02),),
        throttled_s=None,
        dirty_pauses=3,
        dirty_paused_s=0.6,
        longest_request_s=0.31,
        oldest_in_flight_s=0.0,
        events_lost=True,
    ),
)
WRONG = Half(
    io_flusher=True,
    outcome=HalfOutcome.FINISHED,
    detail="3 chunks came back wrong.",
    boot_s=2.8,
    wall_s=20.3,
    when_s=10.1,
    completed=776,
    verified_bytes=188 << 20,
    wrong_chunks=3,
    samples=samples(776),
    threads=(thread("", io_flusher=True),),
)
OUT_OF_MEMORY = Half(
    io_flusher=True,
    outcome=HalfOutcome.OUT_OF_MEMORY,
    detail="The kernel killed 1 process(es).",
    boot_s=2.9,
    wall_s=12.0,
    when_s=5.0,
    completed=20,
    samples=samples(20),
    threads=(thread("", io_flusher=True),),
)
PANICKED = Half(
    io_flusher=True,
    outcome=HalfOutcome.PANICKED,
    detail="The kernel panicked.",
    boot_s=2.9,
    wall_s=9.0,
    completed=5,
    samples=samples(5),
    console_tail="[    8.9] Kernel panic - not syncing: sysrq triggered crash\n[    8.9] ---[ end ]---",
)
LOST = Half(
    io_flusher=True,
    outcome=HalfOutcome.LOST,
    detail="Neither done nor frozen after 150 s.",
    boot_s=2.9,
    wall_s=150.4,
    console_tail="[  150.1] last words",
)
BY_NAME = {
    "frozen": FROZEN,
    "frozen-unseen": FROZEN_UNSEEN,
    "finished": FINISHED,
    "wrong": WRONG,
    "out-of-memory": OUT_OF_MEMORY,
    "panicked": PANICKED,
    "lost": LOST,
}
PROVED = Run(FROZEN, FINISHED, began_at=1764072000.0, host=HostLoad(cpus=2, before=0.5, after=1.25))


def plan(*, runs: int = 1, only: OneHalf | None = None) -> Plan:
    """What the experiments of these tests have in common."""
    return Plan(
        scenario="swap-on-nbd",
        title="swap on a network block device",
        served="/dev/nbd0 holds the machine's swap; a Python daemon serves it",
        pressed="one process touches 188 MiB of memory on a machine of 400 MiB",
        definition=parse_scenario(builtin_scenarios()["swap-on-nbd"]),
        kernel="6.12.117",
        accelerator="emulated",
        machine="400 MiB, 1 CPU",
        only=only,
        runs=runs,
    )


def experiment(*runs: Run, only: OneHalf | None = None) -> Experiment:
    """A complete experiment of these runs."""
    return Experiment(plan(runs=len(runs), only=only), runs)
