"""`ioflusher unit` and `ioflusher container`: what they print and install."""

from pathlib import Path

import pytest
from tests.cli.program import start

pytestmark = pytest.mark.live
UNIT = """[Unit]
Description=a daemon

[Service]
Type=simple
User=nobody
ExecStart=/usr/bin/daemon --option "two words"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Another system's root directory with one service."""
    directory = tmp_path / "etc/systemd/system"
    directory.mkdir(parents=True)
    (directory / "daemon.service").write_text(UNIT)
    return tmp_path


def test_a_drop_in_is_printed(root: Path) -> None:
    """It clears ExecStart=, starts the same command under `run`, lends the capability; nothing is written."""
    done = start("unit", "--root", str(root), "daemon.service", "--oom-score-adj", "-900")
    assert done.status == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "[Service]" in lines
    assert "ExecStart=" in lines
    (command,) = (line for line in lines if line.startswith("ExecStart=/"))
    assert " run " in command
    assert command.endswith('-- /usr/bin/daemon --option "two words"')
    assert any("CAP_SYS_RESOURCE" in line for line in lines)
    assert "OOMScoreAdjust=-900" in lines
    assert not list(root.glob("**/*.d"))


def test_a_drop_in_is_installed_and_made_anew(root: Path) -> None:
    """--install writes it where systemd looks; twice gives the same as once."""
    path = root / "etc/systemd/system/daemon.service.d/50-ioflusher.conf"
    texts = []
    for _ in range(2):
        done = start("unit", "--install", "--root", str(root), "daemon.service")
        assert done.status == 0, done.stderr
        assert str(path) in done.stdout
        assert "daemon-reload" in done.stdout
        texts.append(path.read_text())
    assert texts[0] == texts[1]
    assert texts[0].count("ioflusher run") + texts[0].count("-m ioflusher run") >= 1


@pytest.mark.parametrize("name", ["other.service", "daemon.socket", "../daemon.service"])
def test_no_such_service(root: Path, name: str) -> None:
    """What is no service here is an error that names it."""
    done = start("unit", "--root", str(root), name)
    assert done.status == 2
    assert name in done.stderr
    assert not done.stdout


@pytest.mark.parametrize(
    ("engine", "word"),
    [("docker", "--cap-add SYS_RESOURCE"), ("podman", "--cap-add"), ("kubernetes", "SYS_RESOURCE")],
)
def test_containers(engine: str, word: str) -> None:
    """Each engine's way to give the capability."""
    done = start("container", engine)
    assert done.status == 0
    assert word in done.stdout


def test_an_unknown_engine() -> None:
    """The known ones are named."""
    done = start("container", "rocket")
    assert done.status == 2
    assert "podman" in done.stderr
