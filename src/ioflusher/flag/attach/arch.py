"""What the injection of a system call needs to know of a processor.

A detour is a piece of code that makes one system call, puts back the registers that it used, and jumps to
where the thread was. The thread is stopped again right behind the call and gets its registers back from us;
the rest of the code runs only if we die in between. So the thread goes on unharmed at whatever point that is.
"""

import importlib
import platform
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from ioflusher.flag.errors import NotSupportedError
from ioflusher.kernel.blocked import Blocked
from ioflusher.kernel.processors import PROCESSORS, ProcessorRow

WORD = 8  # bytes, on every processor that is known here


class CallName(Enum):
    """The system calls that a thread is made to execute, named as the numbers in `ProcessorRow`."""

    PRCTL = "prctl"
    MLOCKALL = "mlockall"


@dataclass(frozen=True, slots=True)
class Call:
    """One of them.

    Attributes:
        name: which.
        arguments: at most five.
        seconds: how long it may take in the kernel, on top of what every call is given.
    """

    name: CallName
    arguments: tuple[int, ...]
    seconds: float = 0.0

    def number(self, row: ProcessorRow) -> int:
        """The system call's number."""
        number: int = getattr(row, self.name.value)
        return number


@dataclass(frozen=True, slots=True)
class Position:
    """Where a stopped thread is.

    Attributes:
        address: of the instruction with which it goes on.
        instruction: address of the instruction with which it entered the kernel, where the kernel is about to
            restart its system call, or where that ended with EINTR; else None.
        eintr: the call that ended with EINTR, else None.
    """

    address: int
    instruction: int | None = None
    eintr: Blocked | None = None


@dataclass(frozen=True, slots=True)
class Detour:
    """How to have one stopped thread make a call.

    Attributes:
        code: machine code for the slot.
        enter: registers to start it with.
        resume: registers with which the thread goes on afterwards, as the kernel would have had it.
    """

    code: bytes
    enter: bytes
    resume: bytes


ReadRegisters = Callable[[int, int], bytes]


class Architecture(Protocol):
    """One processor architecture's registers and machine code; the module calls its object ARCHITECTURE.

    Attributes:
        row: its numbers.
        registers_size: bytes of the register set NT_PRSTATUS.
        slot_size: bytes of a detour, whole words.
        syscall_instruction: the instruction that enters the kernel.
        waits: numbers of system calls that end with EINTR when their thread is stopped, though nothing
            happened to them, and that may be made again.
        socket_waits: the same, where their first argument is a socket.
        reach: how many bytes from the slot the thread may be, None for anywhere.
        ends_for_handlers: whether a call that is made once more still ends with EINTR where a signal's
            handler runs first.
    """

    row: ProcessorRow
    registers_size: int
    slot_size: int
    syscall_instruction: bytes
    waits: frozenset[int]
    socket_waits: frozenset[int]
    reach: int | None
    ends_for_handlers: bool

    def position(self, registers: bytes, blocked: Blocked | None) -> Position:
        """Where the thread is.

        `blocked` is the call in which it waited before it was stopped, if known.
        """

    def repeat(self, registers: bytes, blocked: Blocked) -> bytes:
        """The registers with which a thread makes a call once more that ended with EINTR."""

    def detour(self, registers: bytes, call: Call, slot: int, blocked: Blocked | None) -> Detour:
        """The detour by the code at `slot` of a thread with these registers."""

    def at_stake(self, read: ReadRegisters) -> bool:
        """Whether the stopped thread's registers hold what a system call would destroy.

        `read` gives a register set of the thread by its number, NT_*, at most so many bytes of it; empty
        where the processor or the kernel has no such set.
        """

    def result(self, registers: bytes) -> int:
        """What the call returned: 0 or more, or a negative errno."""

    def is_detour(self, code: bytes) -> bool:
        """Whether the bytes of a slot are a detour."""


def signed(word: int) -> int:
    """A register as the number it holds, two's complement."""
    return word - (1 << 64) if word >> 63 else word


def words_of(code: bytes) -> tuple[int, ...]:
    """Machine code as the words that PTRACE_POKEDATA writes."""
    return struct.unpack(f"={len(code) // WORD}Q", code)


def architecture(machine: str | None = None) -> Architecture:
    """The architecture of this name, as `uname -m` says it; None: of this machine.

    Raises:
        NotSupportedError: where there is no such row.
    """
    name = platform.machine() if machine is None else machine
    if name not in PROCESSORS:
        raise NotSupportedError(
            f"cannot change a running process on {name}: the registers of {', '.join(PROCESSORS)} are known",
            hint="start the process under `ioflusher run`",
        )
    module = importlib.import_module(f"ioflusher.flag.attach.{name}")
    found: Architecture = module.ARCHITECTURE
    return found
