"""The numbers that rules compare with; the configuration may set each."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Thresholds.

    Attributes:
        unlocked_kib: resident memory that a daemon may leave unlocked.
        swapped_kib: memory of a daemon that may be swapped out.
        oom_score_adj: a daemon with a higher one can be killed when memory is short.
        request_kib: kernel memory that one request in a daemon's hands may take: with 8192 KiB for an nbd
            queue of 128 the lab's swap scenario ran to its end.
        dirty_mib: a dirty limit of the machine up to this is filled by one device within a second or so.
        used_percent: a memory limit of which more is used is near.
    """

    unlocked_kib: int = 1024
    swapped_kib: int = 0
    oom_score_adj: int = -900
    request_kib: int = 64
    dirty_mib: int = 64
    used_percent: int = 50


# name -> (least, most, meaning)
RANGES: dict[str, tuple[int, int, str]] = {
    "unlocked_kib": (0, 1 << 40, "resident memory, KiB, that a daemon may leave unlocked"),
    "swapped_kib": (0, 1 << 40, "memory of a daemon, KiB, that may be swapped out"),
    "oom_score_adj": (-1000, 1000, "the highest oom_score_adj that counts as protected"),
    "request_kib": (1, 1 << 20, "kernel memory, KiB, that one request in a daemon's hands may take"),
    "dirty_mib": (1, 1 << 40, "a dirty limit of the machine, MiB, up to which one device fills it at once"),
    "used_percent": (0, 100, "share of a memory limit, percent, that may be used before it counts as near"),
}
