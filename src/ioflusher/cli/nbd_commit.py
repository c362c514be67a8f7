"""`ioflusher nbd commit`: the changes of an overlay's layer go into its base."""

import os

import click

from ioflusher.support.sizes import format_size


@click.command("commit")
@click.argument("base", metavar="KIND:VALUE")
@click.argument("layer", type=click.Path(dir_okay=False))
def commit_command(base: str, layer: str) -> None:
    """Write what LAYER has changed into its base, and empty it. Nobody may serve either meanwhile.

    The base is described as for `ioflusher nbd serve`: file:/var/lib/disk.img, for example. A commit that was
    interrupted is done again. To discard a layer, delete it.
    """
    from ioflusher.nbd.backends import BackendError, OverlayBackend, open_backend
    from ioflusher.nbd.backends.overlay import block_of

    if not os.path.exists(layer):  # an overlay would make it
        raise BackendError(f"there is no layer {layer!r}", hint="name the file that `layer=` had")
    with OverlayBackend(open_backend(base), layer, block=block_of(layer)) as overlay:
        written = overlay.commit()
    click.echo(f"{format_size(written)} written into {base}")
