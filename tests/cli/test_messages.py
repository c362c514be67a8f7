"""Errors on a terminal: nothing that they quote can steer it."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("ioflusher")


def test_what_an_error_quotes_is_escaped(tmp_path: Path) -> None:
    """A file name with escape codes comes out as text, the hint on a line of its own."""
    name = tmp_path / "a\x1b[31m\x07b"
    done = subprocess.run(
        [str(PROGRAM), "audit", "--snapshot", str(name), "--snapshot", str(name)],
        capture_output=True,
        timeout=60,
    )
    single = subprocess.run([str(PROGRAM), "lab", "run", f"{name}.toml"], capture_output=True, timeout=60)
    for result in (done, single):
        assert result.returncode == 2
        assert b"\\x1b[31m\\x07b" in result.stderr + result.stdout
        assert b"\x1b" not in result.stderr + result.stdout
