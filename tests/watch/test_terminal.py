"""What `ioflusher watch` leaves on a terminal, and what it writes elsewhere."""

import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.cli.program import PROGRAM, call

RECORDING = Path(__file__).parent / "recordings" / "frozen-nbd.jsonl"
IN_PLACE, LEFT = b"\x1b[?1049h", b"\x1b[?1049l"  # of xterm: the other screen, and back


def test_the_last_screen_stays(tmp_path: Path) -> None:
    """It is shown in place, and left there when that ends: nobody has to look again for the alarm."""
    lines = RECORDING.read_bytes().splitlines()
    stall = next(line for line in lines if b'"stall"' in line)
    file = tmp_path / "short.jsonl"
    file.write_bytes(lines[0] + b"\n" + stall)  # little enough for a terminal that nobody reads meanwhile
    leader, follower = pty.openpty()
    try:
        subprocess.run(
            [*PROGRAM, "watch", "replay", str(file), "--speed", "1000"],
            stdout=follower,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
            timeout=60,
        )
    finally:
        os.close(follower)
    written = b""
    while True:
        try:
            written += os.read(leader, 1 << 16)
        except OSError:  # all of it was read
            break
    os.close(leader)
    assert written.startswith(IN_PLACE)
    in_place, left, stays = written.partition(LEFT)
    assert (in_place.count(IN_PLACE), left) == (1, LEFT)
    assert b"STALL" in stays
    assert b"ioflusher rescue --plan /dev/nbd0" in stays


@pytest.mark.parametrize("color", ["always", "never"])
def test_no_screen_in_a_file(color: str) -> None:
    """Colours, where they are asked for, and nothing that moves a cursor."""
    shown = call("--color", color, "watch", "replay", RECORDING).stdout
    assert "\x1b[?" not in shown
    assert "\x1b[H" not in shown
    assert ("\x1b[" in shown) == (color == "always")


@pytest.mark.live
def test_a_recording_that_lacks_something() -> None:
    """Whoever relies on it has to know: told, and no success."""
    done = subprocess.run(
        [*PROGRAM, "watch", "--once", "--interval", "0.1", "--no-trace", "--json", "--record", "/dev/full"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "refreshes are not in /dev/full: No space left on device" in done.stderr
    assert done.returncode == (2 if '"alarms":[]' in done.stdout else 1)
