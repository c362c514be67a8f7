"""What holds for all tests: their needs, no deadline for random inputs on a busy machine, and Ctrl-C.

What is missing skips or, with IOFLUSHER_TESTS_NO_SKIP=1, fails; see tests/needs.py.
"""

import signal
from collections import Counter
from collections.abc import Generator

import hypothesis
import pytest

from tests.needs import ELSEWHERE, NO_SKIP, missing

_deselected: Counter[str] = Counter()

hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

# a shell without job control starts what runs in the background with these ignored, and so would be every
# program that a test interrupts
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what only another place can run."""
    kept: list[pytest.Item] = []
    gone: list[pytest.Item] = []
    for item in items:
        elsewhere = [
            name for name, place in ELSEWHERE.items() if item.get_closest_marker(name) and not place.here()
        ]
        _deselected.update(elsewhere[:1])
        (gone if elsewhere else kept).append(item)
    if gone:
        config.hook.pytest_deselected(items=gone)
        items[:] = kept


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which tests run elsewhere, and where."""
    for name, number in sorted(_deselected.items()):
        terminalreporter.line(f"DESELECTED [{number}] marked {name}: {ELSEWHERE[name].where}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose needs are not met."""
    if item.get_closest_marker("vm") and (reason := missing("qemu-system-x86_64")):
        pytest.skip(reason)
    for marker in item.iter_markers("needs"):
        for reason in filter(None, map(missing, marker.args)):
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skip is a failure where nothing may be missing."""
    report = yield
    if NO_SKIP and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        reason = call.excinfo.value if call.excinfo else "a marker"
        report.longrepr = f"skipped, which IOFLUSHER_TESTS_NO_SKIP=1 forbids: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for files that are skipped whole."""
    report = yield
    if NO_SKIP and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} was skipped, which IOFLUSHER_TESTS_NO_SKIP=1 forbids"
    return report
