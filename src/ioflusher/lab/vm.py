"""A running virtual machine: started with its sockets already listening, never outliving its `with` block."""

import contextlib
import queue
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from ioflusher.kernlog.reading.console import events
from ioflusher.kernlog.records import EventKind
from ioflusher.lab.errors import Cancelled, LabError
from ioflusher.lab.memory.evidence import GuestMemory, MemoryQuestion
from ioflusher.lab.memory.look import look
from ioflusher.lab.messages import EVENTS_PORT, GuestReport, ReportReader
from ioflusher.lab.monitor import Monitor, MonitorError
from ioflusher.lab.qemu import Hardware, Places, qemu_argv
from ioflusher.support.programs import start
from ioflusher.support.signals import undisturbed
from ioflusher.support.temporary import OwnedDirectory

CONNECT_DEADLINE_S = 20.0
DIRECTORY_PREFIX = "ioflusher-lab-"
CONTROL_SOCKET = "control.sock"  # no other socket of a machine has a longer name
DUMP_DEADLINE_S = 60.0  # 2 s for 512 MiB on a busy machine


@dataclass(frozen=True, slots=True)
class Ended:
    """The machine's process is gone; `status` is QEMU's exit status, negative for a signal."""

    status: int


class VirtualMachine:
    """Boots a machine on entry and ends it on exit.

    Its files and sockets are laid out in a temporary directory that goes away with it. `streams` names
    further virtio-serial ports; each becomes a connected socket in `self.streams`.

    Attributes:
        root_failure: why the guest's root cannot be read, for who has lost the guest.
    """

    def __init__(self, hardware: Hardware, initramfs: bytes, *, streams: tuple[str, ...] = ()) -> None:
        self._directory = OwnedDirectory(DIRECTORY_PREFIX)
        self.directory = self._directory.path
        names = (EVENTS_PORT, *streams)
        self._stream_names = streams
        self._initramfs = initramfs
        self._hardware = hardware
        self.places = Places(
            initramfs=self.directory / "initramfs",
            console=self.directory / "console.log",
            control=self.directory / CONTROL_SOCKET,
            memory=self.directory / "memory.elf",
            ports=tuple((name, self.directory / f"port{i}.sock") for i, name in enumerate(names)),
        )
        self.streams: dict[str, socket.socket] = {}
        self.root_failure: Callable[[], BaseException | None] = lambda: None
        self.started_at = 0.0
        self._reports: queue.SimpleQueue[GuestReport | Ended | None] = queue.SimpleQueue()
        self._cancelled = False
        self._dumping = threading.Lock()
        self._dump_error: str | None = None
        self._memory_read = False
        self._held = False
        self._sockets: list[socket.socket] = []
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        try:
            self.places.initramfs.write_bytes(self._initramfs)
        except OSError as error:
            raise LabError(
                f"no room for the guest's files in {self.directory}: {error.strerror}",
                errno=error.errno,
                hint="free some space there, or set TMPDIR to another place",
            ) from error
        self._initramfs = b""
        listeners = [self._listen(path) for _, path in self.places.ports]
        control = self._listen(self.places.control)
        self._stderr: BinaryIO = open(self.directory / "qemu.err", "w+b")  # noqa: SIM115 (closed in close)
        self.started_at = time.monotonic()
        self._process = start(qemu_argv(self._hardware, self.places), output=self._stderr)
        events, *streams = (self._accept(listener) for listener in listeners)
        self._monitor = Monitor(self._accept(control), self._heed)
        self.streams = dict(zip(self._stream_names, streams, strict=True))
        threading.Thread(target=self._read_reports, args=(events,), daemon=True).start()

    def _listen(self, path: Path) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sockets.append(listener)
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(0.1)
        return listener

    def _accept(self, listener: socket.socket) -> socket.socket:
        assert self._process is not None
        deadline = time.monotonic() + CONNECT_DEADLINE_S
        while time.monotonic() < deadline:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                if self._process.poll() is not None:
                    raise LabError(
                        f"QEMU ended at once with status {self._process.returncode}:\n{self._qemu_said()}"
                    ) from None
                continue
            connection.settimeout(None)
            self._sockets.append(connection)
            return connection
        raise LabError(f"QEMU did not connect within {CONNECT_DEADLINE_S:g} s:\n{self._qemu_said()}")

    def _qemu_said(self) -> str:
        self._stderr.flush()
        text = (self.directory / "qemu.err").read_text(errors="backslashreplace")
        return "\n".join(text.strip().splitlines()[-6:])

    def _read_reports(self, connection: socket.socket) -> None:
        reader = ReportReader()
        with contextlib.suppress(OSError):
            while data := connection.recv(65536):
                for report in reader.feed(data):
                    self._reports.put(report)
        assert self._process is not None
        self._reports.put(Ended(self._process.wait()))

    def next_report(self, timeout_s: float) -> GuestReport | Ended | None:
        """The guest's next report, `Ended` once the machine is gone, or None when nothing came in time.

        Raises:
            Cancelled: another thread said so.
        """
        try:
            report = self._reports.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            report = None
        if self._cancelled:
            raise Cancelled("the machine was ended before its work was done")
        return report

    def cancel(self) -> None:
        """Make `next_report` raise `Cancelled`, now and from now on; any thread may call it."""
        self._cancelled = True
        self._reports.put(None)  # whoever waits wakes up

    @property
    def elapsed_s(self) -> float:
        """Seconds since QEMU was started, by this machine's clock."""
        return time.monotonic() - self.started_at

    @property
    def pid(self) -> int:
        """QEMU's process, for who measures it.

        Raises:
            LabError: it was not started.
        """
        if self._process is None:
            raise LabError("the machine was not started")
        return self._process.pid

    def console_bytes(self) -> bytes:
        """What the kernel has written so far."""
        try:
            return self.places.console.read_bytes()
        except OSError:
            return b""

    def console_tail(self, lines: int = 15) -> str:
        """The last lines of the console, for messages."""
        text = self.console_bytes().decode("utf-8", "backslashreplace")
        return "\n".join(line.rstrip() for line in text.splitlines()[-lines:])

    def last_words(self, before: str) -> str:
        """How a machine that is gone ended: a panic's reason, or the console's last lines."""
        for event in events(self.console_bytes()):
            if event.kind is EventKind.PANIC:
                return f"the guest panicked before {before}: {event.text}"
        return f"the guest ended before {before}; the last lines of its console:\n{self.console_tail()}"

    def inject_nmi(self) -> None:
        """Make a guest that no longer answers panic, so that its kernel prints every stack.

        A non-maskable interrupt that no device sent is a panic under `unknown_nmi_panic`.
        """
        with contextlib.suppress(MonitorError):
            self._monitor.ask("inject-nmi")

    def read_memory(self, question: MemoryQuestion) -> GuestMemory:
        """What the guest's memory says, read from outside while the guest stands still.

        Of a machine that ended on its own it is the memory of then, where `Hardware.keep_memory` says so.
        """
        with self._dumping:
            if self._dump_error is None and not self.places.memory.exists():
                self._dump_memory()
            if self._dump_error is not None:
                return GuestMemory(unreadable=self._dump_error)
            memory = look(self.places.memory, question)
            self.places.memory.unlink(missing_ok=True)
            self._memory_read = True
            return memory

    def _dump_memory(self) -> None:
        """Have QEMU write the memory to a file."""
        file = self.places.memory
        try:
            self._monitor.ask("dump-guest-memory", DUMP_DEADLINE_S, paging=False, protocol=f"file:{file}")
        except MonitorError as error:
            file.unlink(missing_ok=True)
            self._dump_error = str(error)

    def _heed(self, event: str) -> None:
        """An event of QEMU's. A machine that ends on its own stands still first (`Hardware.keep_memory`)."""
        if event != "SHUTDOWN" or not self._hardware.keep_memory:
            return
        with self._dumping:
            if self._held:  # "quit" is an event, too
                return
            self._held = True
            if not self._memory_read:
                self._dump_memory()
        with contextlib.suppress(MonitorError):
            self._monitor.ask("quit")

    def close(self) -> None:
        """End the machine and remove what belonged to it."""
        with undisturbed():
            self._close()

    def _close(self) -> None:
        process = self._process
        if process is not None:
            if process.poll() is None:
                process.kill()
            process.wait(timeout=30)
            self._stderr.close()
        for sock in self._sockets:
            sock.close()
        self._directory.close()
