"""`ioflusher run`: the command's own exit status and signals, and a clear refusal."""

import pytest
from tests.cli.program import start
from tests.needs import PERMITTED

pytestmark = pytest.mark.live


@pytest.mark.refused
def test_require_refuses_without_the_capability() -> None:
    """Without the capability the command is not started; the message says what is missing and what to do."""
    done = start("run", "--", "echo", "started")
    assert done.status == 2
    assert "started" not in done.stdout
    assert "CAP_SYS_RESOURCE" in done.stderr
    assert "hint:" in done.stderr


def test_best_effort_starts_anyway() -> None:
    """With --best-effort the command runs, and stderr tells whether the state is missing."""
    done = start("run", "--best-effort", "--", "echo", "started")
    assert (done.status, done.stdout) == (0, "started\n")
    assert PERMITTED or "going on without the state" in done.stderr


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -TERM $$"], -15),
        (["/nonexistent"], 127),
        (["/"], 126),
    ],
)
def test_exit_status_and_signals_are_the_commands(command: list[str], status: int) -> None:
    """The command replaces the process, so the caller sees its status; 127 and 126 are as in a shell."""
    assert start("run", "--best-effort", "--", *command).status == status


def test_signals_that_python_ignores_are_back() -> None:
    """SIGPIPE and SIGXFSZ have their default in the command: the mask of ignored signals is empty of them."""
    done = start("run", "--best-effort", "grep", "SigIgn", "/proc/self/status")
    ignored = int(done.stdout.split()[1], 16)
    assert not ignored & (1 << 12 | 1 << 24)
