"""What a test may ask of the lab: which scenario with which daemon, and how it has to come out."""

import contextlib
import fcntl
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from ioflusher.errors import IoflusherError
from ioflusher.lab.capacity import half_bytes, this_machine
from ioflusher.lab.kernels import cache_directory, find_kernel
from ioflusher.lab.outcome import Ending, Experiment, OneHalf, half_words
from ioflusher.lab.qemu import Accelerator, find_qemu
from ioflusher.lab.repeat import RunKeeper, plan_runs, play_runs
from ioflusher.lab.session import Lab
from ioflusher.lab.setup import check_programs
from ioflusher.lab.store import ExperimentStore, StoreError
from ioflusher.lab.variant import by_itself as hardened_by_itself
from ioflusher.lab.variant import with_daemon
from ioflusher.report.experiment_failure import failure_text
from ioflusher.scenario.errors import ScenarioError
from ioflusher.scenario.file import find_scenario
from ioflusher.scenario.records import Scenario

REQUIRE_VARIABLE = "IOFLUSHER_LAB_REQUIRE"
KERNEL_VARIABLE = "IOFLUSHER_LAB_KERNEL"
SLOT_LOOK_S = 0.5
# too much to walk, and nobody's project
_NOT_SHARED = ("/", "/tmp", "/var/tmp", "/home", "/root")


class ReclaimLabFailure(AssertionError):
    """A scenario did not come out as the test says that it must."""


class ReclaimLab:
    """What the fixture gives a test."""

    def __init__(self, root: Path, properties: list[tuple[str, object]]) -> None:
        self._root = root
        self._properties = properties

    def run(
        self,
        scenario: str | os.PathLike[str],
        *,
        daemon: Sequence[str | os.PathLike[str]] | None = None,
        kind: str | None = None,
        kernel: str | None = None,
        accelerator: str | None = None,
        by_itself: bool = False,
    ) -> "Trial":
        """What is to be played; it is played when its outcome is asserted.

        Args:
            scenario: the name of one that comes with ioflusher (`ioflusher lab list`), or a TOML file.
            daemon: the command of the daemon in place of the scenario's, in the foreground, with the
                placeholders of its kind ({socket}, {file}, {remote} for nbd; docs/lab.md). A word with a
                slash that names a file is taken from pytest's root directory.
            kind: of the daemon, as in docs/lab.md: "nbd", "fuse" and so on; None: the scenario's.
            kernel: a release such as "6.1" or a bzImage; None: that of IOFLUSHER_LAB_KERNEL, else the lab's
                default.
            accelerator: "kvm" or "tcg"; None: KVM where it works.
            by_itself: whether the daemon has to set the IO_FLUSHER state, lock its memory and so on itself,
                as in production. Else the lab does what the scenario says, and sets the state in the half
                with it.

        Raises:
            ScenarioError: there is no such scenario, or the daemon does not go with it.
        """
        found = find_scenario(os.fspath(scenario))
        words = tuple(os.fspath(word) for word in daemon or ())
        if words:
            found = with_daemon(found, self._absolute(words), kind)
        elif kind not in (None, found.device.kind):
            raise ScenarioError(f"kind={kind!r} is the kind of a daemon: give daemon=, too")
        if by_itself:
            found = hardened_by_itself(found)
        chosen = kernel or os.environ.get(KERNEL_VARIABLE) or None
        return Trial(
            found, chosen, Accelerator(accelerator) if accelerator else None, self._root, self._properties
        )

    def _absolute(self, words: tuple[str, ...]) -> tuple[str, ...]:
        """The command as a guest finds it, which starts it in another directory than this process is in."""
        program = words[0] if "/" in words[0] else shutil.which(words[0])
        if program is None or not (self._root / program).is_file():
            raise ScenarioError(
                f"the daemon's program {words[0]} is not there",
                hint=f"build it first; a name with a slash is looked for from {self._root} on",
            )
        rest = (str(self._root / word) if _names_file(self._root, word) else word for word in words[1:])
        return (os.path.abspath(self._root / program), *rest)


def _names_file(root: Path, word: str) -> bool:
    return "/" in word and "{" not in word and (root / word).exists()


