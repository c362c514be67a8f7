"""Give up the capability that setting the state took."""

from ioflusher.harden.errors import HardenError
from ioflusher.kernel.capability import CAP_SYS_RESOURCE
from ioflusher.kernel.prctl import PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER
from ioflusher.kernel.syscalls import prctl


def drop_ambient_capability(capability: int = CAP_SYS_RESOURCE) -> None:
    """Take the capability out of the calling thread's ambient set: a program executed next lacks it.

    A program that root executes has it all the same, as root has everything.

    Raises:
        HardenError: where the kernel has no ambient set (before 4.3).
    """
    try:
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, capability)
    except OSError as error:
        raise HardenError(
            f"cannot take capability {capability} out of the ambient set: {error.strerror}", errno=error.errno
        ) from error
