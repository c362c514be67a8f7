"""Small systems whose freezes are known, and random ones."""

from hypothesis import strategies as st

from ioflusher.model.code import Code
from ioflusher.model.transitions import (
    Expression,
    Program,
    Step,
    TransitionSystem,
    Variable,
    maximum,
    minimum,
    number,
    where,
)


def dining(count: int, *, ordered: bool = False) -> TransitionSystem:
    """Tasks around a table, each of which needs the two locks beside it.

    Args:
        ordered: all take the lock with the lower number first, so that nobody waits in a circle.
    """
    forks = [Variable(f"fork{each}", 1, 1, what=f"lock {each}") for each in range(count)]
    tasks = []
    for each in range(count):
        pair = [each, (each + 1) % count]
        one, other = (forks[fork] for fork in (sorted(pair) if ordered else pair))
        code = Code()
        with code.call("eat"):
            code.step("takes one", {one: one - 1}, when=one > 0, waits_for=one.what)
            code.step("takes the other", {other: other - 1}, when=other > 0, waits_for=other.what)
        code.step("gives both back", {one: one + 1, other: other + 1})
        tasks.append(code.program(f"task{each}", each + 1, works=True))
    return TransitionSystem(f"dining{count}", tuple(forks), tuple(tasks))


def writers(count: int, *, pages: int, needs_pages: bool, pauses: bool = False) -> TransitionSystem:
    """Tasks that write to a device, and its daemon, which may itself need memory that only it can free.

    Args:
        count: tasks that write a page each.
        pages: of memory; a written page is free again when the daemon has stored it.
        needs_pages: the daemon asks for a page for each request.
        pauses: who finds no page looks again after a while, in place of waiting for one.
    """
    free = Variable("free", pages, pages, what="free pages", unit="memory")
    queued = Variable("queued", 0, count, what="requests")
    tasks = [_writer(number, free, queued, pauses=pauses) for number in range(count)]
    code = Code()
    with code.call("daemon"), code.loop():
        code.rest()
        code.step(
            "receives", {queued: queued - 1}, when=queued > 0, waits_for="a request", interruptible=True
        )
        if needs_pages:
            _page(code, free, pauses=pauses)
            code.step("frees its page", {free: free + 1})
        code.step("stored", {free: free + 1}, completes="nbd0")
    return TransitionSystem("writers", (free, queued), (*tasks, code.program("daemon", 100)))


def _writer(number_: int, free: Variable, queued: Variable, *, pauses: bool) -> Program:
    code = Code()
    with code.call("write"):
        _page(code, free, pauses=pauses)
        code.step("submits", {queued: queued + 1})
    return code.program(f"writer{number_}", number_ + 1, works=True, alike="writer")


def _page(code: Code, free: Variable, *, pauses: bool) -> None:
    with code.call("alloc_pages"):
        if not pauses:
            code.step("takes a page", {free: free - 1}, when=free > 0, waits_for="a free page")
            return
        with code.loop(), code.choice() as choice:
            with choice.way("takes a page", {free: free - 1}, when=free > 0):
                code.leave()
            with choice.otherwise("pauses"):
                code.step("looks again", after_ns=1)


@st.composite
def systems(draw: st.DrawFn) -> TransitionSystem:
    """Systems of two or three tasks, the last two alike now and then, over a few variables."""
    variables = tuple(
        Variable(f"v{each}", low + draw(st.integers(0, size)), low + size, low=low)
        for each, (low, size) in enumerate(
            draw(st.lists(st.tuples(st.integers(-2, 1), st.integers(1, 3)), min_size=1, max_size=3))
        )
    )
    alike = draw(st.booleans())
    tasks = []
    for each in range(draw(st.integers(1, 2))):
        # of its own now and then, so that there is something local
        own = (Variable(f"own{each}", 0, 2),) if draw(st.booleans()) else ()
        variables += own
        of_task = own if own and draw(st.booleans()) else (*own, *variables)
        tasks.append(draw(_tasks(f"task{each}", of_task)))
    if alike:
        task = draw(_tasks("alike", variables))
        tasks += [
            Program(f"alike{each}", 10 + each, 0, task.steps, task.rests, task.works, "alike")
            for each in range(draw(st.integers(2, 3)))
        ]
    return TransitionSystem("random", variables, tuple(tasks))


@st.composite
def _tasks(draw: st.DrawFn, name: str, variables: tuple[Variable, ...]) -> Program:
    points = draw(st.integers(1, 4))
    point = st.integers(0, points - 1)
    steps = tuple(
        Step(
            at,
            to,
            when=draw(st.none() | _conditions(variables)),
            changes=tuple(
                (variable, draw(_within(variable, variables)))
                for variable in draw(st.lists(st.sampled_from(variables), max_size=2, unique_by=id))
            ),
            label=f"{name}: {at} to {to}",
        )
        for at, to in draw(st.lists(st.tuples(point, point), min_size=1, max_size=5))
    )
    rests = frozenset(draw(st.lists(point, max_size=2)))
    return Program(name, 1, 0, steps, rests, draw(st.booleans()))


def _terms(variables: tuple[Variable, ...]) -> st.SearchStrategy[Expression]:
    one = st.sampled_from(variables) | st.integers(-3, 5).map(number)
    pair = st.tuples(one, one)
    return (
        one
        | pair.map(lambda two: two[0] + two[1])
        | pair.map(lambda two: two[0] - two[1])
        | pair.map(lambda two: two[0] * two[1])
        | pair.map(lambda two: minimum(two[0], two[1]))
        | pair.map(lambda two: two[0] // 2)
        | pair.map(lambda two: (two[0] < two[1]) + (two[1] > 0))
    )


@st.composite
def _conditions(draw: st.DrawFn, variables: tuple[Variable, ...]) -> Expression:
    terms = _terms(variables)
    one, other = draw(terms), draw(terms)
    found = draw(st.sampled_from((one < other, one <= other, one > other, one >= other, one.is_(other))))
    match draw(st.integers(0, 3)):
        case 0:
            return found & (draw(terms) >= 0)
        case 1:
            return found | draw(terms).is_(1)
        case 2:
            return found.negated()
    return found


@st.composite
def _within(draw: st.DrawFn, variable: Variable, variables: tuple[Variable, ...]) -> Expression:
    new = draw(_terms(variables))
    if draw(st.booleans()):
        new = where(draw(_conditions(variables)), new, variable)
    return minimum(maximum(new, variable.low), variable.high)
