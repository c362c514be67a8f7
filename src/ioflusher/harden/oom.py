"""The out-of-memory killer's view of a process."""

from pathlib import Path

from ioflusher.harden.errors import HardenError, denied

# include/uapi/linux/oom.h
OOM_SCORE_ADJ_MIN = -1000
OOM_SCORE_ADJ_MAX = 1000


def set_oom_score_adj(n: int, *, proc: Path = Path("/proc")) -> None:
    """Set this process's oom_score_adj: -1000 is never killed, 1000 first; children inherit it.

    Raises:
        HardenError: outside of -1000 to 1000, or where the value would sink without CAP_SYS_RESOURCE.
    fs/proc/base.c, oom_score_adj_write.
    """
    if not OOM_SCORE_ADJ_MIN <= n <= OOM_SCORE_ADJ_MAX:
        raise HardenError(
            f"an OOM score adjustment lies between {OOM_SCORE_ADJ_MIN} and {OOM_SCORE_ADJ_MAX}, found {n}",
            hint="-1000 keeps the process from being killed at all",
        )
    try:
        # One write(2): the kernel reads the whole number from a single call.
        (proc / "self" / "oom_score_adj").write_text(f"{n}\n")
    except OSError as error:
        raise denied(
            f"set the OOM score adjustment to {n}",
            "CAP_SYS_RESOURCE to go below the process's lowest value so far",
            error,
            "systemd OOMScoreAdjust=, docker run --oom-score-adj",
        ) from error
