"""How a project tests that its NBD server cannot freeze the machine that it runs on.

pip install ioflusher pytest
ioflusher lab setup
pytest examples/pytest
"""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_ioflusher.trial import ReclaimLab

# the server of your project, in the foreground; here nbdkit stands for it
SERVER = ["nbdkit", "--foreground", "--unix", "{socket}", "file", "{file}"]
THROTTLED = "ext4-on-nbd-throttled"


def test_the_scenario_is_dangerous(reclaim_lab: "ReclaimLab") -> None:
    """Without the state the server freezes the machine: else the tests below would prove nothing."""
    reclaim_lab.run(THROTTLED, daemon=SERVER).assert_freezes()


@pytest.mark.parametrize("kernel", ["6.12", "6.1"])
def test_the_state_protects_it(reclaim_lab: "ReclaimLab", kernel: str) -> None:
    """With the IO_FLUSHER state, which the lab sets before it starts the server, the work is done."""
    reclaim_lab.run(THROTTLED, daemon=SERVER, kernel=kernel).assert_survives(runs=3)


@pytest.mark.xfail(reason="nbdkit does not set the state", strict=True)
def test_it_sets_the_state_itself(reclaim_lab: "ReclaimLab") -> None:
    """As in production, where nobody sets it for the server."""
    reclaim_lab.run(THROTTLED, daemon=SERVER, by_itself=True).assert_survives()
