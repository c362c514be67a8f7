"""The architectures on which a running process can be changed: the rows of `kernel.architecture`."""

import importlib
import platform

from ioflusher.flag.attach.arch import Architecture
from ioflusher.flag.errors import NotSupportedError
from ioflusher.kernel.architecture import PROCESSORS


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
