"""The engine of a run against SimPy: the same queues and locks, the same moments."""

import random

import pytest
import simpy

from ioflusher.model.code import Code
from ioflusher.model.run import RunOutcome, run
from ioflusher.model.transitions import TransitionSystem, Variable

Job = tuple[int, int, bool]  # nanoseconds before, nanoseconds of work, whether it needs the lock


def jobs_of(seed: int) -> list[list[Job]]:
    """What each of some tasks does, one after the other; no two moments are the same."""
    chance = random.Random(seed)
    return [
        [(chance.randrange(1, 10**9), chance.randrange(1, 10**9), chance.random() < 0.6) for _ in range(20)]
        for _ in range(6)
    ]


def with_simpy(jobs: list[list[Job]]) -> list[tuple[int, int]]:
    """(when, who) of each job's end."""
    world = simpy.Environment()
    lock = simpy.Resource(world)
    ends: list[tuple[int, int]] = []

    def task(number: int) -> simpy.events.ProcessGenerator:
        for before, work, locked in jobs[number]:
            yield world.timeout(before)
            if locked:
                with lock.request() as held:
                    yield held
                    yield world.timeout(work)
            else:
                yield world.timeout(work)
            ends.append((int(world.now), number))

    for number in range(len(jobs)):
        world.process(task(number))
    world.run()
    return ends


def with_the_model(jobs: list[list[Job]]) -> list[tuple[int, int]]:
    """The same as a system of the model."""
    lock = Variable("lock", 0, len(jobs), unit="task")
    programs = []
    for number, own in enumerate(jobs):
        code = Code()
        for before, work, locked in own:
            code.step("before", takes_ns=before)
            if locked:
                code.step("locks", {lock: number + 1}, when=lock.is_(0), waits_for="the lock")
            code.step("end", {lock: 0} if locked else {}, takes_ns=work)
        programs.append(code.program(f"task-{number}", number + 1, works=True))
    ends: list[tuple[int, int]] = []
    result = run(
        TransitionSystem("jobs", (lock,), tuple(programs)),
        jitter=0,
        on_step=lambda one: ends.append((one.at_ns, one.program)) if one.step.label == "end" else None,
    )
    assert result.outcome is RunOutcome.DONE
    return ends


@pytest.mark.parametrize("seed", range(5))
def test_every_job_ends_at_the_same_moment(seed: int) -> None:
    """Who comes first is served first, and time goes on as in a simulation library that many use."""
    jobs = jobs_of(seed)
    assert with_the_model(jobs) == with_simpy(jobs)
