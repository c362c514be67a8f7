"""`ioflusher lab kernels`: the kernels that guests can boot, listed, fetched and removed."""

import dataclasses
import json

import click

from ioflusher.cli.lab_options import progress_line
from ioflusher.support.text import columns

_HEAD = ("SERIES", "RELEASE", "FROM", "HERE", "GOOD FOR")


@click.group("kernels", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def kernels_command(context: click.Context, as_json: bool) -> None:
    """List the kernels that guests can boot, with where each comes from.

    What is not here is fetched when `--kernel SERIES` asks for it, or by `lab kernels fetch`. Packages come
    through apt, which checks their signatures; the mirror is the one of this machine's own sources, or
    $IOFLUSHER_MIRROR, a URI below which debian, debian-security and ubuntu lie.
    """
    if context.invoked_subcommand is not None:
        return
    from ioflusher.lab.kernels import cache_directory
    from ioflusher.lab.kernels.listing import list_kernels

    found = list_kernels(cache_directory())
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(kernel) for kernel in found]))
        return
    rows = [(k.series, k.release, k.origin, k.here or "-", k.good_for) for k in found]
    click.echo("\n".join(columns(_HEAD, rows)))


@kernels_command.command("fetch")
@click.argument("series", nargs=-1, required=True)
@click.option("--mirror", metavar="URI", help="Fetch from here; below it lie debian, ubuntu and others.")
def fetch_command(series: tuple[str, ...], mirror: str | None) -> None:
    """Fetch the newest kernel of each SERIES, such as 5.8 or newest, into the cache; needs no root."""
    from ioflusher.lab.kernels import cache_directory, fetch_kernel

    for one in series:
        with progress_line() as progress:
            kernel = fetch_kernel(one, cache_directory(), progress, mirror=mirror)
        click.echo(f"{one}: Linux {kernel.release} in {kernel.image.parent}")


@kernels_command.command("remove")
@click.argument("series", nargs=-1, required=True)
def remove_command(series: tuple[str, ...]) -> None:
    """Delete kernels from the cache: each SERIES, or one RELEASE of it."""
    from ioflusher.lab.kernels import cache_directory
    from ioflusher.lab.kernels.cache import remove_cached

    for one in series:
        for release in remove_cached(cache_directory(), one):
            click.echo(f"removed Linux {release}")
