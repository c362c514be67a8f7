"""Setting and reading the calling thread's state, with and without the capability."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from tests.flag.conftest import FakeKernel

from ioflusher.flag import state as room
from ioflusher.flag.errors import (
    FlagError,
    InvalidStateError,
    NotPermittedError,
    NotSupportedError,
    StateUnreadableError,
    refusal,
)
from ioflusher.flag.state import get_io_flusher, own_task_flags, set_io_flusher
from ioflusher.kernel.capability import CAP_SYS_RESOURCE
from ioflusher.kernel.prctl import PR_GET_IO_FLUSHER, PR_SET_IO_FLUSHER
from ioflusher.kernel.status import parse_status


@pytest.mark.parametrize("state", [True, False])
def test_set_passes_the_state_and_nothing_else(kernel: FakeKernel, state: bool) -> None:
    """The state goes into argument 2; that arguments 3 to 5 are zero the stand-in checks."""
    set_io_flusher(state)
    assert kernel.calls == [(PR_SET_IO_FLUSHER, state)]
    kernel.on.clear()


@pytest.mark.parametrize("state", [0, 1, 2, None, "on"])
def test_set_refuses_what_is_no_bool(kernel: FakeKernel, state: object) -> None:
    """A 0 that was meant as "success" must not clear the state: only True and False are taken."""
    with pytest.raises(InvalidStateError) as caught:
        set_io_flusher(state)  # type: ignore[arg-type]
    assert caught.value.errno == errno.EINVAL
    assert not kernel.calls


def test_get_takes_the_kernels_answer(kernel: FakeKernel) -> None:
    """Where PR_GET_IO_FLUSHER works, it decides, and nothing else is asked."""
    assert get_io_flusher() is False
    set_io_flusher(True)
    assert get_io_flusher() is True
    set_io_flusher(False)
    assert [option for option, _ in kernel.calls if option == PR_GET_IO_FLUSHER] == [PR_GET_IO_FLUSHER] * 2


@pytest.mark.parametrize(
    ("flags", "expected"), [(0x00180000, True), (0x00080000, False), (0x00400000, False)]
)
def test_get_without_privilege_reads_the_flags(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: int, expected: bool
) -> None:
    """Where the kernel says EPERM, the task flags in /proc decide."""
    stat = tmp_path / "stat"
    stat.write_text(f"1 (a) b) S 1 1 1 0 -1 {flags} 0 0\n")
    monkeypatch.setattr(room, "prctl_raw", lambda *_: -1)
    monkeypatch.setattr(room, "OWN_STAT", str(stat))
    assert get_io_flusher() is expected


def test_get_says_what_it_could_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without privilege and without /proc the state is unknown, which is an error and not False."""
    monkeypatch.setattr(room, "prctl_raw", lambda *_: -1)
    monkeypatch.setattr(room, "OWN_STAT", "/nonexistent/stat")
    with pytest.raises(StateUnreadableError) as caught:
        get_io_flusher()
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.EPERM, NotPermittedError), (errno.EINVAL, NotSupportedError), (errno.ENOSYS, NotSupportedError)],
)
def test_each_refusal_has_its_class(kernel: FakeKernel, number: int, kind: type[FlagError]) -> None:
    """The errno decides on the class, stays readable, and the cause is kept."""
    kernel.refusal = number
    with pytest.raises(FlagError) as caught:
        set_io_flusher(True)
    assert type(caught.value) is kind
    assert caught.value.errno == number
    assert caught.value.hint
    assert isinstance(caught.value.__cause__, OSError)


def status_of(effective: int, permitted: int, bounding: int, seccomp: int = 0) -> bytes:
    """A /proc status text whose sets hold CAP_SYS_RESOURCE or nothing."""
    sets = (("CapPrm", permitted), ("CapEff", effective), ("CapBnd", bounding))
    lines = [f"{name}:\t{bit << CAP_SYS_RESOURCE:016x}" for name, bit in sets]
    head = ["Name:\tx", "State:\tR (running)", "Tgid:\t7", "TracerPid:\t0", "Uid:\t0\t0\t0\t0"]
    return "\n".join([*head, *lines, f"Seccomp:\t{seccomp}", ""]).encode()


