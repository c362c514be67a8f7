"""Pictures of the storage graph: golden ones, hostile ones, and what is left out of large ones."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from tests.machine.graphs import SWAP_ON_NBD, TWO_DAEMONS, daemon, machine, mount, nbd, serves, swap_on
from tests.machine.test_graph_fuzz import SNAPSHOTS

from ioflusher.errors import IoflusherError
from ioflusher.machine.graph.build import storage_graph
from ioflusher.machine.graph.nodes import Graph
from ioflusher.machine.serving.service import StorageRole
from ioflusher.machine.snapshot import Snapshot, Unreadable
from ioflusher.report.map_dot import render_dot, render_svg
from ioflusher.report.map_html import render_html
from ioflusher.report.map_json import map_record
from ioflusher.report.map_layout import layout
from ioflusher.report.map_mermaid import render_mermaid
from ioflusher.report.map_text import ASCII, render_text
from ioflusher.report.map_view import picture, short

GOLDEN = Path(__file__).parent / "golden"
EXAMPLES = {
    "swap": (SWAP_ON_NBD, (serves(812, "nbd0"),)),
    "two": (TWO_DAEMONS, (serves(100, "nbd0"), serves(200, "nbd1"))),
}
EVIL = '</text><script>alert(1)</script>\x1b[31m\n"]; n0 -> n0 \\N \u202e'


def example(name: str) -> tuple[Snapshot, Graph]:
    """A machine and its graph."""
    snapshot, services = EXAMPLES[name]
    return snapshot, storage_graph(snapshot, services)


def text(snapshot: Snapshot, graph: Graph) -> str:
    """The tree without its colours."""
    return "".join(f"{line.plain}\n" for line in render_text(snapshot, graph))


@pytest.mark.parametrize("name", EXAMPLES)
def test_golden_pictures(name: str) -> None:
    """Text, dot and Mermaid are as they were when somebody looked at them."""
    snapshot, graph = example(name)
    drawn = picture(graph)
    assert text(snapshot, graph) == (GOLDEN / f"{name}.txt").read_text()
    assert render_dot(drawn, "storage1") == (GOLDEN / f"{name}.dot").read_text()
    assert render_mermaid(drawn, "storage1") == (GOLDEN / f"{name}.mmd").read_text()


def test_json() -> None:
    """The record holds nodes, edges and cycles, and every name in an edge is a node's."""
    record = json.loads(json.dumps(map_record(*example("swap"))))
    ids = {node["id"] for node in record["nodes"]}
    assert all(edge["source"] in ids and edge["target"] in ids for edge in record["edges"])
    (cycle,) = record["cycles"]
    assert cycle["daemons"] == ["pid:812"]
    assert [step["reason"] for step in cycle["witness"]] == [
        "served by",
        "memory reclaim",
        "memory reclaim",
        "swap on",
    ]
    (process,) = (node for node in record["nodes"] if node["kind"] == "process")
    assert process["coverage"]["state"] == "not covered"
    assert (process["coverage"]["covered"], process["coverage"]["threads"]) == (0, 2)


@pytest.mark.needs("dot")
def test_svg_is_one_picture() -> None:
    """Graphviz' picture is well-formed, with a box a node and colours for a dark ground."""
    _, graph = example("two")
    svg = render_svg(picture(graph), "two daemons")
    root = ElementTree.fromstring(svg)
    boxes = [g for g in root.iter("{http://www.w3.org/2000/svg}g") if g.get("class") == "node"]
    assert len(boxes) == len(picture(graph).boxes)
    assert "prefers-color-scheme:dark" in svg


