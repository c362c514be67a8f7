"""Setting and reading the calling thread's state, with and without the capability."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from ioflusher.flag import state as room
from ioflusher.flag.errors import (
    FlagError,
    InvalidStateError,
    NotPermittedError,
    NotSupportedError,
    StateUnreadableError,
    not_permitted,
)
from ioflusher.flag.state import get_io_flusher, set_io_flusher
from ioflusher.kernel.capability import CAP_SYS_RESOURCE, parse_capabilities
from ioflusher.kernel.prctl import PR_GET_IO_FLUSHER, PR_SET_IO_FLUSHER

Call = tuple[int, ...]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[Call]]:
    """Stands in for prctl: answers with a number, or fails with an errno when the number is negative."""

    def install(answer: int) -> list[Call]:
        calls: list[Call] = []

        def prctl(*arguments: int) -> int:
            calls.append(arguments)
            if answer < 0:
                raise OSError(-answer, "refused")
            return answer

        monkeypatch.setattr(room, "prctl", prctl)
        return calls

    return install


@pytest.mark.parametrize("state", [True, False])
def test_set_passes_the_state_and_nothing_else(kernel: Callable[[int], list[Call]], state: bool) -> None:
    """The state goes into argument 2; arguments 3 to 5 keep their zero."""
    calls = kernel(0)
    set_io_flusher(state)
    assert calls == [(PR_SET_IO_FLUSHER, state)]


@pytest.mark.parametrize("state", [0, 1, 2, None, "on"])
def test_set_refuses_what_is_no_bool(kernel: Callable[[int], list[Call]], state: object) -> None:
    """A 0 that was meant as "success" must not clear the state: only True and False are taken."""
    calls = kernel(0)
    with pytest.raises(InvalidStateError) as caught:
        set_io_flusher(state)  # type: ignore[arg-type]
    assert caught.value.errno == errno.EINVAL
    assert not calls


@pytest.mark.parametrize(("answer", "expected"), [(1, True), (0, False)])
def test_get_takes_the_kernels_answer(
    kernel: Callable[[int], list[Call]], answer: int, expected: bool
) -> None:
    """Where PR_GET_IO_FLUSHER works, it decides."""
    calls = kernel(answer)
    assert get_io_flusher() is expected
    assert calls == [(PR_GET_IO_FLUSHER,)]


@pytest.mark.parametrize(
    ("flags", "expected"), [(0x00180000, True), (0x00080000, False), (0x00400000, False)]
)
def test_get_without_privilege_reads_the_flags(
    kernel: Callable[[int], list[Call]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: object,
    flags: int,
    expected: bool,
) -> None:
    """Where the kernel says EPERM, the task flags in /proc decide."""
    kernel(-errno.EPERM)
    stat = f"{tmp_path}/stat"
    with open(stat, "w") as file:
        file.write(f"1 (a) b) S 1 1 1 0 -1 {flags} 0 0\n")
    monkeypatch.setattr(room, "OWN_STAT", stat)
    assert get_io_flusher() is expected


def test_get_says_what_it_could_not_read(
    kernel: Callable[[int], list[Call]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without privilege and without /proc the state is unknown, which is an error and not False."""
    kernel(-errno.EPERM)
    monkeypatch.setattr(room, "OWN_STAT", "/nonexistent/stat")
    with pytest.raises(StateUnreadableError) as caught:
        get_io_flusher()
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EPERM, NotPermittedError),
        (errno.EINVAL, NotSupportedError),
        (errno.ENOSYS, NotSupportedError),
        (errno.EFAULT, FlagError),
    ],
)
def test_each_refusal_has_its_class(
    kernel: Callable[[int], list[Call]], number: int, kind: type[FlagError]
) -> None:
    """The errno decides on the class and stays readable."""
    kernel(-number)
    with pytest.raises(FlagError) as caught:
        set_io_flusher(True)
    assert type(caught.value) is kind
    assert caught.value.errno == number


@pytest.mark.parametrize(
    ("effective", "permitted", "bounding", "message", "hint"),
    [
        (0, 0, 0, "missing from the effective, permitted and bounding sets", "--cap-add SYS_RESOURCE"),
        (0, 0, 1, "missing from the effective and permitted sets", "setcap"),
        (0, 1, 1, "missing from the effective set", "switched off"),
        (1, 1, 1, "not in the first user namespace", "user namespace"),
    ],
)
def test_refusal_says_which_set_and_what_to_do(
    effective: int, permitted: int, bounding: int, message: str, hint: str
) -> None:
    """The message names the sets that lack the capability; the hint fits them."""
    status = "".join(
        f"{name}:\t{bit << 24:016x}\n"
        for name, bit in (("CapPrm", permitted), ("CapEff", effective), ("CapBnd", bounding))
    )
    error = not_permitted(status.encode(), "set the IO_FLUSHER state")
    assert message in str(error)
    assert error.hint is not None
    assert hint in error.hint
    assert error.errno == errno.EPERM


@pytest.mark.live
def test_this_machine_agrees_with_its_capabilities() -> None:
    """With CAP_SYS_RESOURCE the call works, without it raises; reading works either way."""
    before = get_io_flusher()
    if parse_capabilities(Path("/proc/thread-self/status").read_bytes()).missing(CAP_SYS_RESOURCE):
        with pytest.raises(NotPermittedError, match="missing from the"):
            set_io_flusher(True)
    else:
        set_io_flusher(True)
        assert get_io_flusher() is True
        set_io_flusher(before)
    assert get_io_flusher() is before
