"""What can go wrong with the IO_FLUSHER state, each kind its own class below `FlagError`."""

from errno import EDEADLK, EINVAL, ENOENT, EPERM, ESRCH

from ioflusher.errors import IoflusherError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ioflusher.kernel.status import TaskStatus

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
    "the user namespace (no rootless container, no unshare --user); a seccomp filter can cause this too"
)


class FlagError(IoflusherError):
    """The IO_FLUSHER state could not be read or changed."""


class NotPermittedError(FlagError):
    """The thread lacks CAP_SYS_RESOURCE in the first user namespace (EPERM).

    Attributes:
        missing: which of the sets "effective", "permitted", "bounding" lack it; empty in a user namespace
            of its own, behind a filter, or where the sets could not be read.
    """

    def __init__(self, message: str, *, missing: tuple[str, ...] = (), hint: str | None = None) -> None:
        super().__init__(message, errno=EPERM, hint=hint)
        self.missing = missing


class NotSupportedError(FlagError):
    """This system has no PR_SET_IO_FLUSHER: Linux before 5.6, not Linux, or a seccomp filter hides it."""


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


class ScopeError(FlagError):
    """A scope was entered or left in a way that could leave the state on the wrong thread."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, errno=EDEADLK, hint=hint)


def refusal(errno: int, action: str, *, system: str, status: bytes) -> FlagError:
    """What the kernel's refusal of PR_SET_IO_FLUSHER or PR_GET_IO_FLUSHER means.

    `action` says what was refused, as "set the IO_FLUSHER state"; `system` is the kernel's name and release;
    `status` the text of the thread's /proc status, empty where it could not be read.
    """
    known = _known(status)
    if errno == EPERM:
        return _not_permitted(action, known)
    if known and known.seccomp:
        return NotSupportedError(
            f"cannot {action}: the thread runs under a seccomp filter, which answered with error {errno}",
            errno=errno,
            hint="let the filter pass prctl: systemd SystemCallFilter=@process, docker --security-opt",
        )
    return NotSupportedError(
        f"cannot {action}: the kernel must know PR_SET_IO_FLUSHER (Linux 5.6), this is {system}",
        errno=errno,
        hint="boot Linux 5.6 or later",
    )


def _known(status: bytes) -> "TaskStatus | None":
    """What a status text says; None for no text, and for one that is not as the kernel writes it."""
    # Imported here: only an error needs it, and every daemon pays for what this module imports.
    from ioflusher.kernel.status import parse_status

    try:
        return parse_status(status)
    except ValueError:
        return None


def _not_permitted(action: str, status: "TaskStatus | None") -> NotPermittedError:
    from ioflusher.kernel.capability import CAP_SYS_RESOURCE

    what = f"not permitted to {action}: it needs CAP_SYS_RESOURCE"
    if status is None:
        return NotPermittedError(what, hint=_HINT_BOUNDING)
    missing = status.capabilities.missing(CAP_SYS_RESOURCE)
    if not missing:
        return NotPermittedError(
            f"{what} in the first user namespace, and has it here only", hint=_HINT_NAMESPACE
        )
    sets = missing[0] if len(missing) == 1 else f"{', '.join(missing[:-1])} and {missing[-1]}"
    hint = _HINT_CONTAINER if "bounding" in missing else _HINT_BOUNDING
    if missing == ("effective",):
        hint = _HINT_PERMITTED
    where = f"missing from the {sets} set{'s' if len(missing) > 1 else ''}"
    return NotPermittedError(f"{what}, which is {where}", missing=missing, hint=hint)
