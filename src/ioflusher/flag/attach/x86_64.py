"""x86-64: registers of struct user_regs_struct (arch/x86/include/asm/user_64.h), calls, machine code.

The kernel restarts an interrupted call on the way back to user space when it finds orig_rax >= 0 and one of
its private error numbers in rax (arch/x86/kernel/signal.c, arch_do_signal_or_restart). We therefore give the
thread back exactly what it had, rax included, and let the kernel decide: it knows whether a signal handler
runs first, and how much of a timed wait is left.
"""

import struct
from errno import EINTR

from ioflusher.flag.attach.arch import Call, Detour, Position, ReadRegisters, signed
from ioflusher.kernel.blocked import Blocked
from ioflusher.kernel.processors import PROCESSORS
from ioflusher.kernel.ptrace import ERESTART_RESTARTBLOCK, ERESTARTNOHAND, ERESTARTNOINTR, ERESTARTSYS

_NAMES = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
    *("orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
)
_FORMAT = f"={len(_NAMES)}Q"
_ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
_NO_CALL = (1 << 64) - 1

# arch/x86/entry/syscalls/syscall_64.tbl
_RESTART_SYSCALL = 219
_AGAIN = (ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND)

# movabs $imm64, %reg, for what the call's arguments (rdi rsi rdx r10 r8), `syscall` itself (rcx r11) and
# its result (rax) overwrite
_LOADS = {
    "rdi": b"\x48\xbf",
    "rsi": b"\x48\xbe",
    "rdx": b"\x48\xba",
    "r10": b"\x49\xba",
    "r8": b"\x49\xb8",
    "rcx": b"\x48\xb9",
    "r11": b"\x49\xbb",
    "rax": b"\x48\xb8",
}
_SYSCALL = b"\x0f\x05"
_JUMP = (
    b"\xff\x25\x00\x00\x00\x00"  # jmp *(%rip): to the address that follows; no register, no flag, no stack
)


class X8664:
    """See `arch.Architecture`."""

    row = PROCESSORS["x86_64"]
    registers_size = struct.calcsize(_FORMAT)
    slot_size = len(_SYSCALL) + 10 * len(_LOADS) + len(_JUMP) + 8
    syscall_instruction = _SYSCALL
    waits = frozenset(
        (
            *(232, 281, 441),  # epoll_wait, epoll_pwait, epoll_pwait2
            *(426, 208),  # io_uring_enter, io_getevents
            *(65, 220, 128),  # semop, semtimedop, rt_sigtimedwait
            *(45, 47, 299, 44, 46, 307),  # recvfrom, recvmsg, recvmmsg, sendto, sendmsg, sendmmsg
            *(43, 288, 42),  # accept, accept4, connect
        )
    )
    socket_waits = frozenset((0, 1, 19, 20))  # read, write, readv, writev
    reach: int | None = None
    ends_for_handlers = True

    def position(self, registers: bytes, blocked: Blocked | None) -> Position:
        """See `arch.Architecture`; the registers alone say it all, `blocked` is not needed."""
        r = _unpack(registers)
        number, result = signed(r["orig_rax"]), -signed(r["rax"])
        instruction = r["rip"] - len(_SYSCALL)
        if number < 0 or result not in (*_AGAIN, ERESTART_RESTARTBLOCK, EINTR):
            return Position(r["rip"])
        if result != EINTR:
            return Position(r["rip"], instruction)
        arguments = tuple(r[name] for name in _ARGUMENTS)
        return Position(r["rip"], instruction, Blocked(number, arguments, r["rsp"], r["rip"]))

    def repeat(self, registers: bytes, blocked: Blocked) -> bytes:
        """See `arch.Architecture`."""
        # What the call would have said if EINTR were not its answer to every wake-up: the kernel makes it
        # again, unless a signal handler runs first; then the program gets its EINTR.
        return _pack(dict(_unpack(registers), rax=-ERESTARTNOHAND & _NO_CALL))

    def detour(self, registers: bytes, call: Call, slot: int, blocked: Blocked | None) -> Detour:
        """See `arch.Architecture`."""
        resume = _unpack(registers)
        enter = dict(resume, rip=slot, rax=call.number(self.row), orig_rax=_NO_CALL)
        enter.update(zip(_ARGUMENTS, (*call.arguments, 0, 0, 0, 0, 0)[:5], strict=False))
        return Detour(code=_code(resume), enter=_pack(enter), resume=_pack(resume))

    def at_stake(self, read: ReadRegisters) -> bool:
        """See `arch.Architecture`; the kernel keeps all but rax, rcx and r11, and we do the rest."""
        return False

    def result(self, registers: bytes) -> int:
        """See `arch.Architecture`."""
        return signed(_unpack(registers)["rax"])

    def is_detour(self, code: bytes) -> bool:
        """See `arch.Architecture`."""
        return int.from_bytes(code, "little") & _FIXED == _PATTERN


ARCHITECTURE = X8664()

# A detour with all its numbers zero, and a mask of the bits that are the same in every detour.
_PATTERN = int.from_bytes(_SYSCALL + b"".join(load + bytes(8) for load in _LOADS.values()) + _JUMP, "little")
_FIXED = int.from_bytes(b"\xff\xff" + (b"\xff\xff" + bytes(8)) * len(_LOADS) + b"\xff" * len(_JUMP), "little")


def _code(resume: dict[str, int]) -> bytes:
    """The detour of a thread that shall go on with these registers, from user space, without the kernel."""
    registers, target = dict(resume), resume["rip"]
    number, result = signed(resume["orig_rax"]), -signed(resume["rax"])
    if number >= 0 and result in (*_AGAIN, ERESTART_RESTARTBLOCK):
        # What the kernel does to restart a call.
        target -= len(_SYSCALL)
        registers["rax"] = _RESTART_SYSCALL if result == ERESTART_RESTARTBLOCK else number
    loads = b"".join(load + struct.pack("=Q", registers[name]) for name, load in _LOADS.items())
    return _SYSCALL + loads + _JUMP + struct.pack("=Q", target)


def _unpack(registers: bytes) -> dict[str, int]:
    return dict(zip(_NAMES, struct.unpack(_FORMAT, registers), strict=True))


def _pack(registers: dict[str, int]) -> bytes:
    return struct.pack(_FORMAT, *map(registers.__getitem__, _NAMES))
