"""The state put on running processes: every kind of wait goes on, hard cases end clearly, no harm is done."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.flag.attach.conftest import (
    ARM,
    CALLED,
    FEED_MS,
    FLOODED_ROUNDS,
    ROUNDS,
    THREADS,
    WAIT_MS,
    Start,
    finish,
    outcomes,
    stopped,
)
from tests.needs import PERMITTED

from ioflusher.flag import FlagError, NoSuchProcessError, coverage, thread_states
from ioflusher.flag.attach import StuckThreadError, ThreadResult, put_state
from ioflusher.kernel.ptrace import PTRACE_SEIZE

pytestmark = [
    pytest.mark.live,
    pytest.mark.attach,
]


@pytest.mark.usefixtures("asked")
def test_every_kind_of_wait_goes_on(start: Start) -> None:
    """While set and cleared over and over, no call of the process fails and no wait ends early."""
    process = start("waits", THREADS, WAIT_MS, FEED_MS)
    for number in range(ROUNDS):
        state = number % 2 == 0 or not PERMITTED
        result = put_state(process.pid, state, timeout=60)
        assert outcomes(result) == {CALLED: int(THREADS) + 1}, [t for t in result.threads if t.detail]
        if PERMITTED:
            assert coverage(process.pid).complete is state
    time.sleep(2 * int(WAIT_MS) / 1000)
    status, output = finish(process)
    assert "FAIL" not in output
    assert status == 0, output
    # kind, threads, rounds, the fewest rounds of one thread, lateness: every thread went on
    assert all(int(line.split()[3]) > 0 for line in output.splitlines()), output


@pytest.mark.usefixtures("asked")
def test_only_the_threads_that_are_named(start: Start) -> None:
    """The others are neither stopped nor told of."""
    process = start("waits", THREADS, WAIT_MS, FEED_MS)
    tids = [thread.tid for thread in thread_states(process.pid)]
    wanted = {tids[0], tids[2]}
    result = put_state(process.pid, True, threads=wanted, timeout=60)
    assert {thread.tid: thread.outcome for thread in result.threads} == dict.fromkeys(wanted, CALLED)
    carry = {thread.tid for thread in thread_states(process.pid) if thread.io_flusher}
    assert carry == (wanted if PERMITTED else set())
    status, output = finish(process)
    assert (status, "FAIL" in output) == (0, False), output


@pytest.mark.usefixtures("asked")
def test_a_handler_runs_as_before(start: Start) -> None:
    """A signal every millisecond, arriving at every moment of the work, runs its handler; sums stay right."""
    process = start("corners", "handler")
    for number in range(40):
        assert CALLED in outcomes(put_state(process.pid, number % 2 == 0 or not PERMITTED))
    status, output = finish(process)
    assert (status, " 0 wrong" in output) == (0, True), output


@pytest.mark.usefixtures("asked")
def test_vector_registers_stay_whole(start: Start) -> None:
    """A sum built in vector registers comes out right, though arm64 destroys some of them at every call."""
    process = start("corners", "vectors")
    for number in range(40):
        assert outcomes(put_state(process.pid, number % 2 == 0 or not PERMITTED)) == {CALLED: 1}
    status, output = finish(process)
    assert (status, " 0 wrong" in output) == (0, True), output


@pytest.mark.usefixtures("asked")
def test_a_thread_that_only_computes(start: Start) -> None:
    """Vector registers that a call destroys are never at stake: such a thread is left alone in the end."""
    process = start("corners", "endless")
    result = put_state(process.pid, True, timeout=0.5)
    assert outcomes(result) == {ThreadResult.TIMED_OUT if ARM else CALLED: 1}
    assert not ARM or "vector registers" in result.threads[0].detail
    status, output = finish(process)
    assert (status, " 0 wrong" in output) == (0, True), output


@pytest.mark.usefixtures("asked")
def test_ignored_signals_interrupt_nothing(start: Start) -> None:
    """A traced thread wakes up for signals that it ignores; its epoll_wait goes on all the same."""
    process = start("corners", "ignored")
    for number in range(FLOODED_ROUNDS):
        put_state(process.pid, number % 2 == 0 or not PERMITTED)
    assert finish(process) == (0, "0 interrupted\n")


@pytest.mark.usefixtures("asked")
def test_restartable_sequences_stay_atomic(start: Start) -> None:
    """Threads that count in restartable sequences lose no count."""
    process = start("rseq", "3")
    for number in range(10):
        result = put_state(process.pid, number % 2 == 0 or not PERMITTED)
        # A thread that was always inside one is as it was, which the next round may ask for; one that was too
        # slow may do what it was told before only in that round.
        assert set(outcomes(result)) <= {
            CALLED,
            ThreadResult.TIMED_OUT,
            ThreadResult.ALREADY,
            ThreadResult.FAILED,
        }
    status, output = finish(process)
    counted, total = output.split()
    assert (status, counted) == (0, total)


@pytest.mark.usefixtures("asked")
def test_uninterruptible_sleep_is_waited_for(start: Start) -> None:
    """A thread in state D is told when the time is up, and reached where it wakes up before that."""
    process = start("corners", "vfork")
    while thread_states(process.pid)[0].state != "D":
        time.sleep(0.01)
    result = put_state(process.pid, True, timeout=0.2)
    assert outcomes(result) == {ThreadResult.TIMED_OUT: 1}
    assert "state D" in result.threads[0].detail
    with pytest.raises(StuckThreadError, match="uninterruptible sleep"):
        result.require_complete()

    end = threading.Timer(0.3, lambda: os.killpg(process.pid, signal.SIGTERM))
    end.start()
    result = put_state(process.pid, True, timeout=30)
    end.join()
    assert set(outcomes(result)) <= {CALLED, ThreadResult.GONE}
    assert process.wait(30) == 0


@pytest.mark.usefixtures("asked")
def test_a_filter_that_kills_is_not_provoked(start: Start) -> None:
    """The process whose seccomp filter would kill it for prctl is left alone, and told why."""
    for kind, answer in (("filter", "KILL_PROCESS"), ("refuse", "ERRNO")):
        process = start("corners", kind)
        result = put_state(process.pid, True)
        assert outcomes(result) == {ThreadResult.FILTERED: 1}
        assert answer in result.threads[0].detail or "cannot be read" in result.threads[0].detail
        assert finish(process) == (0, "alive\n")


@pytest.mark.usefixtures("asked")
def test_a_process_that_executes_another_program_meanwhile(start: Start) -> None:
    """execve changes everything under the tool's feet; the process goes on all the same."""
    process = start("corners", "exec")
    for number in range(60):
        result = put_state(process.pid, number % 2 == 0 or not PERMITTED)
        assert set(outcomes(result)) <= {CALLED, ThreadResult.GONE, ThreadResult.ALREADY, ThreadResult.FAILED}
        assert process.poll() is None
    status, _ = finish(process)
    assert status in (0, -signal.SIGTERM)


