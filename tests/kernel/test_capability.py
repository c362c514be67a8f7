"""Capability sets from status text."""

import pytest

from ioflusher.kernel.capability import CAP_SYS_RESOURCE, CapabilitySets, parse_capabilities

CONTAINER = b"""Name:\tpython3
CapInh:\t0000000000000000
CapPrm:\t000001fffeffffff
CapEff:\t000001fffeffffff
CapBnd:\t000001fffeffffff
CapAmb:\t0000000000000000
NoNewPrivs:\t0
"""


def test_a_container_lacks_the_capability_everywhere() -> None:
    """A root whose sets lack bit 24 misses CAP_SYS_RESOURCE in all three sets."""
    assert parse_capabilities(CONTAINER).missing(CAP_SYS_RESOURCE) == ("effective", "permitted", "bounding")


@pytest.mark.parametrize(
    ("sets", "missing"),
    [
        (CapabilitySets(effective=1 << 24, permitted=1 << 24, bounding=1 << 24), ()),
        (CapabilitySets(permitted=1 << 24, bounding=1 << 24), ("effective",)),
        (CapabilitySets(bounding=1 << 24), ("effective", "permitted")),
        (CapabilitySets(permitted=1 << 23, bounding=1 << 25), ("effective", "permitted", "bounding")),
    ],
)
def test_missing_names_the_sets(sets: CapabilitySets, missing: tuple[str, ...]) -> None:
    """Each set that lacks the bit is named, and no other."""
    assert sets.missing(CAP_SYS_RESOURCE) == missing


def test_absent_fields_are_empty_sets() -> None:
    """A kernel without ambient capabilities (before 4.3) has none."""
    assert parse_capabilities(b"CapEff:\t0000000001000000\n") == CapabilitySets(effective=1 << 24)
