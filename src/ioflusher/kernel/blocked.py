"""The system call that a thread is in: the text of /proc/PID/task/TID/syscall (fs/proc/base.c)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Blocked:
    """A system call that a thread waits in.

    Attributes:
        number: of the call.
        arguments: six words.
        stack, address: stack pointer, and the address behind the instruction that entered the kernel.
    """

    number: int
    arguments: tuple[int, ...]
    stack: int
    address: int


def parse_syscall(text: bytes) -> Blocked | None:
    """The call in the text; None for a thread that runs, or waits for another reason (number -1).

    Raises:
        ValueError: where the text is not of that form.
    """
    fields = text.split()
    if fields == [b"running"] or (len(fields) == 3 and fields[0] == b"-1"):
        return None
    if len(fields) != 9:
        expected = "'running', '-1 sp pc' or 'number six-arguments sp pc'"
        raise ValueError(f"expected {expected}, found {text[:80]!r}")
    *arguments, stack, address = (int(field, 16) for field in fields[1:])
    return Blocked(int(fields[0]), tuple(arguments), stack, address)
