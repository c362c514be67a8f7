"""A Dask cluster that a verb hands its work to: the client for `--dask ADDRESS`."""

import contextlib
from collections.abc import Iterator
from typing import Any

from ioflusher.errors import IoflusherError
from ioflusher.support.text import printable

# seconds that a scheduler has for its first answer
DASK_TIMEOUT = 10.0


@contextlib.contextmanager
def dask_client(address: str, timeout_s: float = DASK_TIMEOUT) -> Iterator[Any]:
    """A distributed.Client of the scheduler at the address.

    Raises:
        IoflusherError: the extra is missing, or no scheduler answers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise IoflusherError(
            "--dask needs the package distributed, which is not installed",
            hint="install the extra: pip install 'ioflusher[dask]'",
        ) from error
    try:
        client = Client(address, timeout=timeout_s)
    except (OSError, TimeoutError, ValueError) as error:
        raise IoflusherError(
            f"no Dask scheduler answers at {printable(address)}",
            hint="give its address as it prints it, such as tcp://10.0.0.1:8786",
        ) from error
    with client:
        yield client
