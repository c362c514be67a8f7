"""What several guests of one run share: kernel, accelerator, and the image of this machine's files."""

import compileall
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ioflusher.errors import IoflusherError
from ioflusher.lab import initramfs, qemu
from ioflusher.lab.busybox import busybox
from ioflusher.lab.erofs import Image, PendingImage
from ioflusher.lab.errors import LabError, MachineLost
from ioflusher.lab.kernels import Kernel, cache_directory, find_kernel
from ioflusher.lab.kernels.unpacked import kernel_to_boot
from ioflusher.lab.messages import AnyOrder, Booted, Hello, RunCommand, TimedReport, encode_order
from ioflusher.lab.qemu import Accelerator, Disk, Hardware
from ioflusher.lab.tree import GUEST_PATH, Graft, default_shares, is_shown, scan
from ioflusher.lab.vm import CONTROL_SOCKET as LONGEST_SOCKET
from ioflusher.lab.vm import DIRECTORY_PREFIX, Ended, VirtualMachine
from ioflusher.nbd.server import Server
from ioflusher.scenario.records import Scenario
from ioflusher.support.programs import ProgramError
from ioflusher.support.signals import undisturbed
from ioflusher.support.temporary import OwnedDirectory, sweep

BOOT_DEADLINE_S = 60.0
SUN_PATH_BYTES = 108
PROBE_DEADLINE_S = 20.0

Progress = Callable[[str], None]


def silent(text: str) -> None:
    """A progress callback that shows nothing."""


@dataclass(frozen=True, slots=True)
class Guest:
    """The part of a machine that its user chooses; sizes in bytes, `keep_memory` as in `Hardware`."""

    memory_bytes: int = 1 << 30
    cpus: int = 1
    modules: tuple[str, ...] = ()
    disks: tuple[Disk, ...] = ()
    network: bool = False
    kernel_arguments: tuple[str, ...] = ()
    keep_memory: bool = False


