"""A kept half as the log that it is: its console and the daemon's stacks, diagnosed as those of any machine.

What a log alone cannot tell, the lab knows: which processes serve the device. It is told to the diagnosis, so
that a daemon of any name is recognised.
"""

from collections.abc import Iterator
from dataclasses import replace

from ioflusher.kernlog.fleet import LogResult, Options, diagnose_records
from ioflusher.kernlog.reading.console import parse_console
from ioflusher.kernlog.reading.frames import parse_proc_stack
from ioflusher.kernlog.records import NO_PLACE, DeviceServer, Record, Source, TaskReport
from ioflusher.lab.outcome import DaemonThread, Experiment, Half, OneHalf, Plan, Run


def explain_experiment(
    experiment: Experiment, name: str, options: Options, *, only: OneHalf | None = None
) -> Iterator[LogResult]:
    """The diagnosis of every half that was played, in their order; with `only`, of those halves alone.

    Args:
        experiment: one that was kept.
        name: what messages call it, such as "run 17".
        options: as for any log.
        only: which halves; None for both.
    """
    runs = [*experiment.runs, *([experiment.unfinished] if experiment.unfinished else [])]
    for number, run in enumerate(runs, start=1):
        called = name if len(runs) == 1 else f"{name}.{number}"
        for half in _wanted(run, only):
            state = "with" if half.io_flusher else "without"
            yield explain_half(half, experiment.plan, f"{called}, {state} the state", options)


def _wanted(run: Run, only: OneHalf | None) -> tuple[Half, ...]:
    return tuple(half for half in run.halves if only in (None, "with" if half.io_flusher else "without"))


def explain_half(half: Half, plan: Plan, name: str, options: Options) -> LogResult:
    """The diagnosis of one half; `name` is what messages call it."""
    return diagnose_records(name, lambda: half_records(half, plan), options)


def half_records(half: Half, plan: Plan) -> Iterator[Record]:
    """Who serves the device, then the stacks that the observer read, then what stands on the console."""
    device = f"the scenario's {plan.definition.device.kind} device"
    daemons = {thread.tid: _process(thread, half) for thread in half.threads}
    for thread in half.threads:
        if thread.tid == daemons[thread.tid]:
            yield DeviceServer(device, thread.tid, thread.comm)
    for thread in half.threads:
        if frames := parse_proc_stack(thread.stack):
            yield TaskReport(
                comm=thread.comm,
                pid=daemons[thread.tid],
                tid=thread.tid,
                # read a moment before the stack: a throttled thread wakes now and then
                state=None if thread.state == "R" else thread.state,
                task_flags=thread.flags,
                frames=frames,
                kernel=plan.kernel,
                source=Source.PROC,
                workqueue=None,
                blocked_seconds=None,
                owner=None,
                seconds=None,
                line=None,
                offset=NO_PLACE,
            )
    for record in parse_console(half.console.encode("utf-8", "backslashreplace")):
        if isinstance(record, TaskReport) and record.tid in daemons:
            # older kernels print no process with a thread
            record = replace(record, pid=daemons[record.tid])
        yield record


def _process(thread: DaemonThread, half: Half) -> int:
    """The thread's process; in runs that were kept without it, that of the first thread, a process's own."""
    return thread.pid or half.threads[0].tid
