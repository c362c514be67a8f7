"""Who waits for whom: found from the rules of the model, not written down."""

import pytest

from ioflusher.model.code import Code
from ioflusher.model.halves import ModelHalf, play_half
from ioflusher.model.run import RunOutcome, Waiting, run
from ioflusher.model.transitions import Expression, TransitionSystem, Variable
from ioflusher.model.waiting import wait_cycle
from ioflusher.scenario.file import builtin_scenarios, parse_scenario


def frozen(name: str) -> ModelHalf:
    """A packaged scenario without the state on Linux 6.12, which freezes."""
    half = play_half(parse_scenario(builtin_scenarios()[name]), io_flusher=False, version=(6, 12))
    assert half.frozen
    return half


def waiting(half: ModelHalf, name: str) -> Waiting:
    return next(task for task in half.result.waiting if task.program == name)


def test_the_throttled_daemon_is_behind_itself() -> None:
    """Writer and daemon wait for less dirty memory; the daemon's own reply would end writeback of nbd0."""
    half = frozen("ext4-on-nbd-throttled")
    daemon, writer = waiting(half, "nbd-daemon"), waiting(half, "writer")
    for task in (daemon, writer):
        assert dict(zip(task.behind, task.by, strict=True))[daemon.pid] == "replies to nbd0"
    assert half.cycle == (daemon,)
    assert half.result.values["nbd0_writeback"] > 0
    flusher = waiting(half, "kworker/u:flush-nbd0")
    assert (flusher.behind, flusher.by) == ((daemon.pid,), ("takes a request of nbd0",))


def test_swap_waits_in_a_circle_of_two() -> None:
    """The daemon waits for tx_lock, its holder for room in the socket, which the daemon alone makes."""
    half = frozen("swap-on-nbd")
    daemon = waiting(half, "nbd-daemon")
    holder = next(task for task in half.result.waiting if task.pid == half.result.values["nbd0_tx_lock"])
    assert holder.waits_for == "room in the socket of nbd0"
    assert daemon.behind == (holder.pid,)
    assert holder.behind == (daemon.pid,)
    assert half.cycle == (daemon, holder)
    others = [task for task in half.result.waiting if task.waits_for == "tx_lock of nbd0"]
    assert len(others) > 1
    assert {task.behind for task in others} == {(holder.pid,)}


def played(*codes: Code, variables: tuple[Variable, ...]) -> list[tuple[int, ...]]:
    """For each task, in order, those behind which it waits when nothing goes on."""
    programs = [code.program(f"task{pid}", pid, works=True) for pid, code in enumerate(codes, 1)]
    result = run(TransitionSystem("one", variables, tuple(programs)))
    assert result.outcome is RunOutcome.FROZEN
    found = {task.pid: task.behind for task in result.waiting}
    return [found.get(program.pid, ()) for program in programs]


COUNT = Variable("count", 4, 9)


@pytest.mark.parametrize(
    ("when", "change", "needed"),
    [
        (COUNT > 4, +1, True),
        (COUNT > 4, -1, False),
        (COUNT >= 5, +1, True),
        (COUNT < 4, -1, True),
        (COUNT < 4, +1, False),
        (COUNT <= 3, -1, True),
        (COUNT.is_(0), -1, True),
        (COUNT.is_(0), +1, False),
        (COUNT.is_(4).negated(), +1, True),
        ((COUNT <= 4).negated(), +1, True),
        ((COUNT <= 4).negated(), -1, False),
        ((COUNT > 6) | (COUNT < 2), -1, True),
        ((COUNT < 9) & (COUNT > 6), +1, True),
        ((COUNT < 9) & (COUNT > 6), -1, False),
    ],
)
def test_the_direction_counts(when: Expression, change: int, needed: bool) -> None:
    """Only a step that brings the condition nearer makes its task one that has to go on first."""
    never = Variable("never", 0, 1)
    waiter, other = Code(), Code()
    waiter.wait(when, "the count")
    other.wait(never > 0, "nothing that comes")
    other.step("changes it", {COUNT: COUNT + change})
    behind, nobody = played(waiter, other, variables=(COUNT, never))
    assert behind == ((2,) if needed else ())
    assert nobody == ()


