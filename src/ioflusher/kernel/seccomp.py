"""What a thread's seccomp filters answer to a system call, without making it.

A filter is a classic BPF program over struct seccomp_data (include/uapi/linux/seccomp.h). The instructions
are those that the kernel lets into a filter (kernel/seccomp.c, seccomp_check_filter).
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Action(Enum):
    """A filter's answer, include/uapi/linux/seccomp.h; the strictest of all filters counts."""

    KILL_PROCESS = 0x80000000
    KILL_THREAD = 0x00000000
    TRAP = 0x00030000
    ERRNO = 0x00050000
    USER_NOTIF = 0x7FC00000
    TRACE = 0x7FF00000
    LOG = 0x7FFC0000
    ALLOW = 0x7FFF0000


_ACTION_MASK = 0xFFFF0000
_WORD = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Instruction:
    """struct sock_filter, include/uapi/linux/filter.h."""

    code: int
    jt: int
    jf: int
    k: int


@dataclass(frozen=True, slots=True)
class SeccompData:
    """A system call as a filter sees it: its number, AUDIT_ARCH_* of its table, up to six arguments."""

    number: int
    audit_arch: int
    arguments: tuple[int, ...] = ()
    instruction_pointer: int = 0

    def data(self) -> bytes:
        """struct seccomp_data."""
        arguments = (*self.arguments, 0, 0, 0, 0, 0, 0)[:6]
        return struct.pack("=iIQ6Q", self.number, self.audit_arch, self.instruction_pointer, *arguments)


def parse_filter(program: bytes) -> tuple[Instruction, ...]:
    """The instructions of an array of struct sock_filter, as PTRACE_SECCOMP_GET_FILTER gives it."""
    return tuple(Instruction(*fields) for fields in struct.iter_unpack("=HBBI", program))


def judge(filters: Sequence[Sequence[Instruction]], call: SeccompData) -> Action:
    """The strictest answer of all the filters to the call; Action.ALLOW where there is none.

    Raises:
        ValueError: for a program that the kernel would not have accepted.
    """
    answers = [run(program, call.data()) & _ACTION_MASK for program in filters]
    # kernel/seccomp.c, seccomp_run_filters: as signed numbers, the smallest wins; KILL_PROCESS is negative.
    strictest = min(answers, key=lambda answer: answer - (1 << 32) if answer >> 31 else answer, default=None)
    if strictest is None:
        return Action.ALLOW
    # An action that is not known counts as KILL_PROCESS, as the kernel has it.
    return Action(strictest) if strictest in Action._value2member_map_ else Action.KILL_PROCESS


def run(program: Sequence[Instruction], data: bytes) -> int:
    """What one filter returns for struct seccomp_data `data`: an action and 16 bits of its own."""
    machine = _Machine(data)
    position = 0
    while position < len(program):
        instruction = program[position]
        position += 1
        if instruction.code & 0x07 == _RET:
            return machine.a if instruction.code & 0x18 == 0x10 else instruction.k
        position += machine.step(instruction)
    raise ValueError("a filter ran past its end")


# include/uapi/linux/bpf_common.h: instruction classes
_LD, _LDX, _ST, _STX, _ALU, _JMP, _RET, _MISC = range(8)


class _Machine:
    """The registers A and X and the 16 words of memory of classic BPF."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.a = 0
        self.x = 0
        self.memory = [0] * 16

    def step(self, instruction: Instruction) -> int:
        """Execute one instruction; how many to skip after it."""
        kind, k = instruction.code & 0x07, instruction.k
        if kind == _LD:
            self.a = self._load(instruction)
        elif kind == _LDX:
            self.x = self._load(instruction)
        elif kind == _ST:
            self.memory[k] = self.a
        elif kind == _STX:
            self.memory[k] = self.x
        elif kind == _ALU:
            self.a = self._arithmetic(instruction.code & 0xF0, self._operand(instruction))
        elif kind == _JMP:
            return self._jump(instruction)
        elif instruction.code == 0x07:  # TAX
            self.x = self.a
        elif instruction.code == 0x87:  # TXA
            self.a = self.x
        else:
            raise ValueError(f"no filter holds the instruction {instruction.code:#x}")
        return 0

    def _operand(self, instruction: Instruction) -> int:
        return self.x if instruction.code & 0x08 else instruction.k

    def _load(self, instruction: Instruction) -> int:
        mode, k = instruction.code & 0xF8, instruction.k  # with the size, of which only a word is allowed
        if mode == 0x20:  # ABS: a word of the call
            word: int = struct.unpack_from("=I", self.data, k)[0]
            return word
        if mode == 0x60:  # MEM
            return self.memory[k]
        if mode == 0x80:  # LEN
            return len(self.data)
        if mode == 0x00:  # IMM
            return k
        raise ValueError(f"no filter holds the load {instruction.code:#x}")

    def _arithmetic(self, operation: int, operand: int) -> int:
        a = self.a
        if operation == 0x30 and operand == 0:
            raise ValueError("a filter divides by zero")
        results = {
            0x00: a + operand,
            0x10: a - operand,
            0x20: a * operand,
            0x30: a // (operand or 1),
            0x40: a | operand,
            0x50: a & operand,
            0x60: a << (operand & 31),
            0x70: a >> (operand & 31),
            0x80: -a,
            0xA0: a ^ operand,
        }
        if operation not in results:
            raise ValueError(f"no filter holds the operation {operation:#x}")
        return results[operation] & _WORD

    def _jump(self, instruction: Instruction) -> int:
        operation, operand = instruction.code & 0xF0, self._operand(instruction)
        if operation == 0x00:  # JA
            return instruction.k
        true = {
            0x10: self.a == operand,
            0x20: self.a > operand,
            0x30: self.a >= operand,
            0x40: bool(self.a & operand),
        }[operation]
        return instruction.jt if true else instruction.jf
