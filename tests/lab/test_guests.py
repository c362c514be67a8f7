"""Real kernels: commands in guests, and everything that can go wrong on the way."""

import contextlib
import io
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ioflusher.lab.disks import EmptyDisk, guest_disks
from ioflusher.lab.errors import CommandTimeout, LabError, MachineLost
from ioflusher.lab.execute import Done, execute
from ioflusher.lab.session import Guest, Lab
from tests.lab.conftest import PROGRAM, emulators, ioflusher, leftovers, temporary_directories

pytestmark = pytest.mark.vm


@pytest.fixture(autouse=True)
def nothing_stays(lab: Lab) -> Iterator[None]:
    """No test may leave a process or a temporary disk behind."""
    before = temporary_directories()
    yield
    assert not leftovers(before)
    assert not emulators(os.getpid())


def in_guest(
    lab: Lab, *argv: str, guest: Guest | None = None, timeout_s: float = 120, stdin: bytes = b""
) -> tuple[Done, str, str]:
    """Run a command in a guest of the shared lab; returns what it printed, too."""
    out_r, out_w = os.pipe()
    err_r, err_w = os.pipe()
    in_r, in_w = os.pipe()
    try:
        os.write(in_w, stdin)
        os.close(in_w)
        done = execute(lab, argv, guest=guest, timeout_s=timeout_s, stdin=in_r, stdout=out_w, stderr=err_w)
    finally:
        for fd in (out_w, err_w, in_r):
            os.close(fd)
        with io.open(out_r, "rb") as out, io.open(err_r, "rb") as err:  # noqa: UP020
            stdout, stderr = out.read().decode(), err.read().decode()
    return done, stdout, stderr


