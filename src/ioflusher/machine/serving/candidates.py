"""Candidates: targets of which it is known that one of several processes serves them, and not which."""

from collections.abc import Iterable
from dataclasses import dataclass

from ioflusher.machine.serving.service import StorageRole, StorageService, TargetKind


@dataclass(frozen=True, slots=True)
class CandidateGroup:
    """The same candidates for one target or several.

    Attributes:
        role: the part that one of them has.
        targets: what they may serve, kind and name.
        services: one for each candidate, by its rank for the first target.
    """

    role: StorageRole
    targets: tuple[tuple[TargetKind, str], ...]
    services: tuple[StorageService, ...]

    @property
    def pids(self) -> tuple[int, ...]:
        """The candidates' numbers, lowest first."""
        return tuple(sorted(service.pid for service in self.services if service.pid is not None))


def candidate_groups(services: Iterable[StorageService]) -> tuple[CandidateGroup, ...]:
    """All groups of two candidates or more, each once however many targets it may serve."""
    by_target: dict[tuple[StorageRole, TargetKind, str], list[StorageService]] = {}
    for service in services:
        if service.candidate is not None and service.candidate.number > 1 and service.pid is not None:
            by_target.setdefault((service.role, service.kind, service.target), []).append(service)
    groups: dict[tuple[StorageRole, frozenset[int | None]], CandidateGroup] = {}
    for (role, kind, target), found in by_target.items():
        key = role, frozenset(service.pid for service in found)
        ranked = tuple(sorted(found, key=lambda service: service.candidate.rank if service.candidate else 0))
        old = groups.get(key, CandidateGroup(role, (), ranked))
        groups[key] = CandidateGroup(role, (*old.targets, (kind, target)), old.services)
    return tuple(groups.values())