@dataclass(frozen=True, slots=True)
class Trial:
    """A scenario that can be played; each assertion plays it anew, and returns all of the evidence.

    Attributes:
        scenario: the whole of it, with the daemon that was asked for.
        kernel, accelerator: as they were asked for.
        root: pytest's root directory, which guests see.
        properties: the test's, for JUnit's XML.
    """

    scenario: Scenario
    kernel: str | None
    accelerator: Accelerator | None
    root: Path
    properties: list[tuple[str, object]]

    def assert_survives(self, *, runs: int = 1) -> Experiment:
        """With the state the work is done in every run, and all that was written is read back."""
        __tracebackhide__ = True
        return self._assert("with", runs)

    def assert_freezes(self, *, runs: int = 1) -> Experiment:
        """Without the state the device freezes in every run, and the daemon is seen waiting for itself."""
        __tracebackhide__ = True
        return self._assert("without", runs)

    def assert_proves(self, *, runs: int = 1) -> Experiment:
        """Both: frozen without the state and alive with it, in every run."""
        __tracebackhide__ = True
        return self._assert(None, runs)

    def _assert(self, only: OneHalf | None, runs: int) -> Experiment:
        __tracebackhide__ = True
        keeper = RunKeeper(_store(), on_error=lambda error: warnings.warn(str(error), stacklevel=2))
        with _ready_lab(self) as lab:
            experiment = play_runs(lab, plan_runs(lab, self.scenario, only=only, runs=runs), keeper=keeper)
        self._record(experiment, keeper.experiment)
        if experiment.ending is Ending.INTERRUPTED:
            raise KeyboardInterrupt
        if not experiment.as_expected:
            raise ReclaimLabFailure(failure_text(experiment, kept_as=keeper.experiment))
        return experiment

    def _record(self, experiment: Experiment, kept_as: int | None) -> None:
        """What JUnit's XML says of the test; values of several halves stand side by side."""
        runs = (*experiment.runs, *([experiment.unfinished] if experiment.unfinished else []))
        halves = [half for run in runs for half in run.halves]
        plan = experiment.plan
        for name, value in (
            ("scenario", plan.scenario),
            ("kernel", plan.kernel),
            ("accelerator", plan.accelerator),
            ("half", plan.only or "both"),
            ("outcome", "; ".join(map(half_words, halves))),
            ("when_s", " ".join(f"{half.when_s:.1f}" for half in halves)),
            ("run", "" if kept_as is None else str(kept_as)),
        ):
            self.properties.append((f"reclaim_lab.{name}", value))


def _store() -> ExperimentStore | None:
    """The store of this user's runs; None where it cannot be written, which is a warning."""
    try:
        store = ExperimentStore()
        store.check()
    except StoreError as error:
        warnings.warn(f"the runs are not kept: {error}", stacklevel=2)
        return None
    return store


@contextlib.contextmanager
def _ready_lab(trial: Trial) -> Iterator[Lab]:
    """A lab that can play the trial; the test is skipped, or fails, where there can be none."""
    with contextlib.ExitStack() as stack:
        try:
            find_qemu()
            # a test fetches nothing: that is for `ioflusher lab setup`
            kernel = trial.kernel or trial.scenario.machine.kernel or None
            find_kernel(kernel, download=False)
            check_programs(trial.scenario)
            stack.enter_context(_room_for(trial.scenario))
            lab = stack.enter_context(Lab(kernel, accelerator=trial.accelerator, shares=_shares(trial)))
        except ScenarioError:
            raise
        except IoflusherError as error:
            _cannot_be_played(error)
        yield lab


def _cannot_be_played(error: IoflusherError) -> NoReturn:
    """Skip the test, with the reason and what to do; or fail."""
    reason = f"the reclaim lab cannot play here: {error}" + (f" ({error.hint})" if error.hint else "")
    if os.environ.get(REQUIRE_VARIABLE, "0") not in ("", "0"):
        pytest.fail(f"{reason}; {REQUIRE_VARIABLE} forbids to skip it", pytrace=False)
    pytest.skip(f"{reason}; {REQUIRE_VARIABLE}=1 makes this a failure")


def _shares(trial: Trial) -> tuple[Path, ...]:
    """Directories that the guest sees besides the system's: the project, and where the daemon's files are."""
    too_large = {Path(name) for name in _NOT_SHARED} | {Path.home()}
    shares = [] if trial.root in too_large else [trial.root]
    for word in trial.scenario.daemon.command:
        path = Path(word)
        if not path.is_absolute() or not path.is_file() or path.is_relative_to(trial.root):
            continue
        if path.parent in too_large:
            raise ScenarioError(
                f"{path} lies in a directory that is too large to be shown to a guest",
                hint="put it in a directory of its own",
            )
        shares.append(path.parent)
    return tuple(shares)


@contextlib.contextmanager
def _room_for(scenario: Scenario) -> Iterator[None]:
    """Wait until this machine has a processor and the memory for one more guest.

    Tests may run in several processes (pytest-xdist). Guests that take each other's processor time come to
    their deadlines, and a test would fail for it. Locks of files count, and end with the process.
    """
    machine = this_machine()
    slots = machine.cpus
    if machine.memory_bytes is not None:
        slots = min(slots, machine.memory_bytes // half_bytes(scenario))
    directory = cache_directory() / "slots"
    directory.mkdir(parents=True, exist_ok=True)
    while True:
        for number in range(max(1, slots)):
            with open(directory / str(number), "w") as slot:
                try:
                    fcntl.flock(slot, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield
                return
        time.sleep(SLOT_LOOK_S)
