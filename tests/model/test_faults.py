"""Faults in the model: the daemon stopped and killed, its connection cut, the server outside at fault."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from ioflusher.comparison.predicted import predicted_halves
from ioflusher.kernel.task_flags import Version
from ioflusher.kernlog.diagnose import diagnose_log
from ioflusher.model import writeback
from ioflusher.model.build import build
from ioflusher.model.code import Code
from ioflusher.model.errors import NotModelledError
from ioflusher.model.explore import Verdict, explore
from ioflusher.model.explore.halves import replay
from ioflusher.model.halves import daemons_of, play_half
from ioflusher.model.nbd import ReconnectedNbdDriver
from ioflusher.model.run import Happened, RunOutcome, RunResult, Waiting, run
from ioflusher.model.scale import small
from ioflusher.report.model_log import hung_task_log
from ioflusher.report.model_words import half_outcome, hardware_pids
from ioflusher.scenario.faults import FAULTS, FaultPlace
from ioflusher.scenario.file import builtin_scenarios, find_scenario, parse_scenario
from ioflusher.scenario.records import Scenario
from ioflusher.scenario.settings import with_settings
from ioflusher.scenario.stacks import STACKS
from tests.model.one_rule import changed, kernel, labelled, value

FROZEN, DONE, LOST = RunOutcome.FROZEN, RunOutcome.DONE, RunOutcome.LOST
THROTTLED, SWAP = "ext4-on-nbd-throttled", "swap-on-nbd"
SECOND = 1_000_000_000


def faulty(
    name: str, kind: str, at_s: float = 1.0, settings: Mapping[str, Any] | None = None, **keys: Any
) -> Scenario:
    """A scenario of the package with one fault."""
    fault = {"kind": kind, "at_s": at_s, **keys}
    return with_settings(find_scenario(name), {"fault": [fault], **(settings or {})})


def played(
    scenario: Scenario, *, io_flusher: bool = True, version: Version = (6, 12), seed: int = 0
) -> tuple[RunResult, list[Happened]]:
    """A run, and its steps that have a label."""
    steps: list[Happened] = []
    system = build(scenario, io_flusher=io_flusher, version=version)
    result = run(
        system,
        seed=seed,
        stalled_s=scenario.frozen.stalled_s,
        on_step=lambda step: steps.append(step) if step.step.label else None,
    )
    return result, steps


def waits(result: RunResult, program: str) -> Waiting:
    """A task that waits in the end."""
    return next(task for task in result.waiting if task.program == program)


def at_s(steps: list[Happened], label: str) -> list[float]:
    """When something was done."""
    return [step.at_ns / SECOND for step in steps if step.step.label == label]


ONE_OF_EACH = (
    "ext4-on-nbd-throttled",
    "swap-on-nbd",
    "swap-on-iscsid-cut",
    "swap-on-multipath",
    "ext4-on-fuse-throttled",
    "ext4-on-ublk-throttled",
    "ext4-on-tcmu-throttled",
    "ext4-on-tgt-throttled",
    "nfs-on-ganesha-throttled",
    "ext4-on-stacked-throttled",
    "ext4-on-qemu-nbd-throttled",
)
EVERY = [
    (name, kind)
    for name in ONE_OF_EACH
    for kind, row in FAULTS.items()
    for scenario in [parse_scenario(builtin_scenarios()[name])]
    if row.place is FaultPlace.ANY_STACK
    or (row.place is FaultPlace.STACK and kind in STACKS[scenario.device.kind].faults)
    or (row.place is FaultPlace.OUTSIDE and scenario.daemon.store == "remote")
]


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_what_the_lab_can_do_to_a_stack_the_model_can(name: str, kind: str) -> None:
    """Each fault of each stack plays to an end, begun at its time, and what it changes is not nothing."""
    keys = {"delay_ms": 5} if FAULTS[kind].delayed else {}
    scenario = faulty(name, kind, at_s=0.3, settings={"frozen.stalled_s": 12}, **keys)
    result, steps = played(scenario)
    assert result.outcome in (FROZEN, DONE, LOST, RunOutcome.OUT_OF_MEMORY)
    (begun,) = (step for step in steps if step.step.label == f"{kind} begins")
    assert 0.15 <= begun.at_ns / SECOND <= 0.45, "0.3 s, with the jitter of a run"
    assert begun.step.changes


@pytest.mark.parametrize(
    ("scenario", "version", "said"),
    [
        (
            faulty("xfs-on-nbd", "daemon-killed"),
            (6, 12),
            "fault.kind: the model expects no 'daemon-killed' with",
        ),
        (
            faulty("ext4-on-fuse-overlayfs-throttled", "daemon-killed"),
            (6, 12),
            "fault.kind: the model expects no 'daemon-killed' with this daemon",
        ),
        (
            faulty("ext4-on-tgt-throttled", "daemon-stopped", settings={"frozen.stalled_s": 30}),
            (6, 12),
            "frozen.stalled_s: the model expects less than 30",
        ),
        (
            faulty(THROTTLED, "connection-cut"),
            (5, 6),
            "fault.kind: the model expects no 'connection-cut' before",
        ),
        (
            faulty(
                SWAP,
                "remote-cut",
                settings={"daemon.command": ["nbdkit", "-f", "-U", "{socket}", "nbd", "uri={remote}"]},
            ),
            (6, 12),
            "fault.kind: the model expects no 'remote-cut' with a daemon.command",
        ),
    ],
)
def test_what_is_refused_with_its_reason(scenario: Scenario, version: Version, said: str) -> None:
    """What the model has not of errors and time-outs is named, and why."""
    with pytest.raises(NotModelledError) as raised:
        build(scenario, io_flusher=True, version=version)
    assert said in str(raised.value)
    assert re.search("not here|end with an error|our own daemon alone|for swap alone", str(raised.value.hint))


def test_a_killed_server_loses_the_workload() -> None:
    """What is submitted later ends with an error, the file system is read only: lost, as on a real kernel."""
    result, steps = played(faulty(THROTTLED, "daemon-killed", at_s=0.6))
    assert result.outcome is LOST
    assert result.failed in ("EIO: what was written is not there", "EROFS: the file system can only be read")
    assert result.values["daemon_threads"] == 0
    assert at_s(steps, "an I/O error of nbd0")
    assert result.values["daemon_memory"] == 0


def test_an_aborted_journal_lets_nobody_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it commits, which it can no more; until then what is written is lost unnoticed."""
    monkeypatch.setattr(writeback, "COMMIT_NS", 1_000_000)
    result, steps = played(faulty("ext4-on-ublk-throttled", "daemon-killed", at_s=0.3))
    assert (result.outcome, result.failed) == (LOST, "EROFS: the file system can only be read")
    (aborted,) = at_s(steps, "aborts the journal")
    assert aborted > at_s(steps, "an I/O error of ublkb0")[0]


