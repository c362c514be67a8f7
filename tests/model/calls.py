"""Sequences of system calls: made by chance, played in the model, played in a kernel by programs/play.c.

    python -m tests.model.calls make 10000 SEED FILE     a file of sequences for `play`
    python -m tests.model.calls compare FILE ANSWERS VERSION
    python -m tests.model.calls record FILE ANSWERS NAME   keep both in recordings/NAME.txt.xz

docs/model.md has the whole command. A sequence begins with one task of root's; its steps are calls of one or
the other task of it. What is compared after each: the answer, all flags of the caller, its capabilities.
"""

import errno
import functools
import lzma
import random
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import zip_longest
from pathlib import Path

from ioflusher.kernel.capability import CAP_SYS_RESOURCE
from ioflusher.kernel.prctl import PR_GET_IO_FLUSHER, PR_SET_IO_FLUSHER
from ioflusher.kernel.task_flags import NEWEST, TaskFlags, Version
from ioflusher.model import credentials, scopes, tasks
from ioflusher.model.credentials import CAP_SETPCAP, CAP_SETUID, NO_ID
from ioflusher.model.tasks import CLONE_SIGHAND, CLONE_THREAD, CLONE_VFORK, CLONE_VM, TaskStruct

PLAYER = Path(__file__).with_name("programs") / "play.c"
RECORDINGS = Path(__file__).with_name("recordings")
ALL = (1 << 64) - 1
RESOURCE = 1 << CAP_SYS_RESOURCE
MOST_TASKS = 8
CAP_SYS_ADMIN = 21
# of the program that a guest boots with, and of all its children: it has loaded modules
PF_USED_ASYNC = 0x4000  # 3.8 to 5.16
END = "-"


class Call(IntEnum):
    """What a step does; `enum call` of programs/play.c."""

    LOOK = 0
    PRCTL = 1
    CAPSET = 2
    SETRESUID = 3
    UNSHARE = 4
    FORK = 5
    THREAD = 6
    EXEC = 7
    SPAWN = 8
    EXIT = 9
    NOIO = 10
    NOFS = 11
    NORECLAIM = 12


@dataclass(frozen=True, slots=True)
class Step:
    """One call of one task; for a new task, the first argument is its number, the second clone flags."""

    task: int
    call: Call
    args: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"  task {self.task}: {self.call.name.lower()} {' '.join(map(hex, self.args))}"

    def line(self) -> str:
        """As `play` reads it."""
        return " ".join(f"{number:x}" for number in (self.task, self.call, *self.args))


@dataclass(frozen=True, slots=True)
class Seen:
    """What a task sees after its call."""

    result: int
    flags: int
    effective: int
    permitted: int
    inheritable: int

    def __str__(self) -> str:
        answer = errno.errorcode[-self.result] if self.result < 0 else str(self.result)
        names = " ".join(TaskFlags(self.flags).names)
        sets = f"{self.effective:x} {self.permitted:x} {self.inheritable:x}"
        return f"{answer}, {names or 'no flags'}, capabilities {sets}"


Sequence = list[Step]


