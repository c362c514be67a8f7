"""From hardware to QEMU's command line."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from ioflusher.lab.qemu import Accelerator, Disk, Hardware, Places, clock_arguments, qemu_argv

pytestmark = [pytest.mark.live, pytest.mark.needs("qemu-system-x86_64", "setpriv")]

HARDWARE = Hardware(
    kernel=Path("/k"),
    accelerator=Accelerator.TCG,
    memory_bytes=512 << 20,
    cpus=3,
    disks=(Disk("nbd+unix:///?socket=/s", readonly=True), Disk("/a,b", name="store")),
    kernel_arguments=("quiet",),
)
PLACES = Places(
    Path("/i"), Path("/c,d"), Path("/m"), Path("/d"), ports=(("org.ioflusher.events", Path("/p")),)
)


def after(argv: list[str], option: str) -> list[str]:
    """What follows each occurrence of the option."""
    return [value for word, value in itertools.pairwise(argv) if word == option]


def test_the_command_line_says_what_the_hardware_is() -> None:
    """Memory, processors, kernel, console, port and disks stand there; setpriv ties QEMU to this process."""
    argv = qemu_argv(HARDWARE, PLACES)
    assert argv[:4] == ["setpriv", "--pdeathsig", "KILL", "--"]
    assert after(argv, "-m") == [f"{512 << 20}B"]
    assert after(argv, "-smp") == ["3"]
    assert after(argv, "-kernel") == ["/k"]
    assert after(argv, "-initrd") == ["/i"]
    assert after(argv, "-accel") == ["tcg,thread=multi"]
    assert after(argv, "-cpu") == ["max,-erms,-fsrm,-la57,-smap,-smep,-umip,-pku"]
    (kernel_line,) = after(argv, "-append")
    assert kernel_line.split()[-1] == "quiet"
    assert {"panic=-1", "panic_print=0x3", "unknown_nmi_panic"} <= set(kernel_line.split())
    assert {"nokaslr", "norandmaps"} <= set(kernel_line.split()), "addresses are the same in both halves"
    assert "file,id=console,path=/c,,d" in after(argv, "-chardev"), "a comma in a path is doubled"
    assert "socket,id=port0,path=/p,server=off" in after(argv, "-chardev")
    assert "virtserialport,bus=serial.0,chardev=port0,name=org.ioflusher.events" in after(argv, "-device")


def test_disks_carry_their_names_and_rights() -> None:
    """The name is the serial number that the guest finds the disk by; only the root is read-only."""
    argv = qemu_argv(HARDWARE, PLACES)
    assert after(argv, "-drive") == [
        "if=none,id=disk0,format=raw,readonly=on,file=nbd+unix:///?socket=/s",
        "if=none,id=disk1,format=raw,readonly=off,file=/a,,b",
    ]
    disks = [word for word in after(argv, "-device") if word.startswith("virtio-blk")]
    assert disks == ["virtio-blk-pci,drive=disk0", "virtio-blk-pci,drive=disk1,serial=store"]


def test_a_network_only_where_it_is_asked_for() -> None:
    """No guest reaches this machine's loopback unasked."""
    assert after(qemu_argv(HARDWARE, PLACES), "-netdev") == []
    assert after(qemu_argv(replace(HARDWARE, network=True), PLACES), "-netdev") == ["user,id=net0"]


def test_kvm_where_it_was_chosen() -> None:
    """KVM gives the guest this machine's processor."""
    argv = qemu_argv(replace(HARDWARE, accelerator=Accelerator.KVM), PLACES)
    assert (after(argv, "-accel"), after(argv, "-cpu")) == (["kvm"], ["host"])


CPUINFO = """processor\t: 0
cpu MHz\t\t: 2445.428
flags\t\t: fpu tsc constant_tsc

processor\t: 1
cpu MHz\t\t: 1.0
"""


@pytest.mark.parametrize(
    ("cpuinfo", "scaled", "expected"),
    [
        (CPUINFO, False, ("tsc_early_khz=2445428",)),
        (CPUINFO, True, ()),
        (CPUINFO.replace("constant_tsc", "tsc"), False, ()),
        (CPUINFO.replace("cpu MHz", "BogoMIPS"), False, ()),
        (CPUINFO.replace("2445.428", "?"), False, ()),
        ("", False, ()),
    ],
)
def test_an_emulated_clock_is_told_its_speed(cpuinfo: str, scaled: bool, expected: tuple[str, ...]) -> None:
    """The first processor's figure, where it is the counter's; else the kernel finds it out itself."""
    assert clock_arguments(cpuinfo, scaled=scaled) == expected
