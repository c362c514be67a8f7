"""Sequence diagrams: the lanes, where each arrow leads, and the three forms."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.cli.program import call

from ioflusher.model.code import Code
from ioflusher.model.explore import explore
from ioflusher.model.halves import play_half
from ioflusher.model.moments import StepTaken
from ioflusher.model.run import Happened, run
from ioflusher.model.transitions import TransitionSystem, Variable
from ioflusher.report.model_diagram import (
    FORMS,
    SequenceDiagram,
    diagram_json,
    diagram_mermaid,
    diagram_svg,
    exploration_diagram,
    run_diagram,
    sequence,
)
from ioflusher.scenario.file import builtin_scenarios, parse_scenario


@pytest.fixture(scope="module")
def frozen() -> SequenceDiagram:
    scenario = parse_scenario(builtin_scenarios()["ext4-on-nbd-throttled"])
    return run_diagram(play_half(scenario, io_flusher=False, version=(6, 12)))


def test_the_lanes_and_the_end(frozen: SequenceDiagram) -> None:
    """Each task, memory and each device; what the tasks wait for that have work."""
    names = [lane.name for lane in frozen.lanes]
    assert {"writer (2)", "nbd-daemon (6)", "memory", "nbd0", "vda"} < set(names)
    assert "vda (1)" not in names, "what a device does by itself is in its lane"
    assert len(set(names)) == len(names)
    ends = {names[lane]: text for lane, text in frozen.ends}
    assert ends["nbd-daemon (6)"] == ends["writer (2)"] == "waits for less dirty memory in the machine"
    assert "kswapd0 (5)" not in ends


def test_where_arrows_lead(frozen: SequenceDiagram) -> None:
    """To the device whose variables a step changes, to memory, or nowhere."""
    names = [lane.name for lane in frozen.lanes]
    ways = {(names[one.start], one.text): names[one.end] for one in frozen.arrows}
    assert ways[("nbd-daemon (6)", "replies to nbd0")] == "nbd0"
    assert ways[("nbd-daemon (6)", "a page of a file on vda")] == "memory"
    assert ways[("nbd-daemon (6)", "looks at it")] == "nbd-daemon (6)"
    assert [one.completes for one in frozen.arrows if one.text == "replies to nbd0"][-1]
    numbers = [one.number for one in frozen.arrows]
    assert numbers == sorted(numbers)
    assert frozen.left_out == numbers[0] - 1 > 0


def test_what_comes_again_is_folded() -> None:
    """Five rounds of two steps, then another one."""
    count = Variable("count", 0, 9)
    code = Code()
    for _ in range(5):
        code.step("one", {count: count + 1}, takes_ns=1)
        code.step("two", {count: count - 1}, takes_ns=1)
    code.step("three", {count: 9})
    system = TransitionSystem("x", (count,), (code.program("task", 1, works=True),))
    happened: list[Happened] = []
    run(system, on_step=happened.append)
    steps = [StepTaken(one.at_ns, one.program, one.step, one.values) for one in happened]
    diagram = sequence(system, steps, title="x")
    assert [(one.number, one.words) for one in diagram.arrows] == [
        (1, "one (5 times)"),
        (2, "two (5 times)"),
        (11, "three"),
    ]
    assert [one.text for one in sequence(system, steps, title="x", most=1).arrows] == ["three"]


def test_the_forms(frozen: SequenceDiagram) -> None:
    """The same in each: every arrow and every end."""
    tree = ElementTree.fromstring(diagram_svg(frozen))
    texts = [node.text or "" for node in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert [one.words for one in frozen.arrows] == [
        text for text in texts if text in {one.words for one in frozen.arrows}
    ]
    assert "waits for less dirty" in texts
    mermaid = diagram_mermaid(frozen)
    assert mermaid.startswith("sequenceDiagram\n")
    arrows = re.findall(r"^    L(\d+)--?>>L(\d+): (.*)$", mermaid, re.MULTILINE)
    assert arrows == [(str(one.start), str(one.end), one.words) for one in frozen.arrows]
    record = json.loads(diagram_json(frozen))
    assert len(record["arrows"]) == len(frozen.arrows)
    assert record["lanes"][0] == {"name": frozen.lanes[0].name, "kind": "task"}


def test_names_cannot_steer(frozen: SequenceDiagram) -> None:
    """What ends a statement in Mermaid, and marks of XML, are written otherwise."""
    system = TransitionSystem("x", (), (Code().program('a;b#c<script>"', 1),))
    diagram = sequence(system, (), title="<b>; end")
    assert "participant L0 as a#59;b#35;c#60;script#62;" in diagram_mermaid(diagram)
    assert "<script>" not in diagram_svg(diagram)
    ElementTree.fromstring(diagram_svg(diagram))


def test_of_an_exploration() -> None:
    """Two tasks that take two locks in both orders: the way into the deadlock, and who waits for what."""
    locks = [Variable(f"lock{number}", 0, 9, unit="task") for number in (1, 2)]
    codes = []
    for pid, order in ((1, locks), (2, locks[::-1])):
        code = Code()
        for lock in order:
            code.step(f"takes {lock.name}", {lock: pid}, when=lock.is_(0), waits_for=lock.name)
        code.step("lets go", {lock: 0 for lock in order})
        codes.append(code)
    programs = tuple(code.program(f"task{pid}", pid, works=True) for pid, code in enumerate(codes, 1))
    found = explore(TransitionSystem("locks", tuple(locks), programs))
    diagram = exploration_diagram(found, "locks")
    assert {one.text for one in diagram.arrows} == {"takes lock1", "takes lock2"}
    assert all(one.at_s is None for one in diagram.arrows)
    assert dict(diagram.ends) == {0: "waits for lock2", 1: "waits for lock1"}


@pytest.mark.parametrize("suffix", FORMS)
def test_the_option(suffix: str, tmp_path: Path) -> None:
    """The form is told by the end of the name."""
    file = tmp_path / f"end{suffix}"
    assert call("model", "run", "swap-on-nbd", "--without", "--diagram", file).status == 0
    text = file.read_text()
    assert "tx_lock of nbd0" in text
    assert text.startswith({".svg": "<svg", ".mmd": "sequenceDiagram", ".json": "{"}[suffix])


def test_the_way_of_an_exploration(tmp_path: Path) -> None:
    """The verb draws the way that it prints; nothing where there is no freeze."""
    small = ("--work", "6", "--queue-depth", "1")
    scenario = "ext4-on-nbd-throttled"
    file = tmp_path / "way.json"
    ended = call("model", "explore", scenario, "--without", "--json", "--diagram", file)
    freeze = json.loads(ended.stdout)["halves"][0]["freeze"]
    arrows = json.loads(file.read_text())["arrows"]
    assert arrows[-1]["number"] <= len(freeze["way"])
    assert {arrow["at_s"] for arrow in arrows} == {None}
    assert "a page of a file on vda" in [arrow["text"] for arrow in arrows]
    other = tmp_path / "none.svg"
    ended = call("model", "explore", scenario, "--with", *small, "--diagram", other)
    assert "is not written: no freeze was found" in ended.stderr
    assert not other.exists()


def test_an_end_that_is_no_form(tmp_path: Path) -> None:
    """Said before anything is played."""
    ended = call("model", "run", "swap-on-nbd", "--diagram", tmp_path / "end.png")
    assert ended.status == 2
    assert "expected a name that ends in .svg, .mmd, .json" in ended.stderr
    assert ended.stdout == ""
