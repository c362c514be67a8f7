"""What a frozen half of the model would have in its kernel's log: the hung tasks, then all that wait.

The lines are the kernel's own (kernel/hung_task.c, check_hung_task(); kernel/sched/core.c, sched_show_task();
sysrq-t behind them), and `ioflusher diagnose` reads them. What the model does not know is left out: a frame
has its place in the stack and its function's name, as debuggers print it, and no offsets.
"""

from collections.abc import Iterator

from ioflusher.kernel.task_flags import Version
from ioflusher.model.run import RunResult, Waiting

# sysctl_hung_task_timeout_secs, CONFIG_DEFAULT_HUNG_TASK_TIMEOUT
HUNG_TASK_TIMEOUT_S = 120


def hung_task_log(result: RunResult, release: str, *, hardware: frozenset[int] = frozenset()) -> str:
    """The log, its last line ended.

    Args:
        result: of a run that froze.
        release: of Linux, such as "6.12".
        hardware: numbers of what is no task, and so in no log.
    """
    tasks = [task for task in result.waiting if task.pid not in hardware]
    found = release.split(".")
    version = int(found[0]), int(found[1])
    hung = [task for task in tasks if task.state == "D"]
    at_s = result.at_ns / 1e9 + HUNG_TASK_TIMEOUT_S
    lines = [f"Linux version {release}.0-model (ioflusher model) #1 SMP"]
    for task in hung:
        lines.append(
            f"INFO: task {task.program}:{task.pid} blocked for more than {HUNG_TASK_TIMEOUT_S} seconds."
        )
        lines.append(f"      Not tainted {release}.0-model #1")
        lines.append('"echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.')
        lines += _task(task, version)
    lines.append("sysrq: Show State" if version >= (4, 20) else "SysRq : Show State")
    for task in tasks:
        if task not in hung:
            lines += _task(task, version)
    return "".join(f"[{0 if not number else at_s:12.6f}] {line}\n" for number, line in enumerate(lines))


def _task(task: Waiting, version: Version) -> Iterator[str]:
    """sched_show_task(): a head and the stack."""
    if version < (5, 9):  # columns without names
        yield f"{task.program:<15.15} {task.state}{0:5d} {task.pid:5d} {2:6d} 0x{0:08x}"
    else:
        # Linux 6.1 has no tgid, 6.12 has; task_flags since 6.14
        tgid = f"tgid:{task.pid:<5d} " if version >= (6, 7) else ""
        flags = f"task_flags:0x{task.flags:04x} " if version >= (6, 14) else ""
        yield (
            f"task:{task.program:<15.15} state:{task.state} stack:0     pid:{task.pid:<5d} "
            f"{tgid}ppid:2      {flags}flags:0x00000000"
        )
    if not task.calls:
        return  # it waits in user space, or for what the model has no function for
    yield "Call Trace:"
    if version >= (5, 16):
        yield " <TASK>"
    for number, function in enumerate(task.calls):
        yield f" #{number} {function}"
    if version >= (5, 16):
        yield " </TASK>"
