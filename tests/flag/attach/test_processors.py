"""What is known of the processors, without one: where a thread is, which registers a call destroys."""

import struct
from errno import EINTR

import pytest

from ioflusher.flag.attach.aarch64 import AArch64
from ioflusher.flag.attach.arch import Architecture, Call, CallName, architecture
from ioflusher.flag.attach.x86_64 import X8664
from ioflusher.flag.errors import NotSupportedError
from ioflusher.kernel.blocked import Blocked
from ioflusher.kernel.processors import PROCESSORS
from ioflusher.kernel.ptrace import NT_ARM_SSVE, NT_ARM_SVE

PRCTL = Call(CallName.PRCTL, (57, 1))
SLOT, CODE = 0x7FF000, 0x400000
WORD = (1 << 64) - 1
VL = 32  # bytes of a vector of 256 bits


def sve(*, flags: int = 1, vectors: bytes = b"", predicates: bytes = b"") -> bytes:
    """The register set NT_ARM_SVE, zeros but for what is given."""
    size = 16 + 32 * VL + 17 * VL // 8
    header = struct.pack("=IIHHHH", size, size, VL, VL, flags, 0)
    return header + vectors.ljust(32 * VL, b"\0") + predicates.ljust(17 * VL // 8, b"\0") + bytes(8)


@pytest.mark.parametrize(
    ("scalable", "streaming", "expected"),
    [
        (b"", b"", False),
        (sve(flags=0)[:16], b"", False),
        (sve(), b"", False),
        (sve(vectors=b"x" * 16), b"", False),  # the lower 128 bits stay
        (sve(vectors=bytes(16) + b"x"), b"", True),
        (sve(vectors=bytes(31 * VL + 31) + b"x"), b"", True),
        (sve(predicates=b"x"), b"", True),
        (sve(predicates=bytes(17 * VL // 8 - 1) + b"x"), b"", True),
        (sve(flags=0)[:16], sve(), True),  # streaming mode itself ends
        (sve(flags=0)[:16], sve(flags=0)[:16], False),
    ],
)
def test_what_a_call_destroys_on_arm64(scalable: bytes, streaming: bytes, expected: bool) -> None:
    """All but the lower 128 bits of each vector, the predicates, and the streaming mode."""
    sets = {NT_ARM_SVE: scalable, NT_ARM_SSVE: streaming}
    assert AArch64().at_stake(lambda note, size: sets[note][:size]) is expected


def arm_registers(pc: int, *, x0: int = 0, x8: int = 0, sp: int = 0x1000, pstate: int = 0) -> bytes:
    """struct user_pt_regs, every register with a value of its own."""
    x = [x0, *range(101, 131)]
    x[8] = x8
    return struct.pack("=34Q", *x, sp, pc, pstate)


def test_where_an_arm64_thread_is() -> None:
    """On the instruction of the call that it waited in, behind it with EINTR, or elsewhere."""
    wait = Blocked(22, (3, 0, 0, 0, 0, 0), 0x1000, CODE + 4)
    arm = AArch64()
    assert arm.position(arm_registers(CODE, x8=22), wait).instruction == CODE
    interrupted = arm_registers(CODE + 4, x0=-EINTR & WORD, x8=22)
    assert arm.position(interrupted, wait).eintr == wait
    again = struct.unpack("=34Q", arm.repeat(interrupted, wait))
    assert (again[0], again[32]) == (3, CODE)
    for elsewhere in (
        arm_registers(CODE + 4, x0=5, x8=22),
        arm_registers(CODE, x8=23),
        arm_registers(CODE, x8=22, sp=0x2000),
    ):
        position = arm.position(elsewhere, wait)
        assert (position.instruction, position.eintr) == (None, None)
    assert arm.position(interrupted, None).eintr is None


def test_the_arm64_way_home() -> None:
    """The code reloads each register that it used from behind itself and branches to where the thread was."""
    registers = arm_registers(CODE, x0=1, x8=98, pstate=0x20000C00)
    detour = AArch64().detour(registers, PRCTL, SLOT, None)
    enter = struct.unpack("=34Q", detour.enter)
    assert (enter[:5], enter[8], enter[32]) == ((57, 1, 0, 0, 0), 167, SLOT)
    assert enter[33] == 0x20000000  # free to land on any instruction
    assert detour.resume == registers
    words = struct.unpack_from("<8I", detour.code)
    literals = struct.unpack_from("=6Q", detour.code, 32)
    assert words[0] == 0xD4000001
    loaded = {}
    for place, word in enumerate(words[1:7], 1):
        assert word >> 24 == 0x58
        loaded[word & 31] = literals[(4 * place + 4 * (word >> 5 & 0x7FFFF) - 32) // 8]
    assert loaded == {0: 1, 1: 101, 2: 102, 3: 103, 4: 104, 8: 98}
    offset = words[7] & 0x03FFFFFF
    offset -= (1 << 26) if offset >> 25 else 0
    assert SLOT + 28 + 4 * offset == CODE
    assert AArch64().is_detour(detour.code)


@pytest.mark.parametrize(
    ("number", "arguments", "resumed"),
    [
        (101, (1, 2, 0, 0, 0, 0), 128),  # nanosleep: what is left of it
        (115, (1, 0, 0, 0, 0, 0), 128),  # clock_nanosleep, relative
        (115, (1, 1, 0, 0, 0, 0), 115),  # to a point in time: made again
        (98, (1, 0x80, 0, 7, 0, 0), 128),  # FUTEX_WAIT with a timeout
        (98, (1, 0x80, 0, 0, 0, 0), 98),  # and without
        (98, (1, 0x81, 0, 7, 0, 0), 98),  # FUTEX_WAKE
    ],
)
def test_timed_waits_go_on_with_what_is_left(number: int, arguments: tuple[int, ...], resumed: int) -> None:
    """arm64: the kernel would have put restart_syscall in; so do we."""
    wait = Blocked(number, arguments, 0x1000, CODE + 4)
    detour = AArch64().detour(arm_registers(CODE, x8=number), PRCTL, SLOT, wait)
    assert struct.unpack("=34Q", detour.resume)[8] == resumed


@pytest.mark.parametrize("processor", [X8664(), AArch64()], ids=["x86-64", "aarch64"])
def test_a_detour_is_known_again(processor: Architecture) -> None:
    """Only a whole detour counts as ours; code that looks a little like one does not."""
    registers = bytes(range(256))[: processor.registers_size].ljust(processor.registers_size, b"\1")
    if isinstance(processor, AArch64):
        registers = arm_registers(CODE)
    code = processor.detour(registers, PRCTL, SLOT, None).code
    assert len(code) == processor.slot_size
    assert processor.is_detour(code)
    assert not processor.is_detour(bytes(len(code)))
    assert not processor.is_detour(code[1:] + b"\0")


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_row_is_all_that_finds_an_architecture(name: str) -> None:
    """Each row has its file, which takes the numbers from that row."""
    found = architecture(name)
    assert found.row is PROCESSORS[name]
    assert type(found).__module__ == f"ioflusher.flag.attach.{name}"


def test_an_architecture_without_a_row() -> None:
    """The error says which there are, and what to do instead."""
    known = ", ".join(PROCESSORS)
    with pytest.raises(NotSupportedError, match=f"on s390x: the registers of {known} are known") as caught:
        architecture("s390x")
    assert "ioflusher run" in (caught.value.hint or "")
