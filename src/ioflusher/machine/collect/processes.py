"""Every process of the machine, as cheaply as it can be had: the first of the collector's two steps."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from ioflusher.kernel.fdinfo import parse_fdinfo
from ioflusher.kernel.status import parse_status
from ioflusher.kernel.task import Thread
from ioflusher.machine.collect.deadline import within
from ioflusher.machine.collect.device_numbers import DeviceNumbers
from ioflusher.machine.collect.limits import SnapshotLimits
from ioflusher.machine.collect.proc_files import read_small
from ioflusher.machine.collect.threads import GONE, read_threads
from ioflusher.machine.collect.unreadable_notes import Notes
from ioflusher.machine.process import SERVING_DEVICES, DeviceHandle, Process
from ioflusher.support.directories import numbers_in
from ioflusher.support.text import text_of

Wanted = Callable[[tuple[Thread, ...]], bool]


@dataclass(frozen=True, slots=True)
class Seen:
    """A process, and what of it the snapshot itself does not hold.

    Attributes:
        process: the record.
        sockets: inode numbers of the sockets that it holds.
        network: inode number of its network namespace; None for unknown.
    """

    process: Process
    sockets: tuple[int, ...] = ()
    network: int | None = None


def main_thread(pid: int, threads: tuple[Thread, ...]) -> Thread:
    """The thread that has the process's number; not always the lowest, once numbers went round."""
    return next((thread for thread in threads if thread.tid == pid), threads[0])


