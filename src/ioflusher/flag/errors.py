"""What can go wrong with the IO_FLUSHER state, each kind its own class below `FlagError`."""

from errno import EINVAL, ENOENT, EPERM, ESRCH

from ioflusher.errors import IoflusherError
from ioflusher.kernel.capability import CAP_SYS_RESOURCE, parse_capabilities

_HINT_PERMITTED = (
    "the capability is permitted but switched off: put it back into the effective set, "
    "or set the state before the program changes its user"
)
_HINT_BOUNDING = (
    "give CAP_SYS_RESOURCE: systemd AmbientCapabilities=CAP_SYS_RESOURCE (with User=), "
    "or `setcap cap_sys_resource+ep PROGRAM`, or start as root under `ioflusher run`"
)
_HINT_CONTAINER = (
    "the capability is not even in the bounding set, as in containers: docker or podman run "
    "--cap-add SYS_RESOURCE, Kubernetes securityContext.capabilities.add: [SYS_RESOURCE], "
    "systemd CapabilityBoundingSet=CAP_SYS_RESOURCE"
)
_HINT_NAMESPACE = (
    "the kernel asks for the capability in the first user namespace: start the program outside of "
    "the user namespace (no rootless container, no unshare --user)"
)


class FlagError(IoflusherError):
    """The IO_FLUSHER state could not be read or changed."""


class NotPermittedError(FlagError):
    """The thread lacks CAP_SYS_RESOURCE in the first user namespace (EPERM).

    Attributes:
        missing: which of the sets "effective", "permitted", "bounding" lack it; empty in a user namespace
            of its own, or where the sets could not be read.
    """

    def __init__(self, message: str, *, missing: tuple[str, ...] = (), hint: str | None = None) -> None:
        super().__init__(message, errno=EPERM, hint=hint)
        self.missing = missing


class NotSupportedError(FlagError):
    """This kernel has no PR_SET_IO_FLUSHER (before Linux 5.6), or a filter hides it."""


class InvalidStateError(FlagError, TypeError):
    """A state that is neither True nor False was asked for."""

    def __init__(self, state: object) -> None:
        super().__init__(
            f"the IO_FLUSHER state is True (set) or False (cleared), found {state!r}",
            errno=EINVAL,
            hint="0 and 1 are refused too, since a 0 that was meant to set the state clears it",
        )


class NoSuchProcessError(FlagError):
    """No process or thread of this number is there (any more).

    Attributes:
        pid: the number that was asked for.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(f"no process {pid}", errno=ESRCH, hint="it may have ended; see `ps -eL`")
        self.pid = pid


class StateUnreadableError(FlagError):
    """The state could be read neither by prctl nor from /proc."""

    def __init__(self, path: str, why: OSError) -> None:
        super().__init__(
            f"cannot read {path}: {why.strerror}",
            errno=why.errno or ENOENT,
            hint="mount proc on /proc, and without hidepid, or run as the user who owns the process",
        )


def not_permitted(status: bytes, action: str) -> NotPermittedError:
    """The error for an EPERM, from the text of the thread's /proc/PID/status.

    `action` says what was refused, as "set the IO_FLUSHER state".
    """
    missing = parse_capabilities(status).missing(CAP_SYS_RESOURCE)
    if not missing:
        where, hint = "effective here, but not in the first user namespace", _HINT_NAMESPACE
    else:
        where = f"missing from the {_enumerated(missing)} set{'s' if len(missing) > 1 else ''}"
        hint = _HINT_CONTAINER if "bounding" in missing else _HINT_BOUNDING
        if missing == ("effective",):
            hint = _HINT_PERMITTED
    return NotPermittedError(
        f"not permitted to {action}: it needs CAP_SYS_RESOURCE, which is {where}", missing=missing, hint=hint
    )


def _enumerated(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
