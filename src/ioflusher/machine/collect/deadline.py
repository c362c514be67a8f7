"""A time limit for reads that the kernel may hold up."""

import errno
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def within(seconds: float, action: Callable[[], Result]) -> Result:
    """What `action` returns, if it does so in time; else it is left behind in a thread of its own.

    Raises:
        TimeoutError: where it did not.
        Exception: what `action` raises.
    """
    import threading  # costs a millisecond, and most programs never wait

    results: list[Result] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            results.append(action())
        except Exception as error:  # handed to the caller below
            errors.append(error)

    # A daemon thread does not keep the program from ending; the kernel's wait ends with the program.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(errno.ETIMEDOUT, f"no answer within {seconds:g} s")
    return results[0]