def test_without_graphviz(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing dot is a clear error with what to install; the page does without its picture and says so."""
    monkeypatch.setattr(shutil, "which", lambda *_args, **_more: None)
    snapshot, graph = example("swap")
    with pytest.raises(IoflusherError, match="dot is not installed") as caught:
        render_svg(picture(graph), "")
    assert "apt-get install graphviz" in (caught.value.hint or "")
    page = render_html([(snapshot, graph)])
    assert "No picture" in page
    assert "apt-get install graphviz" in page
    assert "nbd-server (812) can wait for itself" in page


@pytest.mark.needs("dot")
def test_the_page_stands_alone() -> None:
    """It loads nothing, and has the picture, the cycle in words and the processes."""
    page = render_html([example("swap"), example("two")])
    assert not re.search(r'(src|href)="(?!#)', page.replace("xlink:title", ""))
    assert "default-src 'none'" in page
    assert page.count("<svg") == 2
    assert "nbd-server (812) may, to get memory, start memory reclaim" in page
    assert "0 of 2" in page


def hostile() -> tuple[Snapshot, Graph]:
    """A machine whose names want to be more than names."""
    snapshot = machine(
        (nbd(0),),
        (mount(30, "0:70", f"/{EVIL}", EVIL, f"fuse.{EVIL}"),),
        (swap_on(nbd(0)),),
        (daemon(5, EVIL), daemon(6, "x" * 100_000)),
    )
    return snapshot, storage_graph(snapshot, (serves(5, "nbd0"), serves(6, "0:70", StorageRole.FUSE_SERVER)))


@pytest.mark.needs("dot")
def test_hostile_names() -> None:
    """No name leaves its place: not in the terminal, not in dot's language, not in the page."""
    snapshot, graph = hostile()
    assert all(line.plain.isprintable() for line in render_text(snapshot, graph))
    svg = render_svg(picture(graph), EVIL)
    assert "<script" not in svg
    assert "-> n0 \N{SET MINUS}N" in re.sub("&#45;&gt;", "->", svg)  # not a node's name
    assert len(svg) < 100_000
    assert len(ElementTree.fromstring(svg)) == 2  # the style and the drawing
    page = render_html([(snapshot, graph)])
    assert page.count("<script") == 1
    assert "<script" not in render_mermaid(picture(graph), EVIL)
    assert "\x1b" not in page + svg


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(snapshot=SNAPSHOTS)
def test_any_snapshot_has_pictures(snapshot: Snapshot) -> None:
    """Whatever a snapshot holds, text, dot and Mermaid come out, a line a box and safe to print."""
    graph = storage_graph(snapshot)
    assert all(line.plain.isprintable() for line in render_text(snapshot, graph, everything=True))
    assert all(line.isprintable() for line in render_dot(picture(graph), "").splitlines())
    assert all(line.isprintable() for line in render_mermaid(picture(graph), "").splitlines())


def test_ascii() -> None:
    """For terminals without Unicode the tree has other branches."""
    snapshot, graph = example("two")
    assert all(line.plain.isascii() for line in render_text(snapshot, graph, signs=ASCII))


def test_what_has_nothing_behind_it_is_left_out() -> None:
    """proc and an unused device are not drawn but counted; a tmpfs that a daemon needs is drawn."""
    snapshot = machine(mounts=(mount(30, "0:5", "/proc", "proc", "proc"),), devices=(nbd(0),))
    graph = storage_graph(snapshot, ())
    drawn = picture(graph)
    assert {box.id for box in drawn.boxes} == {"mount:20", "fs:254:0", "dev:vda"} | {
        box.id for box in drawn.boxes if "nbd0" in box.id
    }
    assert drawn.left_out == 2
    assert picture(graph, everything=True).left_out == 0


def test_mounts_of_one_file_system_are_one_box() -> None:
    """Many mounts of a file system stand in one box that counts them."""
    mounts = tuple(mount(30 + n, "254:0", f"/m{n}", "/dev/vda") for n in range(9))
    drawn = picture(storage_graph(machine(mounts=mounts), ()))
    (box,) = (box for box in drawn.boxes if box.id.startswith("mount:"))
    assert box.title == "/, /m0, /m1 and 7 more"


def test_large_pictures_have_few_arrows_back() -> None:
    """With 50 daemons in one cycle only the way round that is told leads back; the others are counted."""
    devices = tuple(nbd(n) for n in range(50))
    mounts = tuple(mount(100 + n, f"43:{n}", f"/m{n}", f"/dev/nbd{n}") for n in range(50))
    snapshot = machine(devices, mounts, processes=tuple(daemon(1000 + 10 * n) for n in range(50)))
    graph = storage_graph(snapshot, tuple(serves(1000 + 10 * n, f"nbd{n}") for n in range(50)))
    drawn = layout(picture(graph))
    assert sum(line.back for line in drawn.lines) == 1
    assert drawn.notes == {"reclaim": ("arrows to 50 more are not drawn",)}
    assert drawn.starts == 50
    assert len(drawn.front) == 50


def test_what_many_need_is_written_in_their_boxes() -> None:
    """Where ten processes need one file system and swap, their boxes say so and no hairball is drawn."""
    processes = tuple(daemon(1000 + 10 * n, covered=2, locked=False) for n in range(10))
    snapshot = machine(tuple(nbd(n) for n in range(11)), swaps=(swap_on(nbd(10)),), processes=processes)
    graph = storage_graph(snapshot, tuple(serves(1000 + 10 * n, f"nbd{n}") for n in range(10)))
    drawn = layout(picture(graph))
    assert drawn.notes["pid:1000"] == ("executable: ext4 at /",)
    assert drawn.notes["swapped"] == ("arrows of 10 more are not drawn", "arrows to 1 more are not drawn")
    assert drawn.again == ()


@pytest.mark.parametrize("long", ["a" * 10_000, "\n" * 10_000, "a\x1b" * 40, "b" * 49])
def test_long_names_are_cut(long: str) -> None:
    """A long name keeps its ends and stays short."""
    assert len(short(long)) <= 60
    assert "..." in short(long)


def test_what_could_not_be_read_is_told() -> None:
    """Text and page say what the graph may lack; the record lists all of it."""
    entries = tuple(Unreadable(f"/proc/{n}/fd\x1b", "Permission denied", n) for n in range(9))
    snapshot, graph = replace(SWAP_ON_NBD, unreadable=entries), example("swap")[1]
    said = text(snapshot, graph)
    assert "not read: /proc/0/fd\\x1b: Permission denied" in said
    assert "and 5 more, which --json lists" in said
    assert "/proc/3/fd" in render_html([(snapshot, graph)])
    assert len(map_record(snapshot, graph)["unreadable"]) == 9
