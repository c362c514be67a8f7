"""What follows from a snapshot is computed once and handed on; collector and file give one answer."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.machine.recorded import Recorded
from tests.machine.test_graph_fuzz import PIDS, SNAPSHOTS
from tests.machine.test_serving import EMPTY

from ioflusher.audit.run import audit
from ioflusher.machine.collect.machine import Collected, collect_serving
from ioflusher.machine.endpoints import Connection, Family, Listener, SocketEnd
from ioflusher.machine.graph.analysis import Analysis
from ioflusher.machine.graph.layers import Layers
from ioflusher.machine.graph.select import select
from ioflusher.machine.peers import kept_sockets, local_hosts
from ioflusher.machine.serving.index import SnapshotIndex
from ioflusher.machine.serving.infer import services
from ioflusher.machine.snapshot import Snapshot
from ioflusher.machine.storage import Mount
from ioflusher.report.map_text import render_text
from ioflusher.support.graphs import strong_components

FUSE_INFO = b"pos:\t0\nflags:\t02\nmnt_id:\t29\nfuse_connection:\t47\n"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often services are inferred (an index is made for it), layers made, cycles sought, links read."""
    counted: Counter[str] = Counter()

    def counting(what: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            counted[what] += 1
            return real(*arguments)

        return call

    monkeypatch.setattr(SnapshotIndex, "__init__", counting("services", SnapshotIndex.__init__))
    monkeypatch.setattr(Layers, "__init__", counting("layers", Layers.__init__))
    components = counting("cycles", strong_components)
    monkeypatch.setattr("ioflusher.machine.graph.cycles.strong_components", components)
    return counted


@pytest.fixture
def collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: Counter[str]) -> Collected:
    """A recorded machine with one FUSE daemon, collected while calls are counted."""
    machine = Recorded(tmp_path).machine()
    machine.process(812, b"sshfs")
    machine.descriptor(812, 3, b"/dev/fuse", FUSE_INFO)
    real = os.readlink

    def counting(path: Any, **more: Any) -> Any:
        calls["links"] += path == "ns/mnt" or str(path).endswith("812/ns/mnt")
        return real(path, **more)

    monkeypatch.setattr(os, "readlink", counting)
    return collect_serving(tmp_path)


def test_an_audit_computes_everything_once(collected: Collected, calls: Counter[str]) -> None:
    """From collecting to the report: one inference, one set of layers, one search for cycles."""
    assert 812 in {service.pid for service in collected.services}
    audit(collected.snapshot, services=collected.services)
    assert calls == {"services": 1, "layers": 1, "cycles": 1, "links": 1}


def test_a_map_computes_everything_once(collected: Collected, calls: Counter[str]) -> None:
    """Graph, selection and text use the same layers and services."""
    analysis = Analysis(collected.snapshot, collected.services)
    part = select(analysis.graph, analysis.layers, "812")
    assert list(render_text(analysis.snapshot, part))
    assert calls == {"services": 1, "layers": 1, "cycles": 1, "links": 1}


OWN_ADDRESS = Snapshot(
    EMPTY.system,
    EMPTY.memory,
    mounts=(Mount(1, 0, "0:60", "/", "/mnt", "nfs4", "h:/x", (("addr", "10.0.0.7"),)),),
    # that 10.0.0.7 is this machine is known from a connection which has nothing to do with storage
    connections=(
        Connection(Family.TCP, (SocketEnd(1, "10.0.0.7:22", (5,)), SocketEnd(2, "10.0.0.7:900", (6,)))),
    ),
    listeners=(Listener(Family.TCP, SocketEnd(3, "0.0.0.0:2049", (4,))),),
)


@settings(max_examples=300, deadline=None)
@example(OWN_ADDRESS, frozenset())
@given(SNAPSHOTS, st.frozensets(PIDS))
def test_what_is_kept_says_the_same(whole: Snapshot, more: frozenset[int]) -> None:
    """The collector infers from all sockets, a reader of the file from those that were kept: alike."""
    hosts = local_hosts(whole.connections, whole.remotes, whole.listeners)
    whole = replace(whole, hosts=hosts)
    found = services(whole)
    close = frozenset(service.pid for service in found if service.pid is not None) | more
    assert services(kept_sockets(whole, close)) == found
