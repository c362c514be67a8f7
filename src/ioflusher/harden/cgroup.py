"""Control groups: where a daemon's memory is counted and limited."""

from pathlib import Path

from ioflusher.harden.errors import HardenError

CGROUPS = Path("/sys/fs/cgroup")


def join_cgroup(path: str, *, root: Path = CGROUPS) -> None:
    """Move this process into an existing control group, named relative to `root` or by its whole path.

    Raises:
        HardenError: where there is no such group, or it may not be joined.
    Documentation/admin-guide/cgroup-v2.rst, cgroup.procs.
    """
    procs = root / path.removeprefix(f"{root}/").lstrip("/") / "cgroup.procs"
    try:
        # 0 stands for the writing process.
        procs.write_text("0\n")
    except OSError as error:
        raise HardenError(
            f"cannot join the control group {procs.parent}: {error.strerror}",
            errno=error.errno,
            hint="it must exist, have no children that control resources, and be writable; see systemd-cgls",
        ) from error
