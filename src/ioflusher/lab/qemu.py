"""From a virtual machine's specification to QEMU's command line, and which accelerator works here."""

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ioflusher.support.programs import find_program, run


class Accelerator(Enum):
    """How QEMU executes the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of the guest: /dev/vda is the first one, /dev/vdb the next.

    Attributes:
        location: a file's path, or an NBD URI for QEMU's own client.
        readonly: whether the guest may write.
        name: the disk's serial number, /sys/block/vdX/serial in the guest; empty for none.
    """

    location: str
    readonly: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a virtual machine is made of; with the same values the guest sees the same machine.

    Attributes:
        kernel: the bzImage.
        memory_bytes: the guest's memory.
        network: whether the guest has QEMU's user network, in which 10.0.2.2 is this machine's loopback.
        keep_memory: whether QEMU stays when the guest ends on its own, so that its memory can be read.
    """

    kernel: Path
    accelerator: Accelerator
    memory_bytes: int
    cpus: int
    disks: tuple[Disk, ...]
    network: bool = False
    kernel_arguments: tuple[str, ...] = ()
    keep_memory: bool = False


@dataclass(frozen=True, slots=True)
class Places:
    """Files and sockets of this machine that one run of a virtual machine uses.

    Attributes:
        initramfs: the guest's first file system.
        console: file that records the kernel's console.
        control: Unix socket path, listening already, for QEMU's machine protocol (QMP).
        memory: file for the guest's memory, should it be asked for.
        ports: (name, Unix socket path) of virtio-serial ports; the sockets must be listening already.
    """

    initramfs: Path
    console: Path
    control: Path
    memory: Path
    ports: tuple[tuple[str, Path], ...]


# Ends at once on a panic (with -no-reboot) and prints every task first; an NMI from outside is a panic,
# which gives the stacks of a guest that no longer answers.
KERNEL_ARGUMENTS = (
    "console=ttyS0",
    "panic=-1",
    "panic_print=0x3",
    "unknown_nmi_panic",
    "random.trust_cpu=on",
    "mitigations=off",
    "tsc=reliable",
    # on a busy machine an emulated timer misses the kernel's test of it, which then panics at once
    "no_timer_check",
    # a quarter of an emulated kernel's boot: it would test its ciphers and checksums (crypto/algboss.c)
    "cryptomgr.notests",
    # Debian's kernels clear every page and object that they give out, which an emulated processor does slowly
    "init_on_alloc=0",
    "audit=0",
    "selinux=0",
    "apparmor=0",
    # a program starts sooner where code that another one ran before lies at the same address: QEMU has it
    # translated already; and two halves differ in nothing but the state
    "nokaslr",
    "norandmaps",
    "loglevel=5",
)
# All that QEMU emulates but what costs time and shows a guest nothing: with "rep movsb" taken for fast (ERMS,
# FSRM), kernels clear and copy pages byte by byte, each byte an iteration of emulated code; five levels of
# page tables and the supervisor's access checks make every walk and every copy to user space longer.
EMULATED_CPU = "max,-erms,-fsrm,-la57,-smap,-smep,-umip,-pku"


def _escape(value: object) -> str:
    """A value inside QEMU's comma-separated options: a comma is doubled."""
    return str(value).replace(",", ",,")


def qemu_argv(hardware: Hardware, places: Places) -> list[str]:
    """The command line. Pure: the same hardware and places give the same words.

    setpriv makes the kernel end QEMU when this process dies, however it dies.
    """
    argv = ["setpriv", "--pdeathsig", "KILL", "--", find_qemu()]
    if hardware.accelerator is Accelerator.KVM:
        argv += ["-accel", "kvm", "-cpu", "host"]
    else:
        argv += ["-accel", "tcg,thread=multi", "-cpu", EMULATED_CPU]
    argv += ["-machine", "q35", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    if hardware.keep_memory:
        argv += ["-no-shutdown"]
    argv += ["-m", f"{hardware.memory_bytes}B", "-smp", str(hardware.cpus)]
    argv += ["-kernel", str(hardware.kernel), "-initrd", str(places.initramfs)]
    argv += ["-append", " ".join((*KERNEL_ARGUMENTS, *hardware.kernel_arguments))]
    argv += ["-chardev", f"file,id=console,path={_escape(places.console)}", "-serial", "chardev:console"]
    argv += ["-chardev", f"socket,id=control,path={_escape(places.control)},server=off"]
    argv += ["-mon", "chardev=control,mode=control"]
    argv += ["-device", "virtio-serial-pci,id=serial"]
    for number, (name, path) in enumerate(places.ports):
        argv += ["-chardev", f"socket,id=port{number},path={_escape(path)},server=off"]
        argv += ["-device", f"virtserialport,bus=serial.0,chardev=port{number},name={name}"]
    for number, disk in enumerate(hardware.disks):
        readonly = "on" if disk.readonly else "off"
        argv += [
            "-drive",
            f"if=none,id=disk{number},format=raw,readonly={readonly},file={_escape(disk.location)}",
        ]
        serial = f",serial={_escape(disk.name)}" if disk.name else ""
        argv += ["-device", f"virtio-blk-pci,drive=disk{number}{serial}"]
    if hardware.network:
        argv += ["-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0,romfile="]
    return argv


def clock_arguments(cpuinfo: str, *, scaled: bool) -> tuple[str, ...]:
    """Kernel arguments by which an emulated guest knows how fast its clock runs, where that can be told.

    QEMU's emulation shows a guest this machine's time stamp counter. The kernel finds its rate out with
    timers that are late on a busy machine, and then all its seconds are some times too short: 40 s of
    patience are over after 2. `tsc_early_khz` is known since 5.9.

    Args:
        cpuinfo: /proc/cpuinfo of this machine.
        scaled: whether the speed of its processors is changed (cpufreq); then the figures there are not the
            counter's.
    """
    lines = dict(line.split(":", 1) for line in cpuinfo.partition("\n\n")[0].splitlines() if ":" in line)
    lines = {name.strip(): value.strip() for name, value in lines.items()}
    if scaled or "constant_tsc" not in lines.get("flags", "").split():
        return ()
    try:
        return (f"tsc_early_khz={round(float(lines['cpu MHz']) * 1000)}",)
    except (KeyError, ValueError):
        return ()


def find_qemu() -> str:
    """QEMU for this machine's architecture; raises LabError that says what to install."""
    name = platform.machine()
    package = {"x86_64": "qemu-system-x86", "aarch64": "qemu-system-arm"}.get(name, f"qemu-system ({name})")
    return find_program(f"qemu-system-{name}", package=package, installer="ioflusher lab setup")


def qemu_version() -> str:
    """The first line of what QEMU says of itself."""
    return run([find_qemu(), "--version"], deadline_s=30).splitlines()[0]


def kvm_may_work() -> bool:
    """Whether /dev/kvm is there and open to this user; only a boot tells whether guests live on it."""
    try:
        with open("/dev/kvm", "r+b", buffering=0):
            return True
    except OSError:
        return False


def remembered_accelerator(file: Path, key: Sequence[str]) -> Accelerator | None:
    """What an earlier probe under the same key found, or None."""
    try:
        record = json.loads(file.read_text())
        return Accelerator(record["accelerator"]) if record["key"] == list(key) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember_accelerator(file: Path, key: Sequence[str], accelerator: Accelerator) -> None:
    """Keep the probe's answer for the next time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"key": list(key), "accelerator": accelerator.value}) + "\n")
