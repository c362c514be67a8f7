"""An NBD server: `ioflusher nbd serve` without its command line, which loads slowly under emulation.

    python -S -m ioflusher.lab.daemons.nbd --unix PATH|--tcp HOST:PORT --store FILE|--remote URI [...]

Server and back ends are those of `ioflusher.nbd`.
"""

import signal
import threading

from ioflusher.lab.daemons.hardening import SIGNALS, option_parser, run, take_rest, take_state
from ioflusher.nbd.address import parse_uri
from ioflusher.nbd.backends import FileBackend, RemoteBackend
from ioflusher.nbd.server import Server

THREAD_STACK = 1 << 20  # bytes; locked memory has all of it
LONGEST_PAYLOAD = 1 << 20  # bytes; each connection takes that much memory


def main() -> int:
    """The program."""
    parser = option_parser("ioflusher.lab.daemons.nbd", "Serve a network block device.", store_required=False)
    parser.add_argument("--remote", metavar="URI", help="forward every request to another NBD server")
    listen = parser.add_mutually_exclusive_group(required=True)
    listen.add_argument("--unix", metavar="PATH", help="listen on this Unix socket")
    listen.add_argument("--tcp", metavar="HOST:PORT", help="listen on this TCP address")
    options = parser.parse_args()
    if (options.store is None) == (options.remote is None):
        parser.error("give one of --store and --remote")
    take_state(options)
    threading.stack_size(THREAD_STACK)
    backend = (
        FileBackend(options.store, direct=options.direct)
        if options.store is not None
        else RemoteBackend(parse_uri(options.remote), patience=0, journal=0)
    )
    # one request after the other: the scenarios' machines are measured for it, and a worker locks 2 MiB
    with backend, Server(backend, max_payload=LONGEST_PAYLOAD, depth=1) as server:
        take_rest(options)
        for number in SIGNALS:
            signal.signal(number, lambda *_: server.stop())
        if options.unix is not None:
            address = server.listen_unix(options.unix)
        else:
            host, _, port = options.tcp.rpartition(":")
            address = server.listen_tcp(host, int(port))
        print(f"listening on {address.uri}", flush=True)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    run(main)
