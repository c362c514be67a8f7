"""System calls that Python's standard library lacks: the only module that uses ctypes.

Every function raises OSError with the kernel's errno, and OSError(ENOSYS) where the C library has no such
function (not Linux). Nothing here knows what the calls are good for.
"""

import ctypes
import errno
import os

TYPE_CHECKING = False  # typing costs as much as everything else that `import ioflusher` loads
if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable
    from typing import Any

# include/uapi/asm-generic/mman.h (alpha, powerpc and sparc number them otherwise)
MCL_CURRENT = 1
MCL_FUTURE = 2
MCL_ONFAULT = 4  # since 4.4

MAP_LOCKED = 0x2000  # as those

MNT_DETACH = 2  # include/linux/fs.h

# glibc's malloc.h, for `mallopt`
M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8

# system calls since 5.1, which have one number on every processor but alpha (asm-generic/unistd.h)
_IO_URING_SETUP = 425
_IO_URING_ENTER = 426
_PIDFD_GETFD = 438

# include/uapi/linux/ptrace.h, as far as this module needs it; the rest is in ioflusher.kernel.ptrace
_PTRACE_GETREGSET = 0x4204
_PTRACE_SETREGSET = 0x4205


def _function(library: "type[ctypes.CDLL]", name: str, *argtypes: "Any") -> "Callable[..., int]":
    """The C library's function of this name, or one that fails with ENOSYS."""
    try:
        function = getattr(library(None, use_errno=library is ctypes.CDLL), name)
    except (AttributeError, OSError, TypeError):

        def missing(*_arguments: object) -> int:
            ctypes.set_errno(errno.ENOSYS)
            return -1

        return missing
    function.restype = ctypes.c_int
    function.argtypes = argtypes or None
    checked: Callable[..., int] = function
    return checked


