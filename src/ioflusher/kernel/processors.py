"""What differs between processor architectures, one row each.

To add one: a row here, and the file flag/attach/NAME.py with its registers and machine code, NAME being what
`uname -m` says. That file is found by its name; see `flag.attach.arch.Architecture` for what it holds.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProcessorRow:
    """Numbers of one architecture's kernel interface.

    Attributes:
        audit_arch: AUDIT_ARCH_* of include/uapi/linux/audit.h, by which seccomp filters know it.
        ioctl, ioprio_set, mlockall, prctl: numbers of these system calls.
    """

    audit_arch: int
    ioctl: int
    ioprio_set: int
    mlockall: int
    prctl: int


# `uname -m` -> row. x86-64: arch/x86/entry/syscalls/syscall_64.tbl; the others:
# include/uapi/asm-generic/unistd.h
PROCESSORS = {
    "x86_64": ProcessorRow(audit_arch=0xC000003E, ioctl=16, ioprio_set=251, mlockall=151, prctl=157),
    "aarch64": ProcessorRow(audit_arch=0xC00000B7, ioctl=29, ioprio_set=30, mlockall=230, prctl=167),
}