def test_a_loss_is_told() -> None:
    """In the words of `model run`, and as an outcome that is compared with the lab's."""
    scenario = faulty(THROTTLED, "daemon-killed", at_s=0.6)
    half = play_half(scenario, io_flusher=True, version=(6, 12))
    assert half_outcome(half).startswith("LOST after ")
    assert half_outcome(half).endswith(f"the workload gives up with {half.result.failed}")
    assert not half.came_out_as("finished")
    (predicted,) = predicted_halves(scenario, (6, 12), (0,), io_flusher=True)
    assert predicted.outcome == "lost"


def test_a_request_that_was_sent_whole_is_never_answered() -> None:
    """Without a time-out its timer only starts again: writeback, and the journal's commit, wait for ever."""
    result, _ = played(faulty(THROTTLED, "daemon-killed"), io_flusher=False)
    assert result.outcome is FROZEN
    assert result.values["nbd0_tags"] == 127, "one is in flight, all others ended with an error"
    journal = waits(result, "jbd2/nbd0-8")
    assert journal.calls[0] == "folio_wait_writeback"
    assert journal.behind == (), "nobody can bring that about"


@pytest.mark.parametrize(("version", "outcome"), [((6, 1), FROZEN), ((6, 10), FROZEN), ((6, 11), LOST)])
def test_what_lies_whole_in_the_socket_is_never_answered(version: Version, outcome: RunOutcome) -> None:
    """On 6.1 a guest froze, on 6.12 its workload was lost: since 6.11 requests are larger than the socket."""
    result, _ = played(faulty(THROTTLED, "daemon-killed", at_s=0.6), version=version)
    assert result.outcome is outcome