class ProcessReader:
    """Reads the processes below `proc`, a directory such as /proc."""

    def __init__(
        self,
        proc: str,
        notes: Notes,
        numbers: DeviceNumbers,
        limits: SnapshotLimits,
        *,
        arguments: bool = False,
    ) -> None:
        self.proc = proc
        self._notes = notes
        self._numbers = numbers
        self._limits = limits
        self._arguments = arguments

    def pids(self) -> list[int]:
        """The processes there are, lowest number first.

        Raises:
            OSError: where `proc` cannot be listed.
        """
        return numbers_in(self.proc)

    def read(self, pid: int) -> Seen | None:
        """One process; None where it is gone, or nothing of it may be read (which is noted)."""
        directory = self._open(pid)
        if directory is None:
            return None
        try:
            process = self._bare(pid, directory)
            if process is None:
                return None
            return Seen(process) if process.kernel_thread else self._program(process, directory)
        finally:
            os.close(directory)

    def read_bare(
        self, pid: int, wanted: Wanted | None = None, part: tuple[int, int] = (0, 1)
    ) -> Process | None:
        """One process without its descriptors, program and namespaces.

        None as for `read`, and where its threads are not `wanted`: then no more of it is read. `part` (n, m)
        takes of its threads from n on each m-th; its name is then that of the first of these.
        """
        directory = self._open(pid)
        if directory is None:
            return None
        try:
            return self._bare(pid, directory, wanted, part)
        finally:
            os.close(directory)

    def _open(self, pid: int) -> int | None:
        """Its directory, by which all else is read: no other process that gets its number is taken for it."""
        try:
            return os.open(f"{self.proc}/{pid}", os.O_RDONLY | os.O_DIRECTORY)
        except GONE:
            return None
        except OSError as error:
            self._notes.of_process(pid, "", error)
            return None

    def _bare(
        self, pid: int, directory: int, wanted: Wanted | None = None, part: tuple[int, int] = (0, 1)
    ) -> Process | None:
        threads = self._threads(pid, directory, part)
        if threads is None or not (wanted is None or wanted(threads[1])):
            return None
        try:
            status = parse_status(read_small("status", directory))
        except GONE:
            return None
        except (OSError, ValueError) as error:
            self._note(pid, "status", error)
            return None
        ppid, found = threads
        return Process(
            pid=pid,
            ppid=ppid,
            comm=main_thread(pid, found).comm,
            uid=status.uid,
            threads=found,
            capabilities=status.capabilities,
            locked_kib=status.locked_kib,
            swapped_kib=status.swapped_kib,
            resident_kib=status.resident_kib,
            virtual_kib=status.virtual_kib,
            oom_score_adj=self._oom_score_adj(pid, directory),
        )

    def _program(self, bare: Process, directory: int) -> Seen:
        """The rest of a process that runs a program."""
        pid = bare.pid
        sockets, handles = self._descriptors(pid, directory)
        process = replace(
            bare,
            exe=self._exe(pid, directory),
            arguments=self.arguments(pid) if self._arguments else None,
            handles=handles,
            mount_namespace=self._namespace(pid, directory, "mnt"),
        )
        return Seen(process, sockets, self._namespace(pid, directory, "net"))

    def _threads(
        self, pid: int, directory: int, part: tuple[int, int]
    ) -> tuple[int, tuple[Thread, ...]] | None:
        """The parent's number, and the threads, at least one; None as for `read`."""
        try:
            ppid, there, threads = read_threads(directory, self._limits.threads, part)
        except GONE:
            return None
        except (OSError, ValueError) as error:
            self._note(pid, "task", error)
            return None
        if there > self._limits.threads:
            self._notes.of_process(
                pid, "task", f"{there} threads; the first {self._limits.threads} are recorded"
            )
        return (ppid, threads) if threads else None

    def _oom_score_adj(self, pid: int, directory: int) -> int | None:
        try:
            return int(read_small("oom_score_adj", directory))
        except GONE:
            return None
        except (OSError, ValueError) as error:
            self._note(pid, "oom_score_adj", error)
            return None

    def _descriptors(self, pid: int, directory: int) -> tuple[tuple[int, ...], tuple[DeviceHandle, ...]]:
        """Its sockets and special devices."""
        try:
            descriptors = os.open("fd", os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
            try:
                links = self._links(pid, descriptors)
            finally:
                os.close(descriptors)
        except GONE:
            return (), ()
        except OSError as error:
            self._notes.of_process(pid, "fd", error)
            return (), ()
        sockets = {int(link[8:-1]) for _, link in links if link.startswith("socket:[")}
        special = [(name, link) for name, link in links if SERVING_DEVICES.fullmatch(link)]
        handles = {self._handle(pid, directory, name, link) for name, link in special}
        known = sorted(
            (handle for handle in handles if handle), key=lambda handle: (handle.path, handle.connection or 0)
        )
        return tuple(sorted(sockets)), tuple(known)

    def _links(self, pid: int, descriptors: int) -> list[tuple[str, str]]:
        """Those of its descriptors that may matter, each with what it leads to."""
        names = os.listdir(descriptors)
        if len(names) > self._limits.descriptors:
            self._notes.of_process(
                pid, "fd", f"{len(names)} descriptors; {self._limits.descriptors} were looked at"
            )
            names = names[: self._limits.descriptors]
        links = []
        for name in names:
            try:
                link = os.readlink(name, dir_fd=descriptors)
            except GONE:
                continue  # closed meanwhile
            # root without CAP_SYS_PTRACE may list them and read none: that is the caller's error
            if link.startswith(("socket:[", "/dev/")):
                links.append((name, link))
        return links

    def _handle(self, pid: int, directory: int, descriptor: str, link: str) -> DeviceHandle | None:
        """A special device that it has open; None where it was closed meanwhile."""
        connection = None
        if link == "/dev/fuse":
            try:
                connection = parse_fdinfo(read_small(f"fdinfo/{descriptor}", directory)).fuse_connection
            except GONE:
                return None
            except (OSError, ValueError) as error:
                self._note(pid, "fdinfo", error)
        path = text_of(os.fsencode(link))
        return DeviceHandle(path, self._numbers.of(path), connection)

    def _exe(self, pid: int, directory: int) -> str | None:
        try:
            return text_of(os.fsencode(os.readlink("exe", dir_fd=directory)))
        except GONE:
            return None
        except OSError as error:
            self._notes.of_process(pid, "exe", error)
            return None

    def _namespace(self, pid: int, directory: int, kind: str) -> int | None:
        try:
            link = os.readlink(f"ns/{kind}", dir_fd=directory)  # "mnt:[4026531841]"
        except GONE:
            return None
        except OSError as error:
            self._notes.of_process(pid, "ns", error)
            return None
        number = link.partition("[")[2].rstrip("]")
        return int(number) if number.isdecimal() else None

    def paths_named(self, pid: int) -> frozenset[str]:
        """Absolute paths that its command line may mean: words, and what follows "=" in one."""
        words = self.arguments(pid) or ()
        try:
            directory = text_of(os.readlink(os.fsencode(f"{self.proc}/{pid}/cwd")))
        except OSError:
            directory = "/"
        parts = {part for word in words[1:] for part in (word, word.partition("=")[2]) if part}
        return frozenset(os.path.normpath(os.path.join(directory, part)) for part in parts) - {"/"}

    def arguments(self, pid: int) -> tuple[str, ...] | None:
        """Its command line, cut at the limit; None where it is gone or does not answer (which is noted)."""
        limit = self._limits.argument_bytes
        try:
            data = within(
                self._limits.answer_seconds, lambda: _first(f"{self.proc}/{pid}/cmdline", limit + 1)
            )
        except GONE:
            return None
        except OSError as error:
            self._notes.of_process(pid, "cmdline", error)
            return None
        if len(data) > limit:
            self._notes.of_process(pid, "cmdline", f"longer than {limit} bytes; the rest is not recorded")
        return tuple(text_of(word) for word in data[:limit].removesuffix(b"\0").split(b"\0")) if data else ()

    def _note(self, pid: int, name: str, error: OSError | ValueError) -> None:
        self._notes.of_process(pid, name, error if isinstance(error, OSError) else str(error))


def _first(path: str, length: int) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read(length) or b""