@pytest.mark.parametrize(
    ("sets", "message", "hint"),
    [
        ((0, 0, 0), "missing from the effective, permitted and bounding sets", "--cap-add SYS_RESOURCE"),
        ((0, 0, 1), "missing from the effective and permitted sets", "setcap"),
        ((0, 1, 1), "missing from the effective set", "switched off"),
        ((1, 1, 1), "in the first user namespace", "user namespace"),
    ],
)
def test_refusal_says_which_set_and_what_to_do(sets: tuple[int, int, int], message: str, hint: str) -> None:
    """The message names the sets that lack the capability; the hint fits them."""
    error = refusal(errno.EPERM, "set the IO_FLUSHER state", system="Linux 6.12", status=status_of(*sets))
    assert message in str(error)
    assert error.hint is not None
    assert hint in error.hint
    assert error.errno == errno.EPERM


@pytest.mark.parametrize("status", [b"", b"Name:\tx\nCapEff:\t0\n"])
def test_refusal_without_a_status_still_names_the_capability(status: bytes) -> None:
    """Where /proc could not be read, or is not the kernel's, the error says what it knows."""
    error = refusal(errno.EPERM, "set the IO_FLUSHER state", system="Linux 6.12", status=status)
    assert "CAP_SYS_RESOURCE" in str(error)
    assert "missing" not in str(error)


def test_a_filter_is_told_from_an_old_kernel() -> None:
    """EINVAL means an old kernel; under a seccomp filter, the filter."""
    old = refusal(errno.EINVAL, "set it", system="Linux 5.4.0", status=status_of(1, 1, 1))
    filtered = refusal(errno.ENOSYS, "set it", system="Linux 6.12", status=status_of(1, 1, 1, seccomp=2))
    assert "Linux 5.4.0" in str(old)
    assert "seccomp filter" in str(filtered)
    assert type(old) is type(filtered) is NotSupportedError


def test_own_task_flags_are_this_threads() -> None:
    """The flags in /proc/thread-self agree with what the task directory says of the same thread."""
    with open("/proc/thread-self/stat", "rb") as file:
        expected = int(file.read().rpartition(b")")[2].split()[6])
    # PF_USED_MATH and the like may change between two reads; the bits that matter here do not.
    assert own_task_flags() & 0x00180000 == expected & 0x00180000


def test_import_is_light() -> None:
    """`import ioflusher` loads neither dataclasses nor typing nor asyncio: daemons pay for every module."""
    code = "import sys, ioflusher; print(*(set(sys.modules) & set('dataclasses typing asyncio re'.split())))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == []


def test_every_public_name_is_there() -> None:
    """Also the names that are loaded on first use; a name that is none of them is an AttributeError."""
    import ioflusher

    assert [name for name in ioflusher.__all__ if not hasattr(ioflusher, name)] == []
    assert sorted(ioflusher.__all__) == ioflusher.__all__
    assert not hasattr(ioflusher, "no_such_name")


@pytest.mark.live
def test_this_machine_agrees_with_its_capabilities() -> None:
    """With CAP_SYS_RESOURCE the call works, without it raises; reading works either way."""
    before = get_io_flusher()
    if parse_status(Path("/proc/thread-self/status").read_bytes()).capabilities.missing(CAP_SYS_RESOURCE):
        with pytest.raises(NotPermittedError, match="missing from the"):
            set_io_flusher(True)
    else:
        set_io_flusher(True)
        assert get_io_flusher() is True
        set_io_flusher(before)
    assert get_io_flusher() is before


@pytest.mark.parametrize(("old", "new"), [("Outcome", "ThreadResult"), ("ThreadState", "Thread")])
def test_renamed_names_still_work(old: str, new: str) -> None:
    """A name that was public before is the new one, with a warning that says which."""
    import ioflusher

    with pytest.warns(DeprecationWarning, match=rf"ioflusher\.{old} is called ioflusher\.{new} now"):
        assert getattr(ioflusher, old) is getattr(ioflusher, new)
    assert old not in ioflusher.__all__
