"""Calls made by chance, others in every run, played in a real kernel and in the model: no answer differs."""

import random
import subprocess
from pathlib import Path

import pytest

from ioflusher.model.versions import parse_version
from tests.lab.conftest import ioflusher
from tests.model import calls
from tests.needs import need

PLAY = 'uname -r; echo 2 >/proc/sys/kernel/randomize_va_space; exec "$0" "$1" /dev/mapper/control'


@pytest.mark.vm
def test_the_model_answers_as_the_kernel_does(tmp_path: Path) -> None:
    """Answer, all flags of the task and its capabilities, after each call; the message has the seed."""
    player, file, seed = tmp_path / "play", tmp_path / "calls", random.randrange(1 << 32)
    command = [need("gcc"), "-O2", "-static", "-o", str(player), str(calls.PLAYER)]
    subprocess.run(command, check=True, timeout=120)
    sequences = calls.make(200, seed)
    file.write_text(calls.text(sequences))
    done = ioflusher(
        *("lab", "exec", "--load", "dm-mod", "--share", str(tmp_path)),
        *("--", "sh", "-c", PLAY, str(player), str(file)),
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    release, _, answers = done.stdout.decode().partition("\n")
    found = calls.differences(sequences, calls.read_answers(answers), parse_version(release))
    assert list(found) == [], f"seed {seed}"
