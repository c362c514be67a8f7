"""The model of tasks and credentials, held against what kernels answered to the same calls.

Each recording has sequences of calls made by chance and the answers of one kernel (tests/model/calls.py).
"""

import re
import types
from collections import Counter
from pathlib import Path

import pytest

from ioflusher.model import credentials, scopes, tasks
from ioflusher.model.errors import ModelError
from ioflusher.model.versions import parse_version
from tests.model import calls
from tests.model.calls import RECORDINGS, Call, Seen, Sequence, differences, recorded

FILES = sorted(RECORDINGS.glob("*.txt.xz"))


def version_of(file: Path) -> tuple[int, int]:
    """The release that a recording is named after."""
    return parse_version(file.name.removesuffix(".txt.xz"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.removesuffix(".txt.xz"))
def test_the_model_answers_as_the_kernel_did(file: Path) -> None:
    """No step of any sequence differs: answer, all flags of the task, capabilities."""
    sequences, answers = recorded(file)
    assert len(sequences) >= 300
    assert list(differences(sequences, answers, version_of(file))) == []


def test_a_difference_is_told_with_what_led_to_it() -> None:
    """The message has the calls, the model's answer and the kernel's."""
    sequences, answers = recorded(FILES[-1])
    number = next(n for n, steps in enumerate(sequences) if steps[0].call is Call.PRCTL)
    wrong = [list(answer) for answer in answers]
    first = wrong[number][0]
    wrong[number][0] = Seen(-22, first.flags ^ 0x80000, *_sets(first))
    (found,) = differences(sequences, wrong, version_of(FILES[-1]))
    assert found.startswith(f"sequence {number}, step 0:\n  task 0: prctl 0x")
    assert "kernel: EINVAL, " in found
    assert ("PF_MEMALLOC_NOIO" in found.partition("kernel:")[2]) != (
        "PF_MEMALLOC_NOIO" in found.partition("kernel:")[0]
    )


def _sets(seen: Seen) -> tuple[int, int, int]:
    return seen.effective, seen.permitted, seen.inheritable


def test_a_lost_answer_is_a_difference() -> None:
    """Fewer answers than steps are not taken for agreement."""
    sequences, answers = recorded(FILES[-1])
    for cut in ([*answers[:-1], answers[-1][:-1]], answers[:-1]):
        (found,) = differences(sequences, cut, version_of(FILES[-1]))
        assert re.fullmatch(rf"sequence {len(sequences) - 1}: \d+ steps, \d+ answers", found)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.removesuffix(".txt.xz"))
def test_the_sequences_reach_what_they_are_to_reach(file: Path) -> None:
    """Every call, both options with every answer they have, from threads and from executed programs."""
    sequences, answers = recorded(file)
    assert {step.call for steps in sequences for step in steps} == set(Call)
    said = said_by(sequences, answers)
    for option in (57, 58):
        assert {said[option, result] > 5 for result in (0, -1, -22)} == {True}
    assert said[58, 1] > 5
    assert sum(steps[-1].task > 0 for steps in sequences) > 100


def said_by(sequences: list[Sequence], answers: list[list[Seen]]) -> Counter[tuple[int, int]]:
    """How often a prctl option was answered how."""
    return Counter(
        (step.args[0] & 0xFFFFFFFF, seen.result)
        for steps, answer in zip(sequences, answers, strict=True)
        for step, seen in zip(steps, answer, strict=True)
        if step.call is Call.PRCTL
    )