@pytest.mark.permitted
def test_threads_that_are_born_meanwhile_are_covered(start: Start) -> None:
    """A process that starts threads all the time ends up covered, and stays so."""
    process = start("corners", "births")
    assert put_state(process.pid, True).complete
    for _ in range(20):
        assert coverage(process.pid).complete
    assert put_state(process.pid, False).complete
    assert finish(process)[0] == 0


LOW_NUMBER = """
import os, threading, time
with open("/proc/sys/kernel/ns_last_pid", "w") as file:
    file.write(str(os.getpid() - 100))
thread = threading.Thread(target=time.sleep, args=(600,))
thread.start()
print(thread.native_id < os.getpid(), flush=True)
"""


@pytest.mark.permitted
def test_a_thread_with_a_lower_number_than_its_process() -> None:
    """Numbers start anew at pid_max: the lowest one need not be the process's own."""
    process = subprocess.Popen([sys.executable, "-c", LOW_NUMBER], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"True\n"
        assert outcomes(put_state(process.pid, True)) == {ThreadResult.DONE: 2}
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()


@pytest.mark.usefixtures("asked")
def test_a_stopped_process_stays_stopped(start: Start) -> None:
    """With SIGSTOP in force the threads are reached, stay stopped, and go on with SIGCONT."""
    # SIGSTOP itself ends some waits with EINTR; on x86-64 they are made once more, on arm64 one cannot tell.
    process = start("waits", "34", WAIT_MS, FEED_MS, *(["interruptible"] if ARM else []))
    with stopped(process):
        assert outcomes(put_state(process.pid, True)) == {CALLED: 35}
        time.sleep(0.1)
        assert {state.state for state in thread_states(process.pid)} == {"T"}
    time.sleep(0.3)
    status, output = finish(process)
    assert (status, "FAIL" in output) == (0, False), output


@pytest.mark.usefixtures("asked")
def test_a_process_that_dies_meanwhile(start: Start) -> None:
    """Killed while it is worked on, its threads are gone, which is no error."""
    for delay in (0, 0.002, 0.01, 0.03):
        process = start("waits", "170", WAIT_MS, FEED_MS)
        # not process.kill(): it asks for the status first, and takes the report that the tracer waits for
        end = threading.Timer(delay, os.kill, (process.pid, signal.SIGKILL))
        end.start()
        try:
            result = put_state(process.pid, True)
        except NoSuchProcessError:
            continue
        finally:
            end.join()
        expected = {CALLED, ThreadResult.GONE, ThreadResult.ALREADY, ThreadResult.FAILED}
        assert set(outcomes(result)) <= expected, [t for t in result.threads if t.outcome not in expected]


def test_traced_by_another(start: Start) -> None:
    """A debugger at work is respected, and named."""
    process = start("corners", "sleeper")
    code = (
        "import time; from ioflusher.kernel.syscalls import ptrace\n"
        f"ptrace({PTRACE_SEIZE}, {process.pid}); print('traces', flush=True); time.sleep(60)\n"
    )
    tracer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert tracer.stdout is not None
    try:
        assert tracer.stdout.readline() == b"traces\n"
        result = put_state(process.pid, True)
    finally:
        tracer.kill()
        tracer.wait(60)
        tracer.stdout.close()
    assert outcomes(result) == {ThreadResult.TRACED: 1}
    assert str(tracer.pid) in result.threads[0].detail
    assert finish(process) == (0, "alive\n")


@pytest.mark.needs("setpriv", "root")
def test_a_process_without_the_capability_is_not_even_stopped(compiled: Callable[[str], Path]) -> None:
    """What cannot work is told from /proc alone."""
    command = ["setpriv", "--bounding-set", "-sys_resource", str(compiled("corners")), "sleeper"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    before = parse_switches(process.pid)
    result = put_state(process.pid, True)
    assert outcomes(result) == {ThreadResult.NOT_PERMITTED: 1}
    assert "CAP_SYS_RESOURCE" in result.threads[0].detail
    assert parse_switches(process.pid) - before < 100  # it sleeps and wakes up by itself meanwhile
    assert finish(process) == (0, "alive\n")


def parse_switches(pid: int) -> int:
    """How often the process gave up the CPU."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


@pytest.mark.usefixtures("asked")
def test_a_dry_run_changes_nothing(start: Start) -> None:
    """What would be done is told for every thread, and nobody is stopped or changed."""
    process = start("waits", "34", WAIT_MS, FEED_MS)
    before = [state.flags & 0x180000 for state in thread_states(process.pid)]
    result = put_state(process.pid, True, dry_run=True, lock_memory=True)
    assert outcomes(result) == {ThreadResult.WOULD: 35}
    assert result.memory is not None
    assert result.memory.outcome is ThreadResult.WOULD
    assert [state.flags & 0x180000 for state in thread_states(process.pid)] == before
    assert finish(process)[0] == 0


def test_nothing_to_do(start: Start) -> None:
    """Threads that are as they should be are not touched."""
    process = start("waits", "34", WAIT_MS, FEED_MS)
    if coverage(process.pid).complete:
        pytest.skip("the test itself runs in the state")
    result = put_state(process.pid, False)
    assert outcomes(result) == {ThreadResult.ALREADY: 35}
    assert result.complete
    assert finish(process)[0] == 0


@pytest.mark.permitted  # a thread that was refused the state is not asked for more
@pytest.mark.needs("root")  # CAP_IPC_LOCK
@pytest.mark.usefixtures("asked")
def test_memory_is_locked_on_request(start: Start) -> None:
    """After lock_memory the target's VmLck is no longer zero."""
    process = start("corners", "sleeper")
    result = put_state(process.pid, True, lock_memory=True)
    assert result.memory is not None
    assert result.memory.outcome is ThreadResult.DONE
    assert int(Path(f"/proc/{process.pid}/status").read_text().partition("VmLck:")[2].split()[0]) > 0
    assert finish(process) == (0, "alive\n")


def test_who_cannot_be_asked() -> None:
    """Oneself, a single thread, nobody: an error each."""
    with pytest.raises(FlagError, match="cannot trace itself"):
        put_state(os.getpid(), True)
    with pytest.raises(NoSuchProcessError):
        put_state(4194305, True)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        with pytest.raises(FlagError, match="is a thread of process"):
            put_state(thread.native_id, True)
    finally:
        stop.set()
        thread.join()


def belongs_to_the_kernel(pid: int) -> bool:
    """Whether it is a kernel thread; a process that ended meanwhile is none."""
    try:
        return any(thread.kernel_thread for thread in thread_states(pid))
    except NoSuchProcessError:
        return False


def test_kernel_threads_are_left_alone() -> None:
    """A kernel thread is an error, not a failure half-way."""
    kernel_threads = [
        pid
        for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
        if pid != os.getpid() and belongs_to_the_kernel(pid)
    ]
    if not kernel_threads:
        pytest.skip("no kernel thread is visible here")
    with pytest.raises(FlagError, match="kernel thread"):
        put_state(kernel_threads[0], True)


ASSEMBLY_32 = """
.globl _start
_start:
  mov $4, %eax; mov $1, %ebx; mov $text, %ecx; mov $6, %edx; int $0x80
again:
  mov $29, %eax; int $0x80
  jmp again
.data
text: .ascii "ready\\n"
"""


@pytest.mark.x86_64
@pytest.mark.needs("as")
@pytest.mark.usefixtures("asked")
def test_32_bit_programs_are_refused(tmp_path: Path) -> None:
    """A 32-bit process has other registers and other numbers: refused clearly, and left alive."""
    program = tmp_path / "program"
    (tmp_path / "program.s").write_text(ASSEMBLY_32)
    for command in (
        ["as", "--32", "-o", f"{program}.o", f"{program}.s"],
        ["ld", "-m", "elf_i386", "-o", str(program), f"{program}.o"],
    ):
        subprocess.run(command, check=True, timeout=60)
    try:
        process = subprocess.Popen([str(program)], stdout=subprocess.PIPE)
    except OSError:
        pytest.skip("this kernel runs no 32-bit programs")
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        result = put_state(process.pid, True)
        assert outcomes(result) == {ThreadResult.UNSUITABLE: 1}
        assert "32-bit" in result.threads[0].detail
        assert process.poll() is None
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()
