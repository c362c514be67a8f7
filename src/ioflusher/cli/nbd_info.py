"""`ioflusher nbd info`: what a server says of its exports."""

from typing import TYPE_CHECKING, Any

import click

from ioflusher.support.text import printable

if TYPE_CHECKING:
    from ioflusher.nbd.protocol.exports import Export


@click.command("info")
@click.argument("uri")
@click.option("--list", "everything", is_flag=True, help="All exports that the server names.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info_command(uri: str, everything: bool, as_json: bool) -> None:
    """Say what the server at URI tells of its export, or of all."""
    from ioflusher.nbd.address import parse_uri
    from ioflusher.nbd.client import describe, list_exports

    address = parse_uri(uri)
    if not everything:
        facts = _facts(describe(address))
        if as_json:
            _print_json({"uri": uri, **facts})
        else:
            _print(facts)
        return
    entries = list_exports(address)
    found = [
        {"export": entry.listed.name, "description": entry.listed.description}
        if entry.export is None
        else _facts(entry.export)
        for entry in entries
    ]
    if as_json:
        _print_json({"uri": uri, "exports": found})
        return
    for number, facts in enumerate(found):
        if number:
            click.echo()
        _print(facts)


def _facts(export: "Export") -> dict[str, Any]:
    from ioflusher.nbd.protocol.wire import TransmissionFlag

    return {
        "export": export.name,
        "description": export.description,
        "size": export.size,
        "flags": [flag.name for flag in TransmissionFlag if export.has(flag)],
        "minimum_block_size": export.block_size.minimum,
        "preferred_block_size": export.block_size.preferred,
        "maximum_payload": export.block_size.maximum,
        "contexts": list(export.contexts),
    }


def _print_json(document: dict[str, Any]) -> None:
    import json

    click.echo(json.dumps(document))


def _print(facts: dict[str, Any]) -> None:
    """A line each; what came from the server has everything unprintable escaped."""
    for key, value in facts.items():
        if value in ("", []) and key != "export":
            continue
        shown = ", ".join(value) if isinstance(value, list) else str(value)
        click.echo(f"{key.replace('_', ' ')}: {printable(shown)}")
