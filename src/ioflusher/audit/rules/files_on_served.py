"""Rules on where a daemon's files lie: not on what it serves."""

from collections.abc import Iterator

from ioflusher.audit.finding import Evidence, Remedy, Severity
from ioflusher.audit.rules.rule import MOST_NAMED, Found, evidence_of_service, more
from ioflusher.audit.rules.swap import lock_memory
from ioflusher.audit.thresholds import Thresholds
from ioflusher.audit.view import AuditedDaemon, Target, View
from ioflusher.machine.graph.layers import Layer, Layers
from ioflusher.machine.process import FileKind, FileUse
from ioflusher.support.text import counted

MAPPED = frozenset({FileKind.EXECUTABLE, FileKind.LIBRARY, FileKind.MAPPED})
WRITTEN = frozenset({FileKind.WRITTEN, FileKind.LOG, FileKind.DEVICE})


def executable_on_served(view: View, thresholds: Thresholds) -> Iterator[Found]:
    """Daemons whose program lies on what they serve."""
    return _on_served(view, "its executable", frozenset({FileKind.EXECUTABLE}))


def library_on_served(view: View, thresholds: Thresholds) -> Iterator[Found]:
    """Daemons with a library on what they serve."""
    return _on_served(view, "a library of it", frozenset({FileKind.LIBRARY}))


def log_on_served(view: View, thresholds: Thresholds) -> Iterator[Found]:
    """Daemons that log to what they serve."""
    return _on_served(view, "its log", frozenset({FileKind.LOG}))


def file_on_served(view: View, thresholds: Thresholds) -> Iterator[Found]:
    """Daemons with another open or mapped file on what they serve."""
    kinds = frozenset({FileKind.WRITTEN, FileKind.READ, FileKind.MAPPED, FileKind.DEVICE})
    return _on_served(view, "an open file of it", kinds)


def _on_served(view: View, what: str, kinds: frozenset[FileKind]) -> Iterator[Found]:
    for daemon in view.daemons:
        hits = [hit for hit in files_on_served(view.layers, daemon) if hit[0].kind in kinds]
        # what is mapped and locked is not read again
        hits = [hit for hit in hits if not (hit[0].kind in MAPPED and daemon.process.memory_locked)]
        if hits:
            yield _finding(view, daemon, what, hits)


def files_on_served(layers: Layers, daemon: AuditedDaemon) -> list[tuple[FileUse, Target]]:
    """The files of a daemon that lie on what it serves, each with that."""
    below: dict[Layer, frozenset[Layer]] = {}
    hits = []
    for file in daemon.process.files or ():
        layer = layers.of_file(file)
        if layer is None:
            continue
        if layer not in below:
            below[layer] = layers.below(layer)
        for target in daemon.targets:
            # the device itself it holds open to control it
            if target.layer in below[layer] and not (file.kind is FileKind.DEVICE and layer == target.layer):
                hits.append((file, target))
                break
    return hits


def _finding(view: View, daemon: AuditedDaemon, what: str, hits: list[tuple[FileUse, Target]]) -> Found:
    writes = any(file.kind in WRITTEN for file, _ in hits)
    mapped = all(file.kind in MAPPED for file, _ in hits)
    base = Severity.ERROR if writes or mapped else Severity.WARNING
    first, target = hits[0]
    others = f" and {counted(len(hits) - 1, 'file')} more" if len(hits) > 1 else ""
    pid = daemon.process.pid
    return Found(
        base.lowered(min(target.uncertainty_steps for _, target in hits)),
        daemon.subject,
        f"{what} ({first.path}{others}) lies on {target.name}, which it serves",
        (
            *(
                Evidence(f"/proc/{pid}, {file.kind.value} file", f"{file.path} on device {file.device}")
                for file, _ in hits[:MOST_NAMED]
            ),
            *more(len(hits) - MOST_NAMED, "file"),
            *evidence_of_service(daemon),
        ),
        _remedy(view, daemon, first.path, first.kind, mapped),
    )


def _remedy(view: View, daemon: AuditedDaemon, path: str, kind: FileKind, mapped: bool) -> Remedy:
    if mapped:
        locked = lock_memory(view, daemon)
        return Remedy(
            f"Install {path} on a file system that the daemon does not serve, and start it anew. Pages of it "
            f"that are locked are not read again until then. {locked.words}",
            locked.commands,
            unit=locked.unit[:1],
        )
    return Remedy(
        f"Have the daemon keep {path} on a file system that it does not serve, and start it anew.",
        unit=("StandardOutput=journal", "StandardError=journal") if kind is FileKind.LOG else (),
    )