# one wrong rule each: module, what stands there, what a mutant has in its place
MUTANTS = {
    "arguments before the capability": (
        tasks,
        "    if not capable(current, CAP_SYS_RESOURCE):\n        return -errno.EPERM\n    if more:\n"
        "        return -errno.EINVAL\n",
        "    if more:\n        return -errno.EINVAL\n    if not capable(current, CAP_SYS_RESOURCE):\n"
        "        return -errno.EPERM\n",
    ),
    "GET needs no capability": (
        tasks,
        "    if not capable(current, CAP_SYS_RESOURCE):\n        return -errno.EPERM\n    if arguments:",
        "    if arguments:",
    ),
    "GET looks at its second argument alone": (
        tasks,
        "_get_io_flusher(current, bool(arg2) or more)",
        "_get_io_flusher(current, bool(arg2))",
    ),
    "SET takes any state but 0": (tasks, "    if state == 1:", "    if state:"),
    "SET sets one bit": (
        tasks,
        "        current.flags |= PF_IO_FLUSHER\n",
        "        current.flags |= 0x80000\n",
    ),
    "arguments of 32 bits": (tasks, "_UNSIGNED_LONG = (1 << 64) - 1", "_UNSIGNED_LONG = (1 << 32) - 1"),
    "an option of 64 bits": (tasks, "    option &= 0xFFFFFFFF\n", ""),
    "capable in any user namespace": (
        tasks,
        "    return _ns_capable(current, 0, cap)",
        "    return _ns_capable(current, current.cred.user_ns_level, cap)",
    ),
    "a privilege used leaves no mark": (tasks, "        current.flags |= PF_SUPERPRIV\n", "        pass\n"),
    "a child keeps the mark": (tasks, "~(PF_SUPERPRIV | PF_WQ_WORKER", "~(PF_WQ_WORKER"),
    "a child does not inherit": (
        tasks,
        "    flags = current.flags & ~(PF_SUPERPRIV",
        "    flags = current.flags & ~(PF_IO_FLUSHER | PF_SUPERPRIV",
    ),
    "execve clears the state": (
        tasks,
        "current.flags &= ~(PF_RANDOMIZE | PF_FORKNOEXEC",
        "current.flags &= ~(PF_IO_FLUSHER | PF_RANDOMIZE | PF_FORKNOEXEC",
    ),
    "execve does not tell": (
        tasks,
        "~(PF_RANDOMIZE | PF_FORKNOEXEC | PF_NOFREEZE",
        "~(PF_RANDOMIZE | PF_NOFREEZE",
    ),
    "no_new_privs asks nothing": (credentials, "        ns_capable(CAP_SETUID)\n", ""),
    "the permitted set counts": (
        credentials,
        "cred.user_ns_level == user_ns_level and cred.sets.has(cap)",
        "cred.user_ns_level == user_ns_level and bool(cred.sets.permitted >> cap & 1)",
    ),
    "capset raises what is not permitted": (
        credentials,
        "    if effective & ~permitted:\n        return -errno.EPERM\n",
        "",
    ),
    "capset may add to the permitted set": (
        credentials,
        "    if permitted & ~sets.permitted:\n        return -errno.EPERM\n",
        "",
    ),
    "another user keeps its capabilities": (
        credentials,
        "        if not new.keep_caps:\n            permitted = effective = 0\n",
        "        pass\n",
    ),
    "root gets nothing back": (
        credentials,
        "        permitted = sets.bounding | sets.inheritable\n",
        "        permitted = sets.permitted\n",
    ),
    "the ambient set is lost": (
        credentials,
        "    ambient = 0 if is_setid else sets.ambient\n",
        "    ambient = 0\n",
    ),
    "no_new_privs gives back": (
        credentials,
        "        permitted &= sets.permitted\n    ambient",
        "    ambient",
    ),
    "a namespace keeps the sets": (
        credentials,
        "    return replace(old, sets=sets, keep_caps=False, user_ns_level=old.user_ns_level + 1)",
        "    return replace(old, user_ns_level=old.user_ns_level + 1)",
    ),
    "a scope takes the state along": (
        scopes,
        '    return flags & ~found if holds("memalloc_flags_save", version) else found',
        "    return flags",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_model_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some recording tells it from the kernel."""
    module, was, now = MUTANTS[name]
    source = Path(str(module.__file__)).read_text()
    assert source.count(was) == 1, "the mutant is about a line that there is no longer"
    _replace(module, source.replace(was, now), monkeypatch)
    assert any(_differs(file) for file in FILES)


def _differs(file: Path) -> bool:
    try:
        return next(differences(*recorded(file), version_of(file)), None) is not None
    except ModelError:  # what the kernel answered is nothing to the mutant
        return True


def _replace(module: types.ModuleType, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the functions of a changed source in place of the module's, wherever they were imported to."""
    changed = types.ModuleType(module.__name__)
    # a class made anew would be another class than the one that its users know
    source = re.sub(r"^@dataclass.*?(?=^(?:def|[A-Z_a-z]+ =|@dataclass))", "", source, flags=re.M | re.S)
    original = dict(vars(module))
    changed.__dict__.update(original)
    exec(compile(source, str(module.__file__), "exec"), changed.__dict__)
    for name, value in vars(changed).items():
        if value is original.get(name) or name.startswith("__"):
            continue
        for user in (credentials, tasks, scopes, calls):
            if user is module or (name in original and vars(user).get(name) is original[name]):
                monkeypatch.setattr(user, name, value)
