"""Capability sets: what a thread has, and which sets lack it."""

import pytest

from ioflusher.kernel.capability import CAP_IPC_LOCK, CAP_SYS_RESOURCE, CapabilitySets

# what a container's root has: all but CAP_SYS_RESOURCE
CONTAINER = CapabilitySets(permitted=0x1FFFEFFFFFF, effective=0x1FFFEFFFFFF, bounding=0x1FFFEFFFFFF)


def test_a_container_lacks_the_capability_everywhere() -> None:
    """A root whose sets lack bit 24 misses CAP_SYS_RESOURCE in all three sets."""
    assert CONTAINER.missing(CAP_SYS_RESOURCE) == ("effective", "permitted", "bounding")


def test_what_counts_is_the_effective_set() -> None:
    """The kernel asks no other set."""
    assert CONTAINER.has(CAP_IPC_LOCK)
    assert not CONTAINER.has(CAP_SYS_RESOURCE)
    rest = 1 << CAP_SYS_RESOURCE
    assert not CapabilitySets(inheritable=rest, permitted=rest, bounding=rest, ambient=rest).has(
        CAP_SYS_RESOURCE
    )
    assert CapabilitySets(effective=rest).has(CAP_SYS_RESOURCE)


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
