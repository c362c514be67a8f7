"""aarch64: registers of struct user_pt_regs (arch/arm64/include/uapi/asm/ptrace.h), calls, machine code.

The kernel prepares the restart of a call before it stops for us (arch/arm64/kernel/signal.c, do_signal): the
program counter is back on the `svc`, x0 holds the first argument again. That preparation is forgotten once
the thread makes another call, and the kernel's copy of x0 is out of reach. So the registers are made such
that the thread makes its call again by itself; a timed wait, which remembers how much is left, goes on with
restart_syscall, as the kernel would have it.
"""

import struct
from errno import EINTR

from ioflusher.flag.attach.arch import Call, Detour, Position, ReadRegisters, signed
from ioflusher.kernel.blocked import Blocked
from ioflusher.kernel.processors import PROCESSORS
from ioflusher.kernel.ptrace import NT_ARM_SSVE, NT_ARM_SVE

_FORMAT = "=34Q"  # x0 to x30, sp, pc, pstate
_SP, _PC, _PSTATE = 31, 32, 33
# arch/arm64/include/uapi/asm/ptrace.h, PSR_BTYPE_MASK: the thread is about to land from an indirect branch,
# and where code is guarded (BTI), the kernel's own library too, it may land on few instructions only
_BTYPE = 0xC00

# include/uapi/asm-generic/unistd.h
_RESTART_SYSCALL = 128
_NANOSLEEP, _CLOCK_NANOSLEEP, _FUTEX = 101, 115, 98
_TIMER_ABSTIME = 1
_FUTEX_COMMAND, _FUTEX_WAITS = 0x7F, (0, 9)  # FUTEX_WAIT, FUTEX_WAIT_BITSET

_SVC = struct.pack("<I", 0xD4000001)
# What the call's arguments and its number overwrite; the kernel keeps everything else.
_SAVED = (0, 1, 2, 3, 4, 8)
_CODE_SIZE = 4 * (1 + len(_SAVED) + 1)


class AArch64:
    """See `arch.Architecture`."""

    row = PROCESSORS["aarch64"]
    registers_size = struct.calcsize(_FORMAT)
    slot_size = _CODE_SIZE + 8 * len(_SAVED)
    syscall_instruction = _SVC
    waits = frozenset(
        (
            *(22, 441),  # epoll_pwait, epoll_pwait2
            *(426, 4),  # io_uring_enter, io_getevents
            *(193, 192, 137),  # semop, semtimedop, rt_sigtimedwait
            *(207, 212, 243, 206, 211, 269),  # recvfrom, recvmsg, recvmmsg, sendto, sendmsg, sendmmsg
            *(202, 242, 203),  # accept, accept4, connect
        )
    )
    socket_waits = frozenset((63, 64, 65, 66))  # read, write, readv, writev
    reach: int | None = (1 << 27) - 4096  # of the instruction `b`
    ends_for_handlers = False  # the program counter is back already, and the kernel has no record of why

    def position(self, registers: bytes, blocked: Blocked | None) -> Position:
        """See `arch.Architecture`."""
        r = struct.unpack(_FORMAT, registers)
        if blocked is None or r[8] != blocked.number or r[_SP] != blocked.stack:
            return Position(r[_PC])
        svc = blocked.address - len(_SVC)
        if r[_PC] == svc:
            return Position(svc, svc)
        if r[_PC] == blocked.address and signed(r[0]) == -EINTR:
            return Position(r[_PC], svc, blocked)
        return Position(r[_PC])

    def repeat(self, registers: bytes, blocked: Blocked) -> bytes:
        """See `arch.Architecture`."""
        again = list(struct.unpack(_FORMAT, registers))
        again[0], again[_PC] = blocked.arguments[0], again[_PC] - len(_SVC)
        return struct.pack(_FORMAT, *again)

    def detour(self, registers: bytes, call: Call, slot: int, blocked: Blocked | None) -> Detour:
        """See `arch.Architecture`."""
        resume = list(struct.unpack(_FORMAT, registers))
        if blocked is not None and _remembers(blocked) and self.position(registers, blocked).instruction:
            resume[8] = _RESTART_SYSCALL
        enter = list(resume)
        enter[:5] = (*call.arguments, 0, 0, 0, 0, 0)[:5]
        enter[8], enter[_PC] = call.number(self.row), slot
        enter[_PSTATE] &= ~_BTYPE
        code = _code(resume, slot)
        return Detour(code=code, enter=struct.pack(_FORMAT, *enter), resume=struct.pack(_FORMAT, *resume))

    def at_stake(self, read: ReadRegisters) -> bool:
        """See `arch.Architecture`.

        A system call leaves of the scalable vector registers the lower 128 bits and zeros, and ends the
        streaming mode (Documentation/arch/arm64/sve.rst and sme.rst, "System call behaviour").
        """
        return _sve(read(NT_ARM_SSVE, _SVE_MOST)) is not None or bool(_sve(read(NT_ARM_SVE, _SVE_MOST)))

    def result(self, registers: bytes) -> int:
        """See `arch.Architecture`."""
        return signed(struct.unpack(_FORMAT, registers)[0])

    def is_detour(self, code: bytes) -> bool:
        """See `arch.Architecture`."""
        last = _CODE_SIZE - 4
        return code[:last] == _SVC + _loads() and code[last + 3] & 0xFC == 0x14