def test_the_memory_of_a_killed_daemon_is_free_again() -> None:
    """The last of its threads gives back what all of them held for requests."""
    scenario = faulty("ext4-on-nbdkit-throttled", "daemon-killed", at_s=0.3)
    held: list[int] = []
    system = build(scenario, io_flusher=False, version=(6, 12))
    place = [variable.name for variable in system.variables].index("daemon_memory")
    result = run(system, stalled_s=8, on_step=lambda step: held.append(step.values[place]))
    assert result.values["daemon_threads"] == 0
    assert held[-1] == 0
    assert max(held) > 1, "threads that are throttled, each with a request"
    assert result.values["daemon_memory"] == 0


def test_sigkill_ends_the_throttle_of_a_daemon() -> None:
    """balance_dirty_pages() sleeps in state K: the frozen daemon ends, and its thread with it."""
    result, steps = played(faulty(THROTTLED, "daemon-killed"), io_flusher=False)
    assert result.values["daemon_threads"] == 0
    assert [step.step.calls[:1] for step in steps if step.step.label == "is killed"] == [("get_signal",)]


@pytest.mark.parametrize(("version", "outcome"), [((5, 18), FROZEN), ((5, 19), LOST), ((5, 10), LOST)])
def test_a_server_that_attached_the_device_itself(version: Version, outcome: RunOutcome) -> None:
    """SIGKILL ends its NBD_DO_IT, and since 5.19 that ends what is in flight (nbd_clear_que())."""
    command = ["qemu-nbd", "-v", "-f", "raw", "-c", "{device}", "{file}"]
    settings = {"device.kind": "nbd-device", "daemon.command": command}
    scenario = faulty(THROTTLED, "daemon-killed", settings=settings)
    result, _ = played(scenario, io_flusher=False, version=version)
    assert result.outcome is outcome
    assert (result.values["nbd0_tags"] == 128) == (outcome is LOST)


@pytest.mark.parametrize("name", ["ext4-on-fuse-throttled", "ext4-on-ublk-throttled"])
def test_servers_whose_end_ends_all_requests(name: str) -> None:
    """FUSE aborts the connection, ublk takes the device down: nothing stays in flight."""
    result, _ = played(faulty(name, "daemon-killed", at_s=0.3))
    assert result.outcome is LOST
    device = "loop0" if "fuse" in name else "ublkb0"
    assert result.values[f"{device}_tags"] == 128


def test_when_ublk_notices_that_its_server_is_gone() -> None:
    """At once since 6.7; before, when it looks, every five seconds."""
    found = {}
    for version in ((6, 6), (6, 7)):
        _, steps = played(faulty("ext4-on-ublk-throttled", "daemon-killed", at_s=0.3), version=version)
        (killed,) = at_s(steps, "ends, and the process with it")
        found[version] = at_s(steps, "an I/O error of ublkb0")[0] - killed
    assert found[6, 7] < 0.01
    assert 2.5 <= found[6, 6] <= 7.5


@pytest.mark.parametrize(
    ("kind", "for_s", "outcome"),
    [("daemon-stopped", 5, DONE), ("daemon-stopped", 0, FROZEN)],
)
def test_a_stopped_daemon_is_waited_for(kind: str, for_s: float, outcome: RunOutcome) -> None:
    """As long as it takes: it goes on where it was."""
    result, _ = played(faulty(THROTTLED, kind, for_s=for_s, settings={"frozen.stalled_s": 15}))
    assert result.outcome is outcome
    if outcome is DONE:
        assert 2.5 <= result.longest_ns["nbd0"] / SECOND <= 7.5
    else:
        daemon = waits(result, "nbd-daemon")
        assert (daemon.state, daemon.calls[0], daemon.waits_for) == ("T", "do_signal_stop", "SIGCONT")


def test_a_journal_with_nothing_to_commit_is_not_blocked() -> None:
    """Its thread sleeps as others that have no work, not as a hung task: frozen before the fault."""
    result, _ = played(faulty(THROTTLED, "daemon-killed", at_s=30), io_flusher=False)
    assert result.outcome is FROZEN
    (journal,) = (task for task in result.waiting if task.program.startswith("jbd2/"))
    assert (journal.state, journal.waits_for) == ("S", "time to commit")


