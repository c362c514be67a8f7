"""System calls that Python's standard library lacks: the only module that uses ctypes.

Every function raises OSError with the kernel's errno, and OSError(ENOSYS) where the C library has no such
function (not Linux). Nothing here knows what the calls are good for.
"""

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Any

# include/uapi/asm-generic/mman.h (alpha, powerpc and sparc number them otherwise)
MCL_CURRENT = 1
MCL_FUTURE = 2
MCL_ONFAULT = 4  # since 4.4


def _function(name: str, restype: Any, *argtypes: Any) -> Callable[..., int]:
    """The C library's function of this name, or one that fails with ENOSYS."""
    try:
        function = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (AttributeError, OSError, TypeError):

        def missing(*_arguments: object) -> int:
            ctypes.set_errno(errno.ENOSYS)
            return -1

        return missing
    function.restype = restype
    function.argtypes = argtypes
    checked: Callable[..., int] = function
    return checked


_prctl = _function("prctl", ctypes.c_int, ctypes.c_int, *[ctypes.c_ulong] * 4)
_mlockall = _function("mlockall", ctypes.c_int, ctypes.c_int)
_munlockall = _function("munlockall", ctypes.c_int)


def _checked(result: int) -> int:
    """`result`, or OSError with the errno that the C library left behind."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """prctl(2) for the calling thread, all five arguments passed as full words.

    Raises:
        OSError: with the kernel's errno.
    """
    return _checked(_prctl(option, arg2, arg3, arg4, arg5))


def mlockall(flags: int) -> None:
    """mlockall(2) with MCL_CURRENT, MCL_FUTURE and MCL_ONFAULT.

    Raises:
        OSError: with the kernel's errno.
    """
    _checked(_mlockall(flags))


def munlockall() -> None:
    """munlockall(2): the opposite of `mlockall`, for the whole process.

    Raises:
        OSError: with the kernel's errno.
    """
    _checked(_munlockall())