class _Vector(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def word(value: int) -> object:
    """`value` as a full machine word, prepared for `prctl_raw`."""
    return ctypes.c_ulong.from_param(value)


ZERO = word(0)
ONE = word(1)

# For hot paths: prctl(option, word, word, word, word), -1 on failure, without the errno, which `prctl` has.
# Prepared words and no errno halve the cost of a call. PyDLL keeps the interpreter's lock, which the options
# in use here can afford: none of them sleeps.
prctl_raw = _function(ctypes.PyDLL, "prctl")
_prctl = _function(ctypes.CDLL, "prctl", ctypes.c_int, *[ctypes.c_ulong] * 4)
_ptrace = _function(ctypes.CDLL, "ptrace", ctypes.c_int, ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)
_syscall = _function(ctypes.CDLL, "syscall", *[ctypes.c_long] * 4)
_process_vm_readv = _function(
    ctypes.CDLL,
    "process_vm_readv",
    *(ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong),
)
_mlockall = _function(ctypes.CDLL, "mlockall", ctypes.c_int)
_mount = _function(ctypes.CDLL, "mount", *[ctypes.c_char_p] * 3, ctypes.c_ulong, ctypes.c_char_p)
_umount2 = _function(ctypes.CDLL, "umount2", ctypes.c_char_p, ctypes.c_int)
_fallocate = _function(ctypes.CDLL, "fallocate", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_syscall_6 = _function(ctypes.CDLL, "syscall", *[ctypes.c_long] * 7)
_mallopt = _function(ctypes.CDLL, "mallopt", ctypes.c_int, ctypes.c_int)


def _last_error() -> OSError:
    """The error that the last failed call of this module left behind in this thread."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """prctl(2) for the calling thread, all five arguments passed as full words.

    Raises:
        OSError: with the kernel's errno.
    """
    result = _prctl(option, arg2, arg3, arg4, arg5)
    if result == -1:
        raise _last_error()
    return result


def mlockall(flags: int) -> None:
    """mlockall(2) with MCL_CURRENT, MCL_FUTURE and MCL_ONFAULT.

    Raises:
        OSError: with the kernel's errno.
    """
    if _mlockall(flags) == -1:
        raise _last_error()


def mallopt(parameter: int, value: int) -> None:
    """mallopt(3) of glibc, with M_*.

    Raises:
        OSError: EINVAL where the C library does not take the value, or has no such function.
    """
    if _mallopt(parameter, value) != 1:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def malloc_touched_and_free(piece: int, count: int) -> None:
    """So many blocks from malloc(3), each written to from end to end, and all of them freed.

    Raises:
        MemoryError: there is no memory for them.
    """
    library = ctypes.CDLL(None)
    malloc, free = library.malloc, library.free
    malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    free.restype, free.argtypes = None, [ctypes.c_void_p]
    blocks: list[int] = []
    try:
        for _ in range(count):
            block = malloc(piece)
            if not block:
                raise MemoryError
            blocks.append(block)
            ctypes.memset(block, 0, piece)
    finally:
        for block in blocks:
            free(block)


def process_vm_touch(pid: int, address: int) -> bool:
    """Read one byte of another process's memory by process_vm_readv(2), which brings its page into memory.

    False where the process has no memory at the address, or must not read there (EFAULT).

    Raises:
        OSError: with the kernel's errno; ESRCH without such a process.
    """
    here = ctypes.create_string_buffer(1)
    local = _Vector(ctypes.addressof(here), 1)
    remote = _Vector(address, 1)
    if _process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0) == -1:
        error = _last_error()
        if error.errno == errno.EFAULT:
            return False
        raise error
    return True


def ioprio_set(which: int, who: int, priority: int) -> None:
    """ioprio_set(2), which C libraries do not wrap; its number is known where `architecture` has a row.

    Raises:
        OSError: with the kernel's errno; ENOSYS on other processors.
    """
    from ioflusher.kernel.processors import PROCESSORS

    row = PROCESSORS.get(os.uname().machine)
    if row is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if _syscall(row.ioprio_set, which, who, priority) == -1:
        raise _last_error()


def ptrace(request: int, tid: int, address: int = 0, data: int = 0) -> int:
    """ptrace(2), for requests whose `data` is a number; not for PTRACE_PEEK*.

    Raises:
        OSError: with the kernel's errno.
    """
    result = _ptrace(request, tid, address, data)
    if result == -1:
        raise _last_error()
    return result


def ptrace_read(request: int, tid: int, address: int, size: int) -> bytes:
    """What a request that writes to `data` wrote there, at most `size` bytes of it.

    Raises:
        OSError: with the kernel's errno.
    """
    buffer = ctypes.create_string_buffer(size)
    if _ptrace(request, tid, address, buffer) == -1:
        raise _last_error()
    return buffer.raw


def ptrace_get_registers(tid: int, note: int, size: int) -> bytes:
    """A register set of a stopped thread (PTRACE_GETREGSET), at most `size` bytes of it.

    Raises:
        OSError: with the kernel's errno.
    """
    buffer = ctypes.create_string_buffer(size)
    vector = _Vector(ctypes.addressof(buffer), size)
    if _ptrace(_PTRACE_GETREGSET, tid, note, ctypes.byref(vector)) == -1:
        raise _last_error()
    return buffer.raw[: vector.length]


def ptrace_set_registers(tid: int, note: int, registers: bytes) -> None:
    """Write a register set of a stopped thread (PTRACE_SETREGSET).

    Raises:
        OSError: with the kernel's errno.
    """
    buffer = ctypes.create_string_buffer(registers, len(registers))
    vector = _Vector(ctypes.addressof(buffer), len(registers))
    if _ptrace(_PTRACE_SETREGSET, tid, note, ctypes.byref(vector)) == -1:
        raise _last_error()


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2).

    Raises:
        OSError: with the kernel's errno.
    """
    if _mount(os.fsencode(source), os.fsencode(target), os.fsencode(kind), flags, os.fsencode(data)) == -1:
        raise _last_error()


def umount(target: str, flags: int = 0) -> None:
    """umount2(2), with MNT_DETACH or nothing.

    Raises:
        OSError: with the kernel's errno.
    """
    if _umount2(os.fsencode(target), flags) == -1:
        raise _last_error()


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2) with a mode, FALLOC_FL_* of `kernel.falloc`, which os.posix_fallocate does not take."""
    if _fallocate(fd, mode, offset, length) != 0:
        raise _last_error()


def address_of(memory: "mmap.mmap") -> int:
    """Where in this process the mapping lies, for structures that hand an address to the kernel."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def io_uring_setup(entries: int, parameters: bytearray) -> int:
    """io_uring_setup(2): the descriptor of a new ring; the kernel fills struct io_uring_params.

    Raises:
        OSError: with the kernel's errno; EPERM where the system forbids io_uring, ENOSYS before 5.1.
    """
    buffer = (ctypes.c_char * len(parameters)).from_buffer(parameters)
    fd = _syscall_6(_IO_URING_SETUP, entries, ctypes.addressof(buffer), 0, 0, 0, 0)
    if fd == -1:
        raise _last_error()
    return fd


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """pidfd_getfd(2): a descriptor of our own for what another process has open; closed on exec.

    Raises:
        OSError: with the kernel's errno; EPERM where the process may not be traced, EBADF where it has not
            that one open, ENOSYS before 5.6.
    """
    taken = _syscall_6(_PIDFD_GETFD, pidfd, fd, 0, 0, 0, 0)
    if taken == -1:
        raise _last_error()
    return taken


def io_uring_enter(fd: int, submit: int, wait_for: int, flags: int) -> int:
    """io_uring_enter(2): how many entries were taken. Other threads run meanwhile.

    Raises:
        OSError: with the kernel's errno; EINTR after a signal.
    """
    taken = _syscall_6(_IO_URING_ENTER, fd, submit, wait_for, flags, 0, 0)
    if taken == -1:
        raise _last_error()
    return taken