@pytest.mark.parametrize(
    ("scenario", "io_flusher"),
    [
        (faulty(THROTTLED, "daemon-stopped"), True),
        (faulty(THROTTLED, "daemon-killed"), False),
        (faulty(SWAP, "remote-silent"), True),
        (faulty(SWAP, "connection-cut", for_s=60, settings={"frozen.stalled_s": 15}), True),
    ],
    ids=["stopped", "killed", "silent", "cut"],
)
def test_the_log_of_a_freeze_by_a_fault(scenario: Scenario, io_flusher: bool) -> None:
    """`ioflusher diagnose` comes to the same answer: nobody waits for himself, and every stack is known."""
    half = play_half(scenario, io_flusher=io_flusher, version=(6, 12))
    assert half.frozen
    assert half.cycle == ()
    log = hung_task_log(half.result, "6.12", hardware=hardware_pids(half))
    assert ("task:nbd-daemon      state:T" in log) == (scenario.fault[0].kind == "daemon-stopped")
    diagnosis = diagnose_log(log.encode(), ("nbd-daemon",))
    assert not diagnosis.recursion
    assert not any(event.kind.value == "unread-stack" for event in diagnosis.events)


def test_what_a_cut_connection_had_on_its_way_is_sent_again_after_its_time_out() -> None:
    """10 s later, as in a guest (10.1 s); what is submitted meanwhile goes over the next connection."""
    scenario = faulty(THROTTLED, "connection-cut", for_s=3, settings={"frozen.stalled_s": 25})
    result, steps = played(scenario)
    assert result.outcome is DONE
    (cut,) = at_s(steps, "connection-cut begins")
    (given,) = at_s(steps, "gives nbd0 the connection")
    (late,) = at_s(steps, "requests of nbd0 have timed out")
    assert late == pytest.approx(cut + 10)
    between = [at for at in at_s(steps, "replies to nbd0") if given < at < late]
    assert between, "the new connection is used before the old requests are sent again"
    assert result.completed == {"nbd0": 768}
    assert len(at_s(steps, "its reply to nbd0 is lost")) <= 1


def test_a_time_out_of_an_old_connection_says_nothing_of_the_new_one() -> None:
    """Its cookie is another: the socket stays alive (nbd_xmit_timeout())."""
    scenario = faulty(THROTTLED, "connection-cut", for_s=3, settings={"frozen.stalled_s": 25})
    result, steps = played(scenario)
    assert result.values["nbd0_dead"] == 0
    assert len(at_s(steps, "gives nbd0 the connection")) == 1


def test_who_waits_for_another_connection() -> None:
    """All who submit, in wait_for_reconnect(), without tx_lock; and it is up to the end of the fault."""
    result, _ = played(faulty(SWAP, "connection-cut", for_s=60, settings={"frozen.stalled_s": 15}))
    assert result.outcome is FROZEN
    toucher = waits(result, "toucher")
    assert toucher.calls[:2] == ("wait_for_reconnect", "nbd_handle_cmd")
    assert toucher.state == "D"
    assert result.values["nbd0_tx_lock"] == 0
    assert toucher.behind, "whoever gives the driver another connection"


def test_a_time_out_with_one_connection_leaves_none() -> None:
    """A server that stands still for longer than it loses its connection, and nobody makes another."""
    faults = [
        {"kind": "connection-cut", "at_s": 60.0},
        {"kind": "daemon-stopped", "at_s": 1.0, "for_s": 30},
    ]
    settings = {"fault": faults, "frozen.stalled_s": 50}
    result, steps = played(with_settings(find_scenario(THROTTLED), settings))
    assert at_s(steps, "requests of nbd0 have timed out")
    assert result.values["nbd0_dead"] == 1
    assert result.outcome is FROZEN


@pytest.mark.parametrize(("carries", "outcome"), [("own", DONE), ("inherited", FROZEN)])
def test_the_thread_that_takes_connections_needs_the_state_too(carries: str, outcome: RunOutcome) -> None:
    """What it allocates for a connection is had by swapping out, over the one that is gone."""
    threads = [
        {"name": "main", "takes": "nothing", "state": carries, "does": ["send"] * 8, "locked": True},
        {"name": "worker", "does": ["store"], "state": "own"},
    ]
    settings = {
        "daemon.thread": threads,
        "daemon.command": ["my-server", "{socket}", "{remote}"],
        "hardening.state": "own",
        "frozen.stalled_s": 20,
    }
    scenario = faulty(SWAP, "connection-cut", at_s=1.5, for_s=3, settings=settings)
    half = play_half(scenario, io_flusher=True, version=(6, 12))
    assert half.result.outcome is outcome
    if outcome is FROZEN:
        main = waits(half.result, "main")
        assert main.calls[0] == "wait_for_reconnect"
        assert "try_to_free_pages" in main.calls
        assert "main" in [task.program for task in half.cycle]
        log = hung_task_log(half.result, "6.12", hardware=hardware_pids(half))
        assert diagnose_log(log.encode(), daemons_of(half)).recursion


