"""The pytest plug-in of ioflusher: the fixture `reclaim_lab`, with which a project tests its storage daemon.

Every pytest of an environment that has ioflusher loads this file, so it imports nothing of ioflusher before a
test asks for the fixture. docs/pytest.md is about it.
"""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_ioflusher.trial import ReclaimLab

FIXTURE = "reclaim_lab"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", f"{FIXTURE}: boots virtual machines (ioflusher); tests with the fixture {FIXTURE} have it"
    )


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests that use the fixture, so that -m can choose them."""
    if FIXTURE in getattr(item, "fixturenames", ()):
        item.add_marker(FIXTURE)


@pytest.fixture
def reclaim_lab(request: pytest.FixtureRequest) -> "ReclaimLab":
    """Plays scenarios of `ioflusher lab` and asserts how they come out.

    `reclaim_lab.run(SCENARIO, daemon=[...], kind=..., kernel=...)` says what is played, and
    `.assert_survives(runs=N)`, `.assert_freezes(runs=N)` or `.assert_proves(runs=N)` plays it. Where the lab
    cannot work the test is skipped, or fails with IOFLUSHER_LAB_REQUIRE=1.
    """
    from pytest_ioflusher.trial import ReclaimLab

    return ReclaimLab(request.config.rootpath, request.node.user_properties)
