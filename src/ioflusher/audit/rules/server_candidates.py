"""The rule on targets of which one of several processes is the server, and it is not known which."""

from collections.abc import Iterator

from ioflusher.audit.finding import Evidence, Remedy, Severity
from ioflusher.audit.rules.rule import MOST_NAMED, Found, more
from ioflusher.audit.thresholds import Thresholds
from ioflusher.audit.view import View
from ioflusher.machine.serving.candidates import CandidateGroup, candidate_groups


def server_candidates(view: View, thresholds: Thresholds) -> Iterator[Found]:
    """Candidates, once for all that they may serve, the likeliest for the first of it first."""
    names = {(target.service.kind, target.service.target): target.name for target in view.targets}
    for group in candidate_groups(view.services):
        yield _finding(view, group, [names[target] for target in group.targets])


def _finding(view: View, group: CandidateGroup, served: list[str]) -> Found:
    words = [view.name(service.pid) for service in group.services if service.pid is not None]
    some = ", ".join(words[:MOST_NAMED]) + (
        f" and {len(words) - MOST_NAMED} more" if len(words) > MOST_NAMED else ""
    )
    what = ", ".join(served[:MOST_NAMED]) + (
        f" and {len(served) - MOST_NAMED} more" if len(served) > MOST_NAMED else ""
    )
    evidence = [
        Evidence(
            f"candidate {service.candidate.rank} of {service.candidate.number}, "
            f"{service.candidate.confidence.value}",
            f"{service.evidence}; {service.candidate.reason}",
        )
        for service in group.services
        if service.candidate is not None
    ]
    return Found(
        Severity.NOTE,
        view.machine,
        f"the {group.role.value} of {what} is one of {some}; which one is not certain",
        (*evidence[:MOST_NAMED], *more(len(evidence) - MOST_NAMED, "candidate")),
        Remedy(
            "Read something from the devices and look again: the bytes that a TCP connection received tell "
            "whose it is. Or set such devices up by ioctl (nbd-client -nonetlink): then the kernel names the "
            "client.",
        ),
    )