def test_another_connection_takes_another_thread() -> None:
    """The daemon's first thread makes it, with the memory that its flags let it have."""
    scenario = faulty(THROTTLED, "connection-cut", for_s=3)
    for io_flusher in (False, True):
        system = build(scenario, io_flusher=io_flusher, version=(6, 12))
        main = next(program for program in system.programs if program.name == "nbd-main")
        assert bool(main.flags) == io_flusher
        stack = [step for step in main.steps if "dup_task_struct" in step.calls and step.label == "a slab"]
        assert stack
        (asks,) = {
            step.when.text for step in main.steps if step.label == "takes another connection" and step.when
        }
        assert "nbd0_asked" in asks


def test_a_server_outside_that_is_slow() -> None:
    """Each request takes so much longer."""
    quick, _ = played(find_scenario(SWAP))
    slow, _ = played(faulty(SWAP, "remote-slow", delay_ms=100))
    assert (quick.outcome, slow.outcome) == (DONE, DONE)
    assert slow.at_ns > 2 * quick.at_ns
    assert 0.1 <= slow.longest_ns["nbd0"] / SECOND <= 0.2


@pytest.mark.parametrize(("for_s", "outcome"), [(5, DONE), (0, FROZEN)])
def test_a_server_outside_that_is_silent(for_s: float, outcome: RunOutcome) -> None:
    """It is waited for; for ever where it stays so, and it is not the daemon's fault."""
    result, _ = played(faulty(SWAP, "remote-silent", for_s=for_s))
    assert result.outcome is outcome
    if outcome is FROZEN:
        assert waits(result, "nbd-daemon").waits_for == "the server outside"


@pytest.mark.parametrize(("when", "outcome"), [(1.0, DONE), (5.0, LOST)])
def test_a_server_outside_that_is_gone_for_a_while(when: float, outcome: RunOutcome) -> None:
    """What is swapped out comes back as an error and stays; what is read from swap is lost."""
    result, steps = played(faulty(SWAP, "remote-cut", at_s=when, for_s=0.5))
    assert result.outcome is outcome
    assert at_s(steps, "an I/O error of nbd0")
    if outcome is DONE:
        assert at_s(steps, "connects to the server outside")
    else:
        assert result.failed.startswith("SIGBUS")


def test_a_server_outside_that_only_hangs_up() -> None:
    """Without an end it takes connections again at once (`remote_store` of the lab)."""
    _, steps = played(faulty(SWAP, "remote-cut", at_s=0.1))
    (cut,) = at_s(steps, "remote-cut begins")
    (linked,) = at_s(steps, "connects to the server outside")
    assert linked - cut < 0.5
    _, steps = played(faulty(SWAP, "remote-cut", at_s=0.1, for_s=0.4))
    (ends,) = at_s(steps, "remote-cut ends")
    assert at_s(steps, "connects to the server outside")[0] > ends


def test_swap_on_a_dead_device_brings_the_oom_killer_where_memory_does_not_suffice() -> None:
    """All that is swapped out comes back. A machine that has memory enough lives, as it did in a guest."""
    killed, _ = played(faulty(SWAP, "daemon-killed", at_s=0.1, settings={"workload.size": 300 << 20}))
    assert killed.outcome is RunOutcome.OUT_OF_MEMORY
    lived, _ = played(faulty(SWAP, "daemon-killed", at_s=0.1))
    assert lived.outcome is DONE


@pytest.mark.parametrize(
    ("name", "kinds", "outcome"),
    [
        ("swap-on-iscsid-cut", ("daemon-killed",), DONE),
        ("swap-on-iscsid-cut", ("daemon-killed", "connection-cut"), FROZEN),
        ("swap-on-multipath", ("daemon-killed",), DONE),
        ("swap-on-multipath", ("daemon-killed", "paths-offline"), FROZEN),
    ],
)
def test_a_daemon_beside_the_path(name: str, kinds: tuple[str, ...], outcome: RunOutcome) -> None:
    """Nobody misses it until the connection, or all paths, are to be brought back."""
    times = {"daemon-killed": {"at_s": 0.2}}
    faults = [{"kind": kind, **times.get(kind, {"at_s": 0.5, "for_s": 2})} for kind in kinds]
    scenario = with_settings(find_scenario(name), {"fault": faults, "frozen.stalled_s": 15})
    assert played(scenario)[0].outcome is outcome


