"""HOST:PORT on the command line: where to listen."""

import click


def host_port(text: str, *, host: str = "", example: str = "127.0.0.1:10809") -> tuple[str, int]:
    """A host and a TCP port, as 127.0.0.1:10809 or [::1]:10809; port 0 lets the system pick one.

    `host` stands for one that is left out (":9847"); empty: it has to be there.
    """
    name, colon, port = text.rpartition(":")
    name = name.removeprefix("[").removesuffix("]") or host
    if not (colon and name and port.isascii() and port.isdigit()) or int(port) > 0xFFFF:
        raise click.BadParameter(f"{text!r} is no address; expected HOST:PORT, as {example}")
    return name, int(port)