@dataclass(slots=True)
class Model:
    """The tasks of one sequence in the model."""

    version: Version = NEWEST
    inherited: int = 0
    alive: dict[int, TaskStruct] = field(default_factory=dict)

    def __post_init__(self) -> None:
        first = TaskStruct(0, cred=credentials.root_cred(self.version))
        # forked by a program that executed nothing since
        first.flags |= tasks.PF_FORKNOEXEC | self.inherited
        self.alive[0] = first

    def play(self, step: Step) -> Seen:
        """One step, and what its task sees then."""
        current = self.alive[step.task]
        result = self._call(current, step.call, step.args)
        seen = current.capabilities
        return Seen(result, current.flags, seen.effective, seen.permitted, seen.inheritable)

    def _call(self, current: TaskStruct, call: Call, args: tuple[int, ...]) -> int:
        match call:
            case Call.PRCTL:
                return tasks.sys_prctl(current, *_five(args), self.version)
            case Call.CAPSET:
                return tasks.sys_capset(current, args[0], args[1], args[2], self.version)
            case Call.SETRESUID:
                return tasks.sys_setresuid(current, args[0], args[1], args[2], self.version)
            case Call.UNSHARE:
                return tasks.sys_unshare(current, args[0], self.version)
            case Call.FORK:
                self._new(current, args[1], args[0])
            case Call.THREAD:
                self._new(current, CLONE_VM | CLONE_SIGHAND | CLONE_THREAD, args[0])
            case Call.SPAWN:  # vfork and exec
                tasks.do_execve(self._new(current, CLONE_VM | CLONE_VFORK, args[0]), self.version)
            case Call.EXEC:
                number = next(number for number, task in self.alive.items() if task is current)
                others = [task for task in current.thread_group if task is not current]
                tasks.do_execve(current, self.version)
                self.alive = {n: t for n, t in self.alive.items() if t not in others}
                self.alive[number] = current
            case Call.EXIT:
                tasks.do_exit(current)
                self.alive = {n: t for n, t in self.alive.items() if t is not current}
            case Call.NOIO:
                return self._dm_ioctl(current)
            case Call.NOFS:
                saved = scopes.memalloc_nofs_save(current, self.version)
                scopes.memalloc_nofs_restore(current, saved, self.version)
            case Call.NORECLAIM:
                saved = scopes.memalloc_noreclaim_save(current, self.version)
                scopes.memalloc_noreclaim_restore(current, saved, self.version)
        return 0

    def _new(self, current: TaskStruct, clone_flags: int, number: int) -> TaskStruct:
        child = tasks.copy_process(current, clone_flags, number, self.version)
        assert isinstance(child, TaskStruct), child
        self.alive[number] = child
        return child

    def _dm_ioctl(self, current: TaskStruct) -> int:
        """drivers/md/dm-ioctl.c, ctl_ioctl: a capability, and a buffer got in a NOIO scope."""
        if not tasks.capable(current, CAP_SYS_ADMIN):
            return -errno.EACCES
        saved = scopes.memalloc_noio_save(current, self.version)
        scopes.memalloc_noio_restore(current, saved, self.version)
        return 0


def _five(args: tuple[int, ...]) -> tuple[int, int, int, int, int]:
    option, arg2, arg3, arg4, arg5 = args
    return option, arg2, arg3, arg4, arg5


def play(sequence: Sequence, version: Version = NEWEST, inherited: int = 0) -> list[Seen]:
    """What each step of a sequence shows in the model; its first task has inherited these flags besides."""
    model = Model(version, inherited)
    return [model.play(step) for step in sequence]


# ---------------------------------------------------------------------------------------------- by chance


def make(count: int, seed: int = 1) -> list[Sequence]:
    """So many sequences; the same for the same seed."""
    chance = random.Random(seed)
    return [_sequence(chance) for _ in range(count)]


def _sequence(chance: random.Random) -> Sequence:
    model, steps, born = Model(), [], 1
    task = 0
    story: list[tuple[Call, tuple[int, ...]]] = []
    for _ in range(chance.randint(3, 14)):
        if story:
            call, args = story.pop()
            model.play(Step(task, call, args))
            steps.append(Step(task, call, args))
            continue
        if task not in model.alive or chance.random() < 0.3:
            task = chance.choice(list(model.alive))
        if chance.random() < 0.03:
            story = [step for step in reversed(chance.choice(STORIES)) if chance.random() < 0.95]
            continue
        call = chance.choices(list(_CHANCES), list(_CHANCES.values()))[0]
        if call in (Call.FORK, Call.THREAD, Call.SPAWN):
            if born == MOST_TASKS:
                continue
            vm = (chance.choice((CLONE_VM, CLONE_VM, CLONE_VM, 0)),) if call is Call.FORK else ()
            step = Step(task, call, (born, *vm))
            born += 1
        elif call is Call.EXIT:
            group = model.alive[task].thread_group
            if len(model.alive) == 1 or (len(group) > 1 and group[0] is model.alive[task]):
                continue
            step = Step(task, call)
        else:
            step = Step(task, call, _arguments(chance, call))
        model.play(step)
        steps.append(step)
    last = steps[-1].task if steps else None
    return steps + [Step(task, Call.LOOK) for task in model.alive if task != last]