def test_a_signal_to_a_process_that_does_not_serve() -> None:
    """nbd-server has a process for each client: the first one serves nothing, which is said."""
    scenario = faulty("ext4-on-nbd-server-throttled", "daemon-killed", at_s=0.3)
    system = build(scenario, io_flusher=True, version=(6, 12))
    assert any(note.startswith("fault has no effect") for note in system.notes)
    assert played(scenario)[0].outcome is DONE


def test_a_daemon_that_waits_for_its_own_lock_ends_too() -> None:
    """A thread that waits for a lock in user space is killed as any other."""
    threads = [{"name": "worker", "does": ["lock", "store", "unlock"], "count": 3}]
    scenario = faulty(THROTTLED, "daemon-killed", at_s=0.3, settings={"daemon.thread": threads})
    result, steps = played(scenario, io_flusher=False)
    killed = [step.step.label for step in steps if step.step.label == "is killed"]
    assert len(killed) == 3, "one that was throttled with the lock, and two that wait for it"
    assert result.values["daemon_threads"] == 0


@pytest.mark.parametrize(
    ("kind", "for_s", "io_flusher", "verdict"),
    [
        ("daemon-stopped", 5, False, Verdict.FREEZE),
        ("daemon-stopped", 5, True, Verdict.NO_FREEZE),
        ("daemon-stopped", 0, True, Verdict.FREEZE),
        ("daemon-killed", 0, False, Verdict.FREEZE),
        ("daemon-killed", 0, True, Verdict.FREEZE),
    ],
)
def test_faults_are_explored(kind: str, for_s: float, io_flusher: bool, verdict: Verdict) -> None:
    """A fault comes at any time there; a way to a freeze is gone again by the engine of runs."""
    scenario = faulty(THROTTLED, kind, for_s=for_s)
    scale = replace(small(scenario), queue_depth=1)
    found = explore(build(scenario, io_flusher=io_flusher, version=(6, 12), scale=scale))
    assert found.verdict is verdict
    replay(found)


def test_time_outs_are_explored() -> None:
    """A time-out may come at once: of two that each take a connection, nobody makes a third one."""
    scenario = faulty(THROTTLED, "connection-cut", for_s=3)
    scale = replace(small(scenario), queue_depth=1, work_units=3)
    found = explore(build(scenario, io_flusher=True, version=(6, 12), scale=scale))
    assert found.freeze is not None
    taken = [step.step for step in found.freeze.way if step.step.after_ns is not None]
    assert taken, "a time-out is part of the way"
    replay(found)


def test_how_long_a_sender_waits_for_room() -> None:
    """As long as a request for its answer (sk_sndtimeo), and only while there is none."""
    linux = kernel()
    device = ReconnectedNbdDriver(linux, "nbd0", queue_depth=4, kinds=("swap",), timeout_ns=10 * SECOND)
    code = Code()
    device.queue_rq(code, "swap")
    late = labelled(code, "could not send for so long")
    assert late.after_ns is not None
    assert value(late.after_ns) == 10 * SECOND
    assert late.when is not None
    assert [value(late.when, nbd0_room=room, nbd0_dead=dead) for room, dead in ((0, 0), (1, 0), (0, 1))] == [
        1,
        0,
        0,
    ]
    before = {"pending": 1, "served": 2, "stale": 1, "unanswered": 0, "requeued": 0}
    values = {f"nbd0_swaps_{name}": number for name, number in before.items()} | {"nbd0_swaps": 1}
    found = changed(late, nbd0_room=0, nbd0_tx_lock=5, nbd0_dead=0, **values)
    assert found["nbd0_dead"] == 1
    assert found["nbd0_tx_lock"] == 0
    assert found["nbd0_swaps_requeued"] == 1, "this one"
    assert found["nbd0_swaps_unanswered"] == 2, (
        "one in the socket, one that the server has from this connection"
    )
    assert found["nbd0_swaps_stale"] == 2
    assert (found["nbd0_swaps"], found["nbd0_room"]) == (0, device.room.high)