class Lab:
    """A lab on this machine, ready to boot guests; a context manager.

    Entering it finds the kernel (downloading it the first time), starts a walk through the directories that
    guests see, and the server that gives them the image once it is made. `accelerator` None means: KVM where
    a probe boot works; `kernel` None: the one that `scenario` needs, or the default.
    Raises LabError with what to install where something is missing.
    """

    def __init__(
        self,
        kernel: str | None = None,
        *,
        accelerator: Accelerator | None = None,
        shares: Sequence[Path] = (),
        progress: Progress = silent,
        scenario: Scenario | None = None,
    ) -> None:
        self._wanted = kernel
        self._scenario = scenario
        self._accelerator = accelerator
        self._shares = (*default_shares(), *(Path(os.path.abspath(share)) for share in shares))
        self._progress = progress
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Lab":
        with contextlib.ExitStack() as stack:
            self._enter(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        with undisturbed():
            self._stack.close()

    def _enter(self, stack: contextlib.ExitStack) -> None:
        sweep(DIRECTORY_PREFIX)  # what a lab left behind that was killed
        check_socket_paths()
        qemu.find_qemu()
        self._progress("finding a kernel")
        self.kernel: Kernel = self._find_kernel()
        self._busybox = busybox()
        # a guest takes longer to its first look at the root than this machine to the image
        self._image = PendingImage(self._make_image)
        stack.callback(self._image.close)
        directory = stack.enter_context(OwnedDirectory(DIRECTORY_PREFIX)).path
        self.root_server = stack.enter_context(Server(self._image))
        stack.callback(self._image.interrupt)  # whoever still waits for the image is gone
        self.root_server.start()
        self._boots = kernel_to_boot(self.kernel, cache_directory())
        self.root = self.root_server.listen_unix(str(directory / "root.sock")).uri
        self.accelerator = self._accelerator or self._probe()

    def _make_image(self) -> Image:
        """The image of what guests see."""
        # a guest under emulation would take seconds to compile what this machine compiles once
        compileall.compile_dir(Path(__file__).parents[1], quiet=2)
        modules = Graft(f"/lib/modules/{self.kernel.release}", self.kernel.modules)
        return Image(scan(self._shares, (modules,)))

    def _find_kernel(self) -> Kernel:
        """The kernel that was asked for, else the scenario's, else the default one."""
        series = self._scenario.machine.kernel if self._scenario else ""
        if self._wanted or not series:
            return find_kernel(self._wanted, progress=self._progress)
        assert self._scenario is not None
        try:
            return find_kernel(series, progress=self._progress)
        except IoflusherError as error:
            raise LabError(
                f"the scenario {self._scenario.name} needs a kernel {series}: {error}",
                errno=error.errno,
                hint=error.hint,
            ) from error

    def _probe(self) -> Accelerator:
        """KVM if a guest lives on it, else emulation; the answer is kept for this boot of this machine."""
        known = known_accelerator(self.kernel)
        if known is not None:
            return known
        self._progress("trying KVM")
        self.accelerator = Accelerator.KVM
        found = Accelerator.TCG
        with (
            contextlib.suppress(LabError, ProgramError),
            self.boot(Guest(), RunCommand(("true",), "/", {})) as vm,
        ):
            if isinstance(vm.next_report(PROBE_DEADLINE_S), TimedReport):
                found = Accelerator.KVM
        qemu.remember_accelerator(*_accelerator_memory(self.kernel), found)
        return found

    def shows(self, file: Path) -> bool:
        """Whether its guests see this file of this machine."""
        return is_shown(file, self._shares)

    def _clock_arguments(self) -> tuple[str, ...]:
        """What the kernel of an emulated guest is told of its clock."""
        if self.accelerator is not Accelerator.TCG:
            return ()
        scaled = Path("/sys/devices/system/cpu/cpu0/cpufreq").exists()
        return qemu.clock_arguments(Path("/proc/cpuinfo").read_text(), scaled=scaled)

    def boot(self, guest: Guest, order: AnyOrder, *, streams: tuple[str, ...] = ()) -> VirtualMachine:
        """A machine for the order, not yet started: use it as a context manager."""
        package_root = str(Path(__file__).resolve().parents[2])
        archive = initramfs.build(
            self.kernel,
            busybox=self._busybox,
            modules=guest.modules,
            order=encode_order(order),
            command=(os.path.abspath(sys.executable), "-B", "-m", "ioflusher.lab.guest"),
            environment={
                "PATH": GUEST_PATH,
                "HOME": "/root",
                "LC_ALL": "C.UTF-8",
                "PYTHONPATH": package_root,
                "PYTHONNOUSERSITE": "1",
            },
            cwd="/",
        )
        hardware = Hardware(
            kernel=self._boots,
            accelerator=self.accelerator,
            memory_bytes=guest.memory_bytes,
            cpus=guest.cpus,
            disks=(Disk(self.root, readonly=True), *guest.disks),
            network=guest.network,
            kernel_arguments=(*self._clock_arguments(), *guest.kernel_arguments),
            keep_memory=guest.keep_memory,
        )
        vm = VirtualMachine(hardware, archive, streams=streams)
        vm.root_failure = lambda: self._image.failure
        return vm


def known_accelerator(kernel: Kernel) -> Accelerator | None:
    """How a kernel is executed here; None where only a probe boot can tell."""
    if not qemu.kvm_may_work():
        return Accelerator.TCG
    return qemu.remembered_accelerator(*_accelerator_memory(kernel))


def _accelerator_memory(kernel: Kernel) -> tuple[Path, tuple[str, ...]]:
    """The file that keeps what a probe boot has found, and what it depends on."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    key = (qemu.qemu_version(), kernel.release, os.uname().release, boot_id)
    return cache_directory() / f"accelerator-{kernel.release}.json", key


def check_socket_paths() -> None:
    """See that the lab's sockets, which lie in temporary directories, have names that fit into an address.

    Raises:
        LabError: they do not (unix(7): sun_path has 108 bytes, with the NUL at its end).
    """
    directory = tempfile.gettempdir()
    longest = os.path.join(directory, DIRECTORY_PREFIX + "12345678", LONGEST_SOCKET)
    if len(os.fsencode(longest)) >= SUN_PATH_BYTES:
        raise LabError(
            f"the directory for temporary files has too long a name for sockets: {directory}",
            hint="set TMPDIR to a shorter one",
        )


def await_agent(vm: VirtualMachine) -> float:
    """Wait until the guest's agent speaks; returns the seconds from power-on to the guest's first report.

    The first one is `Booted`, from the init script as soon as the root is mounted. Raises MachineLost
    when the guest does not come up.
    """
    report = vm.next_report(BOOT_DEADLINE_S)
    boot_s = vm.elapsed_s
    if isinstance(report, Booted):
        report = vm.next_report(BOOT_DEADLINE_S)
    if isinstance(report, Hello):
        return boot_s
    tail = vm.console_tail()
    if isinstance(report, Ended):
        if (failure := vm.root_failure()) is not None:
            raise LabError(f"what guests see could not be gathered: {failure}") from failure
        raise MachineLost(vm.last_words("its agent ran"), console=tail)
    what = f"spoke out of turn: {report}" if report else f"said nothing for {BOOT_DEADLINE_S:g} s"
    raise MachineLost(f"the guest {what}; the last lines of its console:\n{tail}", console=tail)