_GET = (Call.PRCTL, (PR_GET_IO_FLUSHER, 0, 0, 0, 0))
_SET = (Call.PRCTL, (PR_SET_IO_FLUSHER, 1, 0, 0, 0))
_NO_NEW_PRIVS = (Call.PRCTL, (tasks.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
_WITHOUT = (Call.CAPSET, (ALL & ~RESOURCE, ALL & ~RESOURCE, 0))
# what daemons do, and chance alone hardly ever
STORIES: tuple[tuple[tuple[Call, tuple[int, ...]], ...], ...] = (
    (  # another user keeps the capability, and hands it on to a program by the ambient set
        (Call.PRCTL, (credentials.PR_SET_KEEPCAPS, 1, 0, 0, 0)),
        (Call.SETRESUID, (65534, 65534, 65534)),
        (Call.CAPSET, (RESOURCE, RESOURCE, RESOURCE)),
        (Call.PRCTL, (credentials.PR_CAP_AMBIENT, credentials.PR_CAP_AMBIENT_RAISE, CAP_SYS_RESOURCE, 0, 0)),
        _SET,
        (Call.EXEC, ()),
        _GET,
    ),
    (_WITHOUT, (Call.EXEC, ()), _SET),  # a program of root's gets it back,
    (_NO_NEW_PRIVS, _WITHOUT, (Call.EXEC, ()), _SET),  # but for no_new_privs
    (_SET, (Call.NOIO, ()), _GET),  # the kernel's scope within the state
)

_CHANCES = {
    Call.LOOK: 4,
    Call.PRCTL: 60,
    Call.CAPSET: 9,
    Call.SETRESUID: 5,
    Call.UNSHARE: 1,
    Call.FORK: 8,
    Call.THREAD: 8,
    Call.EXEC: 2.5,
    Call.SPAWN: 1.5,
    Call.EXIT: 2,
    Call.NOIO: 0.3,
    Call.NOFS: 1,
    Call.NORECLAIM: 1,
}


def _arguments(chance: random.Random, call: Call) -> tuple[int, ...]:
    match call:
        case Call.PRCTL:
            return _prctl(chance)
        case Call.CAPSET:
            sets = (ALL, 0, ALL & ~RESOURCE, RESOURCE, ALL & ~(1 << CAP_SETPCAP), ALL & ~(1 << CAP_SETUID))
            permitted = chance.choices(sets, (6, 1, 2, 2, 1, 1))[0]
            effective = chance.choice((permitted, permitted & ~RESOURCE, permitted & RESOURCE, RESOURCE))
            return effective, permitted, chance.choice((0, 0, RESOURCE, permitted))
        case Call.SETRESUID:
            ids = (0, 65534, NO_ID, 1000)
            one = chance.choice((0, 65534))
            return (one,) * 3 if chance.random() < 0.6 else tuple(chance.choice(ids) for _ in range(3))
        case Call.UNSHARE:
            return (tasks.CLONE_NEWUSER,)
    return ()


def _prctl(chance: random.Random) -> tuple[int, ...]:
    """Five arguments: mostly of the two options, mostly right; others decide on the capability."""

    def garbage() -> int:
        return chance.choice((1, 2, 1 << 31, 1 << 32, ALL, chance.getrandbits(64)))

    upper = chance.choice((0,) * 19 + (chance.getrandbits(31) << 32,))  # the kernel takes an int
    kind = chance.random()
    if kind < 0.75:
        option = chance.choice((PR_SET_IO_FLUSHER, PR_SET_IO_FLUSHER, PR_GET_IO_FLUSHER))
        state = chance.choice((0, 1, 1)) if option == PR_SET_IO_FLUSHER else 0
        args = [state, 0, 0, 0]
        if chance.random() < 0.25:
            args[chance.randrange(4)] = garbage()
        return option | upper, *args
    cap = chance.choice((CAP_SYS_RESOURCE, CAP_SYS_RESOURCE, CAP_SETPCAP, 63, 64, ALL))
    if kind < 0.80:
        option = chance.choice((credentials.PR_CAPBSET_DROP, credentials.PR_CAPBSET_READ))
        return option | upper, cap, 0, 0, 0
    if kind < 0.87:
        option = chance.choice((credentials.PR_SET_KEEPCAPS, credentials.PR_GET_KEEPCAPS))
        return option | upper, chance.choice((1, 1, 0, 2)), 0, 0, 0
    if kind < 0.96:
        what = chance.choice((1, 2, 2, 2, 3, 4, 5))
        rest = garbage() if chance.random() < 0.1 else 0
        return credentials.PR_CAP_AMBIENT | upper, what, 0 if what == 4 else cap, rest, 0
    option = chance.choice((tasks.PR_SET_NO_NEW_PRIVS, tasks.PR_GET_NO_NEW_PRIVS))
    return option | upper, chance.choice((1, 1, 0)), garbage() if chance.random() < 0.1 else 0, 0, 0


# ------------------------------------------------------------------------------------------------- as text


def text(sequences: Iterable[Sequence]) -> str:
    """The file that `play` reads."""
    return "".join("".join(f"{step.line()}\n" for step in steps) + f"{END}\n" for steps in sequences)


def read_sequences(lines: str) -> list[Sequence]:
    """The sequences of such a file."""
    found: list[Sequence] = [[]]
    for line in lines.splitlines():
        if line == END:
            found.append([])
            continue
        task, call, *args = (int(word, 16) for word in line.split())
        found[-1].append(Step(task, Call(call), tuple(args)))
    return found[:-1]


def read_answers(lines: str) -> list[list[Seen]]:
    """What `play` printed, a list for each sequence."""
    found: list[list[Seen]] = [[]]
    for line in lines.splitlines():
        if line == END:
            found.append([])
            continue
        result, *rest = (int(word, 16) for word in line.split())
        found[-1].append(Seen(result - (1 << 64) if result >> 63 else result, *rest))
    return found[:-1]


def differences(
    sequences: Iterable[Sequence], answers: Iterable[list[Seen]], version: Version
) -> Iterator[str]:
    """For each sequence where model and kernel differ, the first step that does, with what led to it."""
    for number, (steps, kernel) in enumerate(zip_longest(sequences, answers)):
        if steps is None or kernel is None or len(steps) != len(kernel):
            yield f"sequence {number}: {len(steps or ())} steps, {len(kernel or ())} answers"
            continue
        inherited = kernel[0].flags & PF_USED_ASYNC if version < (5, 17) else 0
        model = play(steps, version, inherited)
        for place, (expected, found) in enumerate(zip(model, kernel, strict=True)):
            if expected != found:
                before = "\n".join(map(str, steps[: place + 1]))
                yield f"sequence {number}, step {place}:\n{before}\nmodel: {expected}\nkernel: {found}"
                break


@functools.cache
def recorded(file: Path) -> tuple[list[Sequence], list[list[Seen]]]:
    """The sequences of a recording and a kernel's answers to them."""
    steps, _, answers = lzma.decompress(file.read_bytes()).decode().partition("\n=\n")
    return read_sequences(steps + "\n"), read_answers(answers)


def record(steps: str, answers: str, file: Path) -> None:
    """Keep sequences and answers."""
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(lzma.compress(f"{steps.rstrip()}\n=\n{answers}".encode(), preset=9))


def main(argv: list[str]) -> int:
    """The command line at the top."""
    match argv:
        case ["make", count, seed, file]:
            Path(file).write_text(text(make(int(count), int(seed))))
        case ["record", file, answers, name]:
            record(Path(file).read_text(), Path(answers).read_text(), RECORDINGS / f"{name}.txt.xz")
        case ["compare", file, answers, version]:
            major, minor = version.split(".")[:2]
            sequences = read_sequences(Path(file).read_text())
            seen = read_answers(Path(answers).read_text())
            found = list(differences(sequences, seen, (int(major), int(minor))))
            steps = sum(len(sequence) for sequence in sequences)
            print(*found[:5], f"{len(sequences)} sequences, {steps} steps, {len(found)} differ", sep="\n")
            return 1 if found else 0
        case _:
            print(__doc__)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