def test_a_guest_runs_this_machines_programs_as_root(lab: Lab) -> None:
    """One boot: streams stay apart, the status returns, the capability that this machine lacks is there,
    modules and disks come as asked, writes go to a layer of the guest's own."""
    script = """
        cat; echo problem >&2; id -u; grep -m1 CapEff /proc/self/status; uname -r
        test -b /dev/nbd0 && cat /sys/block/nbd0/size /sys/block/vdb/size
        nproc; touch /usr/marker && echo writable
        python3 -c 'import ctypes; print(ctypes.CDLL(None).prctl(57, 1, 0, 0, 0))'
        exit 7
    """
    with guest_disks([EmptyDisk(8 << 20)]) as disks:
        guest = Guest(memory_bytes=768 << 20, cpus=2, modules=("nbd nbds_max=1",), disks=disks)
        done, out, err = in_guest(lab, "sh", "-c", script, guest=guest, stdin=b"from outside\n")
    assert done.status == 7
    assert err == "problem\n"
    lines = out.split()
    assert lines[:3] == ["from", "outside", "0"]
    assert int(lines[4], 16) & (1 << 24), "CAP_SYS_RESOURCE"
    assert lines[5] == lab.kernel.release
    assert lines[6:] == ["0", str((8 << 20) // 512), "2", "writable", "0"]
    assert not Path("/usr/marker").exists()
    assert done.boot_s < 60


def test_status_of_signals_and_missing_commands(lab: Lab) -> None:
    """A signal gives 128 and its number; a command that is not there gives 127."""
    done, _, _ = in_guest(lab, "sh", "-c", "kill -TERM $$")
    assert done.status == 128 + signal.SIGTERM
    done, _, _ = in_guest(lab, "/no/such/command")
    assert done.status == 127
    assert "No such file" in done.message


def test_a_panic_is_told_with_the_kernels_words(lab: Lab) -> None:
    """A guest that panics is another error than a command that fails, and its console is quoted."""
    with pytest.raises(MachineLost, match=r"panicked before sh ended: .*sysrq triggered crash"):
        in_guest(lab, "sh", "-c", "echo c >/proc/sysrq-trigger")


def test_a_panic_at_boot_is_told(lab: Lab) -> None:
    """A kernel that cannot come up is told from one that comes up and loses."""
    guest = Guest(kernel_arguments=("init=/nowhere", "rdinit=/nowhere"))
    with pytest.raises(MachineLost, match="panicked before its agent ran"):
        in_guest(lab, "true", guest=guest)


def test_a_command_that_hangs_is_ended(lab: Lab) -> None:
    """The deadline holds although the guest never answers."""
    with pytest.raises(CommandTimeout, match="sleep was still running"):
        in_guest(lab, "sleep", "1000", timeout_s=1)


def test_a_module_that_is_not_there(lab: Lab) -> None:
    """A misspelt module is an error before anything boots."""
    with pytest.raises(LabError, match="no module ndb"):
        in_guest(lab, "true", guest=Guest(modules=("ndb",)))


@contextlib.contextmanager
def sleeping_guest(place: Path) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """`ioflusher lab exec -- sleep 1000` and the emulators that it started; ended whatever happens."""
    with subprocess.Popen(
        [str(PROGRAM), "--debug", "lab", "exec", "--", "sleep", "1000"],
        env={**os.environ, "TMPDIR": str(place)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # a test run in the background of a shell ignores SIGINT, and its children would too
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        try:
            deadline = time.monotonic() + 120
            while not (guests := emulators(process.pid)):
                assert time.monotonic() < deadline
                if process.poll() is not None:
                    pytest.fail(
                        f"it ended with status {process.returncode}: {process.communicate()[1].decode()}"
                    )
                time.sleep(0.2)
            yield process, guests
        finally:
            process.kill()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A temporary directory whose name leaves room for sockets, wherever the tests have theirs."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="lab-") as name:
        yield Path(name)


def test_ctrl_c_leaves_nothing(short_path: Path) -> None:
    """Ctrl-C in the middle: exit status 130, no emulator, no temporary directory."""
    with sleeping_guest(short_path) as (process, guests):
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert b"interrupted" in errors
        assert not any(Path(f"/proc/{pid}").exists() for pid in guests)
        assert not list(short_path.iterdir())


def test_a_killed_lab_takes_its_guest_along(short_path: Path) -> None:
    """Even SIGKILL leaves no emulator behind."""
    with sleeping_guest(short_path) as (process, guests):
        process.kill()
        process.wait(timeout=30)
        deadline = time.monotonic() + 30
        while any(Path(f"/proc/{pid}").exists() for pid in guests):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_no_qemu(tmp_path: Path) -> None:
    """Without QEMU the message names the package."""
    done = ioflusher("lab", "exec", "--", "true", environment={"PATH": str(tmp_path), "IOFLUSHER_PATH": ""})
    if done.returncode == 0:
        pytest.fail("QEMU lies outside PATH here, so this test proves nothing: mend find_program's places")
    assert done.returncode == 2
    assert b"qemu-system-x86" in done.stderr
    assert b"hint:" in done.stderr


def test_no_network_to_the_packages(tmp_path: Path) -> None:
    """Where the package mirror cannot be reached, apt's own reason is shown, and the cache stays clean."""
    cache = tmp_path / "cache"
    apt = tmp_path / "apt.conf"
    apt.write_text('Acquire::http::Proxy "http://127.0.0.1:9/";\nAcquire::Retries "0";\n')
    environment = {"XDG_CACHE_HOME": str(cache), "APT_CONFIG": str(apt)}
    done = ioflusher("lab", "exec", "--", "true", environment=environment)
    assert done.returncode == 2
    assert b"apt-get download" in done.stderr
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_full_disk(tmp_path: Path) -> None:
    """Where the guest's files do not fit, the place is named and nothing stays."""
    command = f"ulimit -f 64; exec {PROGRAM} lab exec -- true"
    done = subprocess.run(
        ["sh", "-c", command],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert str(tmp_path).encode() in done.stderr
    assert b"TMPDIR" in done.stderr
    assert not list(tmp_path.iterdir())
