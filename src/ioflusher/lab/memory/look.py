"""Asks a guest's memory what the observer in the guest would have told: threads, memory, requests."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ioflusher.lab.memory.evidence import GuestMemory, MemoryQuestion
from ioflusher.lab.memory.kernel import DumpUnreadableError, open_dump
from ioflusher.lab.memory.types import Program
from ioflusher.lab.messages import ThreadReport

Object = Any

# include/linux/sched.h: the bits of TASK_REPORT from the lowest on, and what is an idle kernel thread's sleep
_STATES = "RSDTtXZP"
_DEAD = "XZ"  # their stacks are freed
_TASK_REPORT = 0x7F
_TASK_NOLOAD = 0x400
_FIRST_KERNEL_ADDRESS = 1 << 63
# blk_mq_rq_state() of a request that the driver has (include/linux/blk-mq.h, MQ_RQ_IN_FLIGHT)
_IN_FLIGHT = 1
_READ, _WRITE = 0, 1  # rows of struct disk_stats (include/linux/blk_types.h, enum stat_group)


def look(file: Path, question: MemoryQuestion) -> GuestMemory:
    """What a dump of the guest's memory tells; never an error: why it tells nothing is in the record."""
    try:
        with open_dump(file) as program:
            return look_into(program, question)
    except DumpUnreadableError as error:
        return GuestMemory(unreadable=str(error))


def look_into(program: Program, question: MemoryQuestion) -> GuestMemory:
    """What the program tells."""
    from drgn.helpers.linux.pid import for_each_task

    missing: list[str] = []
    tasks = _asked(lambda: list(for_each_task(program)), "the guest's tasks", missing) or []
    daemons = _with_descendants(tasks, question.daemons)
    daemon = [task for task in tasks if task.tgid.value_() in daemons]
    others = [task for task in tasks if task.tgid.value_() not in daemons and state_letter(task) == "D"]
    requests = None
    if question.device:
        requests = _asked(lambda: _requests(program, question.device), question.device, missing)
    return GuestMemory(
        daemon=tuple(_threads(program, daemon, missing)),
        waiting=tuple(_threads(program, others, missing)),
        memory_kib=_asked(lambda: _memory_kib(program), "the guest's memory counters", missing) or {},
        completed=requests and requests[0],
        in_flight=requests and requests[1],
        missing=tuple(missing),
    )


def _asked(ask: Callable[[], Any], what: str, missing: list[str]) -> Any:
    """What `ask` says; None, and that in `missing`, where this kernel's memory does not tell."""
    import drgn

    try:
        return ask()
    except (LookupError, AttributeError, TypeError, ValueError, drgn.FaultError) as error:
        missing.append(f"{what}: {error}")
        return None


def state_letter(task: Object) -> str:
    """The letter of its run state, as fs/proc/array.c has it; `state` was `__state` from 5.14 on."""
    try:
        state = task.__state.value_()
    except AttributeError:
        state = task.state.value_()
    reported = (state | task.exit_state.value_()) & _TASK_REPORT
    if reported == 2 and state & _TASK_NOLOAD:
        return "I"
    return _STATES[reported.bit_length()]


def _with_descendants(tasks: list[Object], daemons: tuple[int, ...]) -> set[int]:
    """These processes, their children, and theirs."""
    found = set(daemons)
    parents = {task.tgid.value_(): task.real_parent.tgid.value_() for task in tasks}
    for process in parents:
        line, ancestor = [], process
        while ancestor in parents and ancestor not in line:
            line.append(ancestor)
            if ancestor in found:
                found.update(line)
                break
            ancestor = parents[ancestor]
    return found


def _threads(program: Program, tasks: list[Object], missing: list[str]) -> Iterator[ThreadReport]:
    for task in tasks:
        tid, state, stack = task.pid.value_(), state_letter(task), ""
        if state not in _DEAD:
            stack = _asked(partial(_stack, program, task), f"the stack of {tid}", missing) or ""
        yield ThreadReport(
            task.tgid.value_(),
            tid,
            task.comm.string_().decode("utf-8", "backslashreplace"),
            state,
            task.flags.value_(),
            stack=stack,
        )


def _stack(program: Program, task: Object) -> str:
    """The text of /proc/PID/task/TID/stack: without the scheduler's frames at the innermost end."""
    scheduler = range(
        program.symbol("__sched_text_start").address, program.symbol("__sched_text_end").address
    )
    lines: list[str] = []
    for frame in program.stack_trace(task):
        if frame.pc < _FIRST_KERNEL_ADDRESS:
            break  # user space
        if not lines and frame.pc in scheduler:
            continue
        try:
            # a return address may be the first byte of the next function
            symbol = program.symbol(frame.pc if frame.interrupted else frame.pc - 1)
            module = program.module(frame.pc).name
        except LookupError:
            break  # no code: by frame pointers, what was on the stack before user space called
        where = "" if module == "kernel" else f" [{module}]"
        lines.append(f"[<0>] {symbol.name}+{frame.pc - symbol.address:#x}/{symbol.size:#x}{where}\n")
    return "".join(lines)


def _memory_kib(program: Program) -> dict[str, int]:
    """Lines of /proc/meminfo (fs/proc/meminfo.c) from the counters that it is made of."""
    page_kib = program["PAGE_SIZE"].value_() >> 10
    node = {
        "Active(anon)": "NR_ACTIVE_ANON",
        "Inactive(anon)": "NR_INACTIVE_ANON",
        "Active(file)": "NR_ACTIVE_FILE",
        "Inactive(file)": "NR_INACTIVE_FILE",
        "Dirty": "NR_FILE_DIRTY",
        "Writeback": "NR_WRITEBACK",
    }
    pages = {
        "MemTotal": program["_totalram_pages"].counter.value_(),
        "MemFree": program["vm_zone_stat"][program["NR_FREE_PAGES"]].counter.value_(),
        **{name: program["vm_node_stat"][program[item]].counter.value_() for name, item in node.items()},
        "SwapTotal": program["total_swap_pages"].value_(),
        "SwapFree": program["nr_swap_pages"].counter.value_(),
    }
    return {name: max(0, count) * page_kib for name, count in pages.items()}


def _requests(program: Program, device: str) -> tuple[int, int]:
    """Requests that a device has completed, and those in flight, as in /sys/block/NAME/stat and inflight."""
    from drgn.helpers.linux.block import disk_name, for_each_disk, request_queue_busy_iter
    from drgn.helpers.linux.cpumask import for_each_online_cpu
    from drgn.helpers.linux.percpu import per_cpu_ptr

    wanted = device.removeprefix("/dev/").encode()
    disk = next((disk for disk in for_each_disk(program) if disk_name(disk) == wanted), None)
    if disk is None:
        raise LookupError("the guest has no such disk")
    part = disk.part0
    try:
        statistics = part.bd_stats
    except AttributeError:
        statistics = part.dkstats  # struct hd_struct, before 5.11
    each = [per_cpu_ptr(statistics, cpu) for cpu in for_each_online_cpu(program)]
    completed = sum(of.ios[_READ].value_() + of.ios[_WRITE].value_() for of in each)
    taken = [
        request
        for request in request_queue_busy_iter(disk.queue, tags="driver")
        if request.part and request.state.value_() == _IN_FLIGHT
    ]
    return completed, len(taken)