def test_what_is_not_there_has_to_be_brought_first() -> None:
    """A completion that has nothing to complete is up to who submits."""
    flying, done = Variable("flying", 0, 1), Variable("done", 0, 1)
    waiter, completer, submitter = Code(), Code(), Code()
    waiter.wait(done > 0, "a completed request")
    completer.step("completes", {flying: flying - 1, done: done + 1}, when=flying > 0, waits_for="a request")
    submitter.wait(done > 0, "it was first")
    submitter.step("submits", {flying: flying + 1})
    assert played(waiter, completer, submitter, variables=(flying, done)) == [(3,), (3,), ()]


def test_a_lock_is_its_holders() -> None:
    """Others who will let go of it, too, do not hold it."""
    lock, never = Variable("lock", 0, 63, unit="task"), Variable("never", 0, 1)
    codes = [Code() for _ in range(3)]
    for pid, code in enumerate(codes, 1):
        code.step("takes", {lock: pid}, when=lock.is_(0), waits_for="the lock")
        code.wait(never > 0, "nothing that comes")
        code.step("lets go", {lock: 0})
    assert played(*codes, variables=(lock, never)) == [(), (1,), (1,)]


def test_steps_of_the_past_do_not_count() -> None:
    """A task that has done its part will not do it again."""
    count, never = Variable("count", 0, 9), Variable("never", 0, 1)
    waiter, other = Code(), Code()
    waiter.wait(count > 1, "another one")
    other.step("gives one", {count: count + 1})
    other.wait(never > 0, "nothing that comes")
    assert played(waiter, other, variables=(count, never)) == [(), ()]


def test_the_shortest_circle() -> None:
    """Through the preferred task where one leads there."""
    behind = {1: (2,), 2: (3, 1), 3: (1,), 4: (4, 1), 5: (1,)}
    assert wait_cycle(behind) == (1, 2)
    assert wait_cycle(behind, [3]) == (3, 1, 2)
    assert wait_cycle(behind, [4]) == (4,)
    assert wait_cycle(behind, [5]) == (1, 2)
    assert wait_cycle({1: (2,), 2: ()}) == ()


def test_what_leads_away_does_not_prepare() -> None:
    """More dirty memory would give a flusher work, and is no way to less of it."""
    dirty, writeback, never = Variable("dirty", 0, 9), Variable("writeback", 3, 9), Variable("never", 0, 1)
    waiter, flusher, writer, completer = Code(), Code(), Code(), Code()
    waiter.wait(dirty + writeback < 3, "less dirty memory")
    with flusher.loop():
        flusher.rest()
        begun = {dirty: dirty - 1, writeback: writeback + 1}
        flusher.step("writes back", begun, when=dirty > 0, waits_for="something to write", interruptible=True)
    writer.wait(never > 0, "nothing that comes")
    writer.step("makes it dirty", {dirty: dirty + 1})
    completer.wait(never > 0, "nothing that comes")
    completer.step("completes", {writeback: writeback - 1})
    behind = played(waiter, flusher, writer, completer, variables=(dirty, writeback, never))
    assert behind == [(4,), (3,), (), ()]


def test_who_gives_work_stands_for_who_rests() -> None:
    """A server that has nothing to do will answer once it is asked: whoever can ask has to go on first."""
    asked, answered, never = Variable("asked", 0, 1), Variable("answered", 0, 1), Variable("never", 0, 1)
    waiter, server, client = Code(), Code(), Code()
    waiter.wait(answered > 0, "an answer")
    with server.loop():
        server.rest()
        server.step("takes it", {asked: 0}, when=asked > 0, waits_for="a request", interruptible=True)
        server.step("answers", {answered: 1})
    client.wait(never > 0, "nothing that comes")
    client.step("asks", {asked: 1})
    assert played(waiter, server, client, variables=(asked, answered, never)) == [(3,), (3,), ()]


def test_who_waits_prepares_nothing_for_itself() -> None:
    """A task that would have to ask, and waits for the answer, is behind nobody."""
    asked, answered = Variable("asked", 0, 1), Variable("answered", 0, 1)
    waiter, server = Code(), Code()
    waiter.wait(answered > 0, "an answer")
    waiter.step("asks", {asked: 1})
    with server.loop():
        server.rest()
        server.step("takes it", {asked: 0}, when=asked > 0, waits_for="a request", interruptible=True)
        server.step("answers", {answered: 1})
    assert played(waiter, server, variables=(asked, answered)) == [(), (1,)]