ARCHITECTURE = AArch64()

# arch/arm64/include/uapi/asm/ptrace.h, struct user_sve_header: size, max_size, vl, max_vl, flags
_SVE_HEADER = struct.Struct("=IIHHH2x")
_SVE_PT_REGS_SVE = 1  # in use; else the set holds the ordinary vector registers
_SVE_MOST = 16 + 256 * 32 + 32 * 17 + 32  # bytes of the set with vectors of 2048 bits


def _sve(registers: bytes) -> bytes | None:
    """What a call would destroy, empty where that is zeros alone; None where the registers are not in use.

    The set has 32 registers of `vl` bytes, then 16 predicates and FFR of an eighth of that.
    """
    if len(registers) < _SVE_HEADER.size:
        return None
    _, _, vl, _, flags = _SVE_HEADER.unpack_from(registers)
    if not flags & _SVE_PT_REGS_SVE:
        return None
    vectors = registers[_SVE_HEADER.size :][: 32 * vl]
    predicates = registers[_SVE_HEADER.size + 32 * vl :][: 17 * vl // 8]
    upper = b"".join(vectors[place + 16 : place + vl] for place in range(0, len(vectors), vl))
    return (upper + predicates).strip(b"\0")


def _remembers(blocked: Blocked) -> bool:
    """Whether the call, interrupted, left ERESTART_RESTARTBLOCK: a relative time, of which some is left."""
    if blocked.number == _NANOSLEEP:
        return True
    if blocked.number == _CLOCK_NANOSLEEP:
        return not blocked.arguments[1] & _TIMER_ABSTIME
    waits = blocked.number == _FUTEX and blocked.arguments[1] & _FUTEX_COMMAND in _FUTEX_WAITS
    return waits and blocked.arguments[3] != 0


def _loads() -> bytes:
    """`ldr xN, literal` for every saved register; the literals follow the code in the same order."""
    code = b""
    for place, register in enumerate(_SAVED):
        distance = _CODE_SIZE + 8 * place - 4 * (1 + place)
        code += struct.pack("<I", 0x58000000 | (distance // 4) << 5 | register)
    return code


def _code(resume: list[int], slot: int) -> bytes:
    """The detour of a thread that shall go on with these registers."""
    distance = resume[_PC] - (slot + _CODE_SIZE - 4)
    branch = struct.pack("<I", 0x14000000 | (distance // 4) & 0x03FFFFFF)
    return _SVC + _loads() + branch + struct.pack("=6Q", *(resume[register] for register in _SAVED))
