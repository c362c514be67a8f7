"""A kernel's own memory, live or in a dump, through drgn: every task's stack, and what each really waits for.

A log shows functions; memory shows their arguments: the lock and its owner, the bio and its device, the page
and whose it is. drgn is an extra (`ioflusher[drgn]`), imported when a kernel is opened.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ioflusher.kernlog.errors import LogUnreadableError
from ioflusher.kernlog.memory.edges import DEVICES, LOCK_OWNERS, Object, Program, first_answer, text_of
from ioflusher.kernlog.reading.frames import Frame
from ioflusher.kernlog.records import NO_PLACE, DeviceServer, Event, EventKind, Record, Source, TaskReport

_EXTRA = "install the extra: pip install 'ioflusher[drgn]'"
_DEBUG = "install it (Debian: linux-image-{0}-dbg), or say where it is: --debug-info VMLINUX or DIRECTORY"


def open_kernel(dump: Path | None, debug_info: tuple[Path, ...]) -> Program:
    """A kernel to look into, with its debug information loaded.

    Args:
        dump: a kdump or ELF core of a machine; None for the kernel that runs here.
        debug_info: files (vmlinux, a module's) or directories like /usr/lib/debug, searched before the places
            where distributions put debug information.

    Raises:
        LogUnreadableError: drgn is missing, the dump cannot be used, not permitted, or no debug information.
    """
    try:
        import drgn
    except ImportError as error:
        raise LogUnreadableError(
            "a kernel's memory is read with drgn, which is not installed", hint=_EXTRA
        ) from error
    name = str(dump) if dump else "/proc/kcore"
    program = drgn.Program()
    try:
        if dump:
            program.set_core_dump(str(dump))
        else:
            program.set_kernel()
        if not program.flags & drgn.ProgramFlags.IS_LINUX_KERNEL:
            raise LogUnreadableError(f"cannot use {name}: it is no Linux kernel's memory")
    except OSError as error:
        raise LogUnreadableError(
            f"cannot read {name}: {error.strerror}",
            errno=error.errno,
            hint="only root may read a kernel's memory; /proc/kcore takes CONFIG_PROC_KCORE",
        ) from error
    except (ValueError, drgn.FaultError, LookupError) as error:
        raise LogUnreadableError(
            f"cannot use {name}: {error}",
            hint="it must be an ELF or kdump file with a VMCOREINFO note; under QEMU the machine needs "
            "-device vmcoreinfo for that",
        ) from error
    _load(program, debug_info, name)
    return program


def _load(program: Program, debug_info: tuple[Path, ...], name: str) -> None:
    import drgn

    logging.getLogger("drgn").setLevel(logging.ERROR)  # what is missing is said below
    release = _release(program)
    directories = [str(path) for path in debug_info if path.is_dir()]
    program.debug_info_options.directories = (*directories, *program.debug_info_options.directories)
    files = [str(path) for path in debug_info if not path.is_dir()]
    # modules may lack theirs; whether the kernel has its own, the next lines find out
    with suppress(drgn.MissingDebugInfoError):
        try:
            program.load_debug_info(files, default=True)
        except (OSError, ValueError) as error:
            raise LogUnreadableError(f"cannot load debug information: {error}") from error
    try:
        program["init_task"]
    except LookupError as error:
        raise LogUnreadableError(
            f"cannot use {name}: no debug information of its kernel {release} was found",
            hint=_DEBUG.format(release),
        ) from error


def _release(program: Program) -> str:
    with suppress(Exception):
        return str(program["UTS_RELEASE"].string_().decode())
    return "RELEASE"


def kernel_records(opened: Callable[[], Program]) -> Iterator[Record]:
    """What a kernel's memory tells, as records: who serves which device, free memory, every task.

    Args:
        opened: `open_kernel` with its arguments; what it raises comes with the first record.
    """
    program = opened()
    import drgn
    from drgn.helpers.linux.pid import for_each_task

    yield from _servers(program)
    yield from _zones(program)
    release = _release(program)
    for task in for_each_task(program):
        # a live kernel changes under the reader's eyes
        with suppress(drgn.FaultError):
            yield _task(program, task, release)


def _task(program: Program, task: Object, release: str) -> TaskReport:
    from drgn.helpers.linux.sched import task_state_to_char

    try:
        trace = list(program.stack_trace(task))
    except (ValueError, LookupError):
        trace = []  # it runs on a processor
    frames = tuple(_frames(program, trace))
    return TaskReport(
        comm=text_of(task.comm),
        pid=task.tgid.value_(),
        tid=task.pid.value_(),
        state=task_state_to_char(task),
        task_flags=task.flags.value_(),
        frames=frames,
        kernel=release,
        source=Source.CRASH,
        workqueue=None,
        blocked_seconds=None,
        owner=first_answer(trace, LOCK_OWNERS),
        seconds=None,
        line=None,
        offset=NO_PLACE,
        device=first_answer(trace, DEVICES),
    )


def _frames(program: Program, trace: list[Any]) -> Iterator[Frame]:
    for step in trace:
        name = step.name
        if not name or name.startswith("0x"):
            continue  # user space
        module = None
        with suppress(LookupError, ValueError):
            found = program.module(step.pc).name
            module = None if found == "kernel" else found
        yield Frame(name, None, None, module, True)


# -- facts about the machine


def _servers(program: Program) -> Iterator[DeviceServer]:
    """The processes behind nbd devices (drivers/block/nbd.c).

    A server on this machine holds the other end of the device's Unix socket. Where nobody does, who started
    the device is named (struct nbd_device, pid), which may be a client of a server elsewhere.
    """
    import drgn
    from drgn.helpers.linux.block import disk_name, for_each_disk
    from drgn.helpers.linux.pid import find_task

    for disk in for_each_disk(program):
        name = disk_name(disk).decode()
        if not name.startswith("nbd"):
            continue
        with suppress(LookupError, drgn.FaultError, AttributeError):
            device = drgn.Object(program, "struct nbd_device *", value=disk.private_data.value_())
            processes = list(_holders(program, _peers(device.config))) if device.config else []
            if not processes and (task := find_task(program, device.pid)):
                processes = [task.group_leader]
            for process in processes:
                yield DeviceServer(name, process.tgid.value_(), text_of(process.comm))


def _peers(config: Object) -> set[int]:
    """The open files at the other end of an nbd device's Unix sockets, by address."""
    import drgn

    files = set()
    for number in range(config.num_connections.value_()):
        inner = config.socks[number].sock.sk
        # AF_UNIX is 1 (include/linux/socket.h)
        if inner.__sk_common.skc_family == 1:
            peer = drgn.Object(config.prog_, "struct unix_sock *", value=inner.value_()).peer
            if peer and peer.sk_socket:
                files.add(peer.sk_socket.file.value_())
    return files


def _holders(program: Program, files: set[int]) -> Iterator[Object]:
    """The processes that have one of these files open."""
    from drgn.helpers.linux.fs import for_each_file
    from drgn.helpers.linux.pid import for_each_task

    for task in for_each_task(program) if files else ():
        leader = task.pid.value_() == task.tgid.value_()
        if leader and task.files and any(file.value_() in files for _, file in for_each_file(task)):
            yield task


def _zones(program: Program) -> Iterator[Event]:
    from drgn.helpers.linux.mmzone import for_each_online_pgdat, min_wmark_pages

    kib = program["PAGE_SIZE"].value_() >> 10
    free_item = program["NR_FREE_PAGES"].value_()
    for node in for_each_online_pgdat(program):
        for zone in node.node_zones:
            if not zone.present_pages:
                continue
            margin = (zone.vm_stat[free_item].counter.value_() - min_wmark_pages(zone)) * kib
            subject = f"node {node.node_id.value_()} {text_of(zone.name)}"
            yield Event(EventKind.ZONE, subject, subject, margin, None, None, NO_PLACE)
