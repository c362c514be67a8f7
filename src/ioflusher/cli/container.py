"""`ioflusher container`: what docker, podman, compose and Kubernetes need."""

import click

from ioflusher.cli.hardening_options import POLICIES
from ioflusher.harden.container import Engine, container_text


@click.command()
@click.argument("engine", type=click.Choice([engine.value for engine in Engine]), required=False)
@click.option("--lock-memory", is_flag=True, help="Also what mlockall takes.")
@click.option("--policy", type=click.Choice(POLICIES), help="Also what this scheduling policy takes.")
# what --policy was called first
@click.option("--realtime", is_flag=True, hidden=True)
def container(engine: str | None, lock_memory: bool, policy: str | None, realtime: bool) -> None:
    """Print what a container needs for the IO_FLUSHER state.

    That is, to run a program in it. Without ENGINE: for all of them.
    """
    realtime = realtime or policy is not None
    engines = [Engine(engine)] if engine else list(Engine)
    for number, one in enumerate(engines):
        if len(engines) > 1:
            click.echo(f"{chr(10) if number else ''}# {one.value}")
        click.echo(container_text(one, lock_memory=lock_memory, realtime=realtime), nl=False)
