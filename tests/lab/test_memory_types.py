"""BTF as drgn's types: structures in a piece of memory are read as they were laid out."""

import lzma
import struct
import sys
from pathlib import Path

import pytest

from ioflusher.lab.memory.btf import Btf, BtfKind
from ioflusher.lab.memory.evidence import MemoryQuestion
from ioflusher.lab.memory.kernel import MADE_TYPES
from ioflusher.lab.memory.look import look, state_letter
from ioflusher.lab.memory.types import BtfTypes, Program
from tests.lab.test_memory_btf import small

drgn = pytest.importorskip("drgn")
ADDRESS = 0x1000


def program(memory: bytes) -> Program:
    """A program of this memory, with the types of the other tests."""
    made = drgn.Program(
        drgn.Platform(
            drgn.Architecture.X86_64, drgn.PlatformFlags.IS_64_BIT | drgn.PlatformFlags.IS_LITTLE_ENDIAN
        )
    )
    made.add_memory_segment(
        ADDRESS,
        len(memory),
        lambda address, count, offset, physical: memory[offset : offset + count],
    )
    made.register_type_finder("btf", BtfTypes(made, Btf(small().section())).find, enable_index=0)
    return made


def test_a_structure_in_memory_is_read_by_its_types() -> None:
    """Arrays, a pointer to the same type, a bit field of three bits among others, a typedef."""
    child = b"child".ljust(16, b"\0") + struct.pack("<QQ", ADDRESS, 0b10101)
    parent = b"parent".ljust(16, b"\0") + struct.pack("<QQ", 0, 0)
    task = drgn.Object(program(parent + child), "struct task", address=ADDRESS + 32)
    assert task.comm.string_() == b"child"
    assert task.parent.comm.string_() == b"parent"
    assert task.state.value_() == -3, "0b101 of a signed field of three bits"
    assert not task.parent.parent
    assert drgn.sizeof(task) == 32


def test_types_are_found_by_kind_and_name() -> None:
    """As drgn asks for them; what BTF does not have is not found."""
    made = program(b"\0")
    assert made.type("number").type.name == "int"
    assert [item.value for item in made.type("enum items").enumerators] == [0, -1]
    for name in ("struct number", "number_t"):
        with pytest.raises(LookupError):
            made.type(name)


@pytest.mark.parametrize(
    ("state", "exit_state", "letter"),
    [
        (0, 0, "R"),
        (0x1, 0, "S"),
        (0x2, 0, "D"),
        (0x102, 0, "D"),  # TASK_KILLABLE: a writer that is throttled
        (0x402, 0, "I"),  # TASK_IDLE
        (0x4, 0, "T"),
        (0x8, 0, "t"),
        (0, 0x20, "Z"),
        (0, 0x10, "X"),
        (0x40, 0, "P"),
    ],
)
def test_run_states_have_the_letters_of_proc(state: int, exit_state: int, letter: str) -> None:
    """Before 5.14 and since, when the member was renamed."""
    for name in ("state", "__state"):
        made = drgn.Program(program(b"\0").platform)
        integer = made.int_type("int", 4, True)
        members = [drgn.TypeMember(integer, name, 0), drgn.TypeMember(integer, "exit_state", 32)]
        task = drgn.Object(made, made.struct_type("t", 8, members), {name: state, "exit_state": exit_state})
        assert state_letter(task) == letter


@pytest.mark.parametrize(
    # as large as the symbol init_task of these kernels
    ("release", "size"),
    [("5.8.0-63-generic", 9280), ("5.6.0-1056-oem", 9216)],
)
def test_types_that_were_made_for_kernels_without_any(release: str, size: int) -> None:
    """They are whole, and what is looked at is among them."""
    btf = Btf(lzma.decompress((MADE_TYPES / f"{release}.btf.xz").read_bytes()))
    number = btf.find(BtfKind.STRUCT, "task_struct")
    assert number is not None
    assert btf.type(number).size_or_type == size
    for name in ("module", "gendisk", "request", "blk_mq_tags", "device_private", "disk_stats", "xa_node"):
        assert btf.find(BtfKind.STRUCT, name) is not None, name
    assert btf.enumerator("NR_FREE_PAGES") == 0


def test_a_dump_that_says_nothing_is_told_with_its_reason(tmp_path: Path) -> None:
    """Never an error: half a file, no file."""
    file = tmp_path / "memory.elf"
    assert "No such file" in look(file, MemoryQuestion()).unreadable
    file.write_bytes(b"\x7fELF" + bytes(100))
    assert "no 64-bit little-endian ELF file" in look(file, MemoryQuestion()).unreadable
    file.write_bytes(b"")
    assert look(file, MemoryQuestion()).unreadable


def test_without_drgn_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra: a lost half is judged without it, and says what would have told more."""
    monkeypatch.setitem(sys.modules, "drgn", None)
    assert "pip install 'ioflusher[drgn]'" in look(tmp_path / "memory.elf", MemoryQuestion()).unreadable
