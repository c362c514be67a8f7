"""The hardening options that `ioflusher run`, `ioflusher unit` and `ioflusher nbd serve` share."""

from collections.abc import Callable
from typing import Any

import click

from ioflusher.harden import UNLIMITED, IoClass, RealtimePolicy, Settings
from ioflusher.support.sizes import SizeError, parse_size


def memory_limit(value: str) -> int:
    """A size such as 64M in bytes, or UNLIMITED for "unlimited"."""
    try:
        return UNLIMITED if value == "unlimited" else parse_size(value)
    except SizeError as error:
        raise click.BadParameter(f'{error}; write 64M, for example, or "unlimited"') from error


def io_priority(value: str) -> tuple[IoClass, int | None]:
    """An I/O class with an optional level, as best-effort:0."""
    name, colon, level = value.partition(":")
    known = {io_class.name.lower().replace("_", "-"): io_class for io_class in IoClass}
    if name not in known or (colon and not level.isdecimal()):
        raise click.BadParameter(
            f"{value!r} is not one of {', '.join(known)}, with a level as in best-effort:0"
        )
    return known[name], int(level) if colon else None


POLICIES = ("fifo", "rr")
OPTIONS = (
    click.option("--memlock", type=memory_limit, metavar="SIZE", help='Memory lock limit: 64M, "unlimited".'),
    click.option("--cgroup", metavar="PATH", help="Control group to run in, below /sys/fs/cgroup."),
    click.option(
        "--oom-score-adj",
        type=click.IntRange(-1000, 1000),
        metavar="N",
        help="OOM score adjustment, -1000 (never) to 1000.",
    ),
    click.option("--policy", type=click.Choice(POLICIES), help="Real-time scheduling policy."),
    click.option("--priority", type=click.IntRange(1, 99), metavar="N", help="Its priority, 1 to 99."),
    click.option("--nice", type=int, metavar="N", help="Nice value, -20 to 19."),
    click.option(
        "--ionice",
        type=io_priority,
        metavar="CLASS[:N]",
        help="I/O class: realtime, best-effort, idle; level 0 to 7.",
    ),
)


def hardening(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command, which gets them as one argument `settings`."""

    def with_settings(
        *,
        memlock: int | None,
        cgroup: str | None,
        oom_score_adj: int | None,
        policy: str | None,
        priority: int | None,
        nice: int | None,
        ionice: tuple[IoClass, int | None] | None,
        **others: Any,
    ) -> None:
        settings = Settings(
            memory_lock_limit=memlock,
            cgroup=cgroup,
            oom_score_adj=oom_score_adj,
            policy=RealtimePolicy[policy.upper()] if policy else None,
            priority=priority,
            nice=nice,
            io_class=ionice[0] if ionice else None,
            io_level=ionice[1] if ionice else None,
        )
        command(settings=settings, **others)

    with_settings.__doc__ = command.__doc__
    with_settings.__name__ = command.__name__
    decorated: Callable[..., None] = with_settings
    for option in reversed(OPTIONS):
        decorated = option(decorated)
    return decorated
