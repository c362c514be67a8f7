"""A dump of a guest's memory as a drgn program; symbols, types and unwinding tables are the kernel's own.

drgn walks the page tables, reads the table of symbols and unwinds stacks by the kernel's own ORC tables
(CONFIG_UNWINDER_ORC) or its frame pointers. It is an extra (`ioflusher[drgn]`), imported when a dump is
opened. No debug package is needed.
"""

import logging
import lzma
import mmap
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ioflusher.lab.memory.btf import Btf, BtfError
from ioflusher.lab.memory.dump import Dump, DumpError, find_vmcoreinfo, with_symbol_table
from ioflusher.lab.memory.types import BtfTypes, Program

MADE_TYPES = Path(__file__).with_name("kernels")
# variables that are asked for here or by drgn's helpers, and their types, which BTF does not have
VARIABLES = {
    "init_pid_ns": "struct pid_namespace",
    "modules": "struct list_head",
    "block_class": "struct class",
    "class_kset": "struct kset *",
    "__cpu_online_mask": "struct cpumask",
    "nr_cpu_ids": "unsigned int",
    "_totalram_pages": "atomic_long_t",
    "nr_swap_pages": "atomic_long_t",
    "total_swap_pages": "long",
}
# arrays: the type of an element, and the enumerator that says how many there are,
# or none where nobody asks for the end
ARRAYS = {
    "__per_cpu_offset": ("unsigned long", ""),
    "vm_node_stat": ("atomic_long_t", "NR_VM_NODE_STAT_ITEMS"),
    "vm_zone_stat": ("atomic_long_t", "NR_VM_ZONE_STAT_ITEMS"),
}


class DumpUnreadableError(Exception):
    """Why a dump says nothing."""


@contextmanager
def open_dump(file: Path) -> Iterator[Program]:
    """The dump as a program, for a `with` block.

    Raises:
        DumpUnreadableError: drgn is missing, or the kernel lacks what takes a debug package's place.
    """
    try:
        import drgn
    except ImportError as error:
        raise DumpUnreadableError(
            "a guest's memory is read with drgn, which is not installed: pip install 'ioflusher[drgn]'"
        ) from error
    logging.getLogger("drgn").setLevel(logging.ERROR)  # what is missing is said here
    try:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            dump = Dump(data)
            vmcoreinfo = with_symbol_table(dump, find_vmcoreinfo(dump))
        program = drgn.Program(vmcoreinfo=vmcoreinfo)
        program.set_core_dump(str(file))
        _load(program, vmcoreinfo)
    except (DumpError, BtfError) as error:
        raise DumpUnreadableError(str(error)) from error
    except OSError as error:
        raise DumpUnreadableError(f"the dump of the guest's memory: {error.strerror}") from error
    except (ValueError, LookupError, AttributeError, drgn.FaultError) as error:
        raise DumpUnreadableError(f"drgn cannot use the dump of the guest's memory: {error}") from error
    yield program


def _load(program: Program, vmcoreinfo: str) -> None:
    """Give the program its symbols, types and variables."""
    from drgn.helpers.linux.kallsyms import load_module_kallsyms, load_vmlinux_kallsyms

    program.register_symbol_finder("kallsyms", load_vmlinux_kallsyms(program), enable_index=0)
    btf = Btf(_types_of(program, vmcoreinfo))
    program.register_type_finder("btf", BtfTypes(program, btf).find, enable_index=0)
    program.register_object_finder("variables", _variable_finder(program, btf), enable_index=0)
    program.register_symbol_finder("modules", load_module_kallsyms(program), enable_index=1)
    program.create_loaded_modules()
    # its own unwinding tables are used for addresses that are known to be the kernel's
    program.main_module().address_ranges = [(_address(program, "_stext"), _address(program, "_end"))]


def _address(program: Program, name: str) -> int:
    return int(program.symbol(name).address)


def _types_of(program: Program, vmcoreinfo: str) -> bytes:
    """The kernel's BTF: its own, or what tools/kernel-types has made for a release that carries none."""
    try:
        # include/asm-generic/vmlinux.lds.h, BTF
        start, stop = _address(program, "__start_BTF"), _address(program, "__stop_BTF")
    except LookupError:
        release = re.search(r"^OSRELEASE=(.*)$", vmcoreinfo, re.MULTILINE)
        file = MADE_TYPES / f"{release[1] if release else 'unknown'}.btf.xz"
        try:
            return lzma.decompress(file.read_bytes())
        except FileNotFoundError as error:
            raise DumpUnreadableError(
                f"the guest's kernel {file.name.removesuffix('.btf.xz')} does not carry its types "
                "(CONFIG_DEBUG_INFO_BTF)"
            ) from error
    return bytes(program.read(start, stop - start))


def _variable_finder(program: Program, btf: Btf) -> Callable[..., Any]:
    """An object finder of drgn's: enumerators, and the variables above."""
    from drgn import FindObjectFlags, Object

    def find(program: Program, name: str, flags: Any, filename: str | None) -> Any:
        if FindObjectFlags.CONSTANT in flags and (value := btf.enumerator(name)) is not None:
            return Object(program, "int" if -(1 << 31) <= value < 1 << 31 else "long", value)
        if FindObjectFlags.VARIABLE not in flags:
            return None
        if name in ARRAYS:
            element, length = ARRAYS[name]
            type_ = program.array_type(program.type(element), btf.enumerator(length))
        elif name in VARIABLES:
            type_ = program.type(VARIABLES[name])
        else:
            return None
        return Object(program, type_, address=_address(program, name))

    return find
